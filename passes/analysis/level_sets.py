"""Finds out whether a float matrix holds few levels: small integers times scales.

Quantisers leave such matrices behind, exactly or within a few units in the last place: folding w + (round(w) - w), a
straight-through estimator, gives five to seven values where three were meant. Which layers to ask about, and what comes
of the answer, is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from neuc.dialects.ternary_types import ScaleAttr

Array = np.ndarray

MAX_ULP = 16
"""How far a weight may be from level · scale, in units in the last place of f32 (2e-6 of the weight at most).

Folding w + (u - w) rounds at the size of u - w, so that a master weight of 32 scales leaves 16 units. Weights that were
rounded to 16 bits are 2000 units and more from where they belong.
"""
MIN_GROUP = 16
"""Fewest columns that may have a scale of their own: below, a scale costs more than the levels it goes with."""
GROUP_MULTIPLE = 4
"""What columns that share a scale come in: kernels take four at a time."""
BOUNDS = (1, 3, 7, 15)
"""The largest magnitude of a level, tried in turn: fewer levels with finer scales rather than the other way round."""

_BYTE = 128
"""The largest magnitude of 8-bit weights, which are too many levels."""
_GROUPS = (256, 128, 64, 32)
_SAMPLE_ROWS = 16
_MAGNITUDE = np.int32(0x7FFFFFFF)
_BLOCK_ELEMENTS = 1 << 17
_NEAR = np.float32(2 * MAX_ULP * 2.0**-23)
"""Twice the bound, relative: the peak that the others are measured by is as far from its level as any weight may be."""


@dataclass(frozen=True)
class LevelFit:
    """A matrix as levels times scales.

    Attributes:
        trits: int8 [1, N, K].
        scales: f32 [1, N, G].
        scale: which weights share a scale.
        levels: the levels that occur, and those missing in their arithmetic progression.
        ulp: the largest distance between level · scale and the weight, in units in the last place.
    """

    trits: Array
    scales: Array
    scale: ScaleAttr
    levels: tuple[int, ...]
    ulp: int


def find_levels(matrix: Array, most: int = BOUNDS[-1]) -> LevelFit | None:
    """The levels and scales of a matrix; None if it has none.

    Args:
        matrix: f32 [N, K].
        most: the largest magnitude of a level that still counts, at most 127.

    Returns:
        The fit with the smallest bound on levels, and of those the one with the fewest scales: one for the tensor, one
        for each row, or one for each group of columns, at least `MIN_GROUP` and a multiple of `GROUP_MULTIPLE` of them.
    """
    n, k = matrix.shape
    rows = np.linspace(0, n - 1, min(n, _SAMPLE_ROWS)).astype(int)
    head = matrix[rows, :MIN_GROUP]
    if not matrix.size or not np.isfinite(head).all():
        return None
    sample: Array | None = None
    for bound in (*BOUNDS, *((most,) if most > BOUNDS[-1] else ())):
        if _units(head, _peaks(head), bound) is None:
            continue  # whatever shares a scale, these do
        if sample is None:
            sample = matrix[rows]
            if not np.isfinite(matrix).all() or not matrix.any():
                return None
        for kind, size in _partitions(k):
            if _fit(sample, kind, size, bound) is not None:
                found = _fit(matrix, kind, size, bound)
                if found is not None:
                    return found
    return None


def obstacle(matrix: Array) -> str:
    """Why `find_levels` finds none in an f32 matrix [N, K], as what its weights do; some rows of it are looked at."""
    if not np.isfinite(matrix).all():
        return "hold NaN or infinity"
    if not matrix.any():
        return "are all zero"
    n, k = matrix.shape
    sample = matrix[np.linspace(0, n - 1, min(n, _SAMPLE_ROWS)).astype(int)]
    size = _group_size(sample, BOUNDS[-1])
    if size and ("group", size) not in _partitions(k):
        taken = f"{MIN_GROUP} or more that divide {k} and come in {GROUP_MULTIPLE}s, or {', '.join(map(str, _GROUPS))}"
        return f"hold few levels only with a scale for every {size} columns, not {taken}"
    if _group_size(sample, _BYTE):
        return f"hold more levels than {-BOUNDS[-1]} to {BOUNDS[-1]}"
    return "hold more than few levels"


def _group_size(sample: Array, bound: int) -> int:
    """How many columns share a scale if levels are up to `bound`; 0 if no number of columns does."""
    low, high = 1, sample.shape[1]  # whatever columns have levels, the first of them have the same
    while low < high:
        middle = (low + high + 1) // 2
        head = sample[:, :middle]
        low, high = (low, middle - 1) if _units(head, _peaks(head), bound) is None else (middle, high)
    return low if low > 1 and _fit(sample, "group", low, bound) is not None else 0


def _partitions(k: int) -> Iterator[tuple[str, int]]:
    """Ways to share scales, the coarsest first: usual group sizes, and those that cut a row into equal parts."""
    yield "tensor", k
    yield "row", k
    divisors = {d for d in range(MIN_GROUP, k // 2 + 1, GROUP_MULTIPLE) if k % d == 0}
    for size in sorted(divisors.union(g for g in _GROUPS if g < k), reverse=True):
        yield "group", size


def _fit(matrix: Array, kind: str, size: int, bound: int) -> LevelFit | None:
    """A fit with scales shared in this way, if there is one."""
    n, k = matrix.shape
    step = max(1, _BLOCK_ELEMENTS // k)
    blocks = [_groups(matrix[begin : begin + step], size) for begin in range(0, n, step)]
    fitted = _fit_tensor(blocks, bound) if kind == "tensor" else _fit_groups(blocks, bound)
    if fitted is None:
        return None
    codes, scales, ulp = fitted
    scales[scales == 0] = np.median(scales[scales > 0])  # groups of zeros: any scale does
    scale = ScaleAttr.of(kind, size if kind == "group" else 0)
    whole = codes.reshape(n, -1)[:, :k]
    return LevelFit(np.ascontiguousarray(whole)[None], scales.reshape(1, n, -1), scale, _levels(codes), ulp)


def _groups(rows: Array, size: int) -> Array:
    """Rows of [R, K] as rows of `size` columns; the last of each is filled up with zeros."""
    if rows.shape[1] % size:
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % size)))
    return rows.reshape(-1, size)


def _levels(codes: Array) -> tuple[int, ...]:
    present = np.flatnonzero(np.bincount(codes.reshape(-1).astype(np.int16) + 128)) - 128
    if len(present) == 1:
        present = np.array(sorted((0, int(present[0]))))
    step = int(np.gcd.reduce(np.diff(present)))
    return tuple(range(int(present[0]), int(present[-1]) + 1, step))


_Fitted = tuple[Array, Array, int]
"""Codes int8 [M, size], scales f32 [M] (0 where a group is all zeros), and the largest distance."""


def _fit_groups(blocks: Sequence[Array], bound: int) -> _Fitted | None:
    """Every row of every block has its own scale."""
    codes, scales, ulp = list[Array](), list[Array](), 0
    for groups in blocks:
        units = _units(groups, _peaks(groups), bound)
        if units is None:
            return None
        part = np.rint(groups / units[:, None])
        center = _medians(groups, part)
        distance = _distance(groups, part, center)
        for scale in _neighbours(center) if distance.any() else ():
            other = _distance(groups, part, scale)
            center = np.where(other < distance, scale, center)
            distance = np.minimum(distance, other)
        if distance.max() > MAX_ULP:
            return None
        codes.append(part.astype(np.int8))
        scales.append(center)
        ulp = max(ulp, int(distance.max()))
    return np.concatenate(codes), np.concatenate(scales), ulp


def _fit_tensor(blocks: Sequence[Array], bound: int) -> _Fitted | None:
    """All blocks have one scale."""
    peak = np.max([_peaks(groups).max() for groups in blocks])
    for top in range(1, bound + 1):
        unit = np.float32(peak / top)
        if all(_near(groups, np.full(len(groups), unit)).all() for groups in blocks):
            break
    else:
        return None
    parts = [np.rint(groups / unit) for groups in blocks]
    medians = np.concatenate([_medians(groups, part) for groups, part in zip(blocks, parts)])
    center = np.median(medians[medians > 0]).astype(np.float32)
    ulp = _largest_distance(blocks, parts, center)
    for scale in _neighbours(center) if ulp else ():
        other = _largest_distance(blocks, parts, scale)
        ulp, center = (other, scale) if other < ulp else (ulp, center)
    if ulp > MAX_ULP:
        return None
    codes = np.concatenate([part.astype(np.int8) for part in parts])
    return codes, np.full(len(codes), center), ulp


def _peaks(groups: Array) -> Array:
    return np.maximum(groups.max(axis=1), -groups.min(axis=1))


def _units(groups: Array, peaks: Array, bound: int) -> Array | None:
    """For each row the largest unit of which all elements are multiples up to `bound`; None if one has none."""
    units = np.where(peaks > 0, peaks, np.float32(1))
    left = np.flatnonzero(peaks > 0)
    for top in range(1, bound + 1):
        units[left] = peaks[left] / np.float32(top)
        left = left[~_near(groups if len(left) == len(groups) else groups[left], units[left])]
        if not left.size:
            return units
    return None


def _near(groups: Array, units: Array) -> Array:
    """Which rows are near multiples of their unit; what is near zero has to be zero."""
    exact = groups / units[:, None]
    nearest = np.rint(exact)
    exact -= nearest
    np.abs(exact, out=exact)
    np.abs(nearest, out=nearest)
    nearest *= _NEAR
    return np.logical_and.reduce(exact <= nearest, axis=1)


def _medians(groups: Array, codes: Array) -> Array:
    """For each row the median of the scales its elements imply; 0 for a row of zeros."""
    with np.errstate(invalid="ignore", divide="ignore"):
        implied = groups / codes
    zero = codes == 0
    implied[zero] = np.inf
    lowest = implied.min(axis=1)
    implied[zero] = -np.inf
    if np.array_equal(implied.max(axis=1)[lowest < np.inf], lowest[lowest < np.inf]):
        return np.where(lowest < np.inf, lowest, np.float32(0))
    implied[zero] = np.inf
    implied.sort(axis=1)
    middle = np.maximum((np.count_nonzero(codes, axis=1) - 1) // 2, 0)
    found = implied[np.arange(len(implied)), middle]
    return np.where(found < np.inf, found, np.float32(0))


def _neighbours(center: Array) -> tuple[Array, Array]:
    """The numbers next to medians: dividing a weight by its level rounds, so that the scale may be one of these."""
    return np.nextafter(center, np.float32(0)), np.nextafter(center, np.float32(np.inf))


def _largest_distance(blocks: Sequence[Array], parts: Sequence[Array], scale: Array) -> int:
    return max(int(_distance(groups, part, scale[None]).max()) for groups, part in zip(blocks, parts))


def _distance(groups: Array, codes: Array, scales: Array) -> Array:
    """For each row the largest distance of level · scale from the element, in units in the last place."""
    rebuilt, own = codes * scales[:, None], groups
    # Of equal signs, so that the bits of the magnitudes count the numbers between.
    steps = (rebuilt.view(np.int32) & _MAGNITUDE) - (own.view(np.int32) & _MAGNITUDE)
    return np.abs(steps, out=steps).max(axis=1)
