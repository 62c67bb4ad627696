"""The benchmark of ordinary models: topologies get weights, one model is measured whole, and the page has its row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import ordinary_models
import pytest
from onnx import TensorProto, helper, numpy_helper

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def test_topologies_get_weights_that_differ(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    ordinary_models.with_weights(LIGHT / "light_squeezenet.onnx", target)
    model = onnx.load(target)
    assert all(node.op_type != "ConstantOfShape" for node in model.graph.node)
    assert [value.name for value in model.graph.input] == ["data_0"]
    filters = [numpy_helper.to_array(entry) for entry in model.graph.initializer if len(entry.dims) == 4]
    assert len(filters) == 26
    assert all(np.unique(array).size > array.size // 2 for array in filters)
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    first = np.asarray(ort.InferenceSession(target).run(None, {"data_0": image})[0])
    second = np.asarray(ort.InferenceSession(target).run(None, {"data_0": -image})[0])
    assert np.isfinite(first).all()
    assert not np.array_equal(first, second)


def test_a_model_is_measured_and_gets_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = numpy_helper.from_array(ordinary_models.normal(1, 120, 8), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input_1", "w"], ["y"])],
        "one",
        [helper.make_tensor_value_info("input_1", TensorProto.FLOAT, ["n", 900, 120])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weights],
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "model_v8.onnx")
    monkeypatch.setattr(ordinary_models, "SECONDS", 0.01)
    row = ordinary_models.measure("speech", tmp_path)
    assert row is not None
    row = json.loads(json.dumps(row))
    assert row["error none"] < 1e-5 < row["error int8"] < 0.1
    assert all(row[f"ms {engine} {threads}"] > 0 for engine in ("none", "int8", "ternary", "ort") for threads in (1, 2))
    assert row["bytes int8"] < row["bytes none"]
    # numpy and llvmlite take 30 MB and more; onnx and xDSL, which this process has, several times that.
    assert 30 < row["none"]["memory_mb"] < 400
    row |= {"ms ort 1": 3.0, "ms none 1": 2.0}
    text = ordinary_models.page([row])
    (latency, facts) = [line for line in text.splitlines() if line.startswith("| speech quality CNN")]
    assert latency.split(" | ")[1:3] == ["3", "2 [1.50]"]
    assert facts.endswith("| – |")


def test_missing_models_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ordinary_models.measure("speech", tmp_path) is None
    assert "no model_v8.onnx" in capsys.readouterr().err
