"""Matrices packed for kernels that multiply: encodings `i2`, `i4`, `i8` and `t5`.

A step is T tiles of 16 rows by 4·P columns, 64 bytes a tile. Byte 4·l + j of a tile holds what row l has at columns j,
4 + j, …, 4·(P - 1) + j: its codes, where a weight is low + step·code. So *plane* s, the codes at columns 4·s … 4·s + 3,
multiplied by their activations repeated in every lane, adds up to one 32-bit lane per row, without any shuffling.

======== === ============================================= ==========================================
encoding  P   a byte                                        levels
======== === ============================================= ==========================================
i2        4   four codes of two bits, plane 0 lowest        up to 4, evenly spaced
i4        2   two codes of four bits, plane 0 lowest        up to 16, evenly spaced
i8        1   the weight (code `i8`; low 0, step 1), or     any of -127 … 127
              128 more (`u8`; low -128), for VNNI
t5        5   five codes of three values (`packing/t5.py`)  up to 3, evenly spaced
======== === ============================================= ==========================================

Padding has code 0 whatever 0 stands for: kernels count `low` for real columns only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.packing.t5 import encode_tables, encode_thirds
from neuc.backends.cpu.packing.tiling import Tiling, tiles_per_chunk
from neuc.dialects.ternary_encodings import ENCODINGS, progression
from neuc.errors import InternalError

DirectEncoding = Literal["i2", "i4", "i8", "t5"]
ByteCode = Literal["i2", "i4", "i8", "u8", "t5_tables", "t5_thirds"]

TILE_ROWS = 16
TILE_BYTES = 64
QUAD = 4
"""Columns of a plane in one step."""

_PLANES = {"i2": 4, "i4": 2, "i8": 1, "t5": 5}


@dataclass(frozen=True)
class DirectLayout:
    """One packed matrix.

    Attributes:
        code: what a byte holds.
        low: the lowest level.
        step: from one level to the next.
        count: how many levels there are.
        tiling: how the matrix is cut.
    """

    code: ByteCode
    low: int
    step: int
    count: int
    tiling: Tiling

    @staticmethod
    def of(
        encoding: DirectEncoding,
        isa: Isa,
        levels: Sequence[int],
        rows: int,
        columns: int,
        segment: int,
        bm: int,
        bk: int,
    ) -> DirectLayout:
        """The layout for this instruction set (`i8`, `t5` depend on it); BM and BK are rounded to chunks and steps."""
        if reason := ENCODINGS[encoding].reason_against(levels, 1):
            raise InternalError(reason)
        tables = (isa.has_vbmi and isa.has_vnni) or isa.has_dotprod
        code: ByteCode = encoding if encoding != "t5" else "t5_tables" if tables else "t5_thirds"
        # What two tiles are unpacked to fills the registers.
        tiles = min(tiles_per_chunk(bm), 2 if code == "t5_tables" else 4)
        step_columns = QUAD * _PLANES[encoding]
        tiling = Tiling(
            rows=rows,
            columns=columns,
            segment=min(segment, columns),
            block_rows=bm,
            chunk_rows=TILE_ROWS * tiles,
            block_steps=max(1, bk // step_columns),
            step_columns=step_columns,
            step_bytes=TILE_BYTES * tiles,
        )
        if encoding == "i8":
            return DirectLayout("u8", -128, 1, 256, tiling) if isa.has_vnni else DirectLayout("i8", 0, 1, 256, tiling)
        low, step = progression(levels) or (0, 1)
        return DirectLayout(code, low, step, len(levels), tiling)

    @property
    def encoding(self) -> DirectEncoding:
        """The encoding as the IR names it."""
        match self.code:
            case "t5_tables" | "t5_thirds":
                return "t5"
            case "u8":
                return "i8"
            case code:
                return code

    @property
    def planes(self) -> int:
        """P: columns whose codes share a byte."""
        return _PLANES[self.encoding]

    @property
    def tiles(self) -> int:
        """T: tiles per chunk."""
        return self.tiling.chunk_rows // TILE_ROWS

    @property
    def top_code(self) -> int:
        """The largest code."""
        return self.count - 1


def pack_direct(weights: np.ndarray, layout: DirectLayout) -> np.ndarray:
    """Pack int8 weights [R, K]; the result is flat."""
    pieces = layout.tiling.cut(_codes(weights, layout))
    # [..., step, tile, row, plane, column] -> one byte for the planes.
    planes = pieces.reshape(*pieces.shape[:4], layout.tiles, TILE_ROWS, layout.planes, QUAD)
    match layout.code:
        case "t5_tables":
            packed = encode_tables(planes)
        case "t5_thirds":
            packed = encode_thirds(planes)
        case _:
            shifts = (8 // layout.planes * np.arange(layout.planes, dtype=np.uint8))[:, None]
            packed = np.bitwise_or.reduce(planes << shifts, axis=-2)
    return layout.tiling.arrange(packed.reshape(*packed.shape[:4], -1))


def _codes(weights: np.ndarray, layout: DirectLayout) -> np.ndarray:
    if layout.code == "i8":
        return np.ascontiguousarray(weights).view(np.uint8)
    codes, rest = np.divmod(weights.astype(np.int16) - layout.low, layout.step)
    if rest.any() or (codes.size and (codes.min() < 0 or codes.max() > layout.top_code)):
        levels = [layout.low + layout.step * code for code in range(layout.count)]
        raise InternalError(f"{layout.encoding} weights are outside its levels {levels}")
    return codes.astype(np.uint8)
