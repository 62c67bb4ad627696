"""`neuc convert` of ONNX models: few-level weights in low-bit forms, and what it says of those that are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from neuc.compiler.cli import main
from onnx_models import model, node, value

K, N = 64, 24


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A layer of ternary weights and one of many values."""
    rng = np.random.default_rng(3)
    ternary = rng.integers(-1, 2, (K, N)).astype(np.float32) * np.float32(0.037)
    dense = rng.standard_normal((N, N)).astype(np.float32)
    nodes = [node("MatMul", "x w", "h", name="ternary"), node("MatMul", "h v", "y", name="dense")]
    made = model(nodes, [value("x", ["B", K])], [value("y", ["B", N])], {"w": ternary, "v": dense})
    path = tmp_path / "mixed.onnx"
    onnx.save(made, path)
    return path


def test_weights_of_few_levels_become_int2(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "small.onnx"
    assert main(["convert", str(mixed), str(output), "--format", "int2-qdq", "--json"]) == 0
    layers = {layer["node"]: layer for layer in json.loads(capsys.readouterr().out)["layers"]}
    assert (layers["ternary"]["levels"], layers["ternary"]["scale"], layers["ternary"]["ulp"]) == (
        [-1, 0, 1],
        "tensor",
        0,
    )
    assert layers["dense"]["kept"] == "its weights hold more than few levels"
    x = np.random.default_rng(0).standard_normal((5, K)).astype(np.float32)
    # Optimised, onnxruntime quantises the activations of DequantizeLinear → MatMul to int8.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    before, after = (
        onnxruntime.InferenceSession(str(path), options).run(None, {"x": x})[0] for path in (mixed, output)
    )
    np.testing.assert_allclose(np.asarray(after), np.asarray(before), rtol=1e-5, atol=1e-5)


def test_every_layer_is_named(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(mixed), str(tmp_path / "q.onnx"), "--format", "qonnx"]) == 0
    said = capsys.readouterr().err
    assert "MatMul ternary: -1, 0, 1, a scale per tensor, exact" in said
    assert "MatMul dense: left as it is: its weights hold more than few levels" in said


@pytest.mark.parametrize(
    ("form", "status", "says"),
    [("int2_qdq", 2, "did you mean int2-qdq"), ("tq2_0", 2, "no low-bit form of ONNX models")],
)
def test_unknown_forms(
    form: str, status: int, says: str, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.onnx"
    assert main(["convert", str(mixed), str(output), "--format", form]) == status
    assert says in capsys.readouterr().err
    assert not output.exists()


def test_a_model_of_float_weights_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense = np.random.default_rng(0).standard_normal((K, N)).astype(np.float32)
    nodes = [node("MatMul", "x w", "y", name="dense")]
    path, output = tmp_path / "float.onnx", tmp_path / "out.onnx"
    onnx.save(model(nodes, [value("x", ["B", K])], [value("y", ["B", N])], {"w": dense}), path)
    assert main(["convert", str(path), str(output), "--format", "int2-qdq"]) == 1
    assert "NEUC-E114" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("form", ["int2-qdq", "qcdq", "qonnx", "matmul-4bits"])
def test_a_low_bit_model_is_converted_into_another_form(
    form: str, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    assert main(["convert", str(mixed), str(first), "--format", form]) == 0
    capsys.readouterr()
    assert main(["convert", str(first), str(second), "--format", "int4-qdq"]) == 0
    said = capsys.readouterr().err
    assert " ternary: -1, 0, 1, a scale per" in said
    assert "MatMul dense: left as it is: its weights hold more than few levels" in said
    assert {one.op_type for one in onnx.load(second).graph.node} == {"DequantizeLinear", "MatMul"}
    ((output,), x) = onnx.load(second).graph.output, np.ones((2, K), np.float32)
    assert [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim] == ["B", N]
    found = np.asarray(onnxruntime.InferenceSession(str(second)).run(None, {"x": x})[0])
    assert found.shape == (2, N)


def test_outputs_of_unknown_rank_are_no_obstacle(mixed: Path, tmp_path: Path) -> None:
    made = onnx.load(mixed)
    made.graph.input.append(value("dims", ["R"], onnx.TensorProto.INT64))
    made.graph.node.append(node("Reshape", "y dims", "z", name="shape"))
    made.graph.output.append(value("z", None))
    source, output = tmp_path / "unknown.onnx", tmp_path / "out.onnx"
    onnx.save(made, source)
    assert main(["convert", str(source), str(output), "--format", "int4-qdq"]) == 0
    assert not onnx.load(output).graph.output[1].type.tensor_type.HasField("shape")
