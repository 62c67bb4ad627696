"""The digits classifier as ONNX files in the forms that tools write: QONNX, INT2, QCDQ, MatMulNBits.

Built from codes and scales with numpy and onnx alone. What `torch.onnx.export` writes itself is in `export.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

QONNX = "qonnx.custom_op.general"
CONTRIB = "com.microsoft"
BLOCK = 32
"""Columns that share a scale in MatMulNBits."""


@dataclass(frozen=True)
class Layer:
    """A quantised linear layer.

    Attributes:
        codes: int8 [N, K] in {-1, 0, 1}.
        scale: f32 (), the weights are codes · scale.
        gain: f32 [K], of the RMSNorm in front.
        master: f32 [N, K], the weights before they were quantised.
    """

    codes: np.ndarray
    scale: np.ndarray
    gain: np.ndarray
    master: np.ndarray


@dataclass
class Graph:
    """Nodes and initializers of a model that is being written."""

    nodes: list[NodeProto] = field(default_factory=list[NodeProto])
    initializers: dict[str, TensorProto] = field(default_factory=dict[str, TensorProto])

    def node(self, op: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: object) -> str:
        """Add a node that is named after its result; returns the result."""
        self.nodes.append(helper.make_node(op, inputs, [output], output, None, domain, None, **attributes))
        return output

    def constant(self, name: str, values: np.ndarray | float | int, dtype: type = np.float32) -> str:
        """Add an initializer, or find that of the same name."""
        array = values if isinstance(values, np.ndarray) else np.array(values, dtype)
        self.initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def model(self, opset: int, domains: Sequence[str], widths: tuple[int, int]) -> ModelProto:
        """The whole as a model from `pixels` [batch, K] to `logits` [batch, N]."""
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
            for name, width in zip(("pixels", "logits"), widths, strict=True)
        ]
        graph = helper.make_graph(self.nodes, "digits", ends[:1], ends[1:], [*self.initializers.values()])
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=13 if opset > 24 else 10)


Activations = Callable[[Graph, str, str], str]
"""(graph, value, name of the layer) → the value on a grid of 8 bits."""
Product = Callable[[Graph, str, str, Layer], str]
"""(graph, activations, name of the layer, layer) → activations times weights."""


def rms_norm(g: Graph, x: str, name: str, gain: np.ndarray) -> str:
    """RMSNorm as torch 2.13 exports it below opset 23."""
    square = g.node("Pow", [x, g.constant("two", 2.0)], f"{name}_square")
    mean = g.node("ReduceMean", [square, g.constant("last_axis", np.array([-1]))], f"{name}_mean")
    root = g.node("Sqrt", [g.node("Add", [mean, g.constant("eps", 1e-6)], f"{name}_sum")], f"{name}_root")
    scaled = g.node("Mul", [x, g.node("Reciprocal", [root], f"{name}_rstd")], f"{name}_scaled")
    return g.node("Mul", [scaled, g.constant(f"{name}_gain", gain)], f"{name}_norm")


def _largest(g: Graph, x: str, name: str) -> str:
    absolute = g.node("Abs", [x], f"{name}_abs")
    largest = g.node("ReduceMax", [absolute, g.constant("last_axis", np.array([-1]))], f"{name}_max")
    return g.node("Clip", [largest, g.constant("least", 1e-5)], f"{name}_clamped")


def absmax_chain(g: Graph, x: str, name: str) -> str:
    """Activations as in `fake_quant.onnx`: times 127 / max|x|, rounded, clipped, divided again."""
    inverse = g.node("Reciprocal", [_largest(g, x, name)], f"{name}_inverse")
    a = g.node("Mul", [inverse, g.constant("steps", 127.0)], f"{name}_a")
    rounded = g.node("Round", [g.node("Mul", [x, a], f"{name}_times_a")], f"{name}_rounded")
    q = g.node("Clip", [rounded, g.constant("low", -128.0), g.constant("high", 127.0)], f"{name}_q")
    return g.node("Div", [q, a], f"{name}_xq")


def quant_node(op: str) -> Activations:
    """Activations through a QONNX node of 8 bits whose scale is max|x| / 127."""

    def write(g: Graph, x: str, name: str) -> str:
        scale = g.node("Div", [_largest(g, x, name), g.constant("steps", 127.0)], f"{name}_step")
        return _quant(g, op, x, scale, 8, narrow=0, output=f"{name}_xq")

    return write


def _quant(g: Graph, op: str, x: str, scale: str, bits: int, *, narrow: int, output: str) -> str:
    inputs = [x, scale, g.constant("zero", 0.0), g.constant(f"bits_{bits}", float(bits))]
    return g.node(op, inputs, output, QONNX, signed=1, narrow=narrow, rounding_mode="ROUND")


def _gemm(g: Graph, x: str, weights: str, name: str) -> str:
    return g.node("Gemm", [x, weights], f"{name}_product", transB=1)


def quant_weights(op: str) -> Product:
    """QONNX `Quant` or `IntQuant` of 2 bits, narrow, on the weights from before quantisation."""

    def write(g: Graph, x: str, name: str, layer: Layer) -> str:
        w, scale = g.constant(f"{name}_weight", layer.master), g.constant(f"{name}_scale", layer.scale)
        return _gemm(g, x, _quant(g, op, w, scale, 2, narrow=1, output=f"{name}_wq"), name)

    return write


def bipolar_weights(g: Graph, x: str, name: str, layer: Layer) -> str:
    """QONNX `BipolarQuant` on weights that hold only signs."""
    w, scale = g.constant(f"{name}_weight", layer.codes.astype(np.float32)), g.constant(f"{name}_scale", layer.scale)
    return _gemm(g, x, g.node("BipolarQuant", [w, scale], f"{name}_wq", QONNX), name)


def int2_weights(g: Graph, x: str, name: str, layer: Layer) -> str:
    """INT2 initializer, four codes to a byte from the low bits on, and DequantizeLinear."""
    codes = layer.codes.reshape(-1, 4).astype(np.uint8) & 3
    packed = codes[:, 0] | codes[:, 1] << 2 | codes[:, 2] << 4 | codes[:, 3] << 6
    tensor = helper.make_tensor(f"{name}_weight", TensorProto.INT2, layer.codes.shape, packed.tobytes(), raw=True)
    g.initializers[tensor.name] = tensor
    scale = g.constant(f"{name}_scale", layer.scale)
    return _gemm(g, x, g.node("DequantizeLinear", [tensor.name, scale], f"{name}_wq"), name)


def qcdq_weights(g: Graph, x: str, name: str, layer: Layer) -> str:
    """QuantizeLinear → Clip(-1, 1) → DequantizeLinear with int8 between, as Brevitas exports."""
    w, scale = g.constant(f"{name}_weight", layer.master), g.constant(f"{name}_scale", layer.scale)
    zero = g.constant("zero_point", 0, np.int8)
    codes = g.node("QuantizeLinear", [w, scale, zero], f"{name}_codes")
    limits = [g.constant("minus_one", -1, np.int8), g.constant("one", 1, np.int8)]
    narrow = g.node("Clip", [codes, *limits], f"{name}_narrow")
    return _gemm(g, x, g.node("DequantizeLinear", [narrow, scale, zero], f"{name}_wq"), name)


def blocks_of(bits: int) -> Product:
    """MatMulNBits: unsigned codes around 2^(bits-1), a scale for each 32 columns, here all equal."""

    def write(g: Graph, x: str, name: str, layer: Layer) -> str:
        n, k = layer.codes.shape
        per_byte = 8 // bits
        codes = (layer.codes + 2 ** (bits - 1)).astype(np.uint8).reshape(n, k // BLOCK, BLOCK // per_byte, per_byte)
        packed = np.bitwise_or.reduce(codes << (bits * np.arange(per_byte, dtype=np.uint8)), axis=-1)
        inputs = [
            x,
            g.constant(f"{name}_weight", packed),
            g.constant(f"{name}_scales", np.full((n, k // BLOCK), layer.scale, np.float32)),
        ]
        return g.node("MatMulNBits", inputs, f"{name}_product", CONTRIB, K=k, N=n, bits=bits, block_size=BLOCK)

    return write


@dataclass(frozen=True)
class Form:
    """How one file carries the classifier."""

    activations: Activations
    product: Product
    opset: int = 20
    domains: tuple[str, ...] = ()


TERNARY_FORMS = {
    "qonnx_quant": Form(quant_node("Quant"), quant_weights("Quant"), domains=(QONNX,)),
    "qonnx_int_quant": Form(quant_node("IntQuant"), quant_weights("IntQuant"), domains=(QONNX,)),
    "int2_qdq": Form(absmax_chain, int2_weights, opset=25),
    "qcdq": Form(absmax_chain, qcdq_weights),
    "matmul_2bit": Form(absmax_chain, blocks_of(2), domains=(CONTRIB,)),
    "matmul_4bit": Form(absmax_chain, blocks_of(4), domains=(CONTRIB,)),
}
BINARY_FORMS = {"binary_qonnx": Form(quant_node("Quant"), bipolar_weights, domains=(QONNX,))}


def write_form(form: Form, layers: Sequence[Layer]) -> ModelProto:
    """The classifier in one form."""
    g, value = Graph(), "pixels"
    for index, layer in enumerate(layers):
        name = f"layer{index}"
        if index:
            value = g.node("Relu", [value], f"{name}_relu")
        x = form.activations(g, rms_norm(g, value, name, layer.gain), name)
        value = form.product(g, x, name, layer)
    g.nodes[-1].output[0] = "logits"
    widths = layers[0].codes.shape[1], layers[-1].codes.shape[0]
    return g.model(form.opset, form.domains, widths)
