"""Products of tensors that an array of the `npu` kind computes, before they are a dataflow graph."""

from __future__ import annotations

from xdsl.dialects.builtin import TensorType, UnitAttr, f32
from xdsl.ir import SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.store import tensor_type


@irdl_op_definition
class MatmulOp(IRDLOperation):
    """result[…, m, n] = Σ_k bf16(a[…, m, k]) · bf16(b[…, k, n]), all f32; products are added in f32, k ascending.

    b is a matrix, or has a's leading axes. Rounding to bf16 is to nearest, ties to even.
    """

    name = "npu.matmul"
    a = operand_def(TensorType)
    b = operand_def(TensorType)
    transpose_b = opt_prop_def(UnitAttr)
    result = result_def(TensorType)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$a `,` $b attr-dict `:` functional-type(operands, results)"

    def __init__(self, a: SSAValue, b: SSAValue, *, transpose_b: bool = False) -> None:
        left = shapes.matrix("a", a, False)
        columns = shapes.matrix("b", b, transpose_b)[-1]
        super().__init__(
            operands=[a, b],
            result_types=[tensor_type(f32, [*left[:-1], columns])],
            properties={"transpose_b": UnitAttr()} if transpose_b else {},
        )

    def verify_(self) -> None:
        """Both f32, K alike, leading axes alike."""
        a = shapes.matrix("a", self.a, False)
        b = list(shapes.matrix("b", self.b, self.transpose_b is not None))
        if shapes.differ(a[-1], b[-2]):
            raise VerifyException(f"a has K = {a[-1]} columns but b has K = {b[-2]} rows")
        if len(b) > 2:
            shapes.check_dims("leading axes of b", b[:-2], a[:-2])
        shapes.check_element("a", self.a, f32)
        shapes.check_element("b", self.b, f32)
        shapes.check("result", self.result, (*a[:-1], b[-1]), f32)
