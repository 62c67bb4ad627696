"""The `i2` encoding: two bits a weight, for kernels that multiply.

A step is T tiles of 16 rows (T = 4, 2 or 1, what BM allows) by 16 columns, 64 bytes a tile. Byte 4·l + j of a tile
holds, from its low bits up, the codes of row l at columns j, 4 + j, 8 + j and 12 + j; a code is the weight minus the
lowest level. So plane s of a tile, multiplied by activations 4·s … 4·s + 3 repeated in every lane, adds up to one
32-bit lane per row, without any shuffling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuc.backends.cpu.packing.tiling import Tiling, tiles_per_chunk
from neuc.errors import InternalError

STEP_COLUMNS = 16
TILE_ROWS = 16
TILE_BYTES = 64


@dataclass(frozen=True)
class I2Layout:
    """One matrix in the `i2` encoding: levels ``low … low + count - 1``, at most four, 0 among them."""

    low: int
    count: int
    tiling: Tiling

    @staticmethod
    def of(levels: tuple[int, ...], rows: int, columns: int, segment: int, bm: int, bk: int) -> I2Layout:
        """The layout, the same for every instruction set; BM and BK are rounded to the chunks and steps it has."""
        tiles = tiles_per_chunk(bm)
        tiling = Tiling(
            rows=rows,
            columns=columns,
            segment=min(segment, columns),
            block_rows=bm,
            chunk_rows=TILE_ROWS * tiles,
            block_steps=max(1, bk // STEP_COLUMNS),
            step_columns=STEP_COLUMNS,
            step_bytes=TILE_BYTES * tiles,
        )
        return I2Layout(levels[0], len(levels), tiling)

    @property
    def tiles(self) -> int:
        """T: tiles per chunk."""
        return self.tiling.chunk_rows // TILE_ROWS

    @property
    def top_code(self) -> int:
        """The largest code."""
        return self.count - 1


def pack_i2(trits: np.ndarray, layout: I2Layout) -> np.ndarray:
    """Pack int8 weights [R, K]; the result is flat."""
    high = layout.low + layout.top_code
    if trits.size and (trits.min() < layout.low or trits.max() > high or layout.low > 0 or high < 0):
        raise InternalError(f"i2 packs up to four levels around 0, here {layout.low} … {high}")
    pieces = layout.tiling.cut(trits)
    codes = (pieces - np.int8(layout.low)).astype(np.uint8)
    # [..., step, tile, row, plane, column] -> one byte for the four planes.
    codes = codes.reshape(*codes.shape[:4], layout.tiles, TILE_ROWS, 4, 4)
    shifts = (2 * np.arange(4, dtype=np.uint8))[:, None]
    return layout.tiling.arrange(np.bitwise_or.reduce(codes << shifts, axis=-2).reshape(*codes.shape[:4], -1))
