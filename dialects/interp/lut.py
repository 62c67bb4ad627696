"""Meaning of the `lut` operations: products read out of tables, equal to the integer products bit for bit."""

from __future__ import annotations

import numpy as np

from neuc.dialects import lut
from neuc.dialects.interp.core import Env, implements
from neuc.dialects.ternary import packed_type
from neuc.dialects.ternary_types import mirrored_entries

Array = np.ndarray


def balanced_digits(g: int) -> Array:
    """The balanced ternary digits [entries, g], most significant first, of the table indices."""
    index = np.arange(mirrored_entries(g))
    digits = np.empty((len(index), g), np.int32)
    for d in range(g - 1, -1, -1):
        digits[:, d] = (index + 1) % 3 - 1
        index = (index + 1) // 3
    return digits


def build(q: Array, g: int) -> Array:
    """table[…, j, i]: activations g·j to g·j + g - 1 added up with the digits of i; int16 holds 3·128."""
    padded = np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, -q.shape[-1] % g)])
    grouped = padded.reshape(*q.shape[:-1], padded.shape[-1] // g, g).astype(np.int32)
    return (grouped @ balanced_digits(g).T).astype(np.int16)


@implements(lut.BuildOp)
def _build(op: lut.BuildOp, args: list[Array], env: Env) -> list[Array]:
    return [build(args[0], lut.table_type(op.table).group)]


@implements(lut.AccumulateOp)
def _accumulate(op: lut.AccumulateOp, args: list[Array], env: Env) -> list[Array]:
    table, codes = args
    packed = packed_type(op.packed)
    index, sign = codes & 15, np.where(codes & 16, -1, 1)
    tables_per_group = -(-packed.group_size // op.g.value.data)
    acc = np.zeros((*table.shape[:-2], packed.groups, codes.shape[0]), np.int32)
    for j in range(codes.shape[1]):
        acc[..., j // tables_per_group, :] += table[..., j, index[:, j]] * sign[:, j]
    return [acc]
