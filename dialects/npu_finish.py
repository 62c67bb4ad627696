"""What follows a bf16 product on its core, before it is a dataflow graph: columns scaled and shifted, an activation."""

from __future__ import annotations

from math import inf

from xdsl.dialects.builtin import Float32Type, FloatAttr, TensorType, UnitAttr, f32
from xdsl.ir import SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.npu_rows import check_table
from neuc.dialects.store import dims_of


@irdl_op_definition
class FinishOp(IRDLOperation):
    """y = activation(sum·scale + shift), each step rounded to f32; scale and shift have one number a column, or one.

    The activation multiplies numbers below 0 by `slope`, then raises those below `low` to it and lowers those above
    `high`, then looks bf16(y) up in `table`, a curve as in `npu.chain`, whose results are bf16 numbers. What is not
    given is left out. With `narrow` the result, still f32, is rounded to bf16 numbers.
    """

    name = "npu.finish"
    sum = operand_def(TensorType)
    scale = opt_operand_def(TensorType)
    shift = opt_operand_def(TensorType)
    table = opt_operand_def(TensorType)
    slope = opt_prop_def(FloatAttr[Float32Type])
    low = opt_prop_def(FloatAttr[Float32Type])
    high = opt_prop_def(FloatAttr[Float32Type])
    narrow = opt_prop_def(UnitAttr)
    result = result_def(TensorType)
    traits = traits_def(Pure())
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    assembly_format = (
        "$sum (`scale` $scale^ `:` type($scale))? (`shift` $shift^ `:` type($shift))? "
        "(`table` $table^ `:` type($table))? attr-dict `:` type($sum) `->` type($result)"
    )

    def __init__(
        self,
        sum_: SSAValue,
        *,
        scale: SSAValue | None = None,
        shift: SSAValue | None = None,
        table: SSAValue | None = None,
        slope: float | None = None,
        limits: tuple[float, float] | None = None,
        narrow: bool = False,
    ) -> None:
        low, high = limits or (-inf, inf)
        numbers = {"slope": slope, "low": None if low == -inf else low, "high": None if high == inf else high}
        given = {name: FloatAttr(number, f32) for name, number in numbers.items() if number is not None}
        super().__init__(
            operands=[[sum_], *([] if value is None else [value] for value in (scale, shift, table))],
            result_types=[sum_.type],
            properties={**given, **({"narrow": UnitAttr()} if narrow else {})},
        )

    @property
    def limits(self) -> tuple[float, float] | None:
        """The lowest and the highest result before the table; None if there are neither."""
        if self.low is None and self.high is None:
            return None
        low = -inf if self.low is None else self.low.value.data
        return low, inf if self.high is None else self.high.value.data

    def verify_(self) -> None:
        """Floats; one number for all rows of a matrix."""
        shapes.check_element("sum", self.sum, f32)
        if len(dims_of(self.sum)) < 1:
            raise VerifyException("sums have columns")
        for name, value in (("scale", self.scale), ("shift", self.shift)):
            if value is None:
                continue
            shapes.check_element(name, value, f32)
            shapes.check_broadcastable(name, dims_of(value), dims_of(self.sum))
            rows = dims_of(value)[-2:-1]
            if rows and not (rows[0].is_static and rows[0].value == 1):
                raise VerifyException(f"{name} differs from row to row")
        if self.table is not None:
            check_table("table", self.table)
        shapes.check("result", self.result, dims_of(self.sum), f32)
