"""Fused operators of onnxruntime's domain `com.microsoft` that are plain compositions."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import SSAValue

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.onnx import OnnxOp
from neuc.passes.onnx_lowerings.builder import Builder, Rule, Unsupported, only
from neuc.passes.onnx_lowerings.elementwise import gelu, gelu_tanh, silu
from neuc.passes.onnx_lowerings.normalization import layer_norm

Results = Sequence[SSAValue | None]


def lower_gelu(node: OnnxOp, build: Builder) -> Results:
    """Gelu, and BiasGelu with its bias."""
    build.require_float(*node.operands)
    return [build.map(list(node.operands), lambda x, *bias: gelu(x + bias[0] if bias else x))]


def lower_fast_gelu(node: OnnxOp, build: Builder) -> Results:
    """FastGelu: the tanh form, with an optional bias."""
    build.require_float(*node.operands)
    return [build.map(list(node.operands), lambda x, *bias: gelu_tanh(x + bias[0] if bias else x))]


def lower_quick_gelu(node: OnnxOp, build: Builder) -> Results:
    """QuickGelu: x · sigmoid(alpha·x)."""
    build.require_float(build.operand(0))
    return [build.map([build.operand(0)], lambda x: silu(x, node.float_attribute("alpha", 1.702)))]


def lower_fused_matmul(node: OnnxOp, build: Builder) -> Results:
    """FusedMatMul: transposes of the last two axes and a factor."""
    a, b = build.operand(0), build.operand(1)
    if node.int_attribute("transBatchA", 0) or node.int_attribute("transBatchB", 0):
        raise Unsupported("transBatchA or transBatchB")
    if len(build.dims(a)) < 2 or len(build.dims(b)) < 2:
        raise Unsupported("operands of rank 1")
    return [
        build.matmul(
            a,
            b,
            transpose_a=bool(node.int_attribute("transA", 0)),
            transpose_b=bool(node.int_attribute("transB", 0)),
            alpha=node.float_attribute("alpha", 1.0),
        )
    ]


def _skip_norm(rms: bool) -> Rule:
    """X + skip (+ bias), normalised; the sum is the last output."""

    def rule(node: OnnxOp, build: Builder) -> Results:
        x, skip, scale = (build.operand(i) for i in range(3))
        beta, bias = (None, node.operand_at(3)) if rms else (node.operand_at(3), node.operand_at(4))
        terms = [v for v in (x, skip, bias) if v is not None]
        build.require_float(*terms)
        total = build.map(terms, lambda a, b, *c: a + b + c[0] if c else a + b)
        dims = build.dims(total)
        if len(build.dims(scale)) != 1 or shapes.differ(build.dims(scale)[0], dims[-1]):
            raise Unsupported("scale is not a vector over the last axis")
        y = layer_norm(node, build, total, scale, beta, rms=rms, eps=node.float_attribute("epsilon", 1e-12))
        if len(node.results) < 4:
            return only(y, node)
        return [*only(y, node)[:3], total] if node.results[3].first_use is None else _with_sum(node, y, total)

    return rule


def _with_sum(node: OnnxOp, y: SSAValue, total: SSAValue) -> Results:
    for result in node.results[1:3]:
        if result.first_use is not None:
            raise Unsupported(f"output {result.index} is used")
    return [y, None, None, total]


RULES: dict[str, Rule] = {
    "Gelu": lower_gelu,
    "BiasGelu": lower_gelu,
    "FastGelu": lower_fast_gelu,
    "QuickGelu": lower_quick_gelu,
    "FusedMatMul": lower_fused_matmul,
    "SkipLayerNormalization": _skip_norm(rms=False),
    "SkipSimplifiedLayerNormalization": _skip_norm(rms=True),
}
