"""The sentence encoder all-MiniLM-L6-v2 as an ONNX model, built from its weights alone.

BERT's encoder, mean pooling over the attended tokens, and normalisation to length 1; node names follow the weights'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

OPSET, LAYERS, HEADS, WIDTH, EPSILON = 20, 6, 12, 384, 1e-12


class GraphBuilder:
    """Nodes and initializers under construction; every method returns the name of its result."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, array: np.ndarray) -> str:
        """An initializer."""
        self.initializers.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, name: str, op: str, *inputs: str, **attributes: Any) -> str:
        """A node called `name` with one result of that name."""
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str) -> str:
        """A trained weight as it is."""
        return self.constant(name, self.weights[name])

    def linear(self, name: str, x: str) -> str:
        """``x @ weight.T + bias``."""
        weight = self.constant(f"{name}.weight", self.weights[f"{name}.weight"].T)
        product = self.node(f"{name}/MatMul", "MatMul", x, weight)
        return self.node(f"{name}/Add", "Add", product, self.weight(f"{name}.bias"))

    def norm(self, name: str, x: str) -> str:
        """Layer normalisation over the last axis."""
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.node(name, "LayerNormalization", x, scale, bias, axis=-1, epsilon=EPSILON)

    def heads(self, name: str, x: str, order: list[int]) -> str:
        """``[B, S, 384]`` to heads, axes in the given order."""
        shape = self.constant("split", np.array([0, 0, HEADS, WIDTH // HEADS]))
        return self.node(f"{name}/heads", "Transpose", self.node(f"{name}/split", "Reshape", x, shape), perm=order)

    def layer(self, name: str, x: str, mask: str) -> str:
        """One encoder layer: attention and feed-forward, each added to its input and normalised."""
        me = f"{name}.attention.self"
        query = self.heads(f"{me}.query", self.linear(f"{me}.query", x), [0, 2, 1, 3])
        key = self.heads(f"{me}.key", self.linear(f"{me}.key", x), [0, 2, 3, 1])
        value = self.heads(f"{me}.value", self.linear(f"{me}.value", x), [0, 2, 1, 3])
        scale = self.constant("scale", np.array(np.sqrt(WIDTH / HEADS), np.float32))
        scores = self.node(f"{me}/Div", "Div", self.node(f"{me}/scores", "MatMul", query, key), scale)
        weights = self.node(f"{me}/Softmax", "Softmax", self.node(f"{me}/mask", "Add", scores, mask), axis=-1)
        merged = self.node(
            f"{me}/merge", "Transpose", self.node(f"{me}/context", "MatMul", weights, value), perm=[0, 2, 1, 3]
        )
        merged = self.node(f"{me}/join", "Reshape", merged, self.constant("join", np.array([0, 0, WIDTH])))
        attended = self.linear(f"{name}.attention.output.dense", merged)
        added = self.node(f"{name}.attention.output/Add", "Add", attended, x)
        x = self.norm(f"{name}.attention.output.LayerNorm", added)
        inner = self.node(f"{name}/Gelu", "Gelu", self.linear(f"{name}.intermediate.dense", x))
        out = self.node(f"{name}.output/Add", "Add", self.linear(f"{name}.output.dense", inner), x)
        return self.norm(f"{name}.output.LayerNorm", out)


def build_minilm(weights: Path, output: Path) -> None:
    """Write the model whose weights are in `weights` (safetensors) to `output`."""
    g = GraphBuilder(load_file(weights))
    zero, one = g.constant("zero", np.array([0])), g.constant("one", np.array([1]))
    length = g.node("length", "Shape", "input_ids", start=1, end=2)
    positions = g.node("positions", "Slice", g.weight("embeddings.position_embeddings.weight"), zero, length, zero)
    words = g.node("words", "Gather", g.weight("embeddings.word_embeddings.weight"), "input_ids")
    kind = g.constant("kind", g.weights["embeddings.token_type_embeddings.weight"][0])
    x = g.node("embedded", "Add", g.node("placed", "Add", words, positions), kind)
    x = g.norm("embeddings.LayerNorm", x)

    attended = g.node("mask/float", "Cast", "attention_mask", to=TensorProto.FLOAT)
    wide = g.node("mask/wide", "Unsqueeze", attended, g.constant("heads_and_queries", np.array([1, 2])))
    absent = g.node("mask/absent", "Sub", g.constant("unit", np.array(1, np.float32)), wide)
    mask = g.node("mask/bias", "Mul", absent, g.constant("far", np.array(-10000, np.float32)))
    for index in range(LAYERS):
        x = g.layer(f"encoder.layer.{index}", x, mask)

    column = g.node("pool/weights", "Unsqueeze", attended, g.constant("last", np.array([2])))
    total = g.node("pool/sum", "ReduceSum", g.node("pool/attended", "Mul", x, column), one, keepdims=0)
    count = g.node("pool/count", "ReduceSum", column, one, keepdims=0)
    mean = g.node("pool/mean", "Div", total, count)
    norm = g.node("pool/norm", "ReduceL2", mean, one, keepdims=1)
    g.node("embedding", "Div", mean, norm)

    tokens = ["B", "S"]
    graph = helper.make_graph(
        g.nodes,
        "all-MiniLM-L6-v2",
        [helper.make_tensor_value_info(n, TensorProto.INT64, tokens) for n in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["B", WIDTH])],
        list(g.initializers.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, output)
