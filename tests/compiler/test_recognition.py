"""Models whose weights hold few levels: equal to onnxruntime, native, and the report says what was kept."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import onnx_models as om
from neuc.compiler.api import Compiled
from neuc.compiler.api import compile as compile_model
from neuc.compiler.importers.onnx_file import import_onnx
from neuc.compiler.options import CompileOptions
from neuc.compiler.pipeline import float_passes, graph_passes
from neuc.compiler.report import LayerRow, Report
from neuc.compiler.report_text import report_lines
from neuc.compiler.universe import new_context
from neuc.dialects.interp.core import interpret
from neuc.dialects.onnx import OnnxOp
from neuc.passes.analysis.ternary_layers import QuantRecord, quantization_report
from neuc.passes.quantize_to_ternary import QuantizeToTernary

Array = np.ndarray
K, N, B = 64, 24, 5
SUMS = 2e-6
"""Relative L2 between two orders of summing K products in f32: √K roundings of 2^-24 each, and those of scales."""
CODES = 0.02
"""Relative L2 of activations rounded to 8 bits: rows of up to 4σ have steps of 4σ/127, whose error is 0.9 %."""
RNG = np.random.default_rng(11)
LIMITS = {"INT2": (-2, 1), "UINT2": (0, 3), "INT4": (-8, 7), "UINT4": (0, 15), "INT8": (-128, 127), "UINT8": (0, 255)}


def tensor(name: str, values: Array | int, kind: str) -> TensorProto:
    """An integer tensor of an ONNX type, packed as ONNX packs it."""
    array = np.asarray(values)
    return helper.make_tensor(name, TensorProto.DataType.Value(kind), array.shape, array.reshape(-1).astype(int))


def floats(name: str, values: Array | float) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.float32), name)


def model(nodes: Sequence[NodeProto], tensors: Sequence[TensorProto], domain: str = "") -> ModelProto:
    graph = helper.make_graph(nodes, "g", [om.value("x", ["B", K])], [om.value("y", ["B", N])], tensors)
    opsets = [helper.make_opsetid("", 25), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=13)


def contrib(op: str, inputs: str, output: str, domain: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs.split(), [output], "fc", None, domain, None, **attributes)


def some_input() -> Array:
    return np.random.default_rng(12).normal(size=(B, K)).astype(np.float32)


def results(compiled: Compiled, x: Array) -> Array:
    return compiled.session(threads=1).run(None, {"x": x})[0]


def interpreted(
    source: ModelProto, x: Array, *, recognize: bool = True, ternary: bool = False
) -> tuple[Array, QuantRecord]:
    """What the passes make of a model of one layer, which must be native, run in the interpreters; and the layer."""
    context = new_context()
    module = import_onnx(source, context)
    passes = [*graph_passes(), *float_passes(CompileOptions(recognize=recognize))]
    for step in [*passes, *([QuantizeToTernary()] if ternary else [])]:
        step.apply(context, module)
    module.verify()
    assert not any(isinstance(op, OnnxOp) for op in module.walk())
    (record,) = quantization_report(module, context.weights)
    return interpret(module, [x], context.weights)[0], record


def distance(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def only_layer(compiled: Compiled) -> LayerRow:
    (layer,) = compiled.report.layers
    assert compiled.report.hosts == []
    return layer


def dequantised(kind: str, sharing: str, levels: tuple[int, int] | None = None) -> ModelProto:
    """Weights [N, K] as DequantizeLinear and Transpose have them, with zero points."""
    low, high = levels or LIMITS[kind]
    shape = {"tensor": (), "axis": (N,), "block": (N, K // 16)}[sharing]
    where = {"tensor": {}, "axis": {"axis": 0}, "block": {"axis": 1, "block_size": 16}}[sharing]
    nodes = [
        om.node("DequantizeLinear", "w s z", "d", **where),
        om.node("Transpose", "d", "t", perm=[1, 0]),
        om.node("MatMul", "x t", "y", name="fc"),
    ]
    codes, zero = RNG.integers(low, high + 1, (N, K)), RNG.integers(low, high + 1, shape)
    return model(nodes, [tensor("w", codes, kind), floats("s", RNG.uniform(0.01, 0.1, shape)), tensor("z", zero, kind)])


def matmul_nbits(bits: int, zero: str) -> ModelProto:
    """onnxruntime's packed weights: blocks of 32 columns, zero points by default or packed."""
    block, blocks = 32, K // 32
    inputs, tensors = "x b s", list[TensorProto]()
    packed = RNG.integers(0, 256, (N, blocks, block * bits // 8))
    tensors = [tensor("b", packed, "UINT8"), floats("s", RNG.uniform(0.01, 0.1, (N, blocks)))]
    if zero == "packed":
        inputs += " z"
        tensors.append(tensor("z", RNG.integers(0, 256, (N, -(-blocks * bits // 8))), "UINT8"))
    node = contrib("MatMulNBits", inputs, "y", "com.microsoft", K=K, N=N, bits=bits, block_size=block)
    return model([node], tensors, "com.microsoft")


WEIGHT_ONLY = {
    "INT2 tensor": lambda: dequantised("INT2", "tensor"),
    "UINT2 axis": lambda: dequantised("UINT2", "axis"),
    "INT4 block": lambda: dequantised("INT4", "block"),
    "UINT4 axis": lambda: dequantised("UINT4", "axis"),
    "UINT8 few levels": lambda: dequantised("UINT8", "tensor", (7, 9)),
    "MatMulNBits 2": lambda: matmul_nbits(2, "default"),
    "MatMulNBits 2 zp": lambda: matmul_nbits(2, "packed"),
    "MatMulNBits 4 zp": lambda: matmul_nbits(4, "packed"),
}


@pytest.mark.parametrize("form", WEIGHT_ONLY)
def test_few_level_weights_with_float_activations(form: str) -> None:
    """Float where floats are asked for; exact weights and 8-bit activations where ternary kernels are."""
    source, x = WEIGHT_ONLY[form](), some_input()
    (expected,) = om.run(source, {"x": x})
    found, layer = interpreted(source, x)
    assert layer.source == "float"
    assert "levels (exactly), but its activations are float" in layer.kept_reason
    assert distance(found, expected) <= SUMS
    found, layer = interpreted(source, x, ternary=True)
    assert (layer.source, layer.ulp, layer.planes, layer.activations, layer.sqnr_db) == (
        "recognised",
        0,
        1,
        "neuc",
        None,
    )
    assert SUMS < distance(found, expected) <= CODES


def test_eight_bit_weights_stay_float_and_right() -> None:
    source, x = dequantised("INT8", "axis"), some_input()
    found, layer = interpreted(source, x)
    assert layer.source == "float"
    assert distance(found, om.run(source, {"x": x})[0]) <= SUMS


def test_a_budget_takes_exact_weights_in_one_plane() -> None:
    compiled = compile_model(dequantised("INT2", "axis"), "cpu-tl2", max_error=0.05)
    row = only_layer(compiled)
    assert (compiled.report.quantize, row.source, row.planes) == ("auto", "recognised", 1)
    assert row.note.endswith("exact; activations rounded by neuc")
    measured = compiled.report.measured
    assert measured is not None
    assert 0 < float(str(measured["error"])) <= CODES


ACTIVATIONS = {"INT8": 5, "UINT8": 7, "INT4": -3, "UINT4": 8, "UINT2": 1}


def through_codes(kind: str = "UINT8") -> ModelProto:
    """Ternary weights, and activations that go through codes of a type."""
    nodes = [
        om.node("DequantizeLinear", "w s", "d"),
        om.node("QuantizeLinear", "x step zero", "q"),
        om.node("DequantizeLinear", "q step zero", "back"),
        om.node("MatMul", "back d", "z", name="fc"),
        om.node("Add", "z b", "y"),
    ]
    low, high = LIMITS[kind]
    tensors = [
        tensor("w", RNG.integers(-1, 2, (K, N)), "INT2"),
        floats("s", 0.05),
        floats("step", 5 / (high - low)),
        tensor("zero", ACTIVATIONS[kind], kind),
        floats("b", RNG.normal(size=N)),
    ]
    return model(nodes, tensors)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_quantised_activations_and_weights(kind: str) -> None:
    """QuantizeLinear and DequantizeLinear around a layer, with zero points: integers, whatever the target."""
    source, x = through_codes(kind), some_input()
    (expected,) = om.run(source, {"x": x})
    found, layer = interpreted(source, x)
    assert (layer.source, layer.activations, layer.ulp, layer.levels) == ("recognised", "model", 0, (-1, 0, 1))
    assert distance(found, expected) <= SUMS
    found, layer = interpreted(source, x, recognize=False)
    assert layer.source == "float"
    assert distance(found, expected) <= SUMS


def test_quantised_activations_compiled() -> None:
    """Unsigned codes down to the machine's kernels, for a target that fixes the encoding and one that does not."""
    source, x = through_codes(), some_input()
    (expected,) = om.run(source, {"x": x})
    for target, encoding in (("cpu-tl2", "tl2"), ("cpu-ref", "i8")):
        compiled = compile_model(source, target)
        row = only_layer(compiled)
        assert (row.source, row.activations, row.encoding) == ("recognised", "model", encoding)
        assert distance(results(compiled, x), expected) <= SUMS


@pytest.mark.parametrize("kind", ["INT8", "UINT8"])
def test_qcdq(kind: str) -> None:
    """QuantizeLinear, Clip, DequantizeLinear: fewer levels than the type has, of weights and of activations."""
    centre = 0 if kind == "INT8" else 3
    nodes = [
        om.node("QuantizeLinear", "w s z", "wq"),
        om.node("Clip", "wq w_low w_high", "wc"),
        om.node("DequantizeLinear", "wc s z", "d"),
        om.node("QuantizeLinear", "x step z", "q"),
        om.node("Clip", "q low high", "c"),
        om.node("DequantizeLinear", "c step z", "back"),
        om.node("Gemm", "back d", "y", name="fc", transB=1),
    ]
    tensors = [floats("w", RNG.normal(size=(N, K))), floats("s", 0.8), floats("step", 0.3), tensor("z", centre, kind)]
    tensors += [tensor("w_low", centre - 1, kind), tensor("w_high", centre + 1, kind)]
    tensors += [tensor("low", 0 if kind == "UINT8" else -7, kind), tensor("high", 7, kind)]
    source, x = model(nodes, tensors), some_input()
    found, layer = interpreted(source, x)
    assert (layer.source, layer.activations, layer.levels) == ("recognised", "model", (-1, 0, 1))
    assert distance(found, om.run(source, {"x": x})[0]) <= SUMS


def test_qonnx() -> None:
    """onnxruntime has none of it: errors are then measured against the interpreters, and the report says so."""
    domain = "onnx.brevitas"
    nodes = [
        contrib("Quant", "w s none two", "d", domain, signed=1, narrow=1, rounding_mode="ROUND"),
        contrib("IntQuant", "x step none eight", "back", domain, signed=1, narrow=0, rounding_mode="ROUND"),
        om.node("MatMul", "back d", "y", name="fc"),
    ]
    w, x = RNG.normal(size=(K, N)).astype(np.float32), some_input()
    tensors = [floats("w", w), floats("s", 0.7), floats("step", 0.03), floats("none", 0), floats("two", 2)]
    source = model(nodes, [*tensors, floats("eight", 8)], domain)
    compiled = compile_model(source, "cpu-tl2")
    row = only_layer(compiled)
    assert (row.source, row.activations, row.levels) == ("recognised", "model", (-1, 0, 1))
    assert any(hint.startswith("errors are measured against neuc's interpreters") for hint in compiled.report.hints)
    measured = compiled.report.measured
    assert measured is not None
    assert float(str(measured["error"])) <= SUMS
    step, scale = np.float32(0.03), np.float32(0.7)
    codes = np.round(np.clip(x / step, -128, 127)) * step
    expected = codes @ (np.round(np.clip(w / scale, -1, 1)) * scale)
    assert distance(results(compiled, x), expected) <= SUMS


def test_the_report_says_what_was_recognised() -> None:
    nodes = [
        om.node("Clip", "x low high", "inside"),
        om.node("Round", "inside", "codes"),
        om.node("MatMul", "codes w", "h", name="fc1"),
        om.node("MatMul", "h v", "y", name="fc2"),
    ]
    w = RNG.integers(-1, 2, (K, K)).astype(np.float32) * np.float32(0.3)
    tensors = [floats("low", -128), floats("high", 127), floats("w", w * np.float32(1 + 2**-22))]
    source = model(nodes, [*tensors, floats("v", RNG.normal(size=(K, N)))])
    compiled = compile_model(source, "cpu")
    text = "\n".join(report_lines(compiled.report))
    assert "recognised, 3 levels, exact" in text
    assert "ternary: 72.7% of the layers' weights" in text  # K·K of K·K + K·N
    first, second = Report.from_json(json.loads(json.dumps(compiled.report.to_json()))).layers
    assert (first.source, first.levels, first.ulp) == ("recognised", (-1, 0, 1), 0)
    assert (second.source, second.levels, second.ulp) == ("float", (), None)
