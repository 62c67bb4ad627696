"""The `dense` dialect: the closed set of structured tensor operations every importer lowers to.

Shapes are in the result types, symbolic dims included; `interp/dense.py` says in numpy what each operation computes.
`dense.map` and the reductions are defined here, the other operations in `dense_arithmetic.py`, `dense_movement.py` and
`dense_attention.py`, attributes and the textual form in `dense_attrs.py`, shape arithmetic in `dense_shapes.py`. Import
operations from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from xdsl.dialects.builtin import (
    DenseArrayBase,
    IntegerAttr,
    TensorType,
    UnitAttr,
    i64,
)
from xdsl.ir import Attribute, Block, Dialect, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    lazy_traits_def,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import HasParent, IsTerminator, Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense_arithmetic import ConvOp, LayerNormOp, LstmOp, MatMulOp, PoolOp, SoftmaxOp
from neuc.dialects.dense_attention import AttentionOp, CacheAppendOp, RotaryOp
from neuc.dialects.dense_attrs import (
    ActivationAttr,
    DenseOp,
    DirectionAttr,
    PadModeAttr,
    PoolKindAttr,
    ReduceKind,
    ReduceKindAttr,
    flag,
    int_attr,
    ints,
)
from neuc.dialects.dense_movement import (
    BroadcastOp,
    ConcatOp,
    DimsOp,
    GatherOp,
    IotaOp,
    PadOp,
    ReshapeOp,
    SliceOp,
    TransposeOp,
)
from neuc.dialects.spike_types import Numeric

_I64S = DenseArrayBase.constr(i64)
_I64 = IntegerAttr.constr(i64)


@irdl_op_definition
class YieldOp(IRDLOperation):
    """The scalar a `dense.map` body computes."""

    name = "dense.yield"
    value = operand_def()
    traits = lazy_traits_def(lambda: (IsTerminator(), HasParent(MapOp)))
    assembly_format = "$value attr-dict `:` type($value)"

    def __init__(self, value: SSAValue) -> None:
        super().__init__(operands=[value])


@irdl_op_definition
class MapOp(DenseOp):
    """result[i] = body(inputs broadcast to the result's shape, at i)."""

    name = "dense.map"
    inputs = var_operand_def(TensorType)
    result = result_def(TensorType)
    body = region_def("single_block")
    traits = traits_def(Pure())
    HAS_REGION: ClassVar = True

    def __init__(self, inputs: Sequence[SSAValue], result_type: Attribute, body: Region | None = None) -> None:
        """Without a body: one with an empty block that has the right arguments."""
        if body is None:
            body = Region(Block(arg_types=[shapes.element(v) for v in inputs]))
        super().__init__(operands=[inputs], result_types=[result_type], regions=[body])

    def verify_(self) -> None:
        expected = [shapes.element(v) for v in self.inputs]
        found = list(self.body.block.arg_types)
        if expected != found:
            raise VerifyException(f"body takes ({_join(found)}) but the inputs' elements are ({_join(expected)})")
        last = self.body.block.last_op
        if not isinstance(last, YieldOp):
            raise VerifyException("body must end with dense.yield")
        if last.value.type != shapes.element(self.result):
            raise VerifyException(f"body yields {last.value.type} for a result of {shapes.element(self.result)}")
        if any(op.name.split(".")[0] not in ("arith", "math", "dense") for op in self.body.block.ops):
            raise VerifyException("body may hold only arith and math operations")
        shapes.check("result", self.result, shapes.broadcast([shapes.dims(v) for v in self.inputs]))


@irdl_op_definition
class ReduceOp(DenseOp):
    """result = kind over `axes` of x; reduced axes stay as 1 with `keepdims`.

    Over no elements: sum 0, prod 1, max −inf, min inf, mean NaN.
    """

    name = "dense.reduce"
    x = operand_def(TensorType)
    kind = prop_def(ReduceKindAttr)
    axes = prop_def(_I64S)
    keepdims = opt_prop_def(UnitAttr)
    result = result_def(TensorType)
    traits = traits_def(Pure(), Numeric())
    ENUMS: ClassVar = {"kind": ReduceKindAttr}

    def __init__(
        self, x: SSAValue, kind: ReduceKind | str, axes: Iterable[int], keepdims: bool, result_type: Attribute
    ) -> None:
        super().__init__(
            operands=[x],
            result_types=[result_type],
            properties={
                "kind": ReduceKindAttr(ReduceKind(kind)),
                "axes": ints(axes),
                "keepdims": flag(keepdims),
            },
        )

    def verify_(self) -> None:
        dims, axes = shapes.dims(self.x), self.axes.get_values()
        if list(axes) != sorted(set(axes)):
            raise VerifyException(f"axes {list(axes)} are not sorted and distinct")
        shapes.check_axes("axes", axes, len(dims))
        shapes.check("result", self.result, shapes.reduced(dims, axes, self.keepdims is not None))


@irdl_op_definition
class ArgReduceOp(DenseOp):
    """result (i64) = index along `axis` of x's largest or smallest element; the last such with `select_last`."""

    name = "dense.arg_reduce"
    x = operand_def(TensorType)
    kind = prop_def(ReduceKindAttr)
    axis = prop_def(_I64)
    keepdims = opt_prop_def(UnitAttr)
    select_last = opt_prop_def(UnitAttr)
    result = result_def(TensorType)
    traits = traits_def(Pure(), Numeric())
    ENUMS: ClassVar = {"kind": ReduceKindAttr}

    def __init__(
        self,
        x: SSAValue,
        kind: ReduceKind | str,
        axis: int,
        keepdims: bool,
        select_last: bool,
        result_type: Attribute,
    ) -> None:
        super().__init__(
            operands=[x],
            result_types=[result_type],
            properties={
                "kind": ReduceKindAttr(ReduceKind(kind)),
                "axis": int_attr(axis),
                "keepdims": flag(keepdims),
                "select_last": flag(select_last),
            },
        )

    def verify_(self) -> None:
        if self.kind.data not in (ReduceKind.MAX, ReduceKind.MIN):
            raise VerifyException(f"kind is {self.kind.data}, must be max or min")
        dims, axis = shapes.dims(self.x), self.axis.value.data
        shapes.check_axes("axis", [axis], len(dims))
        shapes.check("result", self.result, shapes.reduced(dims, [axis], self.keepdims is not None), i64)


def _join(items: Iterable[Attribute]) -> str:
    return ", ".join(str(item) for item in items)


Dense = Dialect(
    "dense",
    [
        YieldOp,
        MapOp,
        ReduceOp,
        ArgReduceOp,
        SoftmaxOp,
        LayerNormOp,
        MatMulOp,
        ConvOp,
        PoolOp,
        ReshapeOp,
        TransposeOp,
        SliceOp,
        BroadcastOp,
        ConcatOp,
        PadOp,
        GatherOp,
        DimsOp,
        IotaOp,
        LstmOp,
        RotaryOp,
        CacheAppendOp,
        AttentionOp,
    ],
    [ActivationAttr, ReduceKindAttr, PoolKindAttr, PadModeAttr, DirectionAttr],
)
