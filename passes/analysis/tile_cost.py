"""The cost model of `tile-lut`: how many trits a look-up covers, and how large the tiles are.

Per row of activations a kernel holds the tables of BK columns, streams a packed tile of BM x BK trits past them and
adds into BM accumulators. The model keeps each of these in the cache it is reused from:

- g: a look-up costs the same for every g, so the largest g whose table fits one byte shuffle (3 if it is mirrored),
  or the largest that divides a scale group, so that no table straddles two scales.
- BK: a table is 32 bytes (16 low and 16 high bytes). The tables of BK columns, BK/g · 32 bytes, may fill half of L1;
  K is cut into equal blocks no larger than that. Direct encodings hold BK activation bytes instead.
- BM: a packed tile may fill half of L2, the accumulators (4 bytes a row) a quarter of L1, and there should be at least
  `SHARES` tiles of rows, for threads to share (one will do for convolutions: threads share their pixels). Direct
  kernels take four tiles of 16 rows at a time, or two, where that leaves few rows empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from neuc.dialects.ternary_encodings import ENCODINGS
from neuc.dialects.ternary_packed import ROW_MULTIPLE
from neuc.dialects.ternary_types import EncodingAttr, TritsType

TABLE_BYTES = 32
ACCUMULATOR_BYTES = 4
SHARES = 8
DIRECT_UNITS = (4 * ROW_MULTIPLE, 2 * ROW_MULTIPLE)
"""Rows that direct kernels take at a time: as fast as they go, and nearly so; with 16 a third is lost on one token."""
L1_BYTES = 32 * 1024
L2_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Tile:
    """Rows and columns of a tile."""

    bm: int
    bk: int


def largest_group(trits: TritsType, encoding: str = "tl2") -> int:
    """The g of a look-up encoding: the largest that no scale group is cut by; 1 for direct encodings."""
    size = trits.group_size if trits.scale.kind.data == "group" else None
    return ENCODINGS[encoding].largest_group(trits.level_set, size)


def choose_tile(
    trits: TritsType, encoding: EncodingAttr, *, l1: int = L1_BYTES, l2: int = L2_BYTES, shares: int = SHARES
) -> Tile:
    """BM and BK for a weight matrix in an encoding, on caches of `l1` and `l2` bytes, for at least `shares` tiles."""
    g = encoding.g.data
    tabled = encoding.rule.lookup
    most = l1 // 2 // TABLE_BYTES * g if tabled else l1 // 2
    bk = _columns(trits, 4 * g, most)
    bits = encoding.rule.bits(trits.level_set, g)
    rows = ceil(trits.plane_count * trits.rows / ROW_MULTIPLE) * ROW_MULTIPLE
    room = int(min(l2 // 2 * 8 / (bk * bits), l1 // 4 / ACCUMULATOR_BYTES))
    unit = ROW_MULTIPLE if tabled else _unit(rows, room)
    bm = min(room, rows // shares) // unit * unit
    return Tile(max(unit, bm), bk)


def _unit(rows: int, room: int) -> int:
    """What BM of a direct kernel should be a multiple of: the most rows up to `room` that leave few empty."""
    units = (unit for unit in DIRECT_UNITS if unit <= room and -rows % unit <= rows // 8)
    return next(units, ROW_MULTIPLE)


def _columns(trits: TritsType, quad: int, most: int) -> int:
    """The largest BK up to `most` that is a multiple of `quad` and goes together with the scale groups."""
    k, most = trits.columns, max(quad, most)
    if trits.scale.kind.data == "group":
        size = trits.group_size
        if size <= most:
            return min(most // size, ceil(k / size)) * size
        return max(d for d in range(quad, most + 1, quad) if size % d == 0 or d == quad)
    even = ceil(k / ceil(k / most))
    return ceil(even / quad) * quad
