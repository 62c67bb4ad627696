"""Labelled data, and accuracies on them: ``--eval data.npz:labels``.

No model is run here: whoever has one passes a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
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


@dataclass(frozen=True)
class Accuracy:
    """How often a model was right.

    Attributes:
        right: samples whose largest score was their label's.
        count: all samples.
    """

    right: int
    count: int

    @property
    def share(self) -> float:
        """Right ones of all, 0 to 1."""
        return self.right / self.count

    def interval(self) -> tuple[float, float]:
        """Wilson's interval, 95 %: what the share would be on other samples of the same kind."""
        z, n, p = 1.959964, self.count, self.share
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)

    def describe(self) -> str:
        """As a sentence."""
        low, high = self.interval()
        return f"accuracy {self.share:.2%} ({self.right} of {self.count}; 95 % interval {low:.2%} to {high:.2%})"

    def to_json(self) -> dict[str, object]:
        """As plain data."""
        return {"accuracy": self.share, "right": self.right, "count": self.count, "interval95": list(self.interval())}


def measure(run: Callable[[Arrays], np.ndarray], data: LabelledData, batch: int = 64) -> Accuracy:
    """The accuracy of what `run` makes of `data`.

    Args:
        run: from feeds to scores [n, classes].
        data: the samples.
        batch: how many of them at a time.

    Raises:
        Error: NEUC-E006, the model's output is no score for each class of each sample.
    """
    right = 0
    for feeds, labels in data.batches(batch):
        scores = run(feeds)
        if scores.ndim == 2 and len(scores) == len(labels) and scores.shape[1] <= labels.max():
            low, high, outputs = data.labels.min(), data.labels.max(), scores.shape[1]
            raise Error(
                "NEUC-E006",
                f"labels {low} to {high} for a model of {outputs} outputs",
                hint=f"labels are the numbers of outputs, 0 to {outputs - 1}",
                exit_code=Exit.USAGE,
            )
        if scores.ndim != 2 or len(scores) != len(labels):
            raise Error(
                "NEUC-E006",
                f"scores are {list(scores.shape)} for {len(labels)} samples",
                hint="accuracies need a model whose first output is [samples, classes]",
                exit_code=Exit.USAGE,
            )
        right += int(np.sum(np.argmax(scores, axis=1) == labels))
    return Accuracy(right, len(data))


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
