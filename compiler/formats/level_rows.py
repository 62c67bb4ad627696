"""Reading rows of a tensor of a source: levels of ternary formats, a few rows at a time.

A payload is a view of the mapped file, and what is asked for of it is decoded when it is asked for. Layouts are
those of the block formats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from neuc.compiler.formats.block_format import BlockFormat, Bytes, invalid, matrix_shape
from neuc.compiler.formats.gguf_values import shown
from neuc.compiler.formats.hf_folder import HfFolder
from neuc.compiler.formats.i2_s import TAIL
from neuc.compiler.formats.sources import Source, SourceTensor
from neuc.compiler.formats.table import BLOCK_FORMATS
from neuc.compiler.formats.ternary import ROW, TENSOR, Granularity, Levels, Scales, Ternary
from neuc.compiler.formats.two_bit import refuse_code_3
from neuc.errors import InternalError

_FEW_ROWS = 256
"""Rows with a deviating scale that are looked into: their weights may be zeros, under any scale."""


@dataclass(frozen=True)
class LevelRows:
    """A ternary matrix whose levels are read by rows.

    Attributes:
        rows: N.
        columns: K.
        scales: float32, as `Ternary` has them.
        granularity: which weights share one: as few as there can be.
        read: levels int8 [end - begin, K] of rows begin to end; from any thread.
    """

    rows: int
    columns: int
    scales: Scales
    granularity: Granularity
    read: Callable[[int, int], Levels]


def level_rows(source: Source, tensor: SourceTensor) -> LevelRows:
    """A ternary tensor of a source, with its scales.

    Raises:
        Error: NEUC-E122, its payload is damaged, as far as scales tell; `read` raises it for the rest.
    """
    rows, columns = matrix_shape(tensor.shape)
    name = shown(tensor.name)
    form = BLOCK_FORMATS.get(tensor.type)
    if isinstance(source.origin, HfFolder):
        packed = source.origin.packed[tensor.name]
        rows, columns = packed.rows, packed.columns
        assert source.origin.form is not None
        one = Ternary(np.zeros((1, 1), np.int8), np.ones((1, 1), np.float32), TENSOR)
        scales = source.origin.form.with_scale(one, packed.weight_scale).scales
        return LevelRows(rows, columns, scales, TENSOR, _quarters(tensor, rows, columns))
    if form is None:
        assert tensor.decode is not None
        whole = lru_cache(maxsize=1)(tensor.decode)
        found = whole()
        return _simplest(LevelRows(rows, columns, found.scales, found.granularity, lambda b, e: whole().levels[b:e]))
    data = np.frombuffer(tensor.payload(), np.uint8)
    wrong = form.shape_objection(rows, columns)
    if wrong or data.size != form.nbytes(rows, columns):
        raise invalid(name, form.name, wrong or f"{data.size} bytes for a [{rows}, {columns}] tensor")
    scales = form.scales(data, rows, columns)
    if not np.isfinite(scales).all():
        raise invalid(name, form.name, "a scale is not a finite number")
    return _simplest(LevelRows(rows, columns, scales, form.granularity, _by_slices(form, data, rows, columns, name)))


def _by_slices(form: BlockFormat, data: Bytes, rows: int, columns: int, name: str) -> Callable[[int, int], Levels]:
    """Rows of a format that stores them one after the other, four at a time at most."""
    tail = TAIL if form.granularity == TENSOR else 0
    unit = 4 if rows % 4 == 0 else 1
    stride, rest = divmod((data.size - tail) * unit, rows)
    if rest:
        raise InternalError(f"{form.name}: {rows} rows in {data.size} bytes")

    def read(begin: int, end: int) -> Levels:
        first, last = begin // unit, -(-end // unit)
        part = data[first * stride : last * stride]
        if tail:
            part = np.concatenate([part, data[-tail:]])
        levels = form.decode(part, ((last - first) * unit, columns), name=name).levels
        return levels[begin - first * unit : end - first * unit]

    return read


def _quarters(tensor: SourceTensor, rows: int, columns: int) -> Callable[[int, int], Levels]:
    """Rows of Hugging Face's packing, where a byte holds a column of four rows a quarter of the matrix apart."""
    quarter = -(-rows // 4)
    data = np.frombuffer(tensor.payload(), np.uint8).reshape(quarter, columns)

    def read(begin: int, end: int) -> Levels:
        levels = np.empty((end - begin, columns), np.int8)
        for bit in range(4):
            first, last = max(begin, bit * quarter), min(end, (bit + 1) * quarter)
            if first >= last:
                continue
            part = data[first - bit * quarter : last - bit * quarter]
            refuse_code_3(part)
            np.subtract((part >> 2 * bit & 3).view(np.int8), 1, out=levels[first - begin : last - begin])
        return levels

    return read


def _simplest(found: LevelRows) -> LevelRows:
    """The same weights with as few scales as they need: per tensor, per row, or as they are stored."""
    scales = found.scales
    if scales.size == 1:
        return found
    values, counts = np.unique(scales, return_counts=True)
    usual = values[counts.argmax()]
    if _zero_where(found, scales != usual):
        return LevelRows(found.rows, found.columns, np.full((1, 1), usual, np.float32), TENSOR, found.read)
    by_row = scales[:, :1] if found.granularity.kind == "group" else scales
    if found.granularity.kind == "group" and bool((scales == by_row).all()):
        return LevelRows(found.rows, found.columns, np.ascontiguousarray(by_row), ROW, found.read)
    return found


def _zero_where(found: LevelRows, deviates: np.ndarray) -> bool:
    """Whether all weights under the scales marked are zero."""
    rows = np.flatnonzero(deviates.any(axis=1))
    if rows.size > _FEW_ROWS:
        return False
    size = found.granularity.size or found.columns
    for row in rows.tolist():
        starts = np.arange(0, found.columns, size)
        used = np.logical_or.reduceat(found.read(row, row + 1)[0] != 0, starts)
        if (used & deviates[row]).any():
            return False
    return True
