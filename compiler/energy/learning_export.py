"""A trained network as an ONNX model, so that every target can run it. How it learned is in `learning_rules.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from neuc.compiler.energy.learning_rules import LABEL_SCALE, LENGTH_FLOOR, EquilibriumPropagation, ForwardForward

if TYPE_CHECKING:
    from neuc.compiler.energy.learning_rules import Array, Layers, Rule

OPSET, IR_VERSION = 20, 10


def onnx_model(rule: Rule, layers: Layers, sizes: Sequence[int]) -> onnx.ModelProto:
    """The network as it answers: sweeps to rest, the goodness of every label, or one forward pass.

    Input ``image`` f32 [batch, inputs], output ``scores`` f32 [batch, classes].
    """
    graph = _Graph()
    if isinstance(rule, EquilibriumPropagation):
        _settle(graph, layers, rule.answer_steps)
    elif isinstance(rule, ForwardForward):
        _goodness(graph, layers, sizes[0])
    else:
        _forward(graph, layers)
    return graph.model(sizes[0], sizes[-1])


class _Graph:
    """ONNX nodes and constants in the order they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: Array) -> str:
        """A constant called `name`, made once."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def number(self, value: float) -> str:
        """A scalar constant."""
        return self.constant(f"number_{value:g}", np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        """A vector of axes or of a shape."""
        return self.constant("integers_" + "_".join(map(str, values)), np.array(values, np.int64))

    def add(self, op_type: str, *inputs: str, **attributes: object) -> str:
        """A node with one result; the name of that."""
        name = f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))  # type: ignore[arg-type]
        return name

    def layer(self, a: str, number: int, layer: tuple[Array, Array]) -> str:
        """A W + b."""
        w, b = layer
        product = self.add("MatMul", a, self.constant(f"weight_{number}", w))
        return self.add("Add", product, self.constant(f"bias_{number}", b))

    def mean_square(self, a: str, *, keep: bool) -> str:
        """The mean of squares over the last axis."""
        return self.add("ReduceMean", self.add("Mul", a, a), self.integers(-1), keepdims=int(keep))

    def model(self, inputs: int, classes: int) -> onnx.ModelProto:
        """The checked model; what the last node gives is the result."""
        self.nodes[-1].output[0] = "scores"
        tensors = (("image", inputs), ("scores", classes))
        image, scores = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", s]) for n, s in tensors)
        graph = helper.make_graph(self.nodes, "learned", [image], [scores], list(self.constants.values()))
        imports = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="neuc")
        onnx.checker.check_model(model)
        return model


def _forward(graph: _Graph, layers: Layers) -> None:
    """Relu between layers."""
    a = "image"
    for number, layer in enumerate(layers):
        a = graph.layer(graph.add("Relu", a) if number else a, number, layer)


def _settle(graph: _Graph, layers: Layers, steps: int) -> None:
    """The sweeps of `EquilibriumPropagation.settle`, one after another, from zeros: terms that are 0 are left out."""
    drive, states = graph.layer("image", 0, layers[0]), [""] * len(layers)
    for _ in range(steps):
        for number, layer in enumerate(layers):
            field = drive if number == 0 else graph.layer(states[number - 1], number, layer)
            if number + 1 < len(layers) and states[number + 1]:
                back = graph.constant(f"feedback_{number + 1}", layers[number + 1][0].T)
                field = graph.add("Add", field, graph.add("MatMul", states[number + 1], back))
            states[number] = graph.add("Clip", field, graph.number(0.0), graph.number(1.0))


def _goodness(graph: _Graph, layers: Layers, inputs: int) -> None:
    """All labels side by side: [batch, classes, …]. A one-hot label has one length, so pixels are normalised once."""
    (w, b), rest = layers[0], layers[1:]
    classes = len(w) - inputs
    squares = graph.add("ReduceSum", graph.add("Mul", "image", "image"), graph.integers(-1), keepdims=1)
    mean = graph.add("Div", graph.add("Add", squares, graph.number(LABEL_SCALE**2)), graph.number(float(len(w))))
    length = graph.add("Add", graph.add("Sqrt", mean), graph.number(LENGTH_FLOOR))
    pixels = graph.add("MatMul", "image", graph.constant("weight_0", w[:inputs]))
    shape = graph.integers(0, 1, w.shape[1])
    labels = graph.constant("weight_label", np.float32(LABEL_SCALE) * w[inputs:].reshape(1, classes, -1))
    both = graph.add("Add", graph.add("Reshape", pixels, shape), labels)
    shared = graph.add("Reshape", length, graph.integers(0, 1, 1))
    a = graph.add("Relu", graph.add("Add", graph.add("Div", both, shared), graph.constant("bias_0", b)))
    total = graph.mean_square(a, keep=False)
    for number, layer in enumerate(rest, 1):
        root = graph.add("Sqrt", graph.mean_square(a, keep=True))
        scaled = graph.add("Div", a, graph.add("Add", root, graph.number(LENGTH_FLOOR)))
        a = graph.add("Relu", graph.layer(scaled, number, layer))
        total = graph.add("Add", total, graph.mean_square(a, keep=False))
    graph.add("Identity", total)
