"""The encodings this backend has kernels for: how weights are laid out and packed, and what multiplies them.

Which encodings exist, and which weights each can hold, is said in `dialects/ternary_encodings.py`; bytes are in
`packing/`, code is in `kernels/`. Lowerings go through here and know no single encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.direct import DirectKernel
from neuc.backends.cpu.kernels.direct_i8 import DirectI8Kernel
from neuc.backends.cpu.kernels.lut_accumulate import LutAccumulateKernel
from neuc.backends.cpu.kernels.lut_build import LutBuildKernel
from neuc.backends.cpu.kernels.ternary_tiles import TOKEN_BLOCK
from neuc.backends.cpu.packing.by_blocks import packed_direct, packed_lut
from neuc.backends.cpu.packing.direct import DirectEncoding, DirectLayout, pack_direct
from neuc.backends.cpu.packing.lut import LutLayout, pack_lut, table_kind
from neuc.dialects.dims import Dim
from neuc.dialects.lazy_array import LazyArray
from neuc.dialects.ternary_types import PackedType
from neuc.errors import InternalError

PackedLayout = DirectLayout | LutLayout | DirectI8Kernel
"""A packed matrix. `DirectI8Kernel`, the scalar oracle, is its own layout: plain rows."""


@dataclass(frozen=True)
class Matrix:
    """What is to be packed, and the tile the IR asks for.

    Attributes:
        levels: the integers that weights are, ascending.
        g: weights per table index; 1 for direct encodings.
        rows: P·N.
        columns: K.
        segment: columns that share a scale; K for one scale a row.
        bm: BM, rows of a tile.
        bk: BK, columns of a tile.
    """

    levels: tuple[int, ...]
    g: int
    rows: int
    columns: int
    segment: int
    bm: int
    bk: int

    @staticmethod
    def of(packed: PackedType, bm: int, bk: int) -> Matrix:
        """The P·N rows of a packed value."""
        rows = packed.plane_count * packed.rows
        return Matrix(packed.level_set, packed.encoding.g.data, rows, packed.columns, packed.group_size, bm, bk)


@dataclass(frozen=True)
class Product:
    """The kernel that multiplies a packed matrix.

    Its slots begin: 0 activations (int8 [tokens, K], or tables), 1 packed weights, 2 sums (out, int32 [tokens,
    segments, rows]), 3 tokens, 4 what sums start from (the second array that packing gives; any integer if none),
    5 tables per token (any integer if it reads none).

    Attributes:
        kernel: the kernel.
        units: its work units, given the number of tokens.
        scratch: bytes of scratch memory.
        grain: units that should stay together.
    """

    kernel: KernelSpec
    units: Callable[[Dim], Dim]
    scratch: int = 0
    grain: int = 1


@dataclass(frozen=True)
class Tables:
    """The look-up tables a packed matrix is read through.

    Attributes:
        per_token: tables the kernel reads for one row of activations, past K too.
        build: the kernel that makes so many tables a row (`LutBuildKernel`).
    """

    per_token: int
    build: Callable[[int], LutBuildKernel]


def _no_reason(matrix: Matrix) -> str | None:
    return None


@dataclass(frozen=True)
class CpuEncoding:
    """One encoding on CPUs.

    Attributes:
        layout: the layout for an instruction set.
        pack: int8 weights [rows, K] to the packed bytes, and what sums start from, if that is not zero.
        pack_lazy: the same for rows that are made when they are read.
        product: what multiplies.
        tables: what it is read through; None for direct encodings.
        reason_against: why kernels cannot read this matrix, although the encoding holds its levels.
    """

    layout: Callable[[Isa, Matrix], PackedLayout]
    pack: Callable[[np.ndarray, PackedLayout], tuple[np.ndarray, np.ndarray | None]]
    pack_lazy: Callable[[LazyArray, PackedLayout], tuple[np.ndarray | LazyArray, np.ndarray | None]]
    product: Callable[[Isa, PackedLayout], Product]
    tables: Callable[[Isa, PackedLayout], Tables] | None = None
    reason_against: Callable[[Matrix], str | None] = field(default=_no_reason)


def _by_blocks(kernel: KernelSpec, layout: DirectLayout | LutLayout, scratch: int) -> Product:
    """Work units of the tiled kernels: blocks of tokens times blocks of rows."""
    blocks = layout.tiling.row_blocks
    return Product(kernel, lambda tokens: tokens.ceildiv(TOKEN_BLOCK) * blocks, scratch)


def _lut(layout: PackedLayout) -> LutLayout:
    assert isinstance(layout, LutLayout)
    return layout


def _lut_product(isa: Isa, layout: PackedLayout) -> Product:
    kernel = LutAccumulateKernel(table_kind(isa), _lut(layout))
    return _by_blocks(kernel, kernel.layout, kernel.scratch)


def _lut_tables(isa: Isa, layout: PackedLayout) -> Tables:
    lut = _lut(layout)
    # The `quads` layout comes in fours.
    per_token = -(-lut.table_groups // 4) * 4
    return Tables(per_token, lambda groups: LutBuildKernel(table_kind(isa), lut.tiling.columns, lut.code.table, groups))


def _whole_quads(m: Matrix) -> str | None:
    if m.segment < m.columns and m.segment % (4 * m.g):
        return f"scale groups of {m.segment} columns are not a multiple of 4·g = {4 * m.g}"
    return None


def _direct_product(isa: Isa, layout: PackedLayout) -> Product:
    if isinstance(layout, DirectI8Kernel):
        rows = layout.rows
        return Product(layout, lambda tokens: Dim.of(rows), grain=16)
    assert isinstance(layout, DirectLayout)
    kernel = DirectKernel(layout)
    return _by_blocks(kernel, layout, kernel.scratch_bytes(isa))


def _pack_direct(weights: np.ndarray, layout: PackedLayout) -> tuple[np.ndarray, None]:
    if isinstance(layout, DirectI8Kernel):
        return np.ascontiguousarray(weights), None
    assert isinstance(layout, DirectLayout)
    return pack_direct(weights, layout), None


def _pack_direct_lazy(rows: LazyArray, layout: PackedLayout) -> tuple[LazyArray, None]:
    if isinstance(layout, DirectI8Kernel):
        return rows, None
    assert isinstance(layout, DirectLayout)
    return packed_direct(rows, layout), None


def _direct(name: DirectEncoding) -> CpuEncoding:
    def layout(isa: Isa, m: Matrix) -> PackedLayout:
        if name == "i8" and isa.name == "scalar":
            return DirectI8Kernel(m.rows, m.columns, m.segment)
        return DirectLayout.of(name, isa, m.levels, m.rows, m.columns, m.segment, m.bm, m.bk)

    return CpuEncoding(layout, _pack_direct, _pack_direct_lazy, _direct_product)


def _look_up(name: str) -> CpuEncoding:
    return CpuEncoding(
        lambda isa, m: LutLayout.of(isa, name, m.levels, m.g, m.rows, m.columns, m.segment, m.bm, m.bk),
        lambda weights, layout: pack_lut(weights, _lut(layout)),
        lambda rows, layout: packed_lut(rows, _lut(layout)),
        _lut_product,
        _lut_tables,
        _whole_quads,
    )


CPU_ENCODINGS: dict[str, CpuEncoding] = {
    "tl2": _look_up("tl2"),
    "tl1": _look_up("tl1"),
    "bitserial": _look_up("bitserial"),
    "t5": _direct("t5"),
    "i2": _direct("i2"),
    "i4": _direct("i4"),
    "i8": _direct("i8"),
}


def encoding_named(kind: str) -> CpuEncoding:
    """The encoding of this name.

    Raises:
        InternalError: there are no kernels for it; `ternary.pack` is then not supported.
    """
    if kind not in CPU_ENCODINGS:
        raise InternalError(f"no CPU kernels read encoding {kind}")
    return CPU_ENCODINGS[kind]
