"""Layer normalisations written out in single steps are recognised; look-alikes are not."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper, parser
from xdsl.dialects.builtin import ModuleOp

from neuc.compiler.importers.onnx_file import import_onnx
from neuc.compiler.universe import new_context
from neuc.dialects.context import NeucContext
from neuc.dialects.dense import LayerNormOp, MapOp, ReduceOp
from neuc.dialects.interp.core import interpret
from neuc.dialects.locations import node_names
from neuc.passes.fuse_layer_norm import FuseLayerNorm
from neuc.passes.lower_onnx_to_dense import LowerOnnxToDense

# The separate steps round in f32 about six times, dense.layer_norm once.
ROUNDING = 2e-6

LAYER = """
  mean = ReduceMean<keepdims=1>(x, axis)
  d = Sub(x, mean)
  square = {square}
  var = ReduceMean<keepdims=1>(square, axis)
  shifted = Add(var, eps)
  root = Sqrt(shifted)
  n = {quotient}
  scaled = Mul(n, scale)
  y = Add(scaled, bias)
"""
RMS = """
  square = Mul(x, x)
  var = ReduceMean<keepdims=1>(square, axis)
  shifted = Add(eps, var)
  root = Sqrt(shifted)
  inverse = Reciprocal(root)
  n = Mul(x, inverse)
  y = Mul(scale, n)
"""


def lowered(nodes: str, axis: int = -1) -> tuple[ModuleOp, NeucContext]:
    model = parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 20]>
        m (float[B, 3, 8] x) => (float[B, 3, 8] y)
        <int64[1] axis = {{{axis}}}, float eps = {{0.001}}, float two = {{2.0}}>
        {{ {nodes} }}"""
    )
    rng = np.random.default_rng(0)
    for name in ("scale", "bias"):
        array = rng.standard_normal(8).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    ctx = new_context()
    module = import_onnx(model, ctx)
    LowerOnnxToDense().apply(ctx, module)
    return module, ctx


def fused(module: ModuleOp, ctx: NeucContext) -> list[LayerNormOp]:
    x = np.random.default_rng(1).standard_normal((2, 3, 8)).astype(np.float32) * 4 + 1
    (expected,) = interpret(module, [x], ctx.weights)
    FuseLayerNorm().apply(ctx, module)
    module.verify()
    (found,) = interpret(module, [x], ctx.weights)
    np.testing.assert_allclose(found, expected, rtol=ROUNDING, atol=ROUNDING * 10)
    return [op for op in module.walk() if isinstance(op, LayerNormOp)]


@pytest.mark.parametrize("square", ["Mul(d, d)", "Pow(d, two)"])
@pytest.mark.parametrize("quotient", ["Div(d, root)", "Mul(d, inverse)"])
def test_layer_norm(square: str, quotient: str) -> None:
    nodes = LAYER.format(square=square, quotient=quotient)
    nodes = nodes.replace("  n =", "  inverse = Reciprocal(root)\n  n =") if "inverse" in quotient else nodes
    module, ctx = lowered(nodes)
    (norm,) = fused(module, ctx)
    assert norm.rms is None
    assert norm.axis.value.data == 2
    assert norm.eps.value.data == pytest.approx(1e-3)
    assert norm.scale is not None
    assert norm.bias is not None
    assert len(node_names(norm)) >= 8


def test_rms_norm() -> None:
    module, ctx = lowered(RMS)
    (norm,) = fused(module, ctx)
    assert norm.rms is not None
    assert norm.scale is not None
    assert norm.bias is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Sub(x, mean)", "Add(x, mean)"),
        ("Sqrt(shifted)", "Exp(shifted)"),
        ("Add(var, eps)", "Sub(var, eps)"),
        ("ReduceMean<keepdims=1>(square, axis)", "ReduceMax<keepdims=1>(square, axis)"),
        ("square = Mul(d, d)", "square = Mul(d, x)"),
    ],
)
def test_look_alikes_stay_what_they_are(old: str, new: str) -> None:
    nodes = LAYER.format(square="Mul(d, d)", quotient="Div(d, root)")
    assert old in nodes
    module, ctx = lowered(nodes.replace(old, new))
    FuseLayerNorm().apply(ctx, module)
    norms = [op for op in module.walk() if isinstance(op, LayerNormOp)]
    # A sum instead of the difference still is a root-mean-square normalisation of that sum.
    assert [n.rms is not None for n in norms] == ([True] if "Add(x, mean)" in new else [])


def test_another_axis_is_not_a_layer_norm() -> None:
    module, ctx = lowered(LAYER.format(square="Mul(d, d)", quotient="Div(d, root)"), axis=1)
    assert fused(module, ctx) == []
    assert sum(isinstance(op, ReduceOp) for op in module.walk()) == 2
    assert any(isinstance(op, MapOp) for op in module.walk())
