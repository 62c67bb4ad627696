"""Layers of int8 QDQ models as ONNX nodes with made-up weights, and a small residual network of them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


def conv(name: str, x: str, shape: tuple[int, ...], weights: dict[str, np.ndarray], **attributes: list[int] | int):
    """Nodes of a convolution of int8 weights, bias included, from `x` to `name`.y; `weights` get what they read."""
    random = np.random.default_rng(11)
    q = random.integers(-127, 128, shape).astype(np.int8)
    weights |= {f"{name}.w": q, f"{name}.ws": random.uniform(1e-3, 3e-3, shape[0]).astype(np.float32)}
    weights |= {f"{name}.b": random.standard_normal(shape[0]).astype(np.float32)}
    dequantized = helper.make_node("DequantizeLinear", [f"{name}.w", f"{name}.ws"], [f"{name}.f"], axis=0)
    made = helper.make_node("Conv", [x, f"{name}.f", f"{name}.b"], [f"{name}.y"], name=name)
    made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return [dequantized, made]


def pair(x: str, weights: dict[str, np.ndarray], scale: float, zero: int = 0) -> list[NodeProto]:
    """QuantizeLinear and DequantizeLinear of `x` to `x`.q and `x`.d."""
    weights |= {f"{x}.s": np.array(scale, np.float32), f"{x}.z": np.array(zero, np.int8)}
    parameters = [f"{x}.s", f"{x}.z"]
    return [
        helper.make_node("QuantizeLinear", [x, *parameters], [f"{x}.q"]),
        helper.make_node("DequantizeLinear", [f"{x}.q", *parameters], [f"{x}.d"]),
    ]


def model_of(
    nodes: list[NodeProto], weights: dict[str, np.ndarray], given: tuple[int, ...], made: tuple[str, tuple[int, ...]]
) -> onnx.ModelProto:
    """A model from x [given] to an output of such a name and shape."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, given)
    y = helper.make_tensor_value_info(made[0], TensorProto.FLOAT, made[1])
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def residual_network(
    batch: int, size: tuple[int, int], zeros: tuple[int, int, int], scales: tuple[float, float, float]
) -> onnx.ModelProto:
    """A ResNet of two blocks: stem, an identity block, one with a strided 1 x 1 branch; ReLU behind additions.

    Args:
        batch: images.
        size: lines and pixels of x, 3 channels.
        zeros: zero points of either operand of the additions, and of their results.
        scales: and their scales.
    """
    weights: dict[str, np.ndarray] = {}
    three = {"pads": [1, 1, 1, 1]}
    nodes = [
        *pair("x", weights, 0.021),
        *conv("stem", "x.d", (12, 3, 3, 3), weights, **three),
        *pair("stem.y", weights, scales[1], zeros[1]),
        *conv("a1", "stem.y.d", (7, 12, 1, 1), weights),
        helper.make_node("Relu", ["a1.y"], ["a1.r"]),
        *pair("a1.r", weights, 0.0317, -11),
        *conv("a2", "a1.r.d", (12, 7, 3, 3), weights, **three),
        *pair("a2.y", weights, scales[0], zeros[0]),
        helper.make_node("Add", ["a2.y.d", "stem.y.d"], ["s"], name="identity"),
        helper.make_node("Relu", ["s"], ["sr"]),
        *pair("sr", weights, scales[2], zeros[2]),
        *conv("b1", "sr.d", (20, 12, 3, 3), weights, strides=[2, 2], **three),
        helper.make_node("Relu", ["b1.y"], ["b1.r"]),
        *pair("b1.r", weights, 0.0417, -9),
        *conv("b2", "b1.r.d", (20, 20, 3, 3), weights, **three),
        *pair("b2.y", weights, scales[1], zeros[1]),
        *conv("down", "sr.d", (20, 12, 1, 1), weights, strides=[2, 2]),
        *pair("down.y", weights, scales[0], zeros[0]),
        helper.make_node("Add", ["down.y.d", "b2.y.d"], ["t"], name="downsampled"),
        helper.make_node("Relu", ["t"], ["tr"]),
        *pair("tr", weights, scales[2], zeros[2]),
    ]
    out = (size[0] + 1) // 2, (size[1] + 1) // 2
    return model_of(nodes, weights, (batch, 3, *size), ("tr.d", (batch, 20, *out)))
