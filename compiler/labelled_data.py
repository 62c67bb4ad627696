"""Labelled data for accuracies: ``--eval data.npz:labels``.

What a model makes of them is measured elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuc.compiler.inputs import Arrays, load_npz
from neuc.errors import Error, Exit

_SHAPE = "write --eval FILE.npz:NAME, where NAME is the array of labels and the others are the model's inputs"


@dataclass(frozen=True)
class LabelledData:
    """Samples and what they are.

    Attributes:
        feeds: arrays [n, ...] by input name.
        labels: integers [n].
        source: what they are called in reports.
    """

    feeds: Mapping[str, np.ndarray]
    labels: np.ndarray
    source: str = "labelled data"

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> Iterator[tuple[Arrays, np.ndarray]]:
        """Feeds and labels of `size` samples at a time, the last of what is left."""
        for start in range(0, len(self), size):
            end = start + size
            yield {name: array[start:end] for name, array in self.feeds.items()}, self.labels[start:end]

    def first(self, count: int) -> LabelledData:
        """The first `count` samples."""
        feeds = {name: array[:count] for name, array in self.feeds.items()}
        return LabelledData(feeds, self.labels[:count], self.source)


def load_labelled(text: str) -> LabelledData:
    """What ``FILE.npz:NAME`` holds: NAME is the array of labels, all others are inputs.

    Raises:
        Error: NEUC-E002, the text is of another form; NEUC-E006, the arrays do not go together; or the file is bad.
    """
    file, colon, name = text.rpartition(":")
    if not colon or not file or not name:
        raise Error("NEUC-E002", f"--eval {text}: no labels are named", hint=_SHAPE, exit_code=Exit.USAGE)
    arrays = load_npz(Path(file))
    if name not in arrays:
        known = ", ".join(arrays) or "nothing"
        raise Error("NEUC-E006", f"{file} holds no {name!r}", hint=f"it holds {known}; {_SHAPE}", exit_code=Exit.USAGE)
    labels = arrays.pop(name)
    problem = _problem(labels, arrays)
    if problem:
        raise Error("NEUC-E006", f"{text}: {problem}", hint=_SHAPE, exit_code=Exit.USAGE)
    return LabelledData(arrays, labels.astype(np.int64), Path(file).name)


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of samples whose largest score is their label's.

    Args:
        scores: [n, classes].
        labels: [n].
    """
    return float(np.mean(np.argmax(scores, axis=-1) == labels))


def _problem(labels: np.ndarray, feeds: Arrays) -> str:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return f"labels are {labels.dtype}{list(labels.shape)}, not integers of one axis"
    if not len(labels):
        return "there are no samples"
    if labels.min() < 0:
        return f"label {labels.min()} is negative"
    if not feeds:
        return "there are labels, and no inputs"
    for name, array in feeds.items():
        if array.ndim == 0 or len(array) != len(labels):
            return f"{len(labels)} labels, but {name} is {list(array.shape)}"
    return ""
