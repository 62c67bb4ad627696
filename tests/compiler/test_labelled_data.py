"""Labelled data come as they were written, and what does not go together is told by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from neuc.compiler.cli import main
from neuc.compiler.labelled_data import Accuracy, LabelledData, load_labelled, measure
from neuc.errors import Error

X = np.arange(12, dtype=np.float32).reshape(4, 3)
LABELS = np.array([0, 2, 1, 2], np.uint8)


def written(folder: Path, **arrays: np.ndarray) -> str:
    np.savez(folder / "d.npz", **arrays)  # pyright: ignore[reportArgumentType] - keywords are array names
    return str(folder / "d.npz")


def test_inputs_and_labels(tmp_path: Path):
    data = load_labelled(written(tmp_path, x=X, y=LABELS) + ":y")
    assert list(data.feeds) == ["x"]
    assert data.source == "d.npz"
    np.testing.assert_array_equal(data.labels, LABELS)
    np.testing.assert_array_equal(data.feeds["x"], X)


def test_batches_hold_every_sample_once():
    data = LabelledData({"x": X}, LABELS)
    parts = list(data.batches(3))
    assert [len(labels) for _, labels in parts] == [3, 1]
    np.testing.assert_array_equal(np.concatenate([feeds["x"] for feeds, _ in parts]), X)
    assert len(data.first(2)) == 2


def test_accuracy_counts_largest_scores():
    scores = np.array([[1, 0, 0], [0, 1, 2], [3, 4, 0], [9, 0, 1]], np.float32)
    data = LabelledData({"row": np.arange(4)}, LABELS)
    found = measure(lambda feeds: scores[feeds["row"]], data, batch=3)
    assert (found.right, found.count) == (3, 4)
    assert "75.00%" in found.describe()
    assert found.to_json()["accuracy"] == pytest.approx(0.75)


def test_the_interval_is_wilsons():
    low, high = Accuracy(8, 10).interval()
    assert (low, high) == (pytest.approx(0.4901, abs=1e-4), pytest.approx(0.9433, abs=1e-4))  # Wilson 1927, 8 of 10
    assert Accuracy(10, 10).interval() == (pytest.approx(0.7225, abs=1e-4), pytest.approx(1.0))


def test_scores_must_be_of_classes():
    with pytest.raises(Error, match="labels 0 to 2 for a model of 2 outputs"):
        measure(lambda feeds: np.zeros((len(feeds["x"]), 2)), LabelledData({"x": X}, LABELS))


@pytest.mark.parametrize(
    ("arrays", "suffix", "words"),
    [
        ({"x": X, "y": LABELS}, "", "no labels are named"),
        ({"x": X, "y": LABELS}, ":z", "holds no 'z'"),
        ({"x": X, "y": LABELS.astype(np.float32)}, ":y", "not integers"),
        ({"x": X, "y": LABELS[:, None]}, ":y", "not integers of one axis"),
        ({"x": X[:3], "y": LABELS}, ":y", "4 labels, but x is"),
        ({"x": X[:0], "y": LABELS[:0]}, ":y", "no samples"),
        ({"x": X, "y": LABELS.astype(np.int64) - 1}, ":y", "label -1 is negative"),
        ({"y": LABELS}, ":y", "no inputs"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, arrays: dict[str, np.ndarray], suffix: str, words: str):
    with pytest.raises(Error, match=words):
        load_labelled(written(tmp_path, **arrays) + suffix)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    digits = Path(__file__).parents[2] / "examples" / "digits"
    with np.load(digits / "held_out.npz") as held_out:
        images, labels = held_out["images"], held_out["labels"]
    data = written(tmp_path, pixels=images.astype(np.float32) / 16, labels=labels)
    model = str(digits / "models" / "int2_qdq.onnx")
    status = main(["run", model, "--eval", f"{data}:labels", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert status == 0
    assert found["count"] == 450
    assert found["accuracy"] > 0.95  # 97.3 % in float; a model on garbled inputs is near 10 %
    assert main(["run", model, "--eval", f"{data}:labels", "-o", str(tmp_path / "o.npz")]) == 2
    assert "--output does not go together with --eval" in capsys.readouterr().err
