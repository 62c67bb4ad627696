"""Float products in bf16 on the array: the bits of the specification, and as far from the float model as bf16 is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc
from neuc.compiler.cli import main
from neuc.dialects.interp.npu_bf16 import bf16
from neuc.errors import Error
from neuc.runtime.npu.functions import to_bf16

RNG = np.random.default_rng(5)
BF16_ERROR = 0.02
"""Relative L2 of a small attention: four products in a row whose operands are off by up to 2^-9, some of them twice."""
TARGET = "npu-xdna1{float=bf16}"


def _float(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def test_rounding_is_the_specifications_everywhere():
    random = RNG.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    ties = (np.arange(2000, dtype=np.uint32) << 15 | 0x3F800000).view(np.float32)
    edges = np.array(
        [0, -0.0, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, 1e-40, 2.0**-133, 2.0**-134, 1.1e-38], np.float32
    )
    for x in (random, ties, edges):
        got, expected = _float(to_bf16(x)), bf16(x)
        assert np.isnan(got).tolist() == np.isnan(x).tolist()
        np.testing.assert_array_equal(got, expected)


def _spec(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products added one after the other, in plain loops over k."""
    a, b = bf16(a), bf16(b)
    total = np.zeros((*a.shape[:-1], b.shape[-1]), np.float32)
    for k in range(a.shape[-1]):
        total = (total + np.einsum("...m,...n->...mn", a[..., k], b[..., k, :]).astype(np.float32)).astype(np.float32)
    return total


def _model(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], inputs: dict[str, list], outputs: dict[str, list]
):
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    ins, outs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
        for side in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "g", ins, outs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_products_of_activations_and_of_constants_have_the_specifications_bits():
    weights = {n: RNG.standard_normal((24, w)).astype(np.float32) for n, w in (("w1", 20), ("w2", 12))}
    model = _model(
        [
            helper.make_node("MatMul", ["x", "w1"], ["y"], name="first"),
            helper.make_node("MatMul", ["x", "w2"], ["z"], name="second"),
            helper.make_node("MatMul", ["p", "q"], ["r"], name="both"),
        ],
        weights,
        {"x": ["N", 24], "p": ["B", 3, "M", 16], "q": ["B", 3, 16, "M"]},
        {"y": ["N", 20], "z": ["N", 12], "r": ["B", 3, "M", "M"]},
    )
    shapes = {"x": (7, 24), "p": (2, 3, 5, 16), "q": (2, 3, 16, 5)}
    feeds = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    compiled = neuc.compile(model, TARGET, quantize="none")
    y, z, r = compiled.session().run(None, feeds)
    np.testing.assert_array_equal(y, _spec(feeds["x"], weights["w1"]))
    np.testing.assert_array_equal(z, _spec(feeds["x"], weights["w2"]))
    np.testing.assert_array_equal(r, _spec(feeds["p"], feeds["q"]))
    assert any("3 products run on npu-xdna1 in 2 dispatches" in note for note in compiled.report.hints)


@pytest.fixture(scope="module")
def attention() -> onnx.ModelProto:
    """Scores, softmax and context of two heads, and a linear layer with bias and Relu."""
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"], name="query"),
        helper.make_node("MatMul", ["x", "wk"], ["k"], name="key"),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "kt"], ["s"], name="scores"),
        helper.make_node("Softmax", ["s"], ["a"], axis=-1),
        helper.make_node("MatMul", ["a", "x"], ["c"], name="context"),
        helper.make_node("MatMul", ["c", "w"], ["l"], name="linear"),
        helper.make_node("Add", ["l", "b"], ["d"]),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    sizes = {"wq": (16, 16), "wk": (16, 16), "w": (16, 24), "b": (24,)}
    weights = {name: (RNG.standard_normal(size) * 0.3).astype(np.float32) for name, size in sizes.items()}
    return _model(nodes, weights, {"x": ["B", 2, "S", 16]}, {"y": ["B", 2, "S", 24]})


def test_attention_runs_in_bf16_near_the_float_model(
    attention: onnx.ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    x = RNG.standard_normal((2, 2, 9, 16)).astype(np.float32)
    exact = np.asarray(neuc.compile(attention, "cpu").session().run(None, {"x": x})[0], np.float32)
    compiled = neuc.compile(attention, TARGET, quantize="none")
    got = np.asarray(compiled.session().run(None, {"x": x})[0], np.float32)
    error = np.linalg.norm(got - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < BF16_ERROR
    notes = " ".join(compiled.report.hints)
    assert "5 products run on npu-xdna1 in 4 dispatches, one program for all" in notes
    rows = {row.node: row for row in compiled.report.layers}
    assert [row.encoding for row in rows.values()] == ["bf16"] * 3
    assert rows["query"].shape == (16, 16)
    assert rows["linear"].shape == (24, 16)
    assert all(row.error is not None and 1e-4 < row.error < BF16_ERROR for row in rows.values())
    measured = compiled.report.measured
    assert measured is not None
    assert 1e-4 < float(str(measured["error"])) < BF16_ERROR
    compiled.save(tmp_path / "a.neuc")
    run = ["run", str(tmp_path / "a.neuc"), "--input", "x=1x2x4x16xf32=1"]
    assert main([*run, "--profile", str(tmp_path / "trace.json")]) == 0
    said = capsys.readouterr().out
    assert "array, as simulated: 0." in said
    assert "ms for 4 dispatches" in said
    assert main(run) == 0
    assert "array:" not in capsys.readouterr().out


def test_floats_stay_on_the_cpu_unless_asked_for(attention: onnx.ModelProto):
    notes = " ".join(neuc.compile(attention, "npu-xdna1", quantize="none").report.hints)
    assert "float=bf16 takes them" in notes
    with pytest.raises(Error, match="float=f16 makes no sense"):
        neuc.compile(attention, "npu-xdna1{float=f16}")
