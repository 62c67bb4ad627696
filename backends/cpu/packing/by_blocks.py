"""Packing matrices whose rows are made when they are read: a few blocks of rows at a time.

Layouts put blocks of rows one after the other, so blocks are packed apart from each other. Which layouts there are is
said elsewhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np

from neuc.backends.cpu.packing.direct import DirectLayout, pack_direct
from neuc.backends.cpu.packing.lut import LutLayout, pack_lut
from neuc.dialects.lazy_array import LazyArray

_LayoutT = TypeVar("_LayoutT", DirectLayout, LutLayout)
_BLOCK_WEIGHTS = 2**20
"""About so many weights of look-up layouts are packed at a time."""


def packed_direct(rows: LazyArray, layout: DirectLayout) -> LazyArray:
    """The packed bytes of int8 rows [R, K], flat; as lazy as the rows are."""
    tiling = layout.tiling

    def read(begin: int, end: int) -> np.ndarray:
        return pack_direct(*_blocks(rows, layout, begin, end))

    identity = hashlib.sha256(f"{rows.identity} {layout}".encode()).hexdigest()
    shape = (tiling.row_blocks * tiling.row_block_bytes,)
    return LazyArray(shape, np.dtype(np.uint8), identity, tiling.row_blocks, read, cost=layout.planes * rows.cost)


def packed_lut(rows: LazyArray, layout: LutLayout) -> tuple[np.ndarray, np.ndarray | None]:
    """What `pack_lut` gives for int8 rows [R, K]: the bytes of a packed matrix, but never those of its rows."""
    tiling = layout.tiling
    step = max(1, _BLOCK_WEIGHTS // (tiling.block_rows * tiling.columns))
    starts = range(0, tiling.row_blocks, step)

    def read(begin: int) -> tuple[np.ndarray, np.ndarray | None]:
        return pack_lut(*_blocks(rows, layout, begin, min(begin + step, tiling.row_blocks)))

    return _joined(read, starts)


def _joined(
    read: Callable[[int], tuple[np.ndarray, np.ndarray | None]], starts: range
) -> tuple[np.ndarray, np.ndarray | None]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(read, starts))
    added = [start for _, start in made if start is not None]
    return np.concatenate([data for data, _ in made]), np.concatenate(added) if added else None


def _blocks(rows: LazyArray, layout: _LayoutT, begin: int, end: int) -> tuple[np.ndarray, _LayoutT]:
    """The rows of some blocks, and the layout of a matrix of these rows alone."""
    tiling = layout.tiling
    first, last = begin * tiling.block_rows, min(end * tiling.block_rows, tiling.rows)
    return rows.part(first, last), replace(layout, tiling=replace(tiling, rows=last - first))
