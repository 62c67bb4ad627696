"""The addition of two tensors of codes on a core that has made one of them."""

from __future__ import annotations

from xdsl.dialects.builtin import TensorType, i8, i32, i64
from xdsl.ir import SSAValue
from xdsl.irdl import IRDLOperation, irdl_op_definition, operand_def, opt_operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dims import Dim
from neuc.dialects.store import dims_of, tensor_type

_CODES = 256
_LIMITS = 4


@irdl_op_definition
class AddCodesOp(IRDLOperation):
    """Int8 codes of the sum of two tensors of codes of one shape, in integers, everywhere the same.

    code = clip(round((codes·m + other·n + addend) / 2^shift) + zero, low, high), ties to even, with multipliers i32 [2]
    (m, n), addend i64 [1] and limits i8 [4] (shift, zero, low, high). `corrections` i32 [E, 3] (code, other code,
    difference) change the codes of single pairs; `table` i8 [256] maps codes, -128 first, to others.
    """

    name = "npu.add_codes"
    codes = operand_def(TensorType)
    other = operand_def(TensorType)
    multipliers = operand_def(TensorType)
    addend = operand_def(TensorType)
    limits = operand_def(TensorType)
    corrections = operand_def(TensorType)
    table = opt_operand_def(TensorType)
    result = result_def(TensorType)
    traits = traits_def(Pure())
    assembly_format = (
        "$codes `,` $other `,` $multipliers `,` $addend `,` $limits `,` $corrections (`table` $table^)? attr-dict "
        "`:` functional-type(operands, results)"
    )

    def __init__(self, codes: SSAValue, other: SSAValue, *parameters: SSAValue) -> None:
        """`parameters`: multipliers, addend, limits, corrections, and a table if there is one."""
        given = [*parameters, None] if len(parameters) < 5 else [*parameters]
        super().__init__(operands=[codes, other, *given], result_types=[tensor_type(i8, dims_of(codes))])

    def verify_(self) -> None:
        """Codes of one shape, and parameters of all elements."""
        dims = dims_of(self.codes)
        if not dims:
            raise VerifyException("codes have at least one axis, columns")
        for name, value in (("codes", self.codes), ("other", self.other), ("result", self.result)):
            shapes.check(name, value, dims, i8)
        shapes.check("multipliers", self.multipliers, (Dim.of(2),), i32)
        shapes.check("addend", self.addend, (Dim.of(1),), i64)
        shapes.check("limits", self.limits, (Dim.of(_LIMITS),), i8)
        pairs = dims_of(self.corrections)
        shapes.check("corrections", self.corrections, (pairs[0] if pairs else Dim.of(1), Dim.of(3)), i32)
        if self.table is not None:
            shapes.check("table", self.table, (Dim.of(_CODES),), i8)
