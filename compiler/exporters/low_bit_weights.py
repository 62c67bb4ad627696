"""Writes the few-level weights of an ONNX model in low-bit ONNX forms: INT2 and INT4 QDQ, QCDQ, QONNX, MatMulNBits.

A weight goes over only if it holds few levels already (`passes/analysis/level_sets.py`), as floats or in another form;
nothing is quantised here. Readers of these forms are the lowerings of the graph level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from neuc.compiler.exporters.computed_weights import ComputedWeights
from neuc.compiler.importers.structure import all_nodes, display_type, subgraphs
from neuc.dialects.ternary_encodings import planes_of
from neuc.passes.analysis.level_sets import LevelFit, find_levels, obstacle

QONNX_DOMAIN = "qonnx.custom_op.general"
CONTRIB_DOMAIN = "com.microsoft"
NBITS_BLOCK = 32
"""Block size of MatMulNBits where the weights have one scale a row or tensor."""


@dataclass(frozen=True)
class Change:
    """What became of one weight.

    Attributes:
        node: the node that reads it.
        op_type: its operator.
        levels: the integers the weight is made of; empty if it was left alone.
        scale: `tensor`, `row` or `group<n>`; empty if it was left alone.
        ulp: the largest distance of level times scale from the weight, in units in the last place.
        kept: why it was left alone; empty if it was not.
    """

    node: str
    op_type: str
    levels: tuple[int, ...] = ()
    scale: str = ""
    ulp: int = 0
    kept: str = ""


def write_low_bit_weights(model: ModelProto, form: str) -> list[Change]:
    """Rewrite `model` in place; one record for each MatMul, Gemm, Conv and MatMulNBits with constant weights.

    Args:
        model: with its weights in it, checked, its nodes named, of an opset of 21 or newer (25 for ``int2-qdq``).
        form: one of `FORMS`.
    """
    writer = _Writer(model, form)
    changes: list[Change] = []
    for node, weight in list(writer.layers()):
        op_type = display_type(node)
        found = None if isinstance(weight, str) else find_levels(weight.matrix)
        if isinstance(weight, str):
            kept = weight
        elif found is None:
            kept = f"its weights {obstacle(weight.matrix)}"
        else:
            kept = _written(writer, node, weight, found)
        if found is None or kept:
            changes.append(Change(node.name, op_type, kept=kept))
        else:
            changes.append(Change(node.name, op_type, found.levels, str(found.scale), found.ulp))
    writer.finish()
    return changes


def _written(writer: _Writer, node: NodeProto, weight: _Weight, fit: LevelFit) -> str:
    """Write one weight; why not, and then nothing has changed."""
    before = NodeProto()
    before.CopyFrom(node)
    if node.op_type == "MatMulNBits":
        del node.input[2:], node.attribute[:]
        node.op_type, node.domain = "MatMul", ""
    kept = FORMS[writer.form](writer, node, weight, fit)
    if kept:
        node.CopyFrom(before)
    return kept


@dataclass(frozen=True)
class _Weight:
    """A constant second operand, or what a MatMulNBits holds.

    Attributes:
        name: the value.
        array: f32 as the node reads it.
        rows_first: whether its first axis is the outputs (Conv, Gemm with transB), else its last.
    """

    name: str
    array: np.ndarray
    rows_first: bool

    @property
    def matrix(self) -> np.ndarray:
        """F32 [N, K]."""
        flat = self.array.reshape(self.array.shape[0], -1) if self.rows_first else self.array.T
        return np.ascontiguousarray(flat)

    @property
    def row_axis(self) -> int:
        return 0 if self.rows_first else self.array.ndim - 1

    def placed(self, matrix: np.ndarray) -> np.ndarray:
        """[N, K] in the shape of the array."""
        return np.ascontiguousarray(matrix.reshape(self.array.shape) if self.rows_first else matrix.T)


@dataclass
class _Writer:
    model: ModelProto
    form: str
    made: dict[str, list[NodeProto]] = field(default_factory=dict)
    """New nodes, by the name of the node they go before."""
    domains: set[str] = field(default_factory=set)
    _names: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self._names = set(_names_in(self.graph, made=True))

    @property
    def graph(self) -> GraphProto:
        return self.model.graph

    def layers(self) -> Iterator[tuple[NodeProto, _Weight | str]]:
        """Layers with constant weights: those, or why they cannot be written."""
        computed = ComputedWeights(self.model)
        for node in self.graph.node:
            if (node.op_type, node.domain) == ("MatMulNBits", CONTRIB_DOMAIN):
                array = computed.packed(node)
                if array is None:
                    yield node, "neuc does not read this form of it"
                elif len(node.input) > 5 and node.input[5]:
                    yield node, "its bias is part of it"
                else:
                    yield node, _Weight(node.input[1], array, False)
            elif node.op_type in ("MatMul", "Gemm", "Conv") and not node.domain and len(node.input) > 1:
                array = computed.value(node.input[1])
                if array is not None:
                    yield node, _weight(node, array)
                elif node.op_type != "Conv" and computed.value(node.input[0]) is not None:
                    yield node, "its weight is the left operand"

    def constant(self, name: str, array: np.ndarray | np.generic) -> str:
        """A new initialiser; its name."""
        unique = self._unique(name)
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), unique))
        return unique

    def _unique(self, name: str) -> str:
        """`name`, with a number if a value or node has it."""
        unique = next(n for i in range(len(self._names) + 1) if (n := f"{name}_{i}" if i else name) not in self._names)
        self._names.add(unique)
        return unique

    def node(
        self, before: NodeProto, op_type: str, inputs: list[str], suffix: str, domain: str = "", **attrs: int | str
    ) -> str:
        """A new node before `before`; the name of its result."""
        output = self._unique(f"{before.name}_{suffix}")
        made = helper.make_node(op_type, inputs, [output], name=output, domain=domain, **attrs)  # type: ignore[arg-type]
        self.made.setdefault(before.name, []).append(made)
        return output

    def finish(self) -> None:
        """Put the new nodes in and drop the weights that nothing reads any more."""
        nodes: list[NodeProto] = []
        for node in self.graph.node:
            nodes += [*self.made.pop(node.name, []), node]
        read = {value.name for value in self.graph.output}
        kept: list[NodeProto] = []
        for node in reversed(nodes):  # what computed a weight that is written otherwise now goes
            if not read.isdisjoint(node.output):
                read.update(_reads(node))
                kept.append(NodeProto.FromString(node.SerializeToString()))
        del self.graph.node[:]
        self.graph.node.extend(reversed(kept))
        initializers = [t for t in self.graph.initializer if t.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(initializers)
        used = {node.domain for node in all_nodes(self.graph.node)}
        opsets = [opset for opset in self.model.opset_import if opset.domain in used or not opset.domain]
        known = {opset.domain for opset in opsets}
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted(self.domains - known)]
        del self.model.opset_import[:]
        self.model.opset_import.extend(opsets)


def _weight(node: NodeProto, array: np.ndarray) -> _Weight | str:
    """A layer's constant second operand, or why it cannot be written."""
    if array.dtype != np.float32:
        return f"its weight is {array.dtype}, not float32"
    if not array.size:
        return "its weight is empty"
    if node.op_type != "Conv" and array.ndim != 2:
        return f"its weight has rank {array.ndim}, not 2"
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return _Weight(node.input[1], array, node.op_type == "Conv" or transposed)


def _names_in(graph: GraphProto, *, made: bool) -> Iterator[str]:
    """Names of values that `graph` and the graphs in its nodes read or give; with `made` all others, and of nodes."""
    yield from (value.name for value in graph.output)
    if made:
        yield from (value.name for value in (*graph.input, *graph.initializer, *graph.value_info))
        yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        yield from _reads(node, made=made)
        if made:
            yield from (node.name, *node.output)


def _reads(node: NodeProto, *, made: bool = False) -> Iterator[str]:
    """Names that a node and the graphs in it read; with `made` all names in those."""
    yield from node.input
    for _, inner in subgraphs(node):
        yield from _names_in(inner, made=made)


def _scales(weight: _Weight, fit: LevelFit) -> tuple[np.ndarray, dict[str, int]]:
    """Scales as QuantizeLinear and DequantizeLinear take them, and their attributes."""
    scales = fit.scales[0]
    match fit.scale.kind.data:
        case "tensor":
            return scales.reshape(-1)[:1].reshape(()), {}
        case "row":
            return scales[:, 0], {"axis": weight.row_axis}
        case _:
            if weight.rows_first:
                return scales, {"axis": 1, "block_size": fit.scale.size.data}
            return np.ascontiguousarray(scales.T), {"axis": 0, "block_size": fit.scale.size.data}


def _within(fit: LevelFit, low: int, high: int, what: str) -> str:
    if fit.levels[0] < low or fit.levels[-1] > high:
        return f"{what} holds {low} to {high}, not the levels {list(fit.levels)}"
    return ""


def _blocked_conv(weight: _Weight, fit: LevelFit) -> str:
    if fit.scale.kind.data == "group" and weight.array.ndim > 2:
        return "scales per group of columns have no form for convolutions"
    return ""


def _qdq(dtype: type, low: int, high: int, what: str) -> Callable[[_Writer, NodeProto, _Weight, LevelFit], str]:
    def write(writer: _Writer, node: NodeProto, weight: _Weight, fit: LevelFit) -> str:
        if reason := _within(fit, low, high, what) or _blocked_conv(weight, fit):
            return reason
        scales, attrs = _scales(weight, fit)
        codes = writer.constant(f"{weight.name}_codes", weight.placed(fit.trits[0]).astype(dtype))
        scale = writer.constant(f"{weight.name}_scale", scales)
        node.input[1] = writer.node(node, "DequantizeLinear", [codes, scale], "dequantized", "", **attrs)
        return ""

    return write


def _qcdq(writer: _Writer, node: NodeProto, weight: _Weight, fit: LevelFit) -> str:
    if reason := _blocked_conv(weight, fit):
        return reason
    scales, attrs = _scales(weight, fit)
    values = writer.constant(f"{weight.name}_values", weight.placed(_values(fit)))
    scale = writer.constant(f"{weight.name}_scale", scales)
    zero = writer.constant(f"{weight.name}_zero", np.zeros(np.shape(scales), np.int8))
    bounds = [
        writer.constant(f"{weight.name}_{end}", np.int8(level))
        for end, level in (("low", fit.levels[0]), ("high", fit.levels[-1]))
    ]
    quantized = writer.node(node, "QuantizeLinear", [values, scale, zero], "quantized", "", **attrs)
    clipped = writer.node(node, "Clip", [quantized, *bounds], "clipped")
    node.input[1] = writer.node(node, "DequantizeLinear", [clipped, scale, zero], "dequantized", "", **attrs)
    return ""


def _values(fit: LevelFit) -> np.ndarray:
    """F32 [N, K]: levels times scales."""
    n, k = fit.trits.shape[1:]
    size = fit.scale.group_size(k)
    per_column = np.repeat(fit.scales[0], size, axis=1)[:, :k]
    return fit.trits[0].astype(np.float32) * per_column.reshape(n, k)


def _qonnx(writer: _Writer, node: NodeProto, weight: _Weight, fit: LevelFit) -> str:
    if fit.scale.kind.data == "group":
        return "a QONNX Quant has no scales per group of columns"
    scales, _ = _scales(weight, fit)
    if np.ndim(scales):
        shape = [1] * weight.array.ndim
        shape[weight.row_axis] = -1
        scales = np.reshape(scales, shape)
    writer.domains.add(QONNX_DOMAIN)
    values = writer.constant(f"{weight.name}_values", weight.placed(_values(fit)))
    scale = writer.constant(f"{weight.name}_scale", scales)
    if fit.levels == (-1, 1):
        node.input[1] = writer.node(node, "BipolarQuant", [values, scale], "quant", QONNX_DOMAIN)
        return ""
    most = max(-fit.levels[0] - 1, fit.levels[-1])
    bits = planes_of(range(most + 1)) + 1 if most else 2
    narrow = int(fit.levels[0] > -(1 << (bits - 1)))
    zero = writer.constant(f"{weight.name}_zero", np.zeros((), np.float32))
    width = writer.constant(f"{weight.name}_bits", np.float32(bits))
    inputs = [values, scale, zero, width]
    node.input[1] = writer.node(
        node, "Quant", inputs, "quant", QONNX_DOMAIN, signed=1, narrow=narrow, rounding_mode="ROUND"
    )
    return ""


def _matmul_nbits(bits: int) -> Callable[[_Writer, NodeProto, _Weight, LevelFit], str]:
    half = 1 << (bits - 1)

    def write(writer: _Writer, node: NodeProto, weight: _Weight, fit: LevelFit) -> str:
        if node.op_type != "MatMul":
            return f"MatMulNBits stands for MatMul, not {node.op_type}"
        if reason := _within(fit, -half, half - 1, f"MatMulNBits with {bits} bits"):
            return reason
        size = fit.scale.size.data if fit.scale.kind.data == "group" else NBITS_BLOCK
        if size < 16 or size & (size - 1):
            return f"MatMulNBits has blocks of 16, 32, 64 …, not of {size} columns"
        n, k = fit.trits.shape[1:]
        blocks = -(-k // size)
        codes = np.full((n, blocks * size), half, np.uint8)
        codes[:, :k] = fit.trits[0] + half
        per_byte = 8 // bits
        shifts = np.arange(per_byte, dtype=np.uint8) * bits
        packed = np.bitwise_or.reduce(codes.reshape(n, blocks, size // per_byte, per_byte) << shifts, axis=-1)
        scales = fit.scales[0] if fit.scale.kind.data == "group" else np.repeat(fit.scales[0], blocks, axis=1)
        writer.domains.add(CONTRIB_DOMAIN)
        inputs = [
            node.input[0],
            writer.constant(f"{weight.name}_blocks", packed.astype(np.uint8)),
            writer.constant(f"{weight.name}_scales", scales.reshape(n, blocks)),
        ]
        del node.input[:], node.attribute[:]
        node.input.extend(inputs)
        node.op_type, node.domain = "MatMulNBits", CONTRIB_DOMAIN
        attrs = {"K": k, "N": n, "bits": bits, "block_size": size}
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attrs.items())
        return ""

    return write


FORMS: dict[str, Callable[[_Writer, NodeProto, _Weight, LevelFit], str]] = {
    "int2-qdq": _qdq(ml_dtypes.int2, -2, 1, "INT2"),
    "int4-qdq": _qdq(ml_dtypes.int4, -8, 7, "INT4"),
    "qcdq": _qcdq,
    "qonnx": _qonnx,
    "matmul-2bits": _matmul_nbits(2),
    "matmul-4bits": _matmul_nbits(4),
}
"""Each writes one weight and returns why it cannot, or nothing."""
