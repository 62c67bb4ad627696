"""A trained network as an ONNX model, so that every target can run it. How it learned is in `learning_rules.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from neuc.compiler.energy.learning_local import DendriticLearning, SelfContrastive
from neuc.compiler.energy.learning_maps import ConvMap, Map
from neuc.compiler.energy.learning_rules import (
    LABEL_SCALE,
    LENGTH_FLOOR,
    EquilibriumPropagation,
    ForwardForward,
    Rule,
    maps_in,
)
from neuc.compiler.energy.learning_variants import (
    ContrastiveDivergence,
    HolomorphicEquilibriumPropagation,
    ScaledPredictiveCoding,
)

if TYPE_CHECKING:
    from neuc.compiler.energy.learning_maps import Array
    from neuc.compiler.energy.learning_rules import Layers

OPSET, IR_VERSION = 20, 10


def onnx_model(rule: Rule, layers: Layers, inputs: int, classes: int) -> onnx.ModelProto:
    """The network as it answers: sweeps to rest, the goodness of every label, or one forward pass.

    Input ``image`` f32 [batch, inputs], output ``scores`` f32 [batch, classes].
    """
    graph = _Graph()
    match rule:
        case EquilibriumPropagation():
            _settle(graph, layers, rule.answer_steps)
        case HolomorphicEquilibriumPropagation():
            _settle(graph, layers, rule.free_steps, smooth=True)
        case ForwardForward():
            _goodness(graph, layers, inputs)
        case SelfContrastive():
            _features(graph, layers)
        case ContrastiveDivergence():
            _free_energy(graph, layers, inputs)
        case DendriticLearning():
            _forward(graph, rule.parts(layers)[0], maps_in(layers), "Tanh")
        case ScaledPredictiveCoding():
            _forward(graph, rule.scaled(layers), maps_in(layers))
        case _:
            _forward(graph, layers, maps_in(layers))
    return graph.model(inputs, classes)


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

    def layer(self, a: str, number: int, layer: tuple[Array, Array], map_: Map | None = None) -> str:
        """A W + b, or the convolution and b."""
        w, b = layer
        if isinstance(map_, ConvMap):
            product = self._convolution("Conv", a, number, w, map_)
        else:
            product = self.add("MatMul", a, self.constant(f"weight_{number}", w))
        return self.add("Add", product, self.constant(f"bias_{number}", b))

    def back(self, error: str, number: int, w: Array, map_: Map) -> str:
        """The transposed map."""
        if isinstance(map_, ConvMap):
            return self._convolution("ConvTranspose", error, number, w, map_)
        return self.add("MatMul", error, self.constant(f"feedback_{number}", w.T))

    def _convolution(self, op_type: str, a: str, number: int, w: Array, map_: ConvMap) -> str:
        """Of flat values: images in between."""
        layer, filters = map_.layer, self.constant(f"weight_{number}", w.reshape(map_.filters))
        above = (layer.channels, *map_.size)
        shape, sites = (map_.shape, map_.outputs) if op_type == "Conv" else (above, map_.inputs)
        options: dict[str, object] = {"strides": [layer.stride] * 2, "pads": [layer.pad] * 4}
        if op_type == "ConvTranspose":
            whole = [(n - 1) * layer.stride + layer.kernel - 2 * layer.pad for n in map_.size]
            options["output_padding"] = [n - m for n, m in zip(map_.shape[1:], whole)]
        image = self.add("Reshape", a, self.integers(-1, *shape))
        return self.add("Reshape", self.add(op_type, image, filters, **options), self.integers(-1, sites))

    def normalised(self, a: str) -> str:
        """Rows of root mean square 1."""
        length = self.add("Sqrt", self.mean_square(a, keep=True))
        return self.add("Div", a, self.add("Add", length, self.number(LENGTH_FLOOR)))

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


def _forward(graph: _Graph, layers: Layers, maps: Sequence[Map], between: str = "Relu") -> None:
    """A function between layers."""
    a = "image"
    for number, layer in enumerate(layers):
        a = graph.layer(graph.add(between, a) if number else a, number, layer, maps[number])


def _settle(graph: _Graph, layers: Layers, steps: int, *, smooth: bool = False) -> None:
    """The sweeps of a rule's `settle`, one after another, from zeros: terms that are 0 are left out."""
    maps, last = maps_in(layers), len(layers) - 1
    drive, states = graph.layer("image", 0, layers[0], maps[0]), [""] * len(layers)
    for _ in range(steps):
        for number, layer in enumerate(layers):
            field = drive if number == 0 else graph.layer(states[number - 1], number, layer, maps[number])
            if number < last and states[number + 1]:
                back = graph.back(states[number + 1], number + 1, layers[number + 1][0], maps[number + 1])
                field = graph.add("Add", field, back)
            if not smooth:
                states[number] = graph.add("Clip", field, graph.number(0.0), graph.number(1.0))
            else:
                states[number] = graph.add("Sigmoid", field) if number < last else field
    graph.add("Identity", states[-1])


def _features(graph: _Graph, layers: Layers) -> None:
    """What the last layer reads from the normalised activities of all others."""
    a, found = graph.add("Add", "image", "image"), list[str]()
    for number, layer in enumerate(layers[:-1]):
        a = graph.add("Relu", graph.layer(graph.normalised(a), number, layer))
        found.append(graph.normalised(a))
    graph.layer(graph.add("Concat", *found, axis=1), len(layers) - 1, layers[-1])


def _free_energy(graph: _Graph, layers: Layers, inputs: int) -> None:
    """−F of all labels side by side, hidden units summed out."""
    (w, c), (a, _) = layers
    pixels = graph.add(
        "Add", graph.add("MatMul", "image", graph.constant("weight_0", w[:inputs])), graph.constant("c", c)
    )
    side_by_side = graph.add("Reshape", pixels, graph.integers(-1, 1, w.shape[1]))
    labels = graph.constant("weight_label", w[inputs:].reshape(1, len(w) - inputs, -1))
    each = graph.add("Softplus", graph.add("Add", side_by_side, labels))
    total = graph.add("ReduceSum", each, graph.integers(-1), keepdims=0)
    graph.add("Add", total, graph.constant("a", a[inputs:, 0]))


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
        a = graph.add("Relu", graph.layer(graph.normalised(a), number, layer))
        total = graph.add("Add", total, graph.mean_square(a, keep=False))
    graph.add("Identity", total)
