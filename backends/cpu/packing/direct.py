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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.packing.t5 import codes_of_bytes, encode_number
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
        tiles = tiles_per_chunk(bm)
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
    """Pack int8 weights [R, K]; the result is flat.

    Four codes of neighbouring columns are one 32-bit number all the way: their planes are put together by shifts (or by
    multiplying, for five digits), in which no byte overflows into the next.
    """
    tiling = layout.tiling
    quads = _padded(_codes(weights, layout), tiling).view(np.uint32)
    # [row block, chunk, row in chunk, segment, step, plane]
    planes = quads.reshape(
        tiling.row_blocks, tiling.chunks, tiling.chunk_rows, tiling.segments, tiling.segment_steps, layout.planes
    )
    match layout.code:
        case "t5_tables" | "t5_thirds":
            number = _join(planes, lambda sum_, plane: sum_ * np.uint32(3) + plane)
            joined = encode_number(number.view(np.uint8), layout.code == "t5_tables").view(np.uint32)
        case _:
            bits = np.uint32(8 // layout.planes)
            joined = _join(planes[..., ::-1], lambda sum_, plane: sum_ << bits | plane)
    steps = joined.transpose(0, 3, 1, 4, 2)
    return tiling.arrange(steps).view(np.uint8)


def _join(planes: np.ndarray, step: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    joined = np.ascontiguousarray(planes[..., 0])
    for plane in range(1, planes.shape[-1]):
        joined = step(joined, planes[..., plane])
    return joined


def _padded(codes: np.ndarray, tiling: Tiling) -> np.ndarray:
    """Codes [R, K] with code 0 wherever blocks, chunks and steps are larger than what fills them."""
    steps = tiling.segment_steps * tiling.step_columns
    rows, columns = codes.shape
    if (rows, columns) != (tiling.rows, tiling.columns):
        raise InternalError(f"{rows}x{columns} weights for a layout of {tiling.rows}x{tiling.columns}")
    if rows == tiling.row_blocks * tiling.padded_block_rows and columns == tiling.segments * steps:
        return codes
    wide = np.zeros((tiling.row_blocks * tiling.block_rows, tiling.segments * tiling.segment), np.uint8)
    wide[:rows, :columns] = codes
    padded = np.zeros((tiling.row_blocks, tiling.padded_block_rows, tiling.segments, steps), np.uint8)
    by_segment = wide.reshape(tiling.row_blocks, tiling.block_rows, tiling.segments, tiling.segment)
    padded[:, : tiling.block_rows, :, : tiling.segment] = by_segment
    return padded.reshape(-1, tiling.segments * steps)


def _codes(weights: np.ndarray, layout: DirectLayout) -> np.ndarray:
    codes = np.ascontiguousarray(weights).view(np.uint8)
    if layout.code == "i8":
        return codes
    if layout.code == "u8":
        return codes ^ np.uint8(128)
    # Below the lowest level is beyond the highest, modulo 256.
    codes = codes - np.uint8(layout.low % 256)
    rest: np.ndarray | None = None
    if layout.step != 1:
        codes, rest = np.divmod(codes, np.uint8(layout.step))
    if codes.size and (codes.max() > layout.top_code or (rest is not None and rest.any())):
        levels = [layout.low + layout.step * code for code in range(layout.count)]
        raise InternalError(f"{layout.encoding} weights are outside its levels {levels}")
    return codes


def levels_of_bytes(layout: DirectLayout) -> np.ndarray:
    """What each byte stands for: int8 [256, P], the weights of its planes; bytes that packing never gives are any."""
    values = np.arange(256, dtype=np.uint8)
    match layout.code:
        case "i8":
            return values.view(np.int8)[:, None]
        case "t5_tables" | "t5_thirds":
            codes = codes_of_bytes(layout.code == "t5_tables")
        case _:
            bits = 8 // layout.planes
            codes = values[:, None] >> (bits * np.arange(layout.planes, dtype=np.uint8)) & ((1 << bits) - 1)
    return (layout.low + layout.step * codes.astype(np.int16)).astype(np.int8)
