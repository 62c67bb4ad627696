"""Tables for functions of one bf16 number: a line on each segment of an octave, as few segments as the error allows.

An octave is the numbers of one sign and exponent. It is cut into 2^(7 - s) segments, the smallest number for which a
line from the segment's first number stays near the function; with s = 0 each number has its own entry. The word format
is `npu.chain`'s. What a table misses is measured over all numbers, not bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from neuc.dialects.interp.npu_bf16 import bf16
from neuc.dialects.interp.npu_rows import curve
from neuc.dialects.npu_rows import OCTAVES

MOST_SEGMENTS = 2048
"""Segments of a table at most: 16 KB of a core's 64."""
RELATIVE = 2.0**-9
"""What a line may miss, relative to the function: half of what rounding the result to bf16 does."""
ABSOLUTE = 2.0**-20
"""And beside that."""
_IN_OCTAVE = 128
_MANTISSA = 7

Function = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Curve:
    """A table's words, and how far it is from the function over all finite numbers whose results are finite.

    ``error`` is the largest difference and ``relative`` the largest share of |result| among those above 2^-10.
    """

    words: NDArray[np.int32]
    error: float
    relative: float

    @property
    def segments(self) -> int:
        """Lines in the table."""
        return (len(self.words) - OCTAVES) // 2


def all_numbers() -> NDArray[np.float32]:
    """Every bf16 number by its bits, infinities and NaN among them."""
    return (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)


def fit_curve(function: Function) -> Curve | None:
    """The table of a function of f32 arrays; None where it would need too many segments.

    A function that changes fast far from zero, such as sin, or that has no range where it is constant or a line, such
    as 1 / x, does not fit.
    """
    with np.errstate(all="ignore"):
        return _fitted(np.ascontiguousarray(function(all_numbers()), np.float32).tobytes())


@lru_cache(maxsize=64)
def _fitted(results: bytes) -> Curve | None:
    """The table of a function with these results for all numbers."""
    x, y = all_numbers(), np.frombuffer(results, np.float32).astype(np.float64).reshape(OCTAVES, _IN_OCTAVE)
    words, lines = np.zeros(OCTAVES, np.int64), list[NDArray[np.float32]]()
    known: dict[bytes, int] = {}
    count = 0
    for octave, values in enumerate(y):
        shift, found = _octave(values)
        key = found.tobytes()
        if key not in known:  # constant and zero octaves are many
            known[key] = count
            lines.append(found)
            count += len(found)
        words[octave] = known[key] | shift << 16
        if count > MOST_SEGMENTS:
            return None
    table = np.concatenate([words.astype(np.int32), np.concatenate(lines).reshape(-1).view(np.int32)])
    got, wanted = curve(x, table).astype(np.float64), y.reshape(-1)
    finite = np.isfinite(x) & np.isfinite(wanted) & (np.abs(wanted) < np.finfo(np.float32).max / 2)
    with np.errstate(all="ignore"):
        missed = np.where(finite, np.abs(got - wanted), 0.0)
    large = finite & (np.abs(wanted) > 2.0**-10)
    relative = (missed[large] / np.abs(wanted[large])).max(initial=0.0)
    return Curve(table, float(missed.max(initial=0.0)), float(relative))


def _octave(values: NDArray[np.float64]) -> tuple[int, NDArray[np.float32]]:
    """The widest segments that do: their shift, and a line [segments, 2] for each."""
    for shift in range(_MANTISSA, -1, -1):
        made = _lines(values.reshape(-1, 1 << shift))
        along = np.arange(1 << shift, dtype=np.float32)
        with np.errstate(all="ignore"):
            got = made[:, :1] + along * made[:, 1:]
            wanted = values.reshape(got.shape)
            near = np.abs(got - wanted) <= RELATIVE * np.abs(wanted) + ABSOLUTE
            same = (got == wanted.astype(np.float32)) | (np.isnan(got) & np.isnan(wanted))
        if shift == 0 or (near | same).all():
            return shift, made
    raise AssertionError  # shift 0 always returns


def _lines(segments: NDArray[np.float64]) -> NDArray[np.float32]:
    """(c0, c1) of each segment: the chord's slope in bf16, moved to the middle of what it misses."""
    count = segments.shape[1]
    with np.errstate(all="ignore"):
        slope = (segments[:, -1] - segments[:, 0]) / max(1, count - 1)
        slope = bf16(np.where(np.isfinite(slope), slope, 0.0).astype(np.float32)).astype(np.float64)
        rest = segments - slope[:, None] * np.arange(count)
        level = (rest.max(axis=1) + rest.min(axis=1)) / 2
    constant = (segments == segments[:, :1]).all(axis=1)
    level = np.where(constant | ~np.isfinite(level), segments[:, 0], level)
    return np.stack([level, slope], axis=1).astype(np.float32)
