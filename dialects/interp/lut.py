"""Meaning of the `lut` operations: products read out of tables, equal to the integer products bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuc.dialects import lut
from neuc.dialects.interp.core import Env, implements
from neuc.dialects.ternary_encodings import mirrored_entries, progression
from neuc.dialects.ternary_types import PackedType, packed_type

Array = np.ndarray


def balanced_digits(g: int) -> Array:
    """The balanced ternary digits [entries, g], most significant first, of the table indices."""
    index = np.arange(mirrored_entries(g))
    digits = np.empty((len(index), g), np.int32)
    for d in range(g - 1, -1, -1):
        digits[:, d] = (index + 1) % 3 - 1
        index = (index + 1) // 3
    return digits


def full_digits(g: int, levels: Sequence[int]) -> Array:
    """The levels [C^g, g] that the base-C digits of the table indices stand for, most significant first."""
    index = np.arange(len(levels) ** g)[:, None]
    places = len(levels) ** np.arange(g - 1, -1, -1)
    return np.asarray(levels, np.int32)[index // places % len(levels)]


def build(q: Array, g: int, levels: Sequence[int] = ()) -> Array:
    """table[…, j, i]: activations g·j to g·j + g - 1 added up with the digits of i."""
    padded = np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, -q.shape[-1] % g)])
    grouped = padded.reshape(*q.shape[:-1], padded.shape[-1] // g, g).astype(np.int32)
    return grouped @ (full_digits(g, levels) if levels else balanced_digits(g)).T


@implements(lut.BuildOp)
def _build(op: lut.BuildOp, args: list[Array], env: Env) -> list[Array]:
    table = lut.table_type(op.table)
    return [build(args[0], table.group, table.level_set)]


def _summands(table: Array, codes: Array, packed: PackedType, j: int) -> Array:
    """What table j adds to the sums of all rows."""
    match packed.encoding.kind.data:
        case "tl2":
            return table[..., j, codes[:, j] & 15] * np.where(codes[:, j] & 16, -1, 1)
        case "tl1":
            return table[..., j, codes[:, j]]
        case _:
            even = progression(packed.level_set)
            assert even is not None
            low, step = even
            planes = range(codes.shape[2])
            bits = sum((table[..., j, codes[:, j, b]] << b for b in planes), np.zeros((), np.int32))
            return step * bits + low * table[..., j, -1:]


@implements(lut.AccumulateOp)
def _accumulate(op: lut.AccumulateOp, args: list[Array], env: Env) -> list[Array]:
    table, codes = args
    packed = packed_type(op.packed)
    tables_per_group = -(-packed.group_size // op.g.value.data)
    acc = np.zeros((*table.shape[:-2], packed.groups, codes.shape[0]), np.int32)
    for j in range(codes.shape[1]):
        acc[..., j // tables_per_group, :] += _summands(table, codes, packed, j)
    return [acc]
