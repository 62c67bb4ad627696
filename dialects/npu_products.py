"""Products of tensors that an array of the `npu` kind computes, before they are a dataflow graph."""

from __future__ import annotations

from xdsl.dialects.builtin import IntegerAttr, TensorType, UnitAttr, f32, i8, i32, i64
from xdsl.ir import SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dims import Dim
from neuc.dialects.store import dims_of, element_of, tensor_type
from neuc.dialects.ternary_types import PackedType

_CODES = 256
_LIMITS = 4


@irdl_op_definition
class MatmulOp(IRDLOperation):
    """result[…, m, n] = Σ_k bf16(a[…, m, k]) · bf16(b[…, k, n]), all f32; products are added in f32, k ascending.

    b is a matrix, or has a's leading axes. Rounding to bf16 is to nearest, ties to even. With `groups`, b is a matrix
    for each of them, a has their columns side by side, and so has the result.
    """

    name = "npu.matmul"
    a = operand_def(TensorType)
    b = operand_def(TensorType)
    transpose_b = opt_prop_def(UnitAttr)
    groups = opt_prop_def(IntegerAttr.constr(i64))
    result = result_def(TensorType)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$a `,` $b attr-dict `:` functional-type(operands, results)"

    def __init__(self, a: SSAValue, b: SSAValue, *, transpose_b: bool = False, groups: int = 0) -> None:
        """A product; `groups` is 0 where there are none."""
        left = shapes.matrix("a", a, False)
        columns = shapes.matrix("b", b, transpose_b)[-1] * max(1, groups)
        grouped = {"groups": IntegerAttr(groups, i64)} if groups else {}
        super().__init__(
            operands=[a, b],
            result_types=[tensor_type(f32, [*left[:-1], columns])],
            properties={**({"transpose_b": UnitAttr()} if transpose_b else {}), **grouped},
        )

    @property
    def group_count(self) -> int:
        """Groups with matrices of their own; 0 if there are none."""
        return 0 if self.groups is None else self.groups.value.data

    def verify_(self) -> None:
        """Both f32, K alike, leading axes, or groups, alike."""
        a = shapes.matrix("a", self.a, False)
        b = list(shapes.matrix("b", self.b, self.transpose_b is not None))
        if self.groups is not None:
            if self.group_count < 1 or len(b) != 3 or shapes.differ(b[0], Dim.of(self.group_count)):
                raise VerifyException(f"groups = {self.group_count} needs as many matrices b")
            a, b = [*a[:-1], a[-1] // self.group_count], [b[1], b[2] * self.group_count]
            shapes.check("a", self.a, (*a[:-1], a[-1] * self.group_count), f32)
        if shapes.differ(a[-1], b[-2]):
            raise VerifyException(f"a has K = {a[-1]} columns but b has K = {b[-2]} rows")
        if len(b) > 2:
            shapes.check_dims("leading axes of b", b[:-2], a[:-2])
        shapes.check_element("a", self.a, f32)
        shapes.check_element("b", self.b, f32)
        shapes.check("result", self.result, (*a[:-1], b[-1]), f32)


@irdl_op_definition
class GroupedAccumulateOp(IRDLOperation):
    """acc[…, 0, p·N + n] = Σ_k q[…, g·K + k]·trits[p, n, k], g = n·groups // N.

    `ternary.accumulate` of a grouped layer: q holds K codes of each group side by side; columns share one scale group.
    """

    name = "npu.grouped_accumulate"
    q = operand_def(TensorType)
    packed = operand_def(PackedType)
    groups = prop_def(IntegerAttr.constr(i64))
    result = result_def(TensorType)
    traits = traits_def(Pure())
    assembly_format = "$q `,` $packed `groups` $groups attr-dict `:` functional-type(operands, results)"

    def __init__(self, q: SSAValue, packed: SSAValue, groups: int) -> None:
        assert isinstance(packed.type, PackedType)
        columns = packed.type.plane_count * packed.type.rows
        super().__init__(
            operands=[q, packed],
            result_types=[tensor_type(i32, [*dims_of(q)[:-1], Dim.of(1), Dim.of(columns)])],
            properties={"groups": IntegerAttr(groups, i64)},
        )

    @property
    def group_count(self) -> int:
        """Groups of the layer."""
        return self.groups.value.data

    def verify_(self) -> None:
        """Groups divide the rows; codes of all groups; one scale group."""
        packed = self.packed.type
        assert isinstance(packed, PackedType)
        if self.group_count < 1 or packed.rows % self.group_count:
            raise VerifyException(f"{packed.rows} rows cannot be cut into {self.group_count} groups")
        if packed.columns > packed.group_size:
            raise VerifyException("columns of a group have several scales")
        if packed.encoding.rule.lookup:
            raise VerifyException(f"encoding {packed.encoding.kind.data} is for lut.accumulate")
        leading = dims_of(self.q)[:-1]
        shapes.check("q", self.q, (*leading, Dim.of(packed.columns * self.group_count)), i8)
        shapes.check("result", self.result, (*leading, Dim.of(1), Dim.of(packed.plane_count * packed.rows)), i32)


@irdl_op_definition
class RequantizeOp(IRDLOperation):
    """Int8 codes [..., N] of int32 sums [..., 1, N], or of other codes [..., N], in integers, everywhere the same.

    code = clip(round((acc·multiplier + addend) / 2^shift) + zero, low, high), ties to even, with `limits` i8 [N, 4]
    (shift, zero, low, high), multiplier i32 [N], addend i64 [N]. `corrections` i32 [N, E, 2] (first, span) add the sign
    of span to codes of sums first … first + |span| - 1; `table` i8 [256] maps codes, -128 first, to others.
    """

    name = "npu.requantize"
    acc = operand_def(TensorType)
    multiplier = operand_def(TensorType)
    addend = operand_def(TensorType)
    limits = operand_def(TensorType)
    corrections = operand_def(TensorType)
    table = opt_operand_def(TensorType)
    result = result_def(TensorType)
    traits = traits_def(Pure())
    assembly_format = (
        "$acc `,` $multiplier `,` $addend `,` $limits `,` $corrections (`table` $table^)? attr-dict "
        "`:` functional-type(operands, results)"
    )

    def __init__(
        self,
        acc: SSAValue,
        multiplier: SSAValue,
        addend: SSAValue,
        limits: SSAValue,
        corrections: SSAValue,
        table: SSAValue | None = None,
    ) -> None:
        dims = dims_of(acc)
        super().__init__(
            operands=[acc, multiplier, addend, limits, corrections, table],
            result_types=[tensor_type(i8, dims if element_of(acc) == i8 else [*dims[:-2], dims[-1]])],
        )

    def verify_(self) -> None:
        """Sums of one group, or codes, and parameters of as many columns."""
        dims = dims_of(self.acc)
        codes = element_of(self.acc) == i8
        if len(dims) < 2 - codes:
            raise VerifyException("sums have at least two axes, groups, which is 1, and columns; codes have columns")
        columns, leading = dims[-1], dims[:-1] if codes else dims[:-2]
        if not codes:
            shapes.check("acc", self.acc, (*leading, Dim.of(1), columns), i32)
        shapes.check("multiplier", self.multiplier, (columns,), i32)
        shapes.check("addend", self.addend, (columns,), i64)
        shapes.check("limits", self.limits, (columns, Dim.of(_LIMITS)), i8)
        given = dims_of(self.corrections)
        middle = given[1] if len(given) > 1 else Dim.of(1)
        shapes.check("corrections", self.corrections, (columns, middle, Dim.of(2)), i32)
        if self.table is not None:
            shapes.check("table", self.table, (Dim.of(_CODES),), i8)
        shapes.check("result", self.result, (*leading, columns), i8)
