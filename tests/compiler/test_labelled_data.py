"""Labelled data come as they were written, and what does not go together is told by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuc.compiler.labelled_data import LabelledData, accuracy, load_labelled
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
    assert accuracy(np.array([[1, 0], [0, 1], [3, 4]]), np.array([0, 0, 1])) == pytest.approx(2 / 3)


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
