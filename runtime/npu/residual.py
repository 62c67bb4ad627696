"""Codes of a product and codes of another tensor, added on the core that made the first: integers, and how they travel.

The sum of codes a and b is clip(round((a · m + b · n + addend) / 2^shift) + zero, low, high), rounded half to even; the
few pairs of codes for which a CPU's f32 rounding gives another are listed, and a table of codes may follow. How the
integers are found is the business of `backends/npu/residuals.py`. The other tensor's tile follows A's last tile in A's
stream, as tokens like those of A: what cores of one stream need side by side, each core takes its own columns of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_PAIRS = 24
"""Corrected pairs of codes, at most: room for them is kept in every core."""
TABLE = 256
PAIR_COUNT, TABLE_FLAG, MULTIPLIERS, ADDEND, LIMITS, TABLE_BEGIN = 0, 1, 2, 4, 6, 7
PAIRS_BEGIN = TABLE_BEGIN + TABLE // 4
RESIDUAL_WORDS = PAIRS_BEGIN + MOST_PAIRS
"""Words of 32 bits that say how two codes are added; they stand before the parameters of a product's columns."""


@dataclass(frozen=True)
class Residual:
    """How codes are added.

    Attributes:
        multipliers: int32 [2], of the product's codes and of the others.
        addend: int64 [1].
        limits: int8 [4]: shift (1 … 46), zero, low, high.
        corrections: int32 [E, 3]: the product's code, the other one, and what their result differs by.
        table: int8 [256] of the codes -128 … 127, or None.
    """

    multipliers: NDArray[np.int32]
    addend: NDArray[np.int64]
    limits: NDArray[np.int8]
    corrections: NDArray[np.int32]
    table: NDArray[np.int8] | None = None


def residual_words(given: Residual) -> NDArray[np.int32]:
    """Words, little-endian: pairs; 1 for a table; multipliers; low and high word of the addend; limits; table; pairs.

    Of a pair the lowest byte is the product's code, then come the other code and the difference.
    """
    words = np.zeros(RESIDUAL_WORDS, "<i4")
    words[PAIR_COUNT], words[TABLE_FLAG] = len(given.corrections), given.table is not None
    words[MULTIPLIERS:ADDEND] = given.multipliers
    words[ADDEND:LIMITS] = given.addend.astype("<i8").view("<i4")
    words[LIMITS:TABLE_BEGIN] = np.ascontiguousarray(given.limits).view("<i4")
    if given.table is not None:
        words[TABLE_BEGIN:PAIRS_BEGIN] = np.ascontiguousarray(given.table).view("<i4")
    own, other, change = (given.corrections[:, i] & 0xFF for i in range(3))
    words[PAIRS_BEGIN : PAIRS_BEGIN + len(given.corrections)] = own | other << 8 | change << 16
    return words


def added(codes: NDArray[np.int8], other: NDArray[np.int8], words: NDArray[np.int32]) -> NDArray[np.int8]:
    """Codes of the sums of two codes, elementwise, by such words."""
    a, b = codes.astype(np.int64), other.astype(np.int64)
    low_word, high_word = (int(word) for word in words[ADDEND:LIMITS])
    addend = np.int64(high_word << 32 | low_word & 0xFFFFFFFF)
    shift, zero, low, high = (np.int64(v) for v in np.ascontiguousarray(words[LIMITS:TABLE_BEGIN]).view(np.int8))
    wide = a * words[MULTIPLIERS] + b * words[MULTIPLIERS + 1] + addend
    near = (wide + (np.int64(1) << (shift - 1)) - 1 + (wide >> shift & 1)) >> shift
    made = np.clip(near + zero, low, high)
    pair = (a & 0xFF) | (b & 0xFF) << 8
    for word in words[PAIRS_BEGIN : PAIRS_BEGIN + int(words[PAIR_COUNT])]:
        made += (pair == (int(word) & 0xFFFF)) * ((int(word) >> 16 & 0xFF ^ 0x80) - 0x80)
    if words[TABLE_FLAG]:
        made = np.ascontiguousarray(words[TABLE_BEGIN:PAIRS_BEGIN]).view(np.int8)[made + TABLE // 2]
    return made.astype(np.int8)


def own_columns(token: int, width: int, part: int, columns: int) -> tuple[int, int, int]:
    """Of token number `token` of `width` columns: the first of `part`'s columns in it, where it lies, and how many.

    Tiles of `columns` columns lie side by side, and tokens cut that row of tiles into equal widths.
    """
    begin = max(token * width, part * columns)
    end = min((token + 1) * width, (part + 1) * columns)
    return begin - part * columns, begin - token * width, max(0, end - begin)
