"""Requantisation on a core: int32 sums to int8 codes by integers alone, and the parameter block that says how.

A column's code is clip(round((sum · multiplier + addend) / 2^shift) + zero, low, high), rounded half to even, which is
what a core's shift-round-saturate does. A CPU computes the same in f32, and its rounding puts a few sums on the other
side of a tie: those are listed as corrections, so that codes are the CPU's bit for bit. A table of 256 codes may
follow, and another requantisation, of the codes, and then another tensor's codes may be added (`residual.py`). How
multipliers and corrections are found is the business of `backends/npu/requantize_fit.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuc.runtime.npu.residual import MOST_PAIRS, RESIDUAL_WORDS, Residual, residual_words

MOST_CORRECTIONS = 24
"""Corrections a column, at most: room for them is kept in every core."""
MOST_STAGES = 2
"""Requantisations one after the other, at most."""
MOST_SHIFT = 46
"""Bits shifted away, at most, so that a sum times a multiplier, with the addend, stays within 63 bits."""
TABLE = 256
_HEADER = 2 + TABLE // 4
_COLUMN = 4


@dataclass(frozen=True)
class Finish:
    """What a product's columns go through: stages of requantisation, the corrections of a column, tables.

    ``residual`` is 1 where codes of another tensor are added then, with so many ``pairs`` corrected.
    """

    stages: int = 1
    corrections: int = 0
    tables: int = 0
    residual: int = 0
    pairs: int = 0


@dataclass(frozen=True)
class Requantize:
    """Parameters of N columns in one stage.

    Attributes:
        multiplier: int32 [N].
        addend: int64 [N].
        limits: int8 [N, 4]: shift (1 … `MOST_SHIFT`), zero, low, high.
        corrections: int32 [N, E, 2]: the first sum, and of how many sums from it on codes are one more, or, negative,
            one less.
        table: int8 [256] of the codes -128 … 127, or None.
    """

    multiplier: NDArray[np.int32]
    addend: NDArray[np.int64]
    limits: NDArray[np.int8]
    corrections: NDArray[np.int32]
    table: NDArray[np.int8] | None = None

    @property
    def finish(self) -> Finish:
        """What a core is told beforehand of this stage."""
        return Finish(1, self.corrections.shape[1], int(self.table is not None))


MOST = Finish(MOST_STAGES, MOST_CORRECTIONS, MOST_STAGES + 1, 1, MOST_PAIRS)
"""What every core has room for."""


def in_turn(stages: Sequence[Requantize], residual: Residual | None = None) -> Finish:
    """What a core is told of stages one after the other, and of what is added then."""
    each = [stage.finish for stage in stages]
    found = Finish(len(each), sum(one.corrections for one in each), sum(one.tables for one in each))
    if residual is None:
        return found
    tables = found.tables + (residual.table is not None)
    return replace(found, tables=tables, residual=1, pairs=len(residual.corrections))


def parameter_bytes(columns: int, finish: Finish = MOST) -> int:
    """Bytes of the parameters of so many columns."""
    stages = finish.stages * (_HEADER + columns * _COLUMN) + 2 * finish.corrections * columns
    return 4 * (stages + finish.residual * RESIDUAL_WORDS)


def parameter_block(
    stages: Sequence[Requantize], begin: int, columns: int, residual: Residual | None = None
) -> NDArray[np.uint8]:
    """The parameters of `columns` columns from `begin` on, as bytes; columns beyond the last give zeros.

    Of each stage 32-bit words, little-endian: corrections a column; 1 if there is a table, plus 2 if another stage
    follows; the table; then for all columns their multipliers, low and high words of addends, limits, and for each
    correction its first sum and its span. Before all of them stands how another tensor's codes are added, if they are.
    """
    words = [_words(stage, begin, columns, stage is not stages[-1]) for stage in stages]
    return np.concatenate([*([] if residual is None else [residual_words(residual)]), *words]).view(np.uint8)


def _words(given: Requantize, begin: int, columns: int, more: bool) -> NDArray[np.int32]:
    many, own = max(0, min(columns, len(given.multiplier) - begin)), given.corrections.shape[1]
    part = slice(begin, begin + many)
    words = np.zeros((_COLUMN + 2 * own, columns), "<i4")
    words[0, :many] = given.multiplier[part]
    words[1:3, :many] = given.addend[part].astype("<i8").view("<i4").reshape(many, 2).T
    words[3] = 1
    words[3, :many] = np.ascontiguousarray(given.limits[part]).view("<i4").reshape(many)
    words[_COLUMN:, :many] = given.corrections[part].reshape(many, 2 * own).T
    header = np.zeros(_HEADER, "<i4")
    header[:2] = own, (given.table is not None) + 2 * more
    if given.table is not None:
        header[2:] = np.ascontiguousarray(given.table).view("<i4")
    return np.concatenate([header, words.reshape(-1)])


def requantized(acc: NDArray[np.int32], block: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Codes of sums [m, n], given the parameter block of n columns (with anything behind it)."""
    n = acc.shape[1]
    words = np.ascontiguousarray(block[: len(block) // 4 * 4]).view("<i4")
    corrections, flags = int(words[0]), int(words[1])
    end = _HEADER + n * (_COLUMN + 2 * corrections)
    rows = words[_HEADER:end].reshape(-1, n)
    addend = rows[2].astype(np.int64) << 32 | rows[1].astype(np.int64) & 0xFFFFFFFF
    limits = np.ascontiguousarray(rows[3]).view(np.int8).reshape(n, 4).astype(np.int64).T
    shift, zero, low, high = limits
    sums = acc.astype(np.int64)
    wide = sums * rows[0] + addend
    near = (wide + (np.int64(1) << (shift - 1)) - 1 + (wide >> shift & 1)) >> shift
    codes = np.clip(near + zero, low, high)
    for first, span in rows[_COLUMN:].reshape(corrections, 2, n).astype(np.int64):
        inside = (sums >= first) & (sums < first + np.abs(span))
        codes += inside * np.sign(span)
    if flags & 1:
        codes = np.ascontiguousarray(words[2:_HEADER]).view(np.int8)[codes + TABLE // 2]
    narrow = codes.astype(np.int8)
    return requantized(narrow.astype(np.int32), block[4 * end :]) if flags & 2 else narrow
