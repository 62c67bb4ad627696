"""`expand-graded-spikes`: networks mean the same before and after, and nothing but binary spikes is left."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.parser import Parser

from neuc.compiler.universe import new_context
from neuc.dialects.interp.core import interpret
from neuc.dialects.spike_types import event_of
from neuc.passes.expand_graded_spikes import ExpandGradedSpikes

STEPS = 12
ELEMENTS = {"f32": (np.float32, "f32", "f32"), "i32": (np.int32, "i32", "i8")}


def network(levels: int, relu: bool, held: str, weight: str) -> str:
    """Two layers: four neurons behind inputs that are given, a convolution to two channels, and its summed currents."""
    flag = " {relu}" if relu else ""
    image, events = f"tensor<1x4x3x{held}>", f"tensor<1x4x3x!spike.event<graded, {levels}>>"
    out, whole = f"tensor<1x2x2x{held}>", f"tensor<{STEPS}x1x4x3x{held}>"
    zero, kernel = ("0.0", "f32") if held == "f32" else ("0", weight)
    return f"""
    func.func @main(%x: {whole}, %w: tensor<2x2x2x{weight}>, %b: tensor<2x{held}>) -> {out} {{
      %unit = store.constant value dense<[[{2 if held == "i32" else 0.5}], [{4 if held == "i32" else 0.25}],
        [{8 if held == "i32" else 1.0}], [{2 if held == "i32" else 0.5}]]> : tensor<4x1x{held}> : tensor<4x1x{held}>
      %k = store.constant value dense<[[[1.0, -2.0], [0.5, 1.0]], [[-1.0, 0.25], [2.0, 1.0]]]>
        : tensor<2x2x2xf32> : tensor<2x2x2xf32>
      %zero = store.constant value dense<{zero}> : tensor<{held}> : tensor<{held}>
      %z = dense.broadcast(%zero) : (tensor<{held}>) -> {image}
      %y0 = dense.broadcast(%zero) : (tensor<{held}>) -> {out}
      %mn, %on, %yn = spike.loop scan(%x) init(%z, %z, %y0) : ({whole}), ({image}, {image}, {out})
          steps {STEPS} -> () {{
      ^step(%t: tensor<i64>, %i: {image}, %m: {image}, %o: {image}, %y: {out}):
        %s, %m1, %o1 = spike.multi_threshold(%i, %m, %o, %unit){flag}
          : ({image}, {image}, {image}, tensor<4x1x{held}>) -> ({events}, {image}, {image})
        %c = spike.conv(%s, {"%k" if held == "f32" else "%w"}, %b)
          {{strides = [1], pads = [0, 0], dilations = [1], group = 2}}
          : ({events}, tensor<2x2x2x{kernel}>, tensor<2x{held}>) -> {out}
        %y1 = spike.accumulate(%c, %y) : ({out}, {out}) -> {out}
        spike.yield outputs() states(%m1, %o1, %y1) : (), ({image}, {image}, {out})
      }}
      func.return %yn : {out}
    }}"""


@pytest.mark.parametrize("held", ["f32", "i32"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("levels", [1, 3])
def test_the_expansion_means_the_same(levels: int, relu: bool, held: str) -> None:
    dtype, held, weight = ELEMENTS[held]
    context = new_context()
    module = Parser(context, network(levels, relu, held, weight)).parse_module()
    module.verify()
    rng = np.random.default_rng(levels)
    # Multiples of 1/4: every sum is exact in f32, in any order.
    x = rng.integers(-12, 16, (STEPS, 1, 4, 3)).astype(dtype)
    x = x / np.float32(4) if held == "f32" else x
    weights = rng.integers(-3, 4, (2, 2, 2)).astype(np.float32 if weight == "f32" else np.int8)
    feeds = [x, weights, np.array([1, -2], dtype)]
    (before,) = interpret(module, feeds, context.weights)
    ExpandGradedSpikes().apply(context, module)
    module.verify()
    (after,) = interpret(module, feeds, context.weights)
    np.testing.assert_array_equal(after, before)
    assert before.any()
    found = [event_of(value) for op in module.walk() for value in op.results]
    assert all(event is None or event.is_binary for event in found)
