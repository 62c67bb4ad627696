"""What counts as within an error budget: nothing measured on nothing, and no float output hidden behind integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import neuc
from neuc.compiler.accuracy import compare
from neuc.compiler.report_text import as_typed, report_lines
from neuc.errors import Error, Exit
from onnx_models import model, node, value

K, HIDDEN, N = 64, 48, 8


def mlp(seed: int, rows: int | str = "B") -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    arrays = {"w1": (K, HIDDEN), "w2": (HIDDEN, N)}
    nodes = [node("MatMul", "x w1", "a"), node("Relu", "a", "b"), node("MatMul", "b w2", "y")]
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in arrays.items()}
    return model(nodes, [value("x", [rows, K])], [value("y", [rows, N])], weights)


def saved(path: Path, x: np.ndarray) -> Path:
    np.savez(path, x=x.astype(np.float32))
    return path


@pytest.mark.parametrize("quantize", ["auto", "ternary", "int8"])
@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.full((4, K), np.nan), "'x' hold NaN or infinity in 256 of 256 values"),
        (np.where(np.eye(4, K) > 0, np.inf, 1.0), "'x' hold NaN or infinity in 4 of 256 values"),
        (np.zeros((0, K)), "'x' are empty, of shape [0, 64]"),
    ],
    ids=["nan", "infinity", "empty"],
)
def test_calibration_data_that_measure_nothing_are_refused(quantize: str, x: np.ndarray, says: str, tmp_path: Path):
    with pytest.raises(Error) as caught:
        neuc.compile(mlp(0), "cpu-tl2", quantize=quantize, calib=saved(tmp_path / "x.npz", x))
    assert caught.value.code == "NEUC-E263"
    assert caught.value.message.endswith(f"x.npz: calibration data {says}")
    assert caught.value.hint


def test_verifying_on_them_is_refused_too_and_arrays_of_no_input_are_not_looked_at(tmp_path: Path):
    with pytest.raises(Error, match="hold NaN") as caught:
        neuc.compile(mlp(0), "cpu", calib=saved(tmp_path / "x.npz", np.full((4, K), np.nan)), verify=1)
    assert caught.value.code == "NEUC-E263"
    np.savez(tmp_path / "more.npz", x=np.ones((4, K), np.float32), labels=np.full(4, np.nan))
    verified = neuc.compile(mlp(0), "cpu", calib=tmp_path / "more.npz", verify=1).report.verified
    assert verified is not None


def test_masks_may_leave_places_out(tmp_path: Path):
    nodes = [node("MatMul", "x w", "a"), node("Add", "a attention_mask", "b"), node("Softmax", "b", "y")]
    w = np.random.default_rng(0).standard_normal((K, N)).astype(np.float32)
    inputs = [value("x", ["B", K]), value("attention_mask", ["B", N])]
    source = model(nodes, inputs, [value("y", ["B", N])], {"w": w})
    mask = np.where(np.arange(N) < 3, 0, -np.inf).astype(np.float32)[None].repeat(4, 0)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(1).standard_normal((4, K)).astype("f"), attention_mask=mask)
    assert neuc.compile(source, "cpu-tl2", calib=tmp_path / "x.npz").report.measured is not None


@pytest.mark.parametrize("options", [{}, {"quantize": "ternary", "max_error": 0.5}])
def test_a_model_that_gives_nothing_finite_is_within_no_budget(options: dict[str, object]):
    source = mlp(0)
    source.graph.node.append(node("Sub", "y y", "zero"))
    source.graph.node.append(node("Div", "zero zero", "nan"))
    source.graph.output[0].name = "nan"
    with pytest.raises(Error, match="no finite number on made-up inputs") as caught:
        neuc.compile(source, "cpu-tl2", **options)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.exit_code) == ("NEUC-E262", Exit.MISMATCH)
    report = neuc.compile(source, "cpu-tl2", quantize="ternary").report  # nobody asked for a budget
    assert report.measured is not None
    assert report.measured["error"] is None
    assert any(
        line.startswith("error against the float model: no finite number to compare, but ")
        for line in report_lines(report)
    )


def test_integers_do_not_hide_the_error_of_floats():
    floats, places = np.array([[3.0, 4.0]]), np.array([[5000, 7000]])
    found = compare([[floats, places]], [[np.array([[3.0, 3.0]]), np.array([[5000, 7001]])]])
    assert found.error == pytest.approx(1 / 5)
    assert (found.max_abs, found.argmax, found.integers) == (1, 0, 0.5)
    assert found.describe().endswith("integers equal 50%")
    same = compare([[floats, places]], [[floats, places + 1]])
    assert same.error == 0
    assert not same.to_json()["equal"]


def test_the_worst_output_counts():
    small, large = np.array([[1.0, 2.0]]), np.array([[1000.0, 2000.0]])
    found = compare([[small, large]], [[small * 1.5, large]])
    assert (found.error, found.measure) == (pytest.approx(0.5), "relative L2 error")
    unit = np.array([[0.6, 0.8]])
    found = compare([[small, unit]], [[small * 1.01, unit[:, ::-1]]])
    assert (found.error, found.measure) == (pytest.approx(0.04), "mean cosine error")


def test_integers_alone_are_judged_by_their_share():
    places = np.arange(8)
    found = compare([[places]], [[np.where(places == 3, 4, places)]])
    assert (found.error, found.measure) == (1 / 8, "share of integers that differ")
    assert found.describe() == "integers equal 87.5%"
    codes = np.arange(1, 9, dtype=np.uint8)
    assert compare([[codes]], [[codes + 1]]).measure == "relative L2 error"  # rounded numbers


def test_nothing_finite_has_no_error():
    for array in (np.full((2, 3), np.nan), np.zeros((0, 3))):
        found = compare([[array]], [[array]])
        assert not found.error <= 1
        assert found.describe().startswith("no finite number to compare")


def test_a_budget_bounds_the_float_output_of_a_model_with_indices():
    rng = np.random.default_rng(3)
    arrays = {
        "table": rng.standard_normal((50, 32)).astype(np.float32),
        "w": rng.standard_normal((32, 20)).astype(np.float32),
        "k": np.array([3], np.int64),
    }
    nodes = [
        node("Gather", "table ids", "g"),
        node("MatMul", "g w", "l"),
        node("TopK", "l k", "values places"),
        node("ArgMax", "l", "best", axis=1, keepdims=0),
    ]
    integer = onnx.TensorProto.INT64
    outputs = [value("values", ["B", 3]), value("places", ["B", 3], integer), value("best", ["B"], integer)]
    source = model(nodes, [value("ids", ["B"], integer)], outputs, arrays)
    compiled = neuc.compile(source, "cpu", quantize="ternary", planes=1)
    measured = compiled.report.measured
    assert measured is not None
    assert float(str(measured["error"])) > 0.1  # one plane of normal weights loses a quarter and more
    assert measured["integers_equal"] is not None
    with pytest.raises(Error, match=r"above the budget 0\.1"):
        neuc.compile(source, "cpu", quantize="ternary", planes=1, max_error=0.1)


def test_what_verify_finds_is_held_to_a_budget():
    source = mlp(3, rows=1)
    report = neuc.compile(source, "cpu-tl2", verify=8).report
    assert report.measured is not None
    assert report.verified is not None
    assert float(str(report.measured["error"])) <= 0.05 < float(str(report.verified["error"]))
    (warning,) = [hint for hint in report.hints if "(--verify)" in hint]
    assert warning.startswith("warning: relative L2 error 0.0")
    assert "is above the budget 0.05; give real rows with --calib" in warning
    neuc.compile(source, "cpu-tl2", max_error=0.05)
    with pytest.raises(Error, match=r"against onnxruntime \(--verify\) is above the budget 0\.05") as caught:
        neuc.compile(source, "cpu-tl2", max_error=0.05, verify=8)
    assert (caught.value.code, caught.value.exit_code) == ("NEUC-E262", Exit.MISMATCH)


@pytest.mark.parametrize("typed", ["1e-9", "0.0123456789", "0.01", "0.5", "2.5e-7"])
def test_a_budget_is_said_as_it_was_typed(typed: str):
    assert as_typed(float(typed)) == typed


def test_a_budget_that_no_layer_meets_is_said_whole():
    with pytest.raises(Error, match=r"within the error budget 1e-9 \(hint"):
        neuc.compile(mlp(0), "cpu-tl2", max_error=1e-9)


def test_a_model_that_meets_the_default_budget_only_as_floats_stays_so():
    report = neuc.compile(mlp(6, rows=1), "cpu-tl2").report
    assert report.ternary_share == 0
    assert all("auto keeps it float" in row.note for row in report.layers)
    with pytest.raises(Error, match="no layer can be ternary"):
        neuc.compile(mlp(6, rows=1), "cpu-tl2", max_error=0.05)
