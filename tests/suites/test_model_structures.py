"""Whole small models of structures that parts tested alone do not meet: host nodes in the middle, odd signatures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from onnx import ModelProto

import neuc
import onnx_models
from neuc.compiler.cli import main
from onnx_models import model, node, value

ROUNDING = 1e-5
"""Relative; sums of some hundred products of numbers around 1."""
TERNARY_ERROR = 0.5
"""Four planes leave about 3 % of a random layer; this only tells a result from garbage."""


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def check(source: ModelProto, feeds: Mapping[str, np.ndarray], compiled: neuc.Compiled) -> None:
    expected = onnx_models.run(source, feeds)
    with compiled.session(threads=2) as session:
        for got, want in zip(session.run(None, dict(feeds)), expected, strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got.astype(np.float64), want, rtol=0, atol=ROUNDING * np.abs(want).max())


def test_an_output_whose_rank_depends_on_the_input() -> None:
    nodes = [node("MatMul", "x w", "a"), node("Squeeze", "a", "b"), node("Neg", "b", "y")]
    source = model(nodes, [value("x", ["B", 8])], [value("y", None)], {"w": normal(8, 4)})
    compiled = neuc.compile(source, "cpu")
    assert [row.op for row in compiled.report.hosts] == ["Squeeze", "Neg"]
    for batch in (1, 3):  # [4] and [3, 4]
        check(source, {"x": normal(batch, 8)}, compiled)


def gated(batch: int | str = "B") -> ModelProto:
    """Two large products with a GRU between, whose initial state has one batch size."""
    weights = {
        "w1": normal(64, 96) / 8,
        "w": normal(1, 3 * 32, 96) / 10,
        "r": normal(1, 3 * 32, 32) / 6,
        "h0": normal(1, 1, 32),
        "w2": normal(32, 48) / 6,
    }
    nodes = [
        node("MatMul", "x w1", "a"),
        node("Transpose", "a", "t", perm=[1, 0, 2]),
        node("GRU", "t w r _ _ h0", "_ h", hidden_size=32),
        node("MatMul", "h w2", "y"),
    ]
    return model(nodes, [value("x", [batch, "T", 64])], [value("y", [1, batch, 48])], weights)


def test_ternary_layers_on_both_sides_of_a_host_node() -> None:
    source = gated(1)
    compiled = neuc.compile(source, "cpu-tl2", planes=4)
    assert [layer.ternary for layer in compiled.report.layers] == [True, True]
    feeds = {"x": normal(1, 5, 64)}
    expected = onnx_models.run(source, feeds)[0]
    with compiled.session() as session:
        got = session.run(None, feeds)[0]
    assert np.linalg.norm(got - expected) <= TERNARY_ERROR * np.linalg.norm(expected)


def test_made_up_inputs_have_the_batch_the_model_takes(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    source = gated()
    path = tmp_path / "gated.onnx"
    path.write_bytes(source.SerializeToString())
    assert neuc.compile(source, "cpu-tl2", max_error=0.5).report.layers
    assert neuc.compile(source, "cpu", verify=2).report.verified is not None
    assert main(["compile", str(path), "-o", str(tmp_path / "gated.neuc")]) == 0
    assert main(["verify", str(tmp_path / "gated.neuc"), "--against", str(path)]) == 0
    assert "NEUC-E260" not in capsys.readouterr().err


def test_made_up_ids_fit_a_small_vocabulary() -> None:
    nodes = [node("Gather", "table ids", "a"), node("MatMul", "a w", "y")]
    weights = {"table": normal(40, 64), "w": normal(64, 32)}
    source = model(nodes, [value("ids", ["B", "S"], onnx_models.INT)], [value("y", ["B", "S", 32])], weights)
    report = neuc.compile(source, "cpu-tl2", planes=2, verify=1).report
    assert report.layers[0].ternary
    assert report.verified is not None


def pools(op: str) -> ModelProto:
    """Three pools by 2 in a row, which leave nothing of 5 x 40 by ONNX's formula, and the mean of what is left."""
    nodes = [node(op, f"p{i}", f"p{i + 1}", kernel_shape=[2, 2], strides=[2, 2]) for i in range(3)]
    nodes.append(node("GlobalAveragePool", "p3", "y"))
    return model(nodes, [value("p0", ["N", 3, "H", "W"])], [value("y", ["N", 3, 1, 1])])


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_a_pool_larger_than_its_input_gives_what_onnxruntime_gives(op: str) -> None:
    compiled = neuc.compile(pools(op), "cpu", fallback="error")
    for height, width in ((5, 40), (1, 1), (3, 7), (8, 16)):
        check(pools(op), {"p0": normal(2, 3, height, width)}, compiled)
