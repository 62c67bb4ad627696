"""Fit P ternary planes to a weight matrix: W[n, k] ≈ Σ_p scales[p, n, g]·trits[p, n, k] with the least squared error.

For fixed scales the best trits of a weight are those of the nearest of its 3^P level sums, so a row's partition is a
set of thresholds, as for a one-dimensional quantiser. Rows are therefore sorted by magnitude once; after that a step of
the alternation (thresholds → least-squares scales) needs only counts and prefix sums between thresholds, never a walk
over the weights. P = 1 is solved exactly; P > 1 alternates from several starts and keeps each row's best. Pure numpy.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from neuc.errors import Error

MAX_PLANES = 4
EXACT_SQNR_DB = 150.0
"""What `sqnr_db` says when nothing is lost: beyond the precision of f32."""
_BLOCK_ELEMENTS = 1 << 18
_SAMPLE_ROWS = 24
_SAMPLE_ITERATIONS = 6
_KEPT_STARTS = 2
_RIDGE = 1e-9
_CONVERGED = 1e-3

# Scales of planes, in units of a row's root mean square, that the alternation settles on for Gaussian, Laplace and
# Student-t rows of 128 to 768 weights (from random starts); the best for a matrix are found on a sample of its rows.
_STARTS: dict[int, tuple[tuple[float, ...], ...]] = {
    2: ((1.40, 0.92), (1.75, 1.20), (2.10, 1.45)),
    3: ((1.44, 0.80, 0.49), (1.72, 1.43, 1.09), (2.09, 2.04, 1.16), (1.60, 1.41, 0.50), (1.31, 1.14, 0.82)),
    4: ((1.64, 1.21, 0.54, 0.18), (2.10, 1.92, 1.83, 0.63), (1.73, 1.00, 0.80, 0.33), (2.00, 1.86, 0.89, 0.67)),
}
Array: TypeAlias = np.ndarray


@dataclass(frozen=True)
class TernaryFit:
    """Planes of a weight matrix, by falling scale; scales are never negative.

    Attributes:
        trits: int8 [P, N, K] in -1, 0, 1.
        scales: f32 [P, N, G].
        group_size: columns that share a scale.
        sqnr_db: signal to error power of the whole matrix.
    """

    trits: Array
    scales: Array
    group_size: int
    sqnr_db: float

    def reconstruct(self) -> Array:
        """The f32 matrix these planes stand for."""
        planes, n, k = self.trits.shape
        result = np.zeros((n, k), np.float32)
        for p in range(planes):
            result += self.trits[p] * np.repeat(self.scales[p], self.group_size, axis=1)[:, :k]
        return result


def fit_ternary(
    weight: Array, planes: int, scale: str = "row", *, group_size: int = 128, iterations: int = 12
) -> TernaryFit:
    """Fit `planes` ternary planes to `weight` [N, K].

    Args:
        weight: finite f32 matrix.
        planes: P, 1 to 4.
        scale: which weights share a scale: a `row`, a `group` of `group_size` columns of a row, or the `tensor`.
        group_size: columns of a group.
        iterations: most steps of the alternation from a start; it stops when a row block gains under 0.1 %.

    Raises:
        Error: NEUC-E220, a size or option out of range, or weights that are not finite.
    """
    weight = np.asarray(weight, np.float32)
    _check(weight, planes, scale)
    n, k = weight.shape
    if scale == "tensor":
        rows = weight.reshape(1, n * k)
    elif scale == "group":
        groups = -(-k // group_size)
        padded = np.zeros((n, groups * group_size), np.float32)
        padded[:, :k] = weight
        rows = padded.reshape(n * groups, group_size)
    else:
        rows = weight
    trits, scales, error = _fit_rows(rows, planes, iterations)
    signal = float(np.square(weight, dtype=np.float64).sum())
    trits = trits.reshape(planes, n, -1)[:, :, :k]
    scales = np.repeat(scales, n, axis=1)[..., None] if scale == "tensor" else scales.reshape(planes, n, -1)
    shared = group_size if scale == "group" else k
    return TernaryFit(np.ascontiguousarray(trits), np.ascontiguousarray(scales), shared, sqnr_db(signal, error))


def sqnr_db(signal: float, error: float) -> float:
    """Signal to error power in dB, at most `EXACT_SQNR_DB`."""
    if error <= signal * 10 ** (-EXACT_SQNR_DB / 10):
        return EXACT_SQNR_DB
    return min(EXACT_SQNR_DB, 10 * float(np.log10(signal / error))) if signal > 0 else 0.0


def _check(weight: Array, planes: int, scale: str) -> None:
    if weight.ndim != 2 or weight.size == 0:
        raise Error("NEUC-E220", f"ternary planes fit a matrix with weights, not shape {list(weight.shape)}")
    if not 1 <= planes <= MAX_PLANES:
        raise Error("NEUC-E220", f"planes = {planes} is out of range", hint=f"choose 1 to {MAX_PLANES} planes")
    if scale not in ("row", "tensor", "group"):
        raise Error("NEUC-E220", f"scale = {scale!r} is unknown", hint="choose row, tensor or group")
    if not np.isfinite(weight).all():
        raise Error("NEUC-E220", "a weight matrix holds NaN or infinity", hint="keep this layer as float")


def _fit_rows(rows: Array, planes: int, iterations: int) -> tuple[Array, Array, float]:
    """Fit each row of [R, K] alone: trits [P, R, K], scales [P, R], and the squared error of all."""
    count, k = rows.shape
    trits = np.empty((planes, count, k), np.int8)
    scales = np.empty((planes, count), np.float32)
    step, error = max(1, _BLOCK_ELEMENTS // k), 0.0
    half = _half_combos(planes)
    starts = _promising_starts(rows, half)
    for begin in range(0, count, step):
        block = slice(begin, min(begin + step, count))
        part = rows[block]
        magnitude = np.abs(part)
        found = _best(_SortedRows(magnitude), starts, half, iterations if planes > 1 else 1)
        fitted, combos = _planes(found, half)
        scales[:, block] = fitted.T
        trits[:, block] = _assign(part, magnitude, found.thresholds, combos)
        rebuilt = np.einsum("prk,pr->rk", trits[:, block].astype(np.float32), scales[:, block])
        error += float(np.square(part - rebuilt, dtype=np.float64).sum())
    return trits, scales, error


@dataclass
class _Solution:
    """Of R rows with L levels ≥ 0.

    Attributes:
        scales: [R, P], least squares for this partition.
        thresholds: [R, L - 1] magnitudes between neighbouring levels.
        order: [R, L], which trit combination each level is.
        sign: [R, L], -1 where that combination counts negated.
        error: [R], squared error.
    """

    scales: Array
    thresholds: Array
    order: Array
    sign: Array
    error: Array

    def improve(self, other: _Solution) -> None:
        """Take over the rows `other` does better."""
        better = other.error < self.error
        for name in ("scales", "thresholds", "order", "sign", "error"):
            getattr(self, name)[better] = getattr(other, name)[better]


class _SortedRows:
    """Magnitudes of rows in ascending order, so that counts and sums between thresholds cost two look-ups."""

    def __init__(self, magnitude: Array) -> None:
        ordered = np.sort(magnitude, axis=1)
        self.count, self.k = ordered.shape
        self.prefix = np.zeros((self.count, self.k + 1))
        np.cumsum(ordered, axis=1, dtype=np.float64, out=self.prefix[:, 1:])
        self.power = np.einsum("rk,rk->r", ordered, ordered, dtype=np.float64)
        self.rms = np.sqrt(self.power / self.k)
        # One ascending key over all rows: row number + magnitude scaled into [0, 1/2].
        self.unit = 0.5 / np.maximum(ordered[:, -1].astype(np.float64), np.finfo(np.float32).tiny)
        self.offset = np.arange(self.count, dtype=np.float64)
        self.keys = (ordered * self.unit[:, None] + self.offset[:, None]).reshape(-1)

    def bounds(self, thresholds: Array) -> Array:
        """How many magnitudes of each row are at most each threshold, with 0 and K around: [R, L + 1]."""
        queries = np.minimum(thresholds * self.unit[:, None], 0.75) + self.offset[:, None]
        inner = np.searchsorted(self.keys, queries.reshape(-1), side="right").reshape(thresholds.shape)
        result = np.empty((self.count, thresholds.shape[1] + 2), np.int64)
        result[:, 0], result[:, -1] = 0, self.k
        result[:, 1:-1] = inner - (self.offset * self.k).astype(np.int64)[:, None]
        return result

    def exact_single(self) -> Array:
        """The optimal scale of one plane: over the k largest, mean magnitude S_k / k, where S_k² / k is largest."""
        taken = np.arange(1, self.k + 1)
        sums = self.prefix[:, -1:] - self.prefix[:, -2::-1]
        best = np.argmax(sums * sums / taken, axis=1)
        return sums[np.arange(self.count), best] / taken[best]


def _half_combos(planes: int) -> Array:
    """All trit combinations up to sign, the zero first: [(3^P + 1)/2, P]."""
    combos = list(itertools.product((0, 1, -1), repeat=planes))
    return np.array([c for c in combos if next((t for t in c if t), 1) > 0], np.float64)


def _step(rows: _SortedRows, scales: Array, half: Array) -> _Solution:
    """One step of the alternation: the thresholds `scales` imply, then the scales those thresholds want."""
    planes = half.shape[1]
    signed = np.abs(scales) @ half.T
    levels = np.abs(signed)
    order = np.argsort(levels, axis=1, kind="stable")
    levels = np.take_along_axis(levels, order, axis=1)
    sign = np.where(signed < 0, -1.0, 1.0)
    # In f32, as the weights are compared with them at the end.
    thresholds = ((levels[:, 1:] + levels[:, :-1]) / 2).astype(np.float32)
    bounds = rows.bounds(thresholds)
    sums = np.diff(np.take_along_axis(rows.prefix, bounds, axis=1), axis=1)
    counts_by_combo, sums_by_combo = np.empty_like(levels), np.empty_like(levels)
    np.put_along_axis(counts_by_combo, order, np.diff(bounds, axis=1).astype(np.float64), axis=1)
    np.put_along_axis(sums_by_combo, order, sums, axis=1)
    outer = (half[:, :, None] * half[:, None, :]).reshape(-1, planes * planes)
    normal = (counts_by_combo @ outer).reshape(-1, planes, planes)
    right = (sums_by_combo * sign) @ half
    ridge = _RIDGE * (np.trace(normal, axis1=1, axis2=2) + 1e-30)
    solved = np.linalg.solve(normal + ridge[:, None, None] * np.eye(planes), right[..., None])[..., 0]
    error = rows.power - 2 * (right * solved).sum(1) + np.einsum("rp,rpq,rq->r", solved, normal, solved)
    return _Solution(solved, thresholds, order, sign, np.maximum(error, 0))


def _alternate(rows: _SortedRows, scales: Array, half: Array, iterations: int) -> _Solution:
    """Alternate from `scales` until it settles."""
    best = latest = _step(rows, scales, half)
    for _ in range(iterations - 1):
        before = float(best.error.sum())
        latest = _step(rows, latest.scales, half)
        best.improve(latest)
        if before - float(best.error.sum()) <= _CONVERGED * before:
            break
    return best


def _initial(rows: _SortedRows, planes: int, start: tuple[float, ...] | None) -> Array:
    """Scales [R, P] to start from: multiples of each row's RMS, or (None) the exact single plane and thirds of it."""
    if start is None:
        return rows.exact_single()[:, None] / 3.0 ** np.arange(planes)
    return rows.rms[:, None] * np.array(start)


def _promising_starts(rows: Array, half: Array) -> list[tuple[float, ...] | None]:
    """The starts to try on every row: found by trying all of them on evenly spaced rows."""
    planes = half.shape[1]
    if planes == 1:
        return [None]
    magnitude = np.abs(rows[:: max(1, len(rows) // _SAMPLE_ROWS)][:_SAMPLE_ROWS])
    candidates: list[tuple[float, ...] | None] = [None, *_STARTS[planes]]
    # As rows of one matrix, since so few rows cost little more than numpy's calls.
    sample = _SortedRows(magnitude)
    scales = np.concatenate([_initial(sample, planes, start) for start in candidates])
    every = _SortedRows(np.tile(magnitude, (len(candidates), 1)))
    errors = _alternate(every, scales, half, _SAMPLE_ITERATIONS).error.reshape(len(candidates), -1)
    kept = [int(np.argmin([e.sum() for e in errors]))]
    while len(kept) < _KEPT_STARTS:
        joint = [np.min([errors[j] for j in (*kept, i)], axis=0).sum() for i in range(len(candidates))]
        kept.append(int(np.argmin([np.inf if i in kept else e for i, e in enumerate(joint)])))
    return [candidates[i] for i in kept]


def _best(rows: _SortedRows, starts: list[tuple[float, ...] | None], half: Array, iterations: int) -> _Solution:
    best, *others = (_alternate(rows, _initial(rows, half.shape[1], start), half, iterations) for start in starts)
    for other in others:
        best.improve(other)
    return best


def _planes(found: _Solution, half: Array) -> tuple[Array, Array]:
    """Scales [R, P], positive and falling, and the trits [R, L, P] of each level for planes in that order."""
    combos = half[found.order] * np.take_along_axis(found.sign, found.order, axis=1)[..., None]
    by_size = np.argsort(-np.abs(found.scales), axis=1, kind="stable")
    positive = combos * np.where(found.scales < 0, -1.0, 1.0)[:, None, :]
    scales = np.take_along_axis(np.abs(found.scales), by_size, axis=1)
    return scales, np.take_along_axis(positive, by_size[:, None, :], axis=2).astype(np.int8)


def _assign(part: Array, magnitude: Array, thresholds: Array, combos: Array) -> Array:
    """The trits [P, R, K] of weights: those of the level their magnitude falls in, with their sign."""
    index = np.zeros(part.shape, np.uint8)
    for level in range(thresholds.shape[1]):
        index += magnitude > thresholds[:, level, None]
    flat = index + (np.arange(len(part), dtype=np.int32) * combos.shape[1])[:, None]
    negative = part < 0
    result = np.empty((combos.shape[2], *part.shape), np.int8)
    for plane in range(combos.shape[2]):
        table = np.ascontiguousarray(combos[:, :, plane]).reshape(-1)
        np.take(table, flat, out=result[plane], mode="clip")
        np.negative(result[plane], out=result[plane], where=negative)
    return result
