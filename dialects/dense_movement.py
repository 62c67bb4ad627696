"""The `dense` operations that move elements without computing: reshape to gather, and `dense.dims`.

Registered by `dense.py`; the arithmetic is in `dense_arithmetic.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    Float32Type,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    f32,
    i32,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense_attrs import (
    DenseOp,
    PadMode,
    PadModeAttr,
    dim_list,
    int_attr,
    ints,
    texts,
)
from neuc.dialects.dims import Dim, DimLike, product

_I64S = DenseArrayBase.constr(i64)
_I64 = IntegerAttr.constr(i64)
_TEXTS = ArrayAttr[StringAttr]


@irdl_op_definition
class ReshapeOp(DenseOp):
    """result = x's elements in row-major order, in the result's shape."""

    name = "dense.reshape"
    x = operand_def(TensorType)
    result = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, result_type: Attribute) -> None:
        super().__init__(operands=[x], result_types=[result_type])

    def verify_(self) -> None:
        have, want = product(shapes.dims(self.x)), product(shapes.dims(self.result))
        if shapes.differ(have, want):
            raise VerifyException(f"x has {have} elements but the result has {want}")
        shapes.check_element("result", self.result, shapes.element(self.x))


@irdl_op_definition
class TransposeOp(DenseOp):
    """result's axis i is x's axis perm[i]."""

    name = "dense.transpose"
    x = operand_def(TensorType)
    perm = prop_def(_I64S)
    result = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, perm: Iterable[int], result_type: Attribute) -> None:
        super().__init__(operands=[x], result_types=[result_type], properties={"perm": ints(perm)})

    def verify_(self) -> None:
        dims, perm = shapes.dims(self.x), self.perm.get_values()
        if sorted(perm) != list(range(len(dims))):
            raise VerifyException(f"perm {list(perm)} is no permutation of {len(dims)} axes")
        shapes.check("result", self.result, [dims[p] for p in perm], shapes.element(self.x))


@irdl_op_definition
class SliceOp(DenseOp):
    """result[i…] = x[starts + i·steps …]."""

    name = "dense.slice"
    x = operand_def(TensorType)
    starts = prop_def(_TEXTS)
    steps = prop_def(_I64S)
    result = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, starts: Iterable[DimLike], steps: Iterable[int], result_type: Attribute) -> None:
        super().__init__(
            operands=[x],
            result_types=[result_type],
            properties={"starts": texts(starts), "steps": ints(steps)},
        )

    def verify_(self) -> None:
        dims, result = shapes.dims(self.x), shapes.dims(self.result)
        starts, steps = dim_list(self.starts), self.steps.get_values()
        if not len(dims) == len(result) == len(starts) == len(steps):
            raise VerifyException(
                f"x has rank {len(dims)}, the result {len(result)}, with {len(starts)} starts and {len(steps)} steps"
            )
        shapes.check_element("result", self.result, shapes.element(self.x))
        for axis, (dim, size, start, step) in enumerate(zip(dims, result, starts, steps)):
            if step == 0:
                raise VerifyException(f"step 0 on axis {axis}")
            last = start + (size - 1) * step
            empty = size.is_static and size.value == 0
            static = dim.is_static and start.is_static and last.is_static
            if static and not empty and not (0 <= start.value < dim.value and 0 <= last.value < dim.value):
                raise VerifyException(f"elements {start} to {last} of axis {axis}, which has {dim}")


@irdl_op_definition
class BroadcastOp(DenseOp):
    """result = x repeated along axes of size 1 and new leading axes."""

    name = "dense.broadcast"
    x = operand_def(TensorType)
    result = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, result_type: Attribute) -> None:
        super().__init__(operands=[x], result_types=[result_type])

    def verify_(self) -> None:
        shapes.check_broadcastable("x", shapes.dims(self.x), shapes.dims(self.result))
        shapes.check_element("result", self.result, shapes.element(self.x))


@irdl_op_definition
class ConcatOp(DenseOp):
    """result = xs one after another along `axis`."""

    name = "dense.concat"
    xs = var_operand_def(TensorType)
    axis = prop_def(_I64)
    result = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, xs: Sequence[SSAValue], axis: int, result_type: Attribute) -> None:
        super().__init__(operands=[xs], result_types=[result_type], properties={"axis": int_attr(axis)})

    def verify_(self) -> None:
        if not self.xs:
            raise VerifyException("needs at least one operand")
        axis, result = self.axis.value.data, list(shapes.dims(self.result))
        shapes.check_axes("axis", [axis], len(result))
        total = Dim.of(0)
        for i, x in enumerate(self.xs):
            dims = shapes.dims(x)
            if len(dims) != len(result):
                raise VerifyException(f"operand {i} has rank {len(dims)} but the result has rank {len(result)}")
            shapes.check_dims(f"operand {i}", dims, [*result[:axis], dims[axis], *result[axis + 1 :]])
            shapes.check_element(f"operand {i}", x, shapes.element(self.result))
            total = total + dims[axis]
        shapes.check_dims("result", result, [*result[:axis], total, *result[axis + 1 :]])


@irdl_op_definition
class PadOp(DenseOp):
    """result = x with `pads` elements added before and after each axis: `value`, x mirrored, or x's edge."""

    name = "dense.pad"
    x = operand_def(TensorType)
    pads = prop_def(_I64S)
    mode = prop_def(PadModeAttr, default_value=PadModeAttr(PadMode.CONSTANT))
    value = prop_def(FloatAttr[Float32Type], default_value=FloatAttr(0.0, f32))
    result = result_def(TensorType)
    traits = traits_def(Pure())
    ENUMS: ClassVar = {"mode": PadModeAttr}

    def __init__(
        self,
        x: SSAValue,
        pads: Iterable[int],
        result_type: Attribute,
        *,
        mode: PadMode | str = PadMode.CONSTANT,
        value: float = 0.0,
    ) -> None:
        super().__init__(
            operands=[x],
            result_types=[result_type],
            properties={
                "pads": ints(pads),
                "mode": PadModeAttr(PadMode(mode)),
                "value": FloatAttr(value, f32),
            },
        )

    def verify_(self) -> None:
        dims, pads = shapes.dims(self.x), self.pads.get_values()
        if len(pads) != 2 * len(dims) or min(pads, default=0) < 0:
            raise VerifyException(f"pads {list(pads)} are not {2 * len(dims)} sizes of at least 0")
        padded = [d + pads[i] + pads[i + len(dims)] for i, d in enumerate(dims)]
        shapes.check("result", self.result, padded, shapes.element(self.x))


@irdl_op_definition
class GatherOp(DenseOp):
    """result[before, i…, after] = data[before, indices[i…], after]; negative indices count from the end."""

    name = "dense.gather"
    data = operand_def(TensorType)
    indices = operand_def(TensorType)
    axis = prop_def(_I64)
    result = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, data: SSAValue, indices: SSAValue, axis: int, result_type: Attribute) -> None:
        super().__init__(operands=[data, indices], result_types=[result_type], properties={"axis": int_attr(axis)})

    def verify_(self) -> None:
        data, indices, axis = shapes.dims(self.data), shapes.dims(self.indices), self.axis.value.data
        shapes.check_axes("axis", [axis], len(data))
        if shapes.element(self.indices) not in (i32, i64):
            raise VerifyException(f"indices are {shapes.element(self.indices)}, must be i32 or i64")
        expected = [*data[:axis], *indices, *data[axis + 1 :]]
        shapes.check("result", self.result, expected, shapes.element(self.data))


@irdl_op_definition
class IotaOp(DenseOp):
    """result[i] = i, i64 [N]."""

    name = "dense.iota"
    result = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, result_type: Attribute) -> None:
        super().__init__(result_types=[result_type])

    def verify_(self) -> None:
        found = shapes.dims(self.result)
        if len(found) != 1:
            raise VerifyException(f"result has rank {len(found)}, should have 1")
        shapes.check_element("result", self.result, i64)


@irdl_op_definition
class DimsOp(DenseOp):
    """result[i] = exprs[i], integer expressions over the symbols of the function's argument types."""

    name = "dense.dims"
    exprs = prop_def(_TEXTS)
    result = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, exprs: Sequence[DimLike]) -> None:
        super().__init__(result_types=[TensorType(i64, [len(exprs)])], properties={"exprs": texts(exprs)})

    def verify_(self) -> None:
        try:
            dim_list(self.exprs)
        except (ValueError, ZeroDivisionError) as error:
            raise VerifyException(str(error)) from error
        shapes.check("result", self.result, [Dim.of(len(self.exprs))], i64)
