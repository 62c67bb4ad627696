"""Small float networks as ONNX models with random weights, for tests of spiking networks."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from onnx_models import model, node, value

Array = np.ndarray


def weights(rng: np.random.Generator, *shape: int) -> Array:
    """Normal weights with unit gain."""
    fan_in = int(np.prod(shape[1:] if len(shape) > 2 else shape[:1]))
    return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)


def mlp(seed: int = 0, activation: str = "Relu", **attributes: object) -> ModelProto:
    """[N, 12] -> 16 -> 16 -> 5."""
    rng = np.random.default_rng(seed)
    w = {"w1": weights(rng, 12, 16), "w2": weights(rng, 16, 16), "w3": weights(rng, 16, 5)}
    w |= {f"b{i}": (rng.standard_normal(n) * 0.1).astype(np.float32) for i, n in ((1, 16), (2, 16), (3, 5))}
    nodes = [
        node("Gemm", "x w1 b1", "h1", name="fc1"),
        node(activation, "h1", "a1", name="act1", **attributes),
        node("Gemm", "a1 w2 b2", "h2", name="fc2"),
        node(activation, "h2", "a2", name="act2", **attributes),
        node("Gemm", "a2 w3 b3", "y", name="fc3"),
    ]
    return model(nodes, [value("x", ["N", 12])], [value("y", ["N", 5])], w)


def cnn(seed: int = 0) -> ModelProto:
    """Convolutions with max-pool, average pool, a residual, a grouped convolution, concat and a global mean."""
    rng = np.random.default_rng(seed)
    w = {
        "w1": weights(rng, 8, 2, 3, 3),
        "w2": weights(rng, 8, 8, 3, 3),
        "w3": weights(rng, 8, 2, 3, 3),
        "w4": weights(rng, 6, 16, 1, 1),
        "w5": weights(rng, 6, 4),
        "b1": (rng.standard_normal(8) * 0.1).astype(np.float32),
        "b5": (rng.standard_normal(4) * 0.1).astype(np.float32),
    }
    nodes = [
        node("Conv", "x w1 b1", "c1", name="conv1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1", name="relu1"),
        node("MaxPool", "r1", "p1", name="pool1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p1 w2", "c2", name="conv2", pads=[1, 1, 1, 1]),
        node("Add", "c2 p1", "s2", name="add2"),
        node("Relu", "s2", "r2", name="relu2"),
        node("AveragePool", "r2", "p2", name="pool2", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p2 w3", "c3", name="conv3", pads=[1, 1, 1, 1], group=4),
        node("Relu", "c3", "r3", name="relu3"),
        node("Concat", "p2 r3", "j", name="join", axis=1),
        node("Conv", "j w4", "c4", name="conv4"),
        node("Relu", "c4", "r4", name="relu4"),
        node("GlobalAveragePool", "r4", "g", name="mean"),
        node("Flatten", "g", "f", name="flat"),
        node("Gemm", "f w5 b5", "z", name="fc"),
        node("Softmax", "z", "y", name="softmax", axis=-1),
    ]
    return model(nodes, [value("x", ["N", 2, 8, 8])], [value("y", ["N", 4])], w)


def chain(depth: int, seed: int = 0) -> ModelProto:
    """[N, 12], then `depth` layers of 12 with ReLU6; every other one has a shortcut."""
    rng = np.random.default_rng(seed)
    w = {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    nodes, last = [], "x"
    for i in range(depth):
        w[f"w{i}"] = weights(rng, 12, 12) * np.float32(0.5 if i % 2 else 1.0)
        w[f"b{i}"] = (rng.standard_normal(12) * 0.1).astype(np.float32)
        nodes.append(node("Gemm", f"{last} w{i} b{i}", f"h{i}", name=f"fc{i}"))
        if i % 2:
            nodes.append(node("Add", f"h{i} {last}", f"s{i}", name=f"add{i}"))
        nodes.append(node("Clip", f"{'s' if i % 2 else 'h'}{i} low high", f"a{i}", name=f"clip{i}"))
        last = f"a{i}"
    nodes.append(node("Identity", last, "y", name="out"))
    return model(nodes, [value("x", ["N", 12])], [value("y", ["N", 12])], w)


def transformer(seed: int = 0) -> ModelProto:
    """One pre-norm block on [N, 4, 8] with two heads and GELU, then a mean over the tokens."""
    rng = np.random.default_rng(seed)
    w: dict[str, Array] = {
        f"w{n}": weights(rng, a, b) for n, a, b in (("q", 8, 8), ("k", 8, 8), ("v", 8, 8), ("o", 8, 8), ("u", 8, 16))
    }
    w |= {"wd": weights(rng, 16, 8), "wf": weights(rng, 8, 3), "one": np.ones(8, np.float32)}
    w |= {"zero": np.zeros(8, np.float32), "heads": np.array([0, 4, 2, 4]), "merge": np.array([0, 4, 8])}
    w["half"] = np.array(0.5, np.float32)
    nodes = [node("LayerNormalization", "x one zero", "n1", name="norm1", axis=-1)]
    for part in "qkv":
        perm = [0, 2, 3, 1] if part == "k" else [0, 2, 1, 3]
        nodes += [
            node("MatMul", f"n1 w{part}", part, name=part),
            node("Reshape", f"{part} heads", f"{part}h", name=f"{part}_heads"),
            node("Transpose", f"{part}h", f"{part}t", name=f"{part}_turned", perm=perm),
        ]
    nodes += [
        node("MatMul", "qt kt", "s0", name="scores"),
        node("Mul", "s0 half", "s", name="scaled"),
        node("Softmax", "s", "a", name="attention", axis=-1),
        node("MatMul", "a vt", "m0", name="mixed"),
        node("Transpose", "m0", "m1", name="back", perm=[0, 2, 1, 3]),
        node("Reshape", "m1 merge", "m", name="merged"),
        node("MatMul", "m wo", "o", name="out"),
        node("Add", "x o", "x1", name="add1"),
        node("LayerNormalization", "x1 one zero", "n2", name="norm2", axis=-1),
        node("MatMul", "n2 wu", "u0", name="up"),
        node("Gelu", "u0", "u", name="gelu"),
        node("MatMul", "u wd", "d", name="down"),
        node("Add", "x1 d", "x2", name="add2"),
        node("ReduceMean", "x2 axis", "g", name="mean", keepdims=0),
        node("MatMul", "g wf", "y", name="head"),
    ]
    w["axis"] = np.array([1])
    return model(nodes, [value("x", ["N", 4, 8])], [value("y", ["N", 3])], w)


def inputs(proto: ModelProto, count: int, seed: int = 7) -> Array:
    """Normal inputs for the model's one input."""
    dims = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim[1:]]
    return np.random.default_rng(seed).standard_normal((count, *dims)).astype(np.float32)
