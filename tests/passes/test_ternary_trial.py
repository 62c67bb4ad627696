"""Trials compute what the ternary module computes, up to float rounding."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.parser import Parser

from neuc.compiler.universe import new_context
from neuc.dialects.interp.core import interpret
from neuc.dialects.ternary import WeightOp
from neuc.passes.analysis.ternary_layers import layers
from neuc.passes.analysis.ternary_trial import TernaryTrial
from neuc.passes.quantize_to_ternary import FitCache, QuantizeToTernary

# Sums of at most 200 products in another order: some 200 * 2^-24 of the result's size.
TOLERANCE = 2e-5

MODULE = """
func.func @main(%x: tensor<?x3x9x9xf32, #store.dims<"B", "3", "9", "9">>)
    -> (tensor<?x5xf32, #store.dims<"B", "5">>, tensor<?x7xf32, #store.dims<"B", "7">>) {
  %w = store.constant "w" : tensor<4x3x3x3xf32>
  %y = dense.conv(%x, %w) {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], group = 1} :
    (tensor<?x3x9x9xf32, #store.dims<"B", "3", "9", "9">>, tensor<4x3x3x3xf32>)
    -> tensor<?x4x7x7xf32, #store.dims<"B", "4", "7", "7">> loc("conv")
  %f = dense.reshape(%y) : (tensor<?x4x7x7xf32, #store.dims<"B", "4", "7", "7">>)
    -> tensor<?x196xf32, #store.dims<"B", "196">>
  %a = store.constant "a" : tensor<196x5xf32>
  %b = store.constant "b" : tensor<7x196xf32>
  %p = dense.matmul(%f, %a) {alpha = 0.5} : (tensor<?x196xf32, #store.dims<"B", "196">>, tensor<196x5xf32>)
    -> tensor<?x5xf32, #store.dims<"B", "5">> loc("left")
  %q = dense.matmul(%f, %b) {transpose_b} : (tensor<?x196xf32, #store.dims<"B", "196">>, tensor<7x196xf32>)
    -> tensor<?x7xf32, #store.dims<"B", "7">> loc("right")
  func.return %p, %q : tensor<?x5xf32, #store.dims<"B", "5">>, tensor<?x7xf32, #store.dims<"B", "7">>
}
"""


@pytest.mark.parametrize("scale", ["row", "group", "tensor"])
@pytest.mark.parametrize("planes", [{"conv": 2, "left": 1, "right": 3}, {"conv": 0, "left": 2, "right": 0}])
def test_a_trial_computes_what_the_ternary_module_does(scale: str, planes: dict[str, int]):
    rng = np.random.default_rng(0)
    context = new_context()
    for name, shape in (("w", (4, 3, 3, 3)), ("a", (196, 5)), ("b", (7, 196))):
        context.weights.add(name, rng.standard_normal(shape).astype(np.float32))
    module = Parser(context, MODULE).parse_module()
    inputs = [rng.standard_normal((2, 3, 9, 9)).astype(np.float32)]

    trial = TernaryTrial(module, context.weights, QuantizeToTernary.min_k)
    assert trial.names == ("conv", "left", "right")
    fits, named = FitCache(), dict(layers(module))
    weights: dict[str, WeightOp | None] = {
        name: fits.weight(named[name], name, count, scale, context.weights) if count else None  # type: ignore[arg-type]
        for name, count in planes.items()
    }
    # Assigning twice must leave nothing of the first behind.
    trial.assign({"conv": fits.weight(named["conv"], "conv", 4, scale, context.weights)}, context.weights)  # type: ignore[arg-type]
    trial.assign(weights, context.weights)
    trial.module.verify()
    got = interpret(trial.module, inputs, trial.scratch)

    options = tuple(f"{name}={count}" for name, count in planes.items())
    QuantizeToTernary(scale=scale, layers=options).using(fits).apply(context, module)
    expected = interpret(module, inputs, context.weights)
    for one, other in zip(got, expected):
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE * np.abs(other).max())


def test_a_trial_leaves_the_module_alone():
    context = new_context()
    for name, shape in (("w", (4, 3, 3, 3)), ("a", (196, 5)), ("b", (7, 196))):
        context.weights.add(name, np.ones(shape, np.float32))
    module = Parser(context, MODULE).parse_module()
    before, entries = str(module), list(context.weights)
    TernaryTrial(module, context.weights, 1)
    assert str(module) == before
    assert list(context.weights) == entries
