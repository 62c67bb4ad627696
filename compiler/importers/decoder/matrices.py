"""Weights of a decoder as few levels times scales: ternary ones as stored, embeddings and heads as stored or rounded.

Nothing is decoded here but scales: levels are `LazyArray`s, read from the mapped file when they are packed. Two walks
over a tensor are all there are: hashing it (for a rounded one, together with finding its scales), and packing it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from neuc.compiler.formats.block_format import Bytes, invalid, matrix_shape
from neuc.compiler.formats.float_rows import BLOCK, block_levels, reader, row_bytes
from neuc.compiler.formats.gguf_values import shown
from neuc.compiler.formats.level_rows import LevelRows, level_rows
from neuc.compiler.formats.sources import Source, SourceTensor
from neuc.dialects.lazy_array import LazyArray
from neuc.dialects.ternary_encodings import LEVELS
from neuc.dialects.ternary_types import ScaleAttr

INT8 = tuple(range(-127, 128))
INT4 = tuple(range(-8, 8))
_HASHED = 8 * 2**20
_ROUNDED_AT_ONCE = 2**17
"""Weights whose scales are found at a time."""
_FLOAT_COST = 8
"""Bytes of floats handled for one of levels."""
_MOST_DB = 150.0
"""More than float32 resolves."""
_SAMPLED_ROWS = 512
"""Rows that the error of rounding is measured on."""


@dataclass(frozen=True)
class Matrix:
    """A weight matrix: levels[n, k] times the scale of its row or group.

    Attributes:
        rows: N.
        columns: K.
        trits: levels int8 [1, N, K], a part for each row.
        scales: f32 [1, N, G].
        scale: which columns share one.
        levels: the integers that levels are, ascending.
        sqnr: signal to noise in dB if it was rounded, measured on `_SAMPLED_ROWS` rows.
        rounded: what was rounded to what, for the report; empty if nothing was.
    """

    rows: int
    columns: int
    trits: LazyArray
    scales: np.ndarray
    scale: ScaleAttr
    levels: tuple[int, ...]
    sqnr: float | None = None
    rounded: str = ""


def ternary_matrix(source: Source, tensor: SourceTensor, factor: float = 1.0) -> Matrix:
    """A tensor in a ternary block format; its scales times `factor`.

    Raises:
        Error: NEUC-E122, its payload is damaged; where levels are, when they are read.
    """
    found = level_rows(source, tensor)
    scales = found.scales * np.float32(factor)
    scale, shape = ScaleAttr.of("tensor"), (1, found.rows, 1)
    if found.granularity.kind == "row":
        scale = ScaleAttr.of("row")
    elif found.granularity.kind == "group":
        scale, shape = ScaleAttr.of("group", found.granularity.size), (1, *scales.shape)
    trits = _lazy(_identity(tensor), found.rows, found.columns, _only_trits(tensor, found))
    return Matrix(found.rows, found.columns, trits, np.broadcast_to(scales, shape), scale, LEVELS)


def _only_trits(tensor: SourceTensor, found: LevelRows) -> Callable[[int, int], np.ndarray]:
    def read(begin: int, end: int) -> np.ndarray:
        levels = found.read(begin, end)
        if levels.max(initial=-1) > 1:
            raise invalid(shown(tensor.name), tensor.type, "a weight has level 2, and ternary weights have -1, 0 and 1")
        return levels

    return read


def embedding_matrix(source: Source, tensor: SourceTensor, head: str | None) -> Matrix:
    """An embedding or a head: as it is if it has few levels and `head` does not say other, else rounded.

    Args:
        source: what the tensor is from.
        tensor: it.
        head: ``int8`` or ``int4``, with a scale for 32 columns, ``int8-row``, with one for a row; None for ``int8``
            where the tensor does not come in blocks of 8 or 4 bits.
    """
    if tensor.decode is not None:
        return ternary_matrix(source, tensor)
    rows, columns = matrix_shape(tensor.shape)
    data = np.frombuffer(tensor.payload(), np.uint8)
    if (tensor.type, head) in (("q8_0", None), ("q8_0", "int8"), ("q4_0", None), ("q4_0", "int4")):
        return _stored_blocks(tensor, data, rows, columns)
    form = "int8-row" if columns % BLOCK else (head or "int8")
    return _rounded(tensor, data, rows, columns, form)


def _stored_blocks(tensor: SourceTensor, data: Bytes, rows: int, columns: int) -> Matrix:
    """Q8_0 or Q4_0, level by level."""
    stride, name, scales = row_bytes(tensor.type, columns), shown(tensor.name), np.empty((rows, columns // BLOCK))
    assert stride is not None

    def read(begin: int, end: int) -> np.ndarray:
        levels, _ = block_levels(tensor.type, data[begin * stride : end * stride])
        if levels.min(initial=0) < -127:
            raise invalid(name, tensor.type, "a weight has level -128, which no encoder writes")
        return levels

    table = data.reshape(rows, columns // BLOCK, -1)
    scales = np.ascontiguousarray(table[:, :, :2]).view("<f2")[:, :, 0].astype(np.float32)
    if not np.isfinite(scales).all():
        raise invalid(name, tensor.type, "a scale is not a finite number")
    trits = _lazy(_identity(tensor), rows, columns, read)
    group = ScaleAttr.of("group", BLOCK)
    return Matrix(rows, columns, trits, scales[None], group, INT8 if tensor.type == "q8_0" else INT4)


def _rounded(tensor: SourceTensor, data: Bytes, rows: int, columns: int, form: str) -> Matrix:
    """Floats, or blocks of other kinds, rounded: scales are found now, levels when they are read."""
    read_floats, name = reader(tensor.type, data, columns), shown(tensor.name)
    size = columns if form == "int8-row" else BLOCK
    find, lowest, highest = (_int4_scales, -8, 7) if form == "int4" else (_int8_scales, -127, 127)
    scales = np.empty((rows, columns // size), np.float32)

    def find_scales(begin: int) -> None:
        end = min(begin + step, rows)
        part = read_floats(begin, end)
        with np.errstate(over="ignore"):
            scales[begin:end] = find(part.reshape(end - begin, -1, size))

    def read(begin: int, end: int) -> np.ndarray:
        part = read_floats(begin, end).reshape(end - begin, -1, size)
        with np.errstate(divide="ignore"):
            inverse = np.float32(1) / scales[begin:end, :, None]
        inverse[~np.isfinite(inverse)] = 0
        part = np.multiply(part, inverse, out=part if part.flags.writeable else None)
        np.rint(part, out=part)
        return np.clip(part, lowest, highest, out=part).astype(np.int8).reshape(end - begin, columns)

    step = max(1, _ROUNDED_AT_ONCE // columns)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        identity = pool.submit(_identity, tensor, form)
        list(pool.map(find_scales, range(0, rows, step)))
    if not np.isfinite(scales).all():
        raise invalid(name, tensor.type, "a weight is no finite number, or beyond what 16-bit scales reach")
    trits = replace(_lazy(identity.result(), rows, columns, read), cost=_FLOAT_COST)
    levels = INT4 if form == "int4" else INT8
    scale = ScaleAttr.of("row") if size == columns else ScaleAttr.of("group", size)
    sample = np.linspace(0, rows - 1, min(rows, _SAMPLED_ROWS)).astype(np.int64)
    sqnr = _sqnr([(read_floats(n, n + 1), read(n, n + 1) * np.repeat(scales[n], size)) for n in sample.tolist()])
    words = f"{name} ({tensor.type}) rounded to {form}{'' if size == columns else f', groups of {size}'}: {sqnr:.1f} dB"
    return Matrix(rows, columns, trits, scales[None], scale, levels, sqnr, words)


def _int8_scales(x: np.ndarray) -> np.ndarray:
    """Scales of [.., size] so that the largest weight is level 127; float16 values, as Q8_0 has them."""
    high, low = _ends(x)
    return _as_f16(np.maximum(high, -low) / np.float32(127))


def _int4_scales(x: np.ndarray) -> np.ndarray:
    """Scales so that the largest weight, positive or negative, is level -8: of the sixteen none is lost."""
    high, low = _ends(x)
    return _as_f16(np.where(high > -low, high, low) / np.float32(-8))


def _ends(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest and the smallest of [.., size]."""
    # numpy is several times as fast along the first axis as along a short last one.
    turned = np.ascontiguousarray(x.reshape(-1, x.shape[-1]).T)
    return turned.max(axis=0).reshape(x.shape[:-1]), turned.min(axis=0).reshape(x.shape[:-1])


def _as_f16(scales: np.ndarray) -> np.ndarray:
    return scales.astype(np.float16).astype(np.float32)


def _sqnr(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Signal to noise in dB, `_MOST_DB` where there is no noise."""
    signal = sum(float(np.square(right.astype(np.float64)).sum()) for right, _ in pairs)
    noise = sum(float(np.square(right.astype(np.float64) - made).sum()) for right, made in pairs)
    return min(10 * float(np.log10(signal / noise)), _MOST_DB) if noise and signal else _MOST_DB


def _lazy(identity: str, rows: int, columns: int, read: Callable[[int, int], np.ndarray]) -> LazyArray:
    return LazyArray((1, rows, columns), np.dtype(np.int8), identity, rows, read)


def _identity(tensor: SourceTensor, form: str = "") -> str:
    """SHA-256 of a tensor's bytes as stored, of how they are read, and of what they are rounded to."""
    digest = hashlib.sha256(f"{tensor.type} {tensor.shape} {form}".encode())
    data = tensor.payload()
    for start in range(0, len(data), _HASHED):
        digest.update(data[start : start + _HASHED])
    return digest.hexdigest()
