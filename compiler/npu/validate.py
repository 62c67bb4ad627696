"""Predictions beside measurements: errors by kind of row, and the gates they have to stay within.

What a row is stands in `rows.py`, what is predicted for one in `row_models.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from neuc.compiler.npu.rows import Prediction

_ARRAY, _GEMM, _DMA = (0.03, 0.08), (0.12, 0.25), (0.05, 0.15)
GATES: Mapping[str, tuple[float, float]] = {
    "gemm_array": _ARRAY,
    "shim_single_bd": _DMA,
    "shim_chained": _DMA,
    "dma": _DMA,
}
"""Median and largest error by kind of row; other kinds have those of GEMMs."""
TAU_GATE = 0.8
_ROWS_FOR_TAU = 4
"""A ranking of fewer rows says little."""


@dataclass(frozen=True)
class Summary:
    """Errors of the predictions that have a measurement: shares, not percent."""

    count: int
    median: float
    maximum: float
    tau: float | None

    def missed(self, kind: str) -> tuple[str, ...]:
        """What of the gates of `kind` these errors are beyond; nothing if all are met."""
        middle, most = gate_of(kind)
        found: list[str] = []
        if self.median > middle:
            found.append(f"median above {middle:.0%}")
        if self.maximum > most:
            found.append(f"largest above {most:.0%}")
        if self.tau is not None and self.count >= _ROWS_FOR_TAU and self.tau < TAU_GATE:
            found.append(f"Kendall's tau below {TAU_GATE:g}")
        return tuple(found)


def gate_of(kind: str) -> tuple[float, float]:
    """The median and largest error a kind of row may have."""
    return GATES.get(kind, _GEMM)


def summarise(predictions: Sequence[Prediction]) -> Summary | None:
    """Median and largest error, and Kendall's tau of times; None if nothing was measured and predicted."""
    errors = [abs(p.error) for p in predictions if p.error is not None]
    if not errors:
        return None
    pairs = [
        (p.seconds, p.seconds / (1 + p.error)) for p in predictions if p.error is not None and p.seconds is not None
    ]
    return Summary(len(errors), median(errors), max(errors), kendall(pairs))


def kendall(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Kendall's tau-b of (predicted, measured): agreeing pairs less disagreeing ones, by the pairs that are no ties.

    None if all predictions, or all measurements, are alike. Knight's way: sorted by prediction, a pair disagrees where
    measurements are out of order. n log n; numbers alike in 12 digits are ties.
    """
    ordered = sorted((float(f"{a:.12g}"), float(f"{b:.12g}")) for a, b in pairs)
    total = len(pairs) * (len(pairs) - 1) // 2
    tied, tied_too = _ties(a for a, _ in ordered), _ties(b for _, b in ordered)
    if total in (tied, tied_too):
        return None
    agreeing_or_not = total - tied - tied_too + _ties(ordered)
    score = agreeing_or_not - 2 * _out_of_order([b for _, b in ordered])
    return score / math.sqrt((total - tied) * (total - tied_too))


def _ties(values: Iterable[object]) -> int:
    """Pairs of values that are alike."""
    return sum(n * (n - 1) // 2 for n in Counter(values).values())


def _out_of_order(values: Sequence[float]) -> int:
    """Pairs of which the first is larger: how many larger ones came before each, counted in a tree of sums."""
    rank = {value: number for number, value in enumerate(sorted(set(values)), start=1)}
    sums, found = [0] * (len(rank) + 1), 0
    for before, value in enumerate(values):
        place, smaller_or_alike = rank[value], 0
        while place:
            smaller_or_alike += sums[place]
            place &= place - 1
        found += before - smaller_or_alike
        place = rank[value]
        while place < len(sums):
            sums[place] += 1
            place += place & -place
    return found
