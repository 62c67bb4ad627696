"""Predictions beside measurements: errors by kind of row, and the gates they have to stay within.

What a row is stands in `rows.py`, what is predicted for one in `row_models.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """Kendall's tau-a of (predicted, measured): agreeing pairs less disagreeing ones, by all pairs."""
    total = len(pairs) * (len(pairs) - 1) // 2
    if not total:
        return None
    score = 0
    for i, (a, b) in enumerate(pairs):
        for c, d in pairs[:i]:
            score += ((a > c) - (a < c)) * ((b > d) - (b < d))
    return score / total
