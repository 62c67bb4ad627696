"""Errors layer by layer: an error shows where it is, nothing shows where there is none, and the report tells both."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from xdsl.rewriter import InsertPoint, Rewriter

from neuc.compiler import api, layer_errors
from neuc.compiler.cli import main
from neuc.compiler.layer_errors import FloatLayers, LayerErrors
from neuc.compiler.options import CompileOptions
from neuc.compiler.report import LayerRow
from neuc.dialects.dense import MatMulOp
from neuc.dialects.store import constant_value, make_constant
from neuc.errors import Exit
from neuc.passes.analysis.ternary_layers import layers

SAME = 0.02
"""Two ways to the same error differ by rounding of activations the other way, here and there: less than this share."""


def chain(count: int = 3, *, rows: int | str = "N", bias: np.ndarray | None = None, host: bool = False) -> ModelProto:
    """`count` products with ReLUs between; the last takes `bias` in place of its ReLU; `host` adds a rare operator."""
    rng = np.random.default_rng(3)
    nodes: list[onnx.NodeProto] = []
    weights: list[TensorProto] = []
    value = "x"
    for i in range(count):
        weights.append(numpy_helper.from_array(rng.standard_normal((64, 64)).astype(np.float32) / 8, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{i}"], [f"m{i}"], name=f"layer{i}"))
        nodes.append(helper.make_node("Relu", [f"m{i}"], [f"r{i}"], name=f"relu{i}"))
        value = f"r{i}"
    if bias is not None:
        weights.append(numpy_helper.from_array(bias, "b"))
        nodes[-2:] = [helper.make_node("Gemm", [nodes[-2].input[0], f"w{count - 1}", "b"], ["sum"], name="gemm")]
        value = "sum"
    if host:
        weights.append(numpy_helper.from_array(np.array([-1, 8, 8]), "shape"))
        nodes.append(helper.make_node("Reshape", [value, "shape"], ["square"], name="reshape"))
        nodes.append(helper.make_node("Det", ["square"], ["det"], name="det"))
        value = "det"
    shape = [rows] if host else [rows, 64]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 64])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def lowered(model: ModelProto) -> api.Compiled:
    """The float model as operations on tensors."""
    return api.compile_model(model, CompileOptions(quantize="none"), to_level="paradigm")


def rows_of(model: ModelProto, **options: object) -> tuple[dict[str, LayerRow], api.Compiled]:
    compiled = api.compile(model, "cpu-tl2", **options)  # pyright: ignore[reportArgumentType]
    return {row.node: row for row in compiled.report.layers}, compiled


def test_an_error_in_one_layers_weights_shows_at_that_layer():
    dense = lowered(chain())
    feed = {"x": np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)}
    measured = FloatLayers(dense.module, dense.context, [feed], "test data")
    assert measured.compare(dense.module).errors == {"layer0": 0, "layer1": 0, "layer2": 0}
    changed = dense.module.clone()
    layer = dict(layers(changed))["layer1"]
    assert isinstance(layer, MatMulOp)
    weights = constant_value(layer.b, dense.context.weights)
    assert weights is not None
    wrong = weights.copy()
    wrong[:, :32] *= 3
    constant = make_constant("wrong", wrong, dense.context.weights)
    Rewriter.insert_op(constant, InsertPoint.before(layer))
    layer.operands[1] = constant.result
    found = measured.compare(changed)
    hidden = np.maximum(feed["x"] @ _weights(0), 0)
    right, off = (np.maximum(hidden @ w, 0) for w in (weights, wrong))
    assert found.errors["layer0"] == 0
    assert found.errors["layer1"] == pytest.approx(np.linalg.norm(off - right) / np.linalg.norm(right), rel=SAME)
    assert found.errors["layer2"] > 0.1
    assert found.basis.endswith("on test data")


def test_beside_the_compilation_the_last_module_counts():
    dense = lowered(chain())
    feed = {"x": np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)}
    changed = dense.module.clone()
    layer = dict(layers(changed))["layer2"]
    assert isinstance(layer, MatMulOp)
    constant = make_constant("zeros", np.zeros((64, 64), np.float32), dense.context.weights)
    Rewriter.insert_op(constant, InsertPoint.before(layer))
    layer.operands[1] = constant.result
    with LayerErrors(dense.module, dense.context, [feed], "test data") as errors:
        errors.compare(dense.module)
        errors.compare(changed)
        assert errors.result().errors == {"layer0": 0, "layer1": 0, "layer2": 1}


def _weights(index: int) -> np.ndarray:
    return numpy_helper.to_array(chain().graph.initializer[index])


def test_the_error_of_a_models_only_layer_is_the_models_error():
    rows, compiled = rows_of(chain(1), quantize="ternary", planes=2)
    measured = compiled.report.measured
    assert measured is not None
    assert rows["layer0"].error == pytest.approx(measured["relative_l2"], rel=SAME)
    assert rows["layer0"].error != 0


def test_errors_add_up_from_layer_to_layer_and_fall_with_planes():
    few, _ = rows_of(chain(), quantize="ternary", planes=1)
    many, _ = rows_of(chain(), quantize="ternary", planes=4)
    for i in range(3):
        (a, b) = few[f"layer{i}"].error, many[f"layer{i}"].error
        assert a is not None
        assert b is not None
        assert 0 < b < a / 5
    errors = [few[f"layer{i}"].error or 0 for i in range(3)]
    assert errors == sorted(errors)


def test_a_float_compilation_has_no_errors_to_tell():
    rows, compiled = rows_of(chain(), quantize="none")
    assert [row.error for row in rows.values()] == [None] * 3
    assert compiled.report.layer_errors == ""


def test_a_bias_that_is_no_vector_belongs_to_its_layer():
    bias = 50 * np.random.default_rng(5).standard_normal((4, 64)).astype(np.float32)
    rows, compiled = rows_of(chain(1, rows=4, bias=bias), quantize="ternary", planes=2)
    measured = compiled.report.measured
    assert measured is not None
    assert rows["gemm"].error == pytest.approx(measured["relative_l2"], rel=SAME)


def test_models_with_host_segments_are_measured_too():
    rows, compiled = rows_of(chain(host=True), quantize="ternary", planes=2)
    assert [row.node for row in compiled.report.hosts] == ["det"]
    assert all(row.error for row in rows.values())


def test_inputs_are_cut_to_what_is_affordable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layer_errors, "MEANT", 2 * 3 * 64 * 64)
    rows, compiled = rows_of(chain(), quantize="ternary", planes=2)
    assert compiled.report.layer_errors.endswith("on 2 of 4 rows of made-up inputs")
    assert all(row.error for row in rows.values())


def test_what_is_too_expensive_is_not_measured_and_the_report_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layer_errors, "MOST", 1000)
    monkeypatch.setattr(layer_errors, "MEANT", 1000)
    rows, compiled = rows_of(chain(), quantize="ternary", planes=2)
    assert [row.error for row in rows.values()] == [None] * 3
    assert compiled.report.layer_errors.startswith("not measured: one input takes")


def test_calibration_data_are_named_and_reports_hold_errors(tmp_path: Path):
    onnx.save(chain(), tmp_path / "m.onnx")
    np.savez(tmp_path / "real.npz", x=np.random.default_rng(9).standard_normal((3, 64)).astype(np.float32))
    arguments = ["compile", "m.onnx", "-o", "m.neuc", "--quantize", "ternary", "--planes", "3", "--calib", "real.npz"]
    paths = [str(tmp_path / a) if "." in a else a for a in arguments]
    err = io.StringIO()
    with redirect_stderr(err), redirect_stdout(io.StringIO()):
        status = main([*paths, "--report", str(tmp_path / "r.json"), "--no-cache"])
    assert status == Exit.OK, err.getvalue()
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["layer_errors"].endswith("on real.npz")
    errors = [layer["error"] for layer in report["layers"]]
    assert all(0 < error < 0.3 for error in errors)
    header, *table = [line for line in err.getvalue().splitlines() if line.startswith(("layer", "all layers"))]
    assert header.split()[-2:] == ["dB", "error"]
    assert table[0].split()[-1] == f"{errors[0]:.1e}"
    page = tmp_path / "p.html"
    with redirect_stderr(err):
        main(["inspect", str(tmp_path / "m.neuc"), "--html", str(page)])
    assert f'<td class="number">{errors[0]:.1e}</td>' in page.read_text()


def test_values_that_are_not_finite_are_told_so_and_leave_json_valid():
    dense = lowered(chain(1))
    feed = {"x": np.full((2, 64), np.float32(3e38))}
    measured = FloatLayers(dense.module, dense.context, [feed], "large data")
    wrong = dense.module.clone()
    layer = dict(layers(wrong))["layer0"]
    assert isinstance(layer, MatMulOp)
    constant = make_constant("zero", np.zeros((64, 64), np.float32), dense.context.weights)
    Rewriter.insert_op(constant, InsertPoint.before(layer))
    layer.operands[1] = constant.result
    assert not np.isfinite(measured.compare(wrong).errors["layer0"])
