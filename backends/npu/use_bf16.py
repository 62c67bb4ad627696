"""The pass `bf16-products`: float products and convolutions become those an array computes in bf16, with f32 sums."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.backends.npu.float_convs import ConvToBf16
from neuc.dialects import dense_shapes as shapes
from neuc.dialects.context import store_of
from neuc.dialects.dense import MatMulOp
from neuc.dialects.dense_attrs import NO_ACTIVATION
from neuc.dialects.npu_products import MatmulOp
from neuc.dialects.store import dims_of, element_of
from neuc.passes.expand_activations import SplitFused
from neuc.passes.map_building import map_of
from neuc.passes.rewriting import rewrite
from neuc.passes.scalar_builder import Scalar


@dataclass(frozen=True)
class Bf16Products(ModulePass):
    """Rewrite `dense.matmul` and `dense.conv` of floats to `npu.matmul`, which rounds both operands to bf16.

    Rules:
        1. `dense.matmul` whose second operand is a matrix or has the first one's leading axes → `npu.matmul`; `alpha`,
           bias and activation become maps behind it. This takes in the products of attention.
        2. Others, with a transposed first operand or other broadcasting, stay as they are.
        3. `dense.conv` with constant weights → `npu.windows` and a product; grouped and depthwise ones a product for
           each of the groups, merged (`float_convs.py`).

    Before and after::

        %y = dense.matmul(%a, %b, %bias) {activation = #dense.activation<relu>} : …

        %p = npu.matmul %a, %b : … ; %s = dense.map(%p, %bias) {p + bias} : … ; %y = dense.map(%s) {max(s, 0)} : …

    It changes numbers: operands lose all but 8 significant bits, a relative error of at most 2^-8 each.
    """

    name = "bf16-products"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        rewrite(op, [_ToBf16(), ConvToBf16(store_of(ctx))], recursive=False)


def obstacle(op: MatMulOp) -> str:
    """Why a float product cannot be one of bf16; "" if it can."""
    a, b = dims_of(op.a), dims_of(op.b)
    if element_of(op.a) != f32 or element_of(op.b) != f32:
        return "operands are no float32"
    if op.transpose_a is not None:
        return "the first operand is transposed"
    if len(a) < 2 or (len(b) > 2 and (len(b) != len(a) or any(shapes.differ(x, y) for x, y in zip(a[:-2], b[:-2])))):
        return "leading axes are broadcast"
    return ""


class _ToBf16(RewritePattern):
    """Rule 1."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MatMulOp, rewriter: PatternRewriter) -> None:
        """Rewrite a product, its epilogue behind it."""
        if obstacle(op):
            return
        if op.activation != NO_ACTIVATION:
            SplitFused().match_and_rewrite(op, rewriter)
        product = MatmulOp(op.a, op.b, transpose_b=op.transpose_b is not None)
        product.location = op.location
        made: list[Operation] = [product]
        alpha = op.alpha.value.data
        inputs: list[SSAValue] = [product.result] if op.bias is None else [product.result, op.bias]

        def epilogue(y: Scalar, *bias: Scalar) -> Scalar:
            scaled = y * alpha if alpha != 1.0 else y
            return scaled + bias[0] if bias else scaled

        if alpha != 1.0 or op.bias is not None:
            made.append(map_of(inputs, epilogue, dims_of(op.result)))
        rewriter.replace(op, made)
