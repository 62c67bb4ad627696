"""ONNX models in int8 QDQ form: QuantizeLinear and DequantizeLinear around what an int8 processor computes.

This is the form that AMD's Vitis AI execution provider (Ryzen AI) takes, as do others: weights are int8 constants
behind a DequantizeLinear, biases int32 ones, activations go through a pair with the scale that calibration found.
Graphs are rewritten here; scales come from `qdq_scales.py`, files are `qdq_file.py`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from neuc.compiler.exporters.qdq_chains import functions_of_one
from neuc.compiler.exporters.qdq_scales import HIGH, rounded, weight_scales
from neuc.passes.analysis.ternary_fit import fit_ternary
from neuc.passes.analysis.ternary_layers import MIN_K

LAYERS = frozenset(["Conv", "Gemm", "MatMul"])
ELEMENTWISE = frozenset(
    ["Add", "Mul", "Relu", "Clip", "AveragePool", "GlobalAveragePool", "Concat", "HardSigmoid", "HardSwish", "Sigmoid"]
)
"""What an int8 processor does between layers, too."""
MOVING = frozenset(["MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Slice"])
"""What changes no value: its result has its operand's scale."""
_FUSED = frozenset(["Relu", "Clip"])
_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Form:
    """How scales are chosen.

    ``power_of_two``: every scale is a power of two, as the CNN processors of Vitis AI want. ``per_channel``: a scale
    for each output channel of a layer's weights. ``layers_only``: what products and convolutions read is int8, what
    they give and everything between them stays float; transformers have outliers there that int8 cannot hold.
    ``eight_bits``: no activation is in 16 bits, whatever 8 bits cost. ``tables``: element-wise functions of one int8
    tensor stay float up to their result, as one table of codes is all of them; no rounding is between them.
    ``ternary``: weights are -1, 0 and 1 times a scale a row, but for depthwise layers and those of few columns.
    """

    power_of_two: bool = False
    per_channel: bool = True
    layers_only: bool = False
    eight_bits: bool = False
    tables: bool = False
    ternary: bool = False


@dataclass(frozen=True)
class QdqLayer:
    """A layer as it was written: ``kept`` says why it stayed float, ``sqnr_db`` what its weights lost."""

    node: str
    op_type: str
    kept: str = ""
    sqnr_db: float | None = None


class Plan:
    """Which tensors of a graph become int8, and which nodes read them so."""

    def __init__(self, graph: GraphProto, form: Form) -> None:
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        computing = LAYERS if form.layers_only else LAYERS | ELEMENTWISE
        outputs = {output.name for output in graph.output}
        # An activation behind a layer is part of it: what is between them never leaves the processor.
        self._fused: dict[str, str] = {}
        for node in graph.node:
            following = readers.get(node.output[0], [])
            alone = node.op_type in LAYERS and len(following) == 1 and node.output[0] not in outputs
            if alone and following[0].op_type in _FUSED and not form.layers_only:
                self._fused[node.output[0]] = following[0].output[0]
        self.chained = functions_of_one(graph, self._fused) if form.tables else {}
        wanted: dict[str, None] = {}
        self.same: dict[str, str] = {}
        for node in graph.node:
            if node.op_type in MOVING and node.input and node.input[0] not in self.constants:
                self.same[node.output[0]] = node.input[0]
            if node.op_type not in computing or node.output[0] in self.chained:
                continue
            wanted.update(dict.fromkeys(self._activations(node)))
            if not form.layers_only:
                wanted[self._fused.get(node.output[0], node.output[0])] = None
        if form.tables:
            # What is only moved is rounded before that, so that codes are moved.
            wanted = {source: None for name in wanted for source in (*self._sources(name)[::-1], name)}
        self.tensors = [name for name in wanted if name not in self._fused]
        self.computing = computing

    def _sources(self, name: str) -> list[str]:
        """The tensors that `name` holds the values of, moved; the nearest first."""
        found: list[str] = []
        while (name := self.same.get(name, "")) and name in self.chained:
            found.append(name)
        return found

    def _activations(self, node: NodeProto) -> list[str]:
        """The inputs of a node that carry values, no weights, bounds or sizes."""
        most = len(node.input) if node.op_type == "Concat" else 1 if node.op_type in ("Conv", "Clip") else 2
        return [name for name in node.input[:most] if name and name not in self.constants]


def rewrite(
    model: ModelProto, plan: Plan, scales: Mapping[str, np.float32], form: Form, wide: Collection[str] = ()
) -> list[QdqLayer]:
    """Put `model`, in place, into QDQ form: `scales` for activations of the plan that turned out to be floats.

    Those in `wide` are in 16 bits, which takes opset 21.
    """
    graph = model.graph
    writer = _Writer(graph, plan, scales, form, wide)
    for value in graph.input:
        if value.name in scales:
            writer.pair(value.name, value.name)
    for node in list(graph.node):
        writer.node(node)
    del graph.node[:]
    graph.node.extend(writer.nodes)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in (*graph.initializer, *writer.tensors) if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    return writer.layers


def _groups(node: NodeProto) -> int:
    """The channel groups of a convolution; 1 of any other layer."""
    return next((a.i for a in node.attribute if a.name == "group"), 1)


class _Writer:
    """Nodes and constants of the new graph."""

    def __init__(
        self, graph: GraphProto, plan: Plan, scales: Mapping[str, np.float32], form: Form, wide: Collection[str]
    ) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.layers: list[QdqLayer] = []
        self._plan, self._scales, self._form, self._wide = plan, scales, form, wide
        self._outputs = {output.name for output in graph.output}
        self._read: dict[str, str] = {}
        self._taken = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
        self._taken |= {name for node in graph.node for name in node.output}
        self._names: dict[tuple[str, str], str] = {}

    def pair(self, name: str, source: str) -> None:
        """QuantizeLinear and DequantizeLinear of tensor `name`, which is there as `source`; readers read the result."""
        result = name if name in self._outputs else self._name(f"{name}_dequantized")
        scale = self._constant(f"{name}_scale", self._scales[name])
        code, zero_of = ("i16", np.int16(0)) if name in self._wide else ("i8", np.int8(0))
        zero = self._constant(f"zero_{code}", zero_of, "zero")
        codes = self._name(f"{name}_{code}")
        self.nodes.append(helper.make_node("QuantizeLinear", [source, scale, zero], [codes]))
        self.nodes.append(helper.make_node("DequantizeLinear", [codes, scale, zero], [result]))
        self._read[name] = result

    def node(self, node: NodeProto) -> None:
        """A node, reading what is quantised, and the pairs of what it makes."""
        made = NodeProto()
        made.CopyFrom(node)
        for i, name in enumerate(node.input):
            made.input[i] = self._read.get(name, name)
        if node.op_type in LAYERS:
            self._layer(node, made)
        elif (
            node.op_type in self._plan.computing & {"Add", "Mul", "Concat"} and node.output[0] not in self._plan.chained
        ):
            for i, name in enumerate(node.input):
                made.input[i] = self._operand(name) or made.input[i]
        self.nodes.append(made)
        for i, name in enumerate(node.output):
            if name in self._scales and name in self._outputs:
                made.output[i] = self._name(f"{name}_float")
            if name in self._scales:
                self.pair(name, made.output[i])

    def _layer(self, node: NodeProto, made: NodeProto) -> None:
        """Weights and bias of a layer."""
        weight = self._plan.constants.get(node.input[1])
        if weight is None:
            self.layers.append(QdqLayer(node.name, node.op_type, "" if node.input[1] in self._scales else "no weights"))
            return
        array = numpy_helper.to_array(weight)
        if array.dtype != np.float32 or node.input[0] not in self._scales or not np.isfinite(array).all():
            self.layers.append(QdqLayer(node.name, node.op_type, "its operands are no finite float32 tensors"))
            return
        axis = self._channels(node, array.ndim)
        rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
        per_channel = self._form.per_channel and array.ndim > 1
        if self._form.ternary and per_channel and rows.shape[1] >= MIN_K and _groups(node) == 1:
            fit = fit_ternary(rows, 1)
            scales = np.where(fit.scales[0, :, 0] > 0, fit.scales[0, :, 0], 1).astype(np.float32)
            rows = fit.trits[0] * scales[:, None]
        else:
            scales = weight_scales(rows, per_channel=per_channel, power_of_two=self._form.power_of_two)
        held = np.moveaxis(rows.reshape(array.shape[axis], *np.delete(array.shape, axis)), 0, axis)
        spread = scales.reshape([-1 if i == axis else 1 for i in range(array.ndim)]) if per_channel else scales[0]
        made.input[1] = self._dequantized(weight.name, held, spread, scales if per_channel else scales[0], axis)
        error = float(np.square(array - rounded(held, spread), dtype=np.float64).sum())
        signal = float(np.square(array, dtype=np.float64).sum())
        sqnr = 10 * float(np.log10(signal / error)) if error and signal else None
        self.layers.append(QdqLayer(node.name, node.op_type, "", sqnr))
        bias = self._plan.constants.get(node.input[2]) if len(node.input) > 2 else None
        if bias is not None:
            made.input[2] = self._bias(node, numpy_helper.to_array(bias), scales) or made.input[2]

    @staticmethod
    def _channels(node: NodeProto, rank: int) -> int:
        """The axis of a layer's weights along which output channels are."""
        if node.op_type == "Conv":
            return 0
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return rank - 2 if node.op_type == "Gemm" and transposed else rank - 1

    def _bias(self, node: NodeProto, bias: np.ndarray, scales: np.ndarray) -> str | None:
        """An int32 bias with the scale of the sums it joins; None where it is not one value per channel."""
        steps = (scales * self._scales[node.input[0]]).astype(np.float32)
        plain = all(a.name not in ("alpha", "beta") or a.f == 1.0 for a in node.attribute)
        if bias.ndim != 1 or bias.dtype != np.float32 or not plain or (steps.size > 1 and steps.size != bias.size):
            return None
        codes = np.rint(bias.astype(np.float64) / steps)
        if np.abs(codes).max(initial=0) > _INT32:
            return None
        name = f"{node.input[2]}_{len(self.layers)}"
        data = self._constant(f"{name}_i32", codes.astype(np.int32), "bias")
        scale = self._constant(f"{name}_scale", steps if steps.size > 1 else steps[0], "bias")
        zero = self._constant(f"{name}_zero", np.zeros(steps.shape if steps.size > 1 else (), np.int32), "bias")
        result = self._name(f"{name}_dequantized", "bias")
        self.nodes.append(helper.make_node("DequantizeLinear", [data, scale, zero], [result], axis=0))
        return result

    def _operand(self, name: str) -> str | None:
        """A constant operand of an element-wise node, in int8; None if it is no float constant."""
        tensor = self._plan.constants.get(name)
        if tensor is None:
            return None
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or not np.isfinite(array).all():
            return None
        scale = weight_scales(array.reshape(1, -1), per_channel=False, power_of_two=self._form.power_of_two)[0]
        return self._dequantized(name, array, scale, scale, None)

    def _dequantized(
        self,
        name: str,
        array: np.ndarray,
        spread: np.ndarray | np.float32,
        scale: np.ndarray | np.float32,
        axis: int | None,
    ) -> str:
        """An int8 constant and its DequantizeLinear; made once."""
        form = f"axis {axis}"
        known = self._names.get((form, f"{name}_dequantized"))
        if known is not None:
            return known
        result = self._name(f"{name}_dequantized", form)
        codes = np.clip(np.rint(array / spread), -HIGH, HIGH).astype(np.int8)
        scale = np.asarray(scale, np.float32)
        inputs = [self._constant(f"{name}_i8", codes, form), self._constant(f"{name}_scale", scale, form)]
        inputs.append(self._constant(f"{name}_zero", np.zeros(scale.shape, np.int8), form))
        node = helper.make_node("DequantizeLinear", inputs, [result])
        if scale.ndim:
            assert axis is not None
            node.attribute.append(helper.make_attribute("axis", axis))
        self.nodes.append(node)
        return result

    def _constant(self, wanted: str, value: np.ndarray | np.generic, role: str = "") -> str:
        made = (role, wanted) in self._names
        name = self._name(wanted, role)
        if not made:
            self.tensors.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _name(self, wanted: str, role: str = "") -> str:
        """`wanted`, or with a number behind it if the graph or another role has that name; the same at every call."""
        if (role, wanted) not in self._names:
            name = next(
                n for n in (wanted, *(f"{wanted}_{i}" for i in range(len(self._taken) + 1))) if n not in self._taken
            )
            self._taken.add(name)
            self._names[role, wanted] = name
        return self._names[role, wanted]
