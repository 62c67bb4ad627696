"""The int8 QDQ export: what onnxruntime makes of it, its form node by node, and what stands in the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc
from neuc.compiler.accuracy import Agreement
from neuc.compiler.cli import main
from neuc.compiler.exporters.qdq_file import WIDE_OPSET, quantize_onnx
from neuc.compiler.exporters.qdq_int8 import Form
from neuc.compiler.exporters.qdq_scales import best_scale, feeds_of, rounded
from neuc.compiler.exporters.qdq_widths import LARGE_ERROR
from neuc.compiler.verification import reference_session
from neuc.errors import Error, Exit

RNG = np.random.default_rng(3)
INT8_ERROR = 0.05
"""Relative L2: five tensors in a row, each off by at most half of 1/127 of its largest value, or a little clipped."""
POWER_ERROR = 0.1
"""Steps of powers of two are up to twice as large, and one serves all channels."""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A model (convolution, BatchNormalization, Relu, a residual, pooling, two linear layers) and data for it."""
    weights = {
        "w1": RNG.standard_normal((16, 3, 3, 3)) * np.geomspace(0.1, 1, 16)[:, None, None, None],
        "b1": RNG.standard_normal(16) * 0.1,
        "w2": RNG.standard_normal((16, 16, 1, 1)),
        "scale": RNG.uniform(0.5, 2, 16),
        "shift": RNG.standard_normal(16),
        "mean": RNG.standard_normal(16) * 0.1,
        "var": RNG.uniform(0.5, 2, 16),
        "w3": RNG.standard_normal((18, 16)),
        "b3": RNG.standard_normal(18),
        "w4": RNG.standard_normal((18, 4)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["n"], name="bn"),
        helper.make_node("Relu", ["n"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w2"], ["c"], name="point"),
        helper.make_node("Add", ["c", "r"], ["s"], name="residual"),
        helper.make_node("GlobalAveragePool", ["s"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["g"], name="fc", transB=1),
        helper.make_node("MatMul", ["g", "w4"], ["y"], name="out"),
    ]
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    data = tmp_path / "rows.npz"
    np.savez(data, x=RNG.standard_normal((40, 3, 6, 6)).astype(np.float32))
    return path, data


def _producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def _constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_onnxruntime_agrees_with_the_float_model_on_rows_held_out(files: tuple[Path, Path], tmp_path: Path):
    done = quantize_onnx(*_with(files, tmp_path), Form())
    assert (done.calibrated_on, done.held_out) == (30, 10)
    assert 0 < done.agreement.relative_l2 < INT8_ERROR
    assert [(layer.node, layer.kept) for layer in done.layers] == [(n, "") for n in ("conv", "point", "fc", "out")]
    x = np.load(files[1])["x"][:4]
    ours, theirs = (np.asarray(reference_session(p).run(None, {"x": x})[0]) for p in (tmp_path / "q.onnx", files[0]))
    assert np.linalg.norm(ours - theirs) < INT8_ERROR * np.linalg.norm(theirs)


def _with(files: tuple[Path, Path], folder: Path) -> tuple[Path, Path, Path]:
    return files[0], folder / "q.onnx", files[1]


def test_layers_read_int8_and_biases_have_the_scale_of_sums(files: tuple[Path, Path], tmp_path: Path):
    quantize_onnx(*_with(files, tmp_path), Form())
    model = onnx.load(tmp_path / "q.onnx")
    made, constants = _producers(model), _constants(model)
    assert all(node.op_type != "BatchNormalization" for node in model.graph.node)
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        data, weight = (made[name] for name in node.input[:2])
        assert data.op_type == weight.op_type == "DequantizeLinear"
        assert constants[weight.input[0]].dtype == np.int8
        assert constants[weight.input[1]].shape == ({"conv": 16, "point": 16, "fc": 18, "out": 4}[node.name],)
        if len(node.input) > 2:
            bias = made[node.input[2]]
            assert constants[bias.input[0]].dtype == np.int32
            steps = constants[data.input[1]] * constants[weight.input[1]]
            np.testing.assert_array_equal(constants[bias.input[1]], steps)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    assert made[relu.input[0]].op_type == "Conv", "nothing is rounded between a layer and its activation"
    assert made["y"].op_type == "DequantizeLinear"


def test_powers_of_two_have_one_scale_a_tensor(files: tuple[Path, Path], tmp_path: Path):
    done = quantize_onnx(*_with(files, tmp_path), Form(power_of_two=True, per_channel=False))
    assert done.agreement.relative_l2 < POWER_ERROR
    scales = [value for name, value in _constants(onnx.load(tmp_path / "q.onnx")).items() if name.endswith("_scale")]
    assert scales
    for scale in scales:
        assert scale.shape == ()
        assert float(np.log2(scale)).is_integer()


def test_layers_only_leaves_everything_between_them_float(files: tuple[Path, Path], tmp_path: Path):
    quantize_onnx(*_with(files, tmp_path), Form(layers_only=True))
    model = onnx.load(tmp_path / "q.onnx")
    made = _producers(model)
    add = next(node for node in model.graph.node if node.op_type == "Add")
    assert made[add.input[0]].op_type == "Conv"
    assert made["y"].op_type == "MatMul"


@pytest.fixture
def outliers(tmp_path: Path) -> tuple[Path, Path]:
    """Two linear layers with a residual between them, one channel of which is two hundred times the others."""
    random = np.random.default_rng(4)
    peaks = np.ones(24)
    peaks[3] = 200.0
    weights = {"w1": random.standard_normal((24, 24)) * peaks}
    weights["w2"] = random.standard_normal((24, 6)) / peaks[:, None] ** 2
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="up"),
        helper.make_node("Add", ["h", "x"], ["r"], name="residual"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], name="down"),
    ]
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 24])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 6])
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    path, data = tmp_path / "o.onnx", tmp_path / "o.npz"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    np.savez(data, x=random.standard_normal((40, 24)).astype(np.float32))
    return path, data


def test_activations_with_outliers_are_in_16_bits_as_few_as_it_takes(outliers: tuple[Path, Path], tmp_path: Path):
    source, target, calib = _with(outliers, tmp_path)
    narrow = quantize_onnx(source, target, calib, Form(eight_bits=True))
    assert narrow.agreement.relative_l2 > LARGE_ERROR
    assert narrow.wide == ()
    done = quantize_onnx(source, target, calib, Form())
    assert done.agreement.relative_l2 < LARGE_ERROR
    assert set(done.wide) == {"h", "r"}
    assert "2 of 4 activations are in 16 bits" in done.why_wide
    written = onnx.load(target)
    assert written.opset_import[0].version == WIDE_OPSET
    zeros = {name: array.dtype for name, array in _constants(written).items() if name.startswith("zero_")}
    assert zeros == {"zero_i8": np.int8, "zero_i16": np.int16}
    assert quantize_onnx(source, target, calib, Form(power_of_two=True, per_channel=False)).wide == ()


def test_16_bits_run_in_neuc(outliers: tuple[Path, Path], tmp_path: Path):
    source, target, calib = _with(outliers, tmp_path)
    quantize_onnx(source, target, calib, Form())
    x = np.load(calib)["x"][:3]
    theirs = np.asarray(reference_session(target).run(None, {"x": x})[0])
    ours = np.asarray(neuc.compile(str(target), "cpu", quantize="none").session().run(None, {"x": x})[0])
    step = next(v for k, v in _constants(onnx.load(target)).items() if k == "y_scale")
    assert np.abs(ours - theirs).max() <= 1.001 * step


def test_the_best_scale_clips_an_outlier():
    values = np.append(RNG.standard_normal(5000), 12).astype(np.float32)
    scale = best_scale(values, 12.0, power_of_two=False)
    assert scale < 12 / 127
    whole = rounded(values, np.float32(12 / 127))
    assert np.square(values - rounded(values, scale)).sum() < np.square(values - whole).sum()
    assert best_scale(values[:5000], 4.0, power_of_two=True) in (2.0**-5, 2.0**-6)


def test_an_npu_computes_the_int8_model(files: tuple[Path, Path], tmp_path: Path):
    quantize_onnx(*_with(files, tmp_path), Form())
    compiled = neuc.compile(str(tmp_path / "q.onnx"), "npu-xdna1", quantize="none")
    assert any("4 products run on npu-xdna1" in hint for hint in compiled.report.hints)
    x = np.load(files[1])["x"][:3]
    theirs = np.asarray(reference_session(tmp_path / "q.onnx").run(None, {"x": x})[0])
    ours = np.asarray(compiled.session().run(None, {"x": x})[0])
    step = next(v for k, v in _constants(onnx.load(tmp_path / "q.onnx")).items() if k == "y_scale")
    # Sums are exact on both sides; a value halfway between two codes may become either.
    assert np.abs(ours - theirs).max() <= 1.001 * step


def test_the_command_says_what_it_did(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    call = ["convert", str(files[0]), str(tmp_path / "q.onnx"), "--format", "qdq-int8", "--calib", str(files[1])]
    assert main([*call, "--power-of-two", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [name for name, on in said["form"].items() if on] == ["power_of_two"]
    assert said["held_out"] == 10
    assert len(said["layers"]) == 4
    assert main(call) == 0
    assert "on 10 rows held out: relative L2 error" in capsys.readouterr().err


def test_wrong_data_are_named(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    np.savez(tmp_path / "wrong.npz", x=np.zeros((4, 3, 6), np.float32))
    np.savez(tmp_path / "other.npz", z=np.zeros(4, np.float32))
    np.savez(tmp_path / "nan.npz", x=np.full((4, 3, 6, 6), np.nan, np.float32))
    for name, words in (("wrong", "is \\[4, 3, 6\\], the input"), ("other", "no array 'x'"), ("nan", "hold NaN")):
        with pytest.raises(Error, match=words) as caught:
            quantize_onnx(files[0], tmp_path / "q.onnx", tmp_path / f"{name}.npz", Form())
        assert caught.value.code == ("NEUC-E006" if name == "other" else "NEUC-E699")
        assert caught.value.exit_code == (Exit.FAULT if name == "nan" else Exit.USAGE)
    np.savez(tmp_path / "wide.npz", x=np.zeros((4, 3, 6, 6)))
    with pytest.raises(Error, match="expected float32, got float64") as caught:
        quantize_onnx(files[0], tmp_path / "q.onnx", tmp_path / "wide.npz", Form())
    assert caught.value.code == "NEUC-E311"
    assert not (tmp_path / "q.onnx").exists()
    assert main(["convert", str(files[0]), str(tmp_path / "q.onnx"), "--format", "qdq-int8"]) == 2
    assert "needs --calib" in capsys.readouterr().err


def test_int8_models_and_the_model_itself_as_output_are_refused(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    quantize_onnx(*_with(files, tmp_path), Form())
    with pytest.raises(Error, match=r"q\.onnx is int8 already") as caught:
        quantize_onnx(tmp_path / "q.onnx", tmp_path / "q2.onnx", files[1], Form())
    assert caught.value.code == "NEUC-E699"
    before = files[0].read_bytes()
    call = ["convert", str(files[0]), str(files[0]), "--format", "qdq-int8", "--calib", str(files[1])]
    assert main(call) == 2
    assert "is IN" in capsys.readouterr().err
    assert files[0].read_bytes() == before
    call[2] = str(tmp_path / "q3.onnx")
    assert main([*call, "--steps", "4"]) == 2
    assert "--steps does nothing with --format qdq-int8" in capsys.readouterr().err


def test_names_of_the_model_are_not_taken_twice(tmp_path: Path):
    arrays = [RNG.standard_normal(shape).astype(np.float32) for shape in ((4, 4), (4,), (4, 4), (4, 4))]
    # Rows held out are among the others: nothing in them is beyond what was seen.
    rows = np.tile(RNG.uniform(-1, 1, (8, 4)), (4, 1)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=rows)

    def agreement(*names: str) -> Agreement:
        w1, bias, w2, w3, h1, h2, h3 = names
        nodes = [
            helper.make_node("MatMul", ["x", w1], [h1], name="1"),
            helper.make_node("MatMul", [h1, w2], [h2], name="2"),
            helper.make_node("Gemm", [h2, w3, bias], [h3], name="3"),
            helper.make_node("Gemm", [h3, w3], ["y"], name="4", transB=1),
        ]
        tensors = [numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=False)]
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy")
        model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors), ir_version=9)
        onnx.save(model, tmp_path / "m.onnx")
        return quantize_onnx(tmp_path / "m.onnx", tmp_path / "q.onnx", tmp_path / "rows.npz", Form()).agreement

    plain = agreement("w1", "bias", "w2", "w3", "h1", "h2", "h3")
    assert plain.relative_l2 < INT8_ERROR
    assert agreement("zero", "b", "zero_i8", "x_scale", "x_i8", "b_2", "x_dequantized") == plain
    assert agreement("zero", "b", "x_zero", "y_i8", "b_3", "b_2", "b_3_scale") == plain


def test_doubtful_results_are_said_to_be(files: tuple[Path, Path], tmp_path: Path):
    np.savez(tmp_path / "zeros.npz", x=np.zeros((8, 3, 6, 6), np.float32))
    done = quantize_onnx(files[0], tmp_path / "q.onnx", tmp_path / "zeros.npz", Form())
    assert "'x' are all zeros" in done.notes[0]
    data = RNG.standard_normal((8, 3, 6, 6)).astype(np.float32)
    data[-2:] *= 1000
    np.savez(tmp_path / "outliers.npz", x=data)
    done = quantize_onnx(files[0], tmp_path / "q.onnx", tmp_path / "outliers.npz", Form())
    assert "--layers-only" in done.notes[0]


def test_sequences_are_samples_along_the_batch_axis(tmp_path: Path):
    weights = {
        "w": RNG.standard_normal((1, 16, 3)).astype(np.float32),
        "r": RNG.standard_normal((1, 16, 4)).astype(np.float32),
        "v": RNG.standard_normal((4, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r", "", "", "h0"], ["h"], name="lstm", hidden_size=4),
        helper.make_node("MatMul", ["h", "v"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "sequences",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", 3]),
            helper.make_tensor_value_info("h0", TensorProto.FLOAT, [1, "B", 4]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", 1, "B", 5])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "lstm.onnx")
    x, h0 = RNG.standard_normal((20, 6, 3)).astype(np.float32), RNG.standard_normal((1, 6, 4)).astype(np.float32)
    feeds = feeds_of({"x": x, "h0": h0}, graph, 100)
    assert len(feeds) == 6
    assert all(np.array_equal(feed["x"], x[:, i : i + 1]) for i, feed in enumerate(feeds))
    assert all(np.array_equal(feed["h0"], h0[:, i : i + 1]) for i, feed in enumerate(feeds))
    np.savez(tmp_path / "calib.npz", x=x, h0=h0)
    done = quantize_onnx(tmp_path / "lstm.onnx", tmp_path / "q.onnx", tmp_path / "calib.npz", Form(layers_only=True))
    assert done.calibrated_on + done.held_out == 6
    with pytest.raises(Error, match=r"array 'h0' is \[6, 1, 4\]") as caught:
        feeds_of({"x": x, "h0": h0.transpose(1, 0, 2)}, graph, 100)
    assert "h0 (samples along axis 1)" in caught.value.hint
