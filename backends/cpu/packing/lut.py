"""The layout of weights for table look-up kernels, the same for all look-up encodings (`lut_code.py`).

A step holds eight *look-up vectors* per plane; each gives every byte lane one (row, group of g columns) to look up:

====== ============================= ================================ =======================================
kind   lanes of look-up vector v     step                             for
====== ============================= ================================ =======================================
quads  64: lane l is row             16·T rows (T = 4, 2 or 1, what   AVX-512 VBMI and VNNI: `vpermb` looks up
       16·(v mod T) + l div 4,       BM allows) by 32/T groups        in 4 tables at once, `vpdpbusd` adds the 4
       group 4·(v div T) + l mod 4                                    groups of a row
bytes  32: lane l is row l div 2 +   32 rows by 8 groups              `pshufb` of AVX2 (or two of SSSE3), `tbl` of
       16·(l mod 2), group v                                          NEON, and code for any CPU
====== ============================= ================================ =======================================

and is stored as 4 vectors of indices per plane, then, for mirrored tables, 1 of signs. Index vector i of a plane holds
look-up vector 2i in the low half of each byte's bits and 2i + 1 in the high half; bit v of a sign byte is the sign of
look-up vector v. `bytes` uses nibbles. `quads` puts the index bits at 0, 1, 4, 5 (even) or 2, 3, 6, 7 (odd), because
its tables are stored as the build kernel's packing instructions leave them: entry e of table j at byte
16·(e div 4) + 4·j + e mod 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.packing.lut_code import LOOKUPS, WeightCode
from neuc.backends.cpu.packing.tiling import Tiling, tiles_per_chunk
from neuc.errors import InternalError

LutKind = Literal["quads", "bytes"]
TableKind = Literal["quads", "bytes", "words"]

TABLE_BYTES = 32
"""Bytes per table, in every kind of table."""


def table_kind(isa: Isa) -> TableKind:
    """The kind of tables look-up kernels of this instruction set read."""
    if isa.has_vbmi and isa.has_vnni:
        return "quads"
    return "bytes" if isa.has_byte_shuffle else "words"


@dataclass(frozen=True)
class LutLayout:
    """One matrix in a look-up encoding."""

    kind: LutKind
    code: WeightCode
    tiling: Tiling

    @staticmethod
    def of(
        isa: Isa, encoding: str, levels: Sequence[int], g: int, rows: int, columns: int, segment: int, bm: int, bk: int
    ) -> LutLayout:
        """The layout of `tl1`, `tl2` or `bitserial` weights for this instruction set.

        BM and BK are rounded to the chunks and steps it has.
        """
        code = WeightCode.of(encoding, levels, g)
        kind: LutKind = "quads" if table_kind(isa) == "quads" else "bytes"
        tiles = tiles_per_chunk(bm)
        lanes, chunk_rows, groups = (64, 16 * tiles, 32 // tiles) if kind == "quads" else (32, 32, LOOKUPS)
        tiling = Tiling(
            rows=rows,
            columns=columns,
            segment=min(segment, columns),
            block_rows=bm,
            chunk_rows=chunk_rows,
            block_steps=max(1, bk // (groups * g)),
            step_columns=groups * g,
            step_bytes=lanes * (4 * code.planes + code.table.mirrored),
        )
        return LutLayout(kind, code, tiling)

    @property
    def g(self) -> int:
        """Columns per table."""
        return self.code.table.g

    @property
    def lanes(self) -> int:
        """Byte lanes of a look-up vector."""
        return 64 if self.kind == "quads" else 32

    @property
    def plane_bytes(self) -> int:
        """Bytes of a plane's indices in a step; signs come behind those of all planes."""
        return LOOKUPS // 2 * self.lanes

    @property
    def tiles(self) -> int:
        """T: tiles of 16 rows per chunk."""
        return self.tiling.chunk_rows // 16

    @property
    def step_groups(self) -> int:
        """Groups of g columns per step."""
        return self.tiling.step_columns // self.g

    @property
    def segment_groups(self) -> int:
        """Groups from the start of one segment to the start of the next."""
        return -(-self.tiling.segment // self.g)

    @property
    def table_groups(self) -> int:
        """Tables the kernel reads for one row of activations."""
        return (self.tiling.segments - 1) * self.segment_groups + self.tiling.segment_steps * self.step_groups

    def lookups(self) -> tuple[np.ndarray, np.ndarray]:
        """Row in the chunk and group in the step of [look-up vector, lane]."""
        vector, lane = np.mgrid[0:LOOKUPS, 0 : self.lanes]
        if self.kind == "quads":
            return 16 * (vector % self.tiles) + lane // 4, 4 * (vector // self.tiles) + lane % 4
        return lane // 2 + 16 * (lane % 2), vector


def pack_lut(weights: np.ndarray, layout: LutLayout) -> tuple[np.ndarray, np.ndarray | None]:
    """Pack int8 weights [R, K].

    Returns:
        The packed bytes, and for mirrored tables of `quads` int32 [row block, segment, row in the padded block]: what
        sums must start from because table entries are biased and have signs.
    """
    code, tiling = layout.code, layout.tiling
    if not code.holds(weights):
        raise InternalError(
            f"weights {weights.min()} … {weights.max()} have levels that their encoding has not: {code}"
        )
    rows, groups = layout.lookups()
    parts: list[np.ndarray] = []
    minus = np.zeros(0)
    for digits in code.digits_of(weights):
        pieces = tiling.cut(digits)
        grouped = pieces.reshape(*pieces.shape[:5], layout.step_groups, layout.g)
        index, minus = (values[:, :, :, :, rows, groups] for values in code.table.index(grouped))
        packed = _place(index[..., 0::2, :], layout.kind, 0) | _place(index[..., 1::2, :], layout.kind, 1)
        parts.append(packed.reshape(*packed.shape[:4], -1))
    if not code.table.mirrored:
        return tiling.arrange(np.concatenate(parts, axis=-1)), None
    bits = minus.astype(np.uint8) << np.arange(LOOKUPS, dtype=np.uint8)[:, None]
    data = tiling.arrange(np.concatenate([*parts, np.bitwise_or.reduce(bits, axis=-2)], axis=-1))
    if layout.kind == "bytes":
        return data, None
    return data, _mirrored_start(minus, layout)


def _mirrored_start(minus: np.ndarray, layout: LutLayout) -> np.ndarray:
    """Minus the biases that a row's signs let add up: int32 [row block, segment, row], of signs by look-up."""
    signs = 1 - 2 * minus.astype(np.int32)
    # [row block, segment, chunk, tile, row of the tile]: look-ups of other quads, steps and groups are added up.
    shape = (*signs.shape[:4], LOOKUPS // layout.tiles, layout.tiles, 16, 4)
    sums = signs.reshape(shape).sum(axis=(3, 4, 7), dtype=np.int32)
    return np.ascontiguousarray(-layout.code.table.quads_bias * sums).reshape(*sums.shape[:2], -1)


def _place(index: np.ndarray, kind: LutKind, half: int) -> np.ndarray:
    """Four-bit indices where index bytes keep those of even (half 0) or odd (half 1) look-up vectors."""
    if kind == "bytes":
        return index << (4 * half)
    return ((index & 3) | (index >> 2) << 4) << (2 * half)
