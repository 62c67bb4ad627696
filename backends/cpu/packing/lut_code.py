"""What look-up encodings mean: the digits of table entries, and how weights become indices of them.

A weight is w = offset + step · Σ_b factor_b · digit_b, over the *planes* b of its encoding. A table has an entry
Σ_d digit_d · q_d for each tuple of g digits, so g neighbouring weights are one index per plane; the offset takes the
sum of the activations. Every encoding has the digit 0, with which rows and segments are filled up.

=========== ============ ========================= ==================================================================
encoding    digits       planes                    tables
=========== ============ ========================= ==================================================================
`tl2`       -1, 0, 1     1                         mirrored: one entry for each pair of opposite tuples, and weights
                                                   have a sign beside the index; (3^g + 1)/2 entries, g up to 3
`tl1`       one a level  1                         full: C^g entries for C levels
`bitserial` 0, 1         bits of the largest code  full: 2^g entries; factors ±1, ±2, ±4, ±8
=========== ============ ========================= ==================================================================

No layouts of bytes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from neuc.errors import InternalError

ENTRIES = 16
"""Entries a table has room for: what a byte shuffle reads."""
LEAST, MOST = -128, 127
"""Activations."""
LOOKUPS = 8
"""Look-ups per step of a layout, and so entries that add up before anything wider does."""


@dataclass(frozen=True)
class ByteSplit:
    """How `bytes` tables hold entries v: v + bias = base·h + l, with h and l so small that `adds` of each fit an int8.

    Attributes:
        base: of the digits h and l.
        bias: added to each entry.
        adds: how many l, or h, an int8 stands; a divisor of `LOOKUPS`.
        most: the largest absolute value of v + bias.
    """

    base: int
    bias: int
    adds: int
    most: int

    @property
    def shift(self) -> int | None:
        """Log2 of the base, None if that is no power of 2."""
        return self.base.bit_length() - 1 if self.base & (self.base - 1) == 0 else None


@dataclass(frozen=True)
class TableCode:
    """The entries of a table: sums of g activations, each times a digit out of low … high.

    An entry's number has its digits in base C = high - low + 1, less `low`, most significant first. Of a mirrored
    table's entries -e and e only e is there, and its number is the value of its digits in balanced ternary.
    """

    g: int
    low: int
    high: int
    mirrored: bool = False

    def __post_init__(self) -> None:
        if not self.low <= 0 <= self.high or (self.mirrored and (self.low, self.high) != (-1, 1)):
            raise InternalError(f"digits {self.low} … {self.high} cannot be looked up")
        if self.g < 1 or self.entries > ENTRIES:
            raise InternalError(f"a table for {self.g} weights of {self.radix} levels has more than {ENTRIES} entries")

    @property
    def radix(self) -> int:
        """C, the digits there are."""
        return self.high - self.low + 1

    @property
    def entries(self) -> int:
        """Entries in use."""
        return (3**self.g + 1) // 2 if self.mirrored else self.radix**self.g

    @property
    def places(self) -> np.ndarray:
        """int32 [g]: what a digit of each place adds to an entry's number."""
        return self.radix ** np.arange(self.g - 1, -1, -1, dtype=np.int32)

    @property
    def all_ones(self) -> int:
        """The number of the entry that is the sum of the activations."""
        return int(sum(self.places) * (1 if self.mirrored else 1 - self.low))

    def digits(self) -> np.ndarray:
        """int8 [16, g]: the digits of each entry, zero for entries no index names."""
        table = np.zeros((ENTRIES, self.g), np.int8)
        for digits in product(range(self.low, self.high + 1), repeat=self.g):
            number = int(self.places @ np.subtract(digits, 0 if self.mirrored else self.low))
            if number >= 0:
                table[number] = digits
        return table

    def index(self, digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (uint8) and signs (whether minus) of digits [..., g]."""
        numbers = (digits.astype(np.int32) - (0 if self.mirrored else self.low)) @ self.places
        return np.abs(numbers).astype(np.uint8), numbers < 0

    def bounds(self) -> tuple[int, int]:
        """Smallest and largest value of an entry; of mirrored tables, of an entry or minus one."""
        digits = self.digits().astype(np.int64)
        least = int(np.minimum(digits * LEAST, digits * MOST).sum(axis=1).min())
        most = int(np.maximum(digits * LEAST, digits * MOST).sum(axis=1).max())
        return (min(least, -most), max(most, -least)) if self.mirrored else (least, most)

    @property
    def quads_bias(self) -> int:
        """What `quads` tables add to each entry, so that both of its bytes are unsigned."""
        return -self.bounds()[0]

    def byte_split(self) -> ByteSplit:
        """For `bytes` tables.

        Signs of mirrored tables are applied to h and l, which must fit with either sign: as v is in -384 … 384, base 28
        keeps both in -14 … 14, and 8·14 < 128. Those of full tables are in -n … n - 1 with n = 128/adds, so that there
        is room for 4·n² values of v: 8 look-ups add up where g·(high - low) <= 4, else 4.
        """
        least, most = self.bounds()
        if self.mirrored:
            return ByteSplit(base=28, bias=0, adds=LOOKUPS, most=most)
        for adds in (LOOKUPS, LOOKUPS // 2):
            n = 128 // adds
            smallest, largest = -n * 2 * n - n, (n - 1) * 2 * n + n - 1
            if most - least <= largest - smallest:
                bias = max(smallest - least, min(0, largest - most))
                return ByteSplit(2 * n, bias, adds, max(abs(least + bias), abs(most + bias)))
        raise InternalError(f"entries {least} … {most} do not fit two bytes that add up")


@dataclass(frozen=True)
class WeightCode:
    """An encoding of weights: `w = offset + step · Σ_b factors[b] · digit_b`, digits as in `table`."""

    table: TableCode
    factors: tuple[int, ...] = (1,)
    step: int = 1
    offset: int = 0

    @staticmethod
    def of(encoding: str, levels: Sequence[int], g: int) -> WeightCode:
        """`tl1`, `tl2` or `bitserial` for ascending, evenly spaced levels; `tl2` takes those of -1, 0, 1."""
        match encoding:
            case "tl2":
                return WeightCode(TableCode(g, -1, 1, mirrored=True))
            case "tl1":
                return _full(levels, g)
            case "bitserial":
                return _bit_planes(levels, g)
            case _:
                raise InternalError(f"{encoding} is no look-up encoding")

    @property
    def planes(self) -> int:
        """Indices per group of weights."""
        return len(self.factors)

    def digits_of(self, weights: np.ndarray) -> np.ndarray:
        """int8 [plane, ...]: digits of weights; those of weights that are no level are 0."""
        digits = range(self.table.low, self.table.high + 1)
        found = np.zeros((self.planes, 256), np.int8)
        for combination in product(digits, repeat=self.planes):
            level = self.offset + self.step * int(np.dot(self.factors, combination))
            if -128 <= level <= 127:
                found[:, level + 128] = combination
        return found[:, weights.astype(np.int32) + 128]

    def holds(self, weights: np.ndarray) -> bool:
        """Whether all weights are levels."""
        digits = self.digits_of(weights).astype(np.int32)
        return bool((self.offset + self.step * np.tensordot(self.factors, digits, 1) == weights).all())


def _spacing(levels: Sequence[int]) -> int:
    step = levels[1] - levels[0] if len(levels) > 1 else 1
    if not levels or step < 1 or list(levels) != list(range(levels[0], levels[-1] + 1, step)):
        raise InternalError(f"levels {list(levels)} are not evenly spaced")
    return step


def _full(levels: Sequence[int], g: int) -> WeightCode:
    """Digits count from the middle level, so that entries are small; of two middles, from 0 if it is one."""
    step, last = _spacing(levels), len(levels) - 1
    middle = (last + 1) // 2 if levels[(last + 1) // 2] == 0 else last // 2
    return WeightCode(TableCode(g, -middle, last - middle), step=step, offset=levels[middle])


def _bit_planes(levels: Sequence[int], g: int) -> WeightCode:
    """Bits of codes; if 0 is a level, some count negatively, so that weight 0 is code 0 and there is no offset."""
    step = _spacing(levels)
    if len(levels) > ENTRIES:
        raise InternalError(f"bitserial holds up to {ENTRIES} levels, not {len(levels)}")
    planes = max(1, (len(levels) - 1).bit_length())
    negative = -levels[0] // step if levels[0] % step == 0 and levels[0] <= 0 <= levels[-1] else 0
    factors = tuple(-(1 << b) if negative >> b & 1 else 1 << b for b in range(planes))
    return WeightCode(TableCode(g, 0, 1), factors, step, offset=levels[0] + step * negative)
