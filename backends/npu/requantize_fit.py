"""Integers that give the codes a CPU computes in f32: a line by multiplier, addend and shift, and what it gets wrong.

Codes of a column are a staircase in its sum, which never falls. The sum at which it reaches each code is found by
bisection, for the CPU's arithmetic and for the line, over all sums there can be; where the two differ, the line is
corrected. Nothing is sampled: outside the corrections both staircases are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from neuc.runtime.npu.requantize import MOST_SHIFT, Requantize

Staircase: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Codes of sums [N, T], column by column."""
_BITS = 30
_NEAR = 8
"""How far from where the line says a staircase is looked at first."""
_LARGEST_SUM = 1 << 31


@dataclass(frozen=True)
class Line:
    """What the codes of N columns are but for rounding and clipping: sum · slope + intercept, rounded, + zero."""

    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]
    zero: int


def fit(staircase: Staircase, line: Line, reach: NDArray[np.int64]) -> Requantize | str:
    """Parameters whose codes are the staircase's for all sums of magnitude up to `reach` [N], or why there are none.

    The staircase must not fall anywhere, as chains of rounded operations that never fall do not.
    """
    if (line.slope <= 0).any() or not np.isfinite(line.slope).all() or not np.isfinite(line.intercept).all():
        return "codes do not rise with its sums"
    if (reach >= _LARGEST_SUM).any():
        return "its sums may exceed 32 bits"
    ends = staircase(np.stack([-reach, reach], 1))
    low, high = int(ends[:, 0].min()), int(ends[:, 1].max())
    if not (-128 <= low <= high <= 127 and -128 <= line.zero <= 127):
        return "its codes are no int8"
    _, exponent = np.frexp(line.slope)
    shift = np.minimum(_BITS + 1 - exponent, MOST_SHIFT)
    multiplier = np.rint(np.ldexp(line.slope, shift))
    addend = np.rint(np.ldexp(line.intercept, shift))
    if (shift < 1).any() or (np.abs(multiplier) * reach + np.abs(addend) >= 2.0**62).any():
        return "its scales are out of the range of integer requantisation"
    columns = len(reach)
    limits = np.stack([shift, *(np.full(columns, v) for v in (line.zero, low, high))], 1).astype(np.int8)
    plain = Requantize(
        multiplier.astype(np.int32), addend.astype(np.int64), limits, np.zeros((columns, 0, 2), np.int32)
    )
    levels = np.arange(low + 1, high + 1)
    guess = (levels - 0.5 - line.zero - line.intercept[:, None]) / line.slope[:, None]
    wanted = _reached(staircase, levels, guess, reach)
    found = _reached(lambda sums: _codes(plain, sums), levels, guess, reach)
    return _corrected(plain, wanted, found)


def _codes(given: Requantize, sums: NDArray[np.int64]) -> NDArray[np.int64]:
    shift, zero, low, high = given.limits.astype(np.int64).T[:, :, None]
    wide = sums * given.multiplier.astype(np.int64)[:, None] + given.addend[:, None]
    near = (wide + (np.int64(1) << (shift - 1)) - 1 + (wide >> shift & 1)) >> shift
    return np.clip(near + zero, low, high)


def _reached(
    staircase: Staircase, levels: NDArray[np.int64], guess: NDArray[np.float64], reach: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The least sum of each column [N, T] whose code is at least each level; one beyond the reach if there is none."""
    most = np.broadcast_to(reach[:, None], guess.shape)
    near = np.clip(guess, -most, most).astype(np.int64)
    below, above = np.maximum(near - _NEAR, -most), np.minimum(near + _NEAR, most)
    below = np.where(staircase(below) < levels, below, -most - 1)
    above = np.where(staircase(above) >= levels, above, most + 1)
    # Outside the reach a staircase counts as all low and all high, so that the bracket always holds.
    while (above - below > 1).any():
        middle = (below + above) >> 1
        high = staircase(np.clip(middle, -most, most)) >= levels
        above, below = np.where(high, middle, above), np.where(high, below, middle)
    return above


def _corrected(plain: Requantize, wanted: NDArray[np.int64], found: NDArray[np.int64]) -> Requantize:
    wrong = wanted != found
    most = int(wrong.sum(1).max(initial=0))
    corrections = np.zeros((len(wanted), most, 2), np.int32)
    column, level = np.nonzero(wrong)
    place = np.arange(len(column)) - np.searchsorted(column, column)
    corrections[column, place, 0] = np.minimum(wanted, found)[column, level]
    corrections[column, place, 1] = (found - wanted)[column, level]
    return Requantize(plain.multiplier, plain.addend, plain.limits, corrections)
