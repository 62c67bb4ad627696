"""`--calib` for an NPU target: fixed scales, so that cores finish what products begin, with the CPU's bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc
from integer_on_cpu import on_the_cpu
from neuc.compiler.calibrated_scales import FixedScales, with_fixed_scales
from neuc.compiler.cli import main
from neuc.compiler.driver import Driver
from neuc.compiler.exporters.qdq_chains import functions_of_one
from neuc.compiler.importers.onnx_file import import_onnx
from neuc.compiler.options import CompileOptions
from neuc.compiler.pipeline import graph_passes
from neuc.compiler.universe import new_context
from neuc.errors import Error

INT8_ERROR = 0.05
"""Relative L2: nine tensors, each off by at most half of 1/127 of its largest value, or a little clipped."""
LAYERS = ("conv", "depthwise", "point", "fc")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, Path]:
    """A model as of MobileNet (a hard swish in four nodes, a depthwise layer, a residual, pooling), and rows for it."""
    random = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "w3": (8, 8, 1, 1), "b3": (8,), "w4": (10, 8)}
    arrays = {name: (random.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}
    arrays |= {name: np.array(value, np.float32) for name, value in (("three", 3), ("zero", 0), ("six", 6))}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["a", "three"], ["raised"]),
        helper.make_node("Clip", ["raised", "zero", "six"], ["gate"]),
        helper.make_node("Mul", ["a", "gate"], ["gated"]),
        helper.make_node("Div", ["gated", "six"], ["h"]),
        helper.make_node("Conv", ["h", "w2"], ["c"], name="depthwise", pads=[1, 1, 1, 1], group=8),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w3", "b3"], ["e"], name="point"),
        helper.make_node("Add", ["e", "h"], ["s"], name="residual"),
        helper.make_node("GlobalAveragePool", ["s"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w4"], ["y"], name="fc", transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    data = tmp_path_factory.mktemp("calibrated") / "rows.npz"
    np.savez(data, x=random.standard_normal((16, 3, 6, 6)).astype(np.float32))
    return model, data


def _expected(model: onnx.ModelProto, options: CompileOptions, x: np.ndarray, *, ternary: bool) -> np.ndarray:
    """What the CPU's kernels make of the same integers, with no array anywhere."""
    context = new_context()
    driver = Driver(import_onnx(model, context), context)
    driver.run(graph_passes())
    fixed = with_fixed_scales(driver, options, ternary=ternary)
    assert isinstance(fixed, FixedScales)
    driver.module = fixed.module
    return on_the_cpu(driver, "npu-xdna1", {"x": x})[0]


@pytest.mark.parametrize("quantize", ["int8", "ternary"])
def test_cores_finish_every_product_with_the_cpus_bits(files: tuple[onnx.ModelProto, Path], quantize: str):
    model, data = files
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32)
    compiled = neuc.compile(model, "npu-xdna1", quantize=quantize, calib=data)
    got = np.asarray(compiled.session().run(None, {"x": x})[0])
    options = CompileOptions(target="npu-xdna1", quantize=quantize, calib=data)
    np.testing.assert_array_equal(got, _expected(model, options, x, ternary=quantize == "ternary"))
    assert len(np.unique(got)) > 10
    report = compiled.report
    notes = " ".join(report.hints)
    assert "4 products leave npu-xdna1 as int8 codes" in notes
    assert "calibrated on 16 rows of rows.npz" in notes
    assert "finished on the CPU" not in notes
    assert tuple(row.node for row in report.layers) == LAYERS
    assert all(row.error is not None and row.error > 0 and row.sqnr_db is not None for row in report.layers)
    assert [row.ternary for row in report.layers] == [quantize == "ternary", False, False, False], "by columns"


def test_a_model_of_few_codes_is_near_the_float_one_and_says_how_near(files: tuple[onnx.ModelProto, Path]):
    model, data = files
    compiled = neuc.compile(model, "npu-xdna1", calib=data)
    assert compiled.report.quantize == "int8", "what --calib means where --quantize is not given"
    assert compiled.report.measured is not None
    x = np.load(data)["x"]
    exact = np.asarray(neuc.compile(model, "cpu").session().run(None, {"x": x})[0], np.float32)
    got = np.asarray(compiled.session().run(None, {"x": x})[0], np.float32)
    assert 0 < np.linalg.norm(got - exact) / np.linalg.norm(exact) < INT8_ERROR
    assert all(row.error is not None and row.error < INT8_ERROR for row in compiled.report.layers)


def test_calibration_data_that_fix_no_scales_are_told(files: tuple[onnx.ModelProto, Path], tmp_path: Path):
    model, _ = files
    rows = np.zeros((4, 3, 6, 6), np.float32)
    np.savez(tmp_path / "zeros.npz", x=rows)
    hints = neuc.compile(model, "npu-xdna1", calib=tmp_path / "zeros.npz").report.hints
    assert any("calibration data 'x' are all zeros" in hint for hint in hints)
    rows[1, 0, 0, 0] = np.nan
    np.savez(tmp_path / "nan.npz", x=rows)
    with pytest.raises(Error, match="calibration data 'x' hold NaN") as caught:
        neuc.compile(model, "npu-xdna1", calib=tmp_path / "nan.npz")
    assert caught.value.code == "NEUC-E263"


def test_scales_of_each_input_cost_what_the_report_says(files: tuple[onnx.ModelProto, Path]):
    model, data = files
    compiled = neuc.compile(model, "npu-xdna1{scales=run-time}", quantize="int8", calib=data)
    note = next(note for note in compiled.report.hints if "found at run time" in note)
    assert "4608 sums leave as 18.4 kB where codes are 4.6 kB" in note, "8 of 16 x 36 pixels: the first layer's"
    assert "--calib" in note


def test_functions_of_one_tensor_are_found(files: tuple[onnx.ModelProto, Path]):
    model, _ = files
    found = functions_of_one(model.graph, {"c": "d"})
    assert found == dict.fromkeys(["raised", "gate", "gated", "h"], "a"), "not the residual, nor the Relu of a layer"


@pytest.mark.parametrize(
    ("target", "planes", "words"),
    [
        ("npu-xdna1{scales=calibrated}", None, "scales=calibrated needs --calib"),
        ("npu-xdna1{scales=fixed}", None, "scales=fixed makes no sense"),
        ("npu-xdna1", 2, "--planes 2 with fixed scales"),
    ],
)
def test_what_makes_no_sense_is_refused(
    files: tuple[onnx.ModelProto, Path], target: str, planes: int | None, words: str
):
    model, data = files
    with pytest.raises(Error, match=words) as caught:
        neuc.compile(model, target, planes=planes, calib=data if planes else None)
    assert caught.value.code == "NEUC-E002"


@pytest.mark.slow
def test_a_search_for_planes_keeps_scales_of_each_input(files: tuple[onnx.ModelProto, Path]):
    model, data = files
    report = neuc.compile(model, "npu-xdna1", quantize="auto", max_error=0.3, calib=data).report
    assert any("gets no fixed scales: --quantize auto" in note for note in report.hints)


@pytest.mark.slow
def test_data_for_a_fixed_batch_are_cut_into_its_rows(files: tuple[onnx.ModelProto, Path], tmp_path: Path):
    model, data = files
    path, out = tmp_path / "m.onnx", tmp_path / "m.neuc"
    onnx.save(model, path)
    command = ["compile", str(path), "--target", "npu-xdna1", "--calib", str(data), "--shape", "x=1x3x6x6"]
    assert main([*command, "-o", str(out)]) == 0
    x = np.load(data)["x"][:1]
    assert neuc.load(out).run(None, {"x": x})[0].shape == (1, 10)
