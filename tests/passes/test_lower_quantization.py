"""Lowered quantisation nodes compute what onnxruntime and QONNX's definition say; constant weights are exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from xdsl.dialects.builtin import ModuleOp

import onnx_models as om
from neuc.compiler.importers.onnx_file import import_onnx
from neuc.compiler.universe import new_context
from neuc.dialects.dense import MatMulOp
from neuc.dialects.interp.core import interpret
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.store import constant_value
from neuc.dialects.weight_store import WeightStore
from neuc.passes.lower_onnx_to_dense import LowerOnnxToDense, lowering_reason
from neuc.passes.onnx_lowerings import qonnx
from qonnx_reference import evaluate

# One product of up to 96 terms of size 1, summed in another order in f32.
TOLERANCE = 2e-5
QONNX = qonnx.DOMAINS[0]
FOREIGN = ("Quant", "IntQuant", "BipolarQuant", "MatMulNBits")
RNG = np.random.default_rng(3)


Node = tuple[str, str, str, dict[str, object]]
"""Operator, inputs, outputs, attributes."""


def model_of(
    nodes: Sequence[Node],
    shape: tuple[int | str, ...],
    weights: Mapping[str, np.ndarray | TensorProto],
    *,
    domain: str = "",
    opset: int = 25,
    number: int = TensorProto.FLOAT,
    made_number: int = TensorProto.FLOAT,
) -> ModelProto:
    """A model from x to y; operators that ONNX does not have are in `domain`."""
    made = [
        helper.make_node(op, read.split(), [result], None, None, domain if op in FOREIGN else "", None, **attributes)
        for op, read, result, attributes in nodes
    ]
    tensors = [
        w if isinstance(w, TensorProto) else numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items()
    ]
    graph = helper.make_graph(made, "g", [om.value("x", shape, number)], [om.value("y", None, made_number)], tensors)
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=13 if opset > 24 else 10)


def lowered(model: ModelProto) -> tuple[ModuleOp, WeightStore, list[str | None]]:
    """The module, its weights and why nodes stayed."""
    ctx = new_context()
    module = import_onnx(model, ctx)
    LowerOnnxToDense().apply(ctx, module)
    module.verify()
    return module, ctx.weights, [lowering_reason(op) for op in module.walk() if isinstance(op, OnnxOp)]


def ours(model: ModelProto, x: np.ndarray) -> np.ndarray:
    module, store, reasons = lowered(model)
    assert reasons == []
    return interpret(module, [x], store)[0]


def weights_of(model: ModelProto) -> np.ndarray:
    """The constant that the only matrix product reads."""
    module, store, reasons = lowered(model)
    assert reasons == []
    (product,) = (op for op in module.walk() if isinstance(op, MatMulOp))
    found = constant_value(product.b, store)
    assert found is not None
    return found


def x_of(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


SCALES = {"tensor": np.array(0.07, np.float32), "rows": np.array([0.1, 0.02, 0.3], np.float32)}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("with_zero", [False, True])
def test_codes_computed_at_run_time(scale: str, with_zero: bool) -> None:
    step = SCALES[scale]
    zero = np.full(step.shape, -5 if with_zero else 0, np.int8)
    nodes: list[Node] = [
        ("QuantizeLinear", "x s z", "q", {"axis": 1}),
        ("Clip", "q low high", "c", {}),
        ("DequantizeLinear", "c s z" if with_zero else "c s", "y", {"axis": 1}),
    ]
    limits = {"low": np.array(-100, np.int8), "high": np.array(90, np.int8)}
    model = model_of(nodes, ("N", 3, 8), {"s": step, "z": zero, **limits})
    x = 4 * x_of(5, 3, 8)
    x[0, 0, :4] = [0.35, -0.35, 1e9, -1e9]
    np.testing.assert_array_equal(ours(model, x), om.run(model, {"x": x})[0])


@pytest.mark.parametrize("number", [TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32])
def test_dequantised_inputs(number: int) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(number)
    model = model_of([("DequantizeLinear", "x s", "y", {})], ("N", 6), {"s": np.array(0.1, np.float32)}, number=number)
    x = RNG.integers(0, 120, (4, 6)).astype(dtype)
    np.testing.assert_array_equal(ours(model, x), om.run(model, {"x": x})[0])


def test_quantisation_to_unsigned_bytes_stays_and_says_so() -> None:
    weights = {"s": np.array(0.1, np.float32), "z": np.array(3, np.uint8)}
    node: Node = ("QuantizeLinear", "x s z", "y", {})
    _, _, reasons = lowered(model_of([node], ("N", 6), weights, made_number=TensorProto.UINT8))
    assert reasons == ["quantisation to ui8 for others than DequantizeLinear"]


@pytest.mark.parametrize("element", ["INT2", "UINT2", "INT4", "UINT4"])
@pytest.mark.parametrize("columns", [8, 7])
def test_small_integer_weights_are_exact(element: str, columns: int) -> None:
    number = TensorProto.DataType.Value(element)
    bits, signed = int(element[-1]), element.startswith("I")
    codes = RNG.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (16, columns)) + (0 if signed else 2 ** (bits - 1))
    codes[0] = codes.min()  # the end of the range occurs
    zero = 1 if signed else 2 ** (bits - 1)
    scale = np.array(0.3, np.float32)
    weights: dict[str, np.ndarray | TensorProto] = {
        "w": helper.make_tensor("w", number, codes.shape, codes.reshape(-1).tolist()),
        "z": helper.make_tensor("z", number, (), [zero]),
        "s": scale,
    }
    nodes: list[Node] = [("DequantizeLinear", "w s z", "d", {}), ("MatMul", "x d", "y", {})]
    model = model_of(nodes, ("N", 16), weights)
    np.testing.assert_array_equal(weights_of(model), (codes - zero).astype(np.float32) * scale)
    x = x_of(3, 16)
    if element != "UINT2":  # onnxruntime 1.31 has no such kernel
        np.testing.assert_allclose(ours(model, x), om.run(model, {"x": x})[0], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("axis", [0, 1])
def test_blocks_of_constant_weights(axis: int) -> None:
    scales = RNG.random((6, 4) if axis else (3, 8)).astype(np.float32) + 0.5
    codes = RNG.integers(-8, 8, (6, 8)).astype(np.int8)
    nodes: list[Node] = [("DequantizeLinear", "w s", "d", {"axis": axis, "block_size": 2}), ("MatMul", "x d", "y", {})]
    model = model_of(nodes, ("N", 6), {"w": codes, "s": scales}, opset=21)
    np.testing.assert_array_equal(weights_of(model), codes * np.repeat(scales, 2, axis))
    x = x_of(3, 6)
    np.testing.assert_allclose(ours(model, x), om.run(model, {"x": x})[0], rtol=TOLERANCE, atol=TOLERANCE)


def test_quantised_clipped_dequantised_weights() -> None:
    w, scale, zero = x_of(8, 6), np.array(0.8, np.float32), np.array(0, np.int8)
    nodes: list[Node] = [
        ("QuantizeLinear", "w s z", "q", {}),
        ("Clip", "q low high", "c", {}),
        ("DequantizeLinear", "c s z", "d", {}),
        ("Gemm", "x d", "y", {"transB": 1}),
    ]
    limits = {"low": np.array(-1, np.int8), "high": np.array(1, np.int8)}
    model = model_of(nodes, ("N", 6), {"w": w, "s": scale, "z": zero, **limits})
    np.testing.assert_array_equal(weights_of(model), np.clip(np.rint(w / scale), -1, 1) * scale)


@pytest.mark.parametrize(("element", "limits"), [("INT4", (-8, 7)), ("UINT4", (0, 15))])
def test_weights_quantised_to_types_that_numpy_lacks(element: str, limits: tuple[int, int]) -> None:
    w, scale = x_of(8, 6), np.array(0.3, np.float32)
    zero = helper.make_tensor("z", TensorProto.DataType.Value(element), (), [5])
    nodes: list[Node] = [
        ("QuantizeLinear", "w s z", "q", {}),
        ("DequantizeLinear", "q s z", "d", {}),
        ("Gemm", "x d", "y", {"transB": 1}),
    ]
    wanted = (np.clip(np.rint(w / scale) + 5, *limits) - 5).astype(np.float32) * scale
    np.testing.assert_array_equal(weights_of(model_of(nodes, ("N", 6), {"w": w, "s": scale, "z": zero})), wanted)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero", ["default", "packed", "float"])
@pytest.mark.parametrize(("n", "k", "block"), [(5, 64, 32), (3, 96, 16), (4, 70, 32)])
def test_matmul_nbits(bits: int, zero: str, n: int, k: int, block: int) -> None:
    blocks = -(-k // block)
    codes = RNG.integers(0, 2**bits, (n, blocks * block))
    scales = (RNG.random((n, blocks)) + 0.5).astype(np.float32)
    offsets = RNG.integers(0, 2**bits, (n, blocks))
    weights = {"w": packed(codes, bits).reshape(n, blocks, -1), "s": scales}
    match zero:
        case "packed":
            weights["z"] = packed(offsets, bits)
        case "float":
            weights["z"] = offsets.astype(np.float32)
        case _:
            offsets = np.full((n, blocks), 2 ** (bits - 1))
    node: Node = ("MatMulNBits", " ".join(["x", *weights]), "y", {"N": n, "K": k, "bits": bits, "block_size": block})
    model = model_of([node], ("N", 2, k), weights, domain="com.microsoft", opset=20)
    wanted = ((codes - np.repeat(offsets, block, 1)).astype(np.float32) * np.repeat(scales, block, 1))[:, :k]
    np.testing.assert_array_equal(weights_of(model), wanted)
    x = x_of(3, 2, k)
    result = ours(model, x)
    # Weights of up to 1.5 · 2^bits and activations of up to 4: errors scale with the sum of magnitudes.
    bound = TOLERANCE * np.max(np.abs(x) @ np.abs(wanted.T))
    np.testing.assert_allclose(result, x @ wanted.T, rtol=0, atol=bound)
    if bits != 8 or zero != "float":  # onnxruntime's own combination of these is not there
        np.testing.assert_allclose(result, om.run(model, {"x": x})[0], rtol=0, atol=bound)


def test_matmul_nbits_of_a_vector() -> None:
    weights = {"w": RNG.integers(0, 256, (5, 2, 16)).astype(np.uint8), "s": np.ones((5, 2), np.float32)}
    node: Node = ("MatMulNBits", "x w s", "y", {"N": 5, "K": 64, "bits": 4, "block_size": 32})
    model, x = model_of([node], (64,), weights, domain="com.microsoft", opset=20), x_of(64)
    (expected,) = om.run(model, {"x": x})
    # Weights of up to 8: errors scale with the sum of magnitudes.
    np.testing.assert_allclose(ours(model, x), expected, rtol=0, atol=TOLERANCE * 8 * np.abs(x).sum())


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Bytes of codes [rows, any], each row padded to whole bytes, low bits first."""
    per_byte = 8 // bits
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % per_byte))).reshape(len(codes), -1, per_byte)
    return np.bitwise_or.reduce(padded << (bits * np.arange(per_byte)), axis=-1).astype(np.uint8)


def test_matmul_nbits_of_wrong_size_stays_and_says_so() -> None:
    weights = {"w": np.zeros((5, 2, 8), np.uint8), "s": np.ones((5, 3), np.float32)}
    node: Node = ("MatMulNBits", "x w s", "y", {"N": 5, "K": 64, "bits": 2, "block_size": 32})
    _, _, reasons = lowered(model_of([node], ("N", 64), weights, domain="com.microsoft", opset=20))
    assert reasons == ["80 bytes of codes and 15 scales for N = 5, K = 64"]


MODES = ("ROUND", "half_even", "FLOOR", "CEIL", "DOWN", "UP", "HALF_UP", "HALF_DOWN", "ROUND_TO_ZERO")
SPANS = [(2, 1, 1), (2, 1, 0), (8, 1, 0), (8, 1, 1), (4, 0, 0), (4, 0, 1), (1, 0, 0), (1, 1, 1)]
"""(bits, signed, narrow)"""


def quant_model(op: str, of: str, bits: int, attributes: Mapping[str, object], domain: str = QONNX) -> ModelProto:
    """Quant of the input x, or of the constant w, which x is multiplied by then."""
    quant = (op, f"{of} s z b", "q", dict(attributes))
    last = ("Mul", "x q", "y", dict[str, object]()) if of == "w" else ("Identity", "q", "y", dict[str, object]())
    weights: dict[str, np.ndarray] = {
        "w": grid()[0],
        "s": np.array(0.25, np.float32),
        "z": np.array(0, np.float32),
        "b": np.array(bits, np.float32),
    }
    return model_of([quant, last], ("N", 64), weights, domain=domain)


def grid() -> np.ndarray:
    """Multiples of an eighth from -4 on: with a scale of 1/4, halves among them."""
    return (np.arange(64, dtype=np.float32) - 32)[None] / 8


@pytest.mark.parametrize("of", ["x", "w"])
@pytest.mark.parametrize("mode", MODES)
def test_quant_rounds_as_its_mode_says(mode: str, of: str) -> None:
    model = quant_model("Quant", of, 4, {"signed": 1, "narrow": 0, "rounding_mode": mode})
    x = grid() if of == "x" else np.ones((2, 64), np.float32)
    np.testing.assert_array_equal(ours(model, x), evaluate(model, {"x": x})[0])


@pytest.mark.parametrize("of", ["x", "w"])
@pytest.mark.parametrize(("bits", "signed", "narrow"), SPANS)
def test_quant_clips_to_its_range(bits: int, signed: int, narrow: int, of: str) -> None:
    model = quant_model("IntQuant", of, bits, {"signed": signed, "narrow": narrow})
    x = 10 * grid() if of == "x" else np.ones((2, 64), np.float32)
    result = ours(model, x)
    np.testing.assert_array_equal(result, evaluate(model, {"x": x})[0])
    assert len(np.unique(result)) <= 2**bits


@pytest.mark.parametrize("domain", qonnx.DOMAINS)
def test_every_domain_of_the_operators(domain: str) -> None:
    model = quant_model("Quant", "x", 2, {"signed": 1, "narrow": 1}, domain)
    levels = np.unique(ours(model, grid()))
    np.testing.assert_array_equal(levels, np.array([-0.25, 0, 0.25], np.float32))


@pytest.mark.parametrize("of", ["x", "w"])
def test_bipolar_quant(of: str) -> None:
    nodes: list[Node] = [
        ("BipolarQuant", f"{of} s", "q", {}),
        ("MatMul", "x q", "y", {}) if of == "w" else ("Neg", "q", "y", {}),
    ]
    weights = {"w": np.append(x_of(8, 5), np.zeros((1, 5), np.float32), 0), "s": np.array(0.5, np.float32)}
    model = model_of(nodes, ("N", 9), weights, domain=QONNX)
    if of == "w":
        np.testing.assert_array_equal(weights_of(model), np.where(weights["w"] >= 0, np.float32(0.5), np.float32(-0.5)))
    x = x_of(3, 9)
    np.testing.assert_allclose(ours(model, x), evaluate(model, {"x": x})[0], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("bits", "attributes", "reason"),
    [(3, {"rounding_mode": "STOCHASTIC"}, "rounding_mode STOCHASTIC"), (30, {}, "30 bits"), (0, {}, "0 bits")],
)
def test_quant_that_cannot_be_says_so(bits: int, attributes: dict[str, object], reason: str) -> None:
    _, _, reasons = lowered(quant_model("Quant", "x", bits, attributes))
    assert reasons == [reason]
