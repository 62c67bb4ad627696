"""Activations written with ReLU and clip compute what they computed, and max-pools in front of them, too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto

from neuc.compiler import universe
from neuc.compiler.source import read_model
from neuc.dialects.dense import MapOp, PoolOp
from neuc.dialects.interp.core import interpret
from neuc.passes.analysis.neuron_sites import sites
from neuc.passes.expand_activations import clip_bound, is_relu
from neuc.passes.mark_neurons import MarkNeurons
from onnx_models import model, node, value

ROUNDING = 1e-6
"""Relative: shifts by a bound and back round twice."""


def unary(op_type: str, **attributes: object) -> ModelProto:
    nodes = [node(op_type, "x", "y", name="act", **attributes)]
    return model(nodes, [value("x", ["N", 3, 4])], [value("y", ["N", 3, 4])])


def clip(low: float | None, high: float | None) -> ModelProto:
    weights = {n: np.array(v, np.float32) for n, v in (("lo", low), ("hi", high)) if v is not None}
    names = f"x {'_' if low is None else 'lo'}{'' if high is None else ' hi'}"
    return model([node("Clip", names, "y", name="act")], [value("x", ["N", 3, 4])], [value("y", ["N", 3, 4])], weights)


def prelu() -> ModelProto:
    slope = np.array([[0.1], [0.2], [-0.3]], np.float32)
    nodes = [node("PRelu", "x s", "y", name="act")]
    return model(nodes, [value("x", ["N", 3, 4])], [value("y", ["N", 3, 4])], {"s": slope})


CASES: dict[str, tuple[Callable[[], ModelProto], int]] = {
    "relu": (lambda: unary("Relu"), 1),
    "leaky": (lambda: unary("LeakyRelu", alpha=0.3), 2),
    "prelu": (prelu, 2),
    "hard sigmoid": (lambda: unary("HardSigmoid"), 1),
    "relu6": (lambda: clip(0, 6), 1),
    "clip": (lambda: clip(-1, 0.5), 1),
    "clip from below": (lambda: clip(0.25, None), 1),
    "clip from above": (lambda: clip(None, 0.25), 1),
    "hard swish": (lambda: unary("HardSwish"), 0),
    "tanh": (lambda: unary("Tanh"), 0),
    "softplus": (lambda: unary("Softplus"), 1),
}


@pytest.mark.parametrize("name", list(CASES))
def test_every_activation_keeps_its_meaning(name: str) -> None:
    build, neurons = CASES[name]
    source = read_model(build())
    for step in ("lower-onnx-to-dense", "fuse-maps"):
        universe.PASSES[step]()().apply(source.context, source.module)
    x = np.random.default_rng(0).standard_normal((5, 3, 4)).astype(np.float32) * 4
    (expected,) = interpret(source.module, [x], source.context.weights)
    universe.PASSES["expand-activations"]()().apply(source.context, source.module)
    source.module.verify()
    (found,) = interpret(source.module, [x], source.context.weights)
    np.testing.assert_allclose(found, expected, rtol=ROUNDING, atol=4 * ROUNDING)
    maps = [op for op in source.module.walk() if isinstance(op, MapOp)]
    assert sum(is_relu(op) or clip_bound(op) is not None for op in maps) == neurons
    MarkNeurons().apply(source.context, source.module)
    assert len(list(sites(source.module))) == neurons


def test_pooling_first_changes_no_bit() -> None:
    nodes = [
        node("Relu", "x", "r", name="act"),
        node("MaxPool", "r", "y", name="pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    ]
    source = read_model(model(nodes, [value("x", ["N", 2, 5, 5])], [value("y", ["N", 2, 5, 5])]))
    universe.PASSES["lower-onnx-to-dense"]()().apply(source.context, source.module)
    x = np.random.default_rng(1).standard_normal((3, 2, 5, 5)).astype(np.float32)
    (expected,) = interpret(source.module, [x], source.context.weights)
    universe.PASSES["pool-before-activation"]()().apply(source.context, source.module)
    source.module.verify()
    np.testing.assert_array_equal(interpret(source.module, [x], source.context.weights)[0], expected)
    kinds = [type(op) for op in source.module.walk() if isinstance(op, PoolOp | MapOp)]
    assert kinds == [PoolOp, MapOp]


@pytest.mark.parametrize(("keepdims", "channels_last"), [(0, False), (1, False), (0, True)])
def test_a_global_maximum_is_a_pooling(keepdims: int, channels_last: bool) -> None:
    nodes = [node("Relu", "x", "r", name="act")]
    if channels_last:
        nodes.append(node("Transpose", "r", "t", name="turn", perm=[0, 2, 3, 1]))
    nodes.append(node("ReduceMax", f"{'t' if channels_last else 'r'} axes", "y", name="max", keepdims=keepdims))
    shape = ["N", 2, 1, 1] if keepdims else ["N", 2]
    weights = {"axes": np.array([1, 2] if channels_last else [2, 3])}
    source = read_model(model(nodes, [value("x", ["N", 2, 5, 4])], [value("y", shape)], weights))
    universe.PASSES["lower-onnx-to-dense"]()().apply(source.context, source.module)
    x = np.random.default_rng(1).standard_normal((3, 2, 5, 4)).astype(np.float32)
    (expected,) = interpret(source.module, [x], source.context.weights)
    universe.PASSES["pool-before-activation"]()().apply(source.context, source.module)
    source.module.verify()
    np.testing.assert_array_equal(interpret(source.module, [x], source.context.weights)[0], expected)
    kinds = [type(op) for op in source.module.walk() if isinstance(op, PoolOp | MapOp)]
    assert PoolOp in kinds
