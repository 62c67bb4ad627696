"""The `tl2` encoding: g trits as an index into a table of activation sums and a sign, for table look-up kernels.

The code of trits t_0 … t_{g-1} is v = Σ t_d·3^(g-1-d). A table holds one entry for each |v|, 0 … (3^g - 1)/2, so four
bits are the index and one bit is the sign: 5 bits for 3 trits at g = 3, 1.67 bits a weight. v = 0 has sign +.

A step holds eight *look-up vectors*; each gives every byte lane one (row, group of g columns) to look up:

====== ============================= ================================ =======================================
kind   lanes of look-up vector v     step                             for
====== ============================= ================================ =======================================
quads  64: lane l is row             16·T rows (T = 4, 2 or 1, what   AVX-512 VBMI and VNNI: `vpermb` looks up
       16·(v mod T) + l div 4,       BM allows) by 32/T groups        in 4 tables at once, `vpdpbusd` adds the 4
       group 4·(v div T) + l mod 4                                    groups of a row
bytes  32: lane l is row l div 2 +   32 rows by 8 groups              AVX2 `vpshufb`, and portable code
       16·(l mod 2), group v
====== ============================= ================================ =======================================

and is stored as 5 vectors: 4 of indices, then 1 of signs. Index vector i holds look-up vector 2i in the low half of
each byte's bits and 2i + 1 in the high half; bit v of a sign byte is the sign of look-up vector v. `bytes` uses
nibbles. `quads` puts the index bits at 0, 1, 4, 5 (even) or 2, 3, 6, 7 (odd), because its tables are stored as the
build kernel's packing instructions leave them: entry e of table j at byte 16·(e div 4) + 4·j + e mod 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.packing.tiling import Tiling, tiles_per_chunk
from neuc.errors import InternalError

Tl2Kind = Literal["quads", "bytes"]
TableKind = Literal["quads", "bytes", "words"]

LOOKUPS = 8
"""Look-up vectors per step."""
ENTRIES = 16
"""Entries a table has room for."""
TABLE_BYTES = 32
"""Bytes per table, in every kind of table."""
QUADS_BIAS = 512
"""What `quads` tables add to each entry, so that both of its bytes are unsigned."""


def table_kind(isa: Isa) -> TableKind:
    """The kind of tables look-up kernels of this instruction set read."""
    if isa.has_vbmi and isa.has_vnni:
        return "quads"
    return "bytes" if "avx2" in isa.features else "words"


@dataclass(frozen=True)
class Tl2Layout:
    """One matrix in the `tl2` encoding."""

    kind: Tl2Kind
    g: int
    tiling: Tiling

    @staticmethod
    def of(isa: Isa, g: int, rows: int, columns: int, segment: int, bm: int, bk: int) -> Tl2Layout:
        """The layout for this instruction set; BM and BK are rounded to the chunks and steps it has."""
        kind: Tl2Kind = "quads" if table_kind(isa) == "quads" else "bytes"
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
            step_bytes=5 * lanes,
        )
        return Tl2Layout(kind, g, tiling)

    @property
    def lanes(self) -> int:
        """Byte lanes of a vector."""
        return self.tiling.step_bytes // 5

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
        return self.tiling.segment // self.g

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

    def check_segments(self) -> str | None:
        """Why kernels cannot read these segments, None if they can."""
        if self.tiling.segments > 1 and self.segment_groups % 4:
            return f"scale groups of {self.tiling.segment} columns are not a multiple of 4·g = {4 * self.g}"
        return None


def pack_tl2(trits: np.ndarray, layout: Tl2Layout) -> tuple[np.ndarray, np.ndarray | None]:
    """Pack int8 trits [R, K].

    Returns:
        The packed bytes, and for `quads` int32 [row block, segment, row in the padded block]: what sums must start
        from because table entries are biased.
    """
    if trits.size and np.abs(trits).max() > 1:
        raise InternalError("tl2 packs trits in -1, 0, 1")
    pieces = layout.tiling.cut(trits)
    weights = 3 ** np.arange(layout.g - 1, -1, -1, dtype=np.int8)
    codes = pieces.reshape(*pieces.shape[:5], layout.step_groups, layout.g) @ weights
    signs = (codes < 0).astype(np.uint8)
    rows, groups = layout.lookups()
    index = np.abs(codes).astype(np.uint8)[:, :, :, :, rows, groups]
    minus = signs[:, :, :, :, rows, groups]
    packed_index = _place(index[..., 0::2, :], layout.kind, 0) | _place(index[..., 1::2, :], layout.kind, 1)
    packed_sign = np.bitwise_or.reduce(minus << np.arange(LOOKUPS, dtype=np.uint8)[:, None], axis=-2)
    steps = np.concatenate([packed_index.reshape(*packed_index.shape[:4], -1), packed_sign], axis=-1)
    data = layout.tiling.arrange(steps)
    if layout.kind == "bytes":
        return data, None
    sign_sums = (1 - 2 * signs.astype(np.int32)).sum(axis=(3, 5), dtype=np.int32)
    return data, np.ascontiguousarray(-QUADS_BIAS * sign_sums).reshape(*sign_sums.shape[:2], -1)


def _place(index: np.ndarray, kind: Tl2Kind, half: int) -> np.ndarray:
    """Four-bit indices where index bytes keep those of even (half 0) or odd (half 1) look-up vectors."""
    if kind == "bytes":
        return index << (4 * half)
    return ((index & 3) | (index >> 2) << 4) << (2 * half)
