"""Meaning of the `ternary` operations. Integer parts are exact; float parts round to f32 after every step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuc.dialects import ternary
from neuc.dialects.interp.core import Env, implements
from neuc.dialects.interp.dense import activate, pad_spatial, windows
from neuc.dialects.interp.rounding import quantize
from neuc.dialects.ternary_encodings import planes_of
from neuc.dialects.ternary_types import PackedType
from neuc.dialects.ternary_weights import defining_weight, weight_arrays

Array = np.ndarray
F32_EXACT = 2**24


@implements(ternary.WeightOp)
def _weight(op: ternary.WeightOp, args: list[Array], env: Env) -> list[Array]:
    return [weight_arrays(op, env.store)[0]]


@implements(ternary.LookupOp)
def _lookup(op: ternary.LookupOp, args: list[Array], env: Env) -> list[Array]:
    ids, trits = args
    _, scales = weight_arrays(defining_weight(op.weight), env.store)
    rows = np.clip(ids, 0, trits.shape[1] - 1)
    columns = np.arange(trits.shape[2]) // op.trits.group_size
    y = np.zeros((*ids.shape, trits.shape[2]), np.float32)
    for p in range(trits.shape[0]):
        y = y + trits[p, rows].astype(np.float32) * scales[p, rows][..., columns]
    return [y]


@implements(ternary.QuantizeOp)
def _quantize(op: ternary.QuantizeOp, args: list[Array], env: Env) -> list[Array]:
    return list(quantize(args[0], op.shared_axes, op.reciprocal is not None))


def accumulate(q: Array, rows: Array, group_size: int) -> Array:
    """acc[…, g, r] = Σ_{k in group g} q[…, k]·rows[r, k], exactly.

    Float matrix products are exact here: every partial sum is an integer the float type can hold.
    """
    k = q.shape[-1]
    bound = k * 128 * max(1, int(np.max(np.abs(rows), initial=0)))
    wide = np.float32 if bound < F32_EXACT else np.float64
    parts = [slice(begin, min(begin + group_size, k)) for begin in range(0, k, group_size)]
    sums = [q[..., part].astype(wide) @ rows[:, part].astype(wide).T for part in parts]
    return np.stack(sums, axis=-2).astype(np.int32)


def dequantize(acc: Array, s: Array, scales: Array) -> Array:
    """y[…, n] = (Σ_p Σ_g acc[…, g, p·N + n]·scales[p, n, g])·s, in this order."""
    planes, n, groups = scales.shape
    y = np.zeros((*acc.shape[:-2], n), np.float32)
    for p in range(planes):
        for g in range(groups):
            y = y + acc[..., g, p * n : (p + 1) * n].astype(np.float32) * scales[p, :, g]
    return y * s.reshape(s.shape + (1,) * (y.ndim - s.ndim))


def offset_sums(offset: int, rows: Array, group_size: int) -> Array:
    """int32 [G, R]: what `offset` added to every activation adds to the sums."""
    return accumulate(np.ones(rows.shape[1], np.int8), rows, group_size) * np.int32(offset)


def _product(q: Array, s: Array, trits: Array, scales: Array, op: ternary.ProductOp) -> Array:
    rows, size = trits.reshape(-1, trits.shape[2]), op.trits.group_size
    return dequantize(accumulate(q, rows, size) + offset_sums(op.code_offset, rows, size), s, scales)


@implements(ternary.LinearOp)
def _linear(op: ternary.LinearOp, args: list[Array], env: Env) -> list[Array]:
    _, scales = weight_arrays(defining_weight(op.weight), env.store)
    q, s, trits = args[:3]
    y = _product(q, s, trits, scales, op)
    return [activate(y + args[3] if op.bias is not None else y, op.activation)]


@implements(ternary.ConvOp)
def _conv(op: ternary.ConvOp, args: list[Array], env: Env) -> list[Array]:
    q, s, trits = args[:3]
    _, scales = weight_arrays(defining_weight(op.weight), env.store)
    results: list[Array] = []
    channels, rows = q.shape[1] // op.group_count, trits.shape[1] // op.group_count
    for i in range(op.group_count):
        patches = im2col(q[:, i * channels : (i + 1) * channels], op)
        part = slice(i * rows, (i + 1) * rows)
        results.append(_product(patches, s, trits[:, part], scales[:, part], op))
    y = np.concatenate(results, axis=-1)
    y = activate(y + args[3] if op.bias is not None else y, op.activation)
    return [np.moveaxis(y, 2, 1).reshape(env.shape_of(op.result))]


def im2col(q: Array, op: ternary.WindowedOp) -> Array:
    """The windows of q[N, C, …] as rows [N, P, C·kernel]."""
    kernel = op.kernel.get_values()
    n = len(kernel)
    view = windows(pad_spatial(q, op.pads.get_values()), kernel, op.strides, op.dilations)
    positions = tuple(range(2, 2 + n))
    ordered = view.transpose((0, *positions, 1, *range(2 + n, 2 + 2 * n)))
    return ordered.reshape(q.shape[0], int(np.prod(ordered.shape[1 : 1 + n])), int(np.prod(ordered.shape[1 + n :])))


@implements(ternary.Im2ColOp)
def _im2col(op: ternary.Im2ColOp, args: list[Array], env: Env) -> list[Array]:
    return [im2col(args[0], op)]


def _in_groups(values: Array, g: int) -> Array:
    """[…, K] as […, ceil(K/g), g], filled up with zeros."""
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % g)])
    return padded.reshape(*values.shape[:-1], -1, g)


def pack_tl2(rows: Array, g: int) -> Array:
    """Codes [R, ceil(K/g)] of g trits each: index |v| in the low four bits, bit 4 set for v < 0, v in base 3."""
    v = _in_groups(rows, g).astype(np.int32) @ (3 ** np.arange(g - 1, -1, -1))
    return (np.abs(v) + 16 * (v < 0)).astype(np.uint8)


def pack_full(rows: Array, g: int, levels: Sequence[int]) -> Array:
    """Indices [R, ceil(K/g)] of g weights each: the numbers of their levels, in base C = number of levels."""
    numbers = _in_groups(np.searchsorted(levels, rows), g)
    return (numbers @ (len(levels) ** np.arange(g - 1, -1, -1))).astype(np.uint8)


def pack_bitserial(rows: Array, g: int, levels: Sequence[int]) -> Array:
    """Indices [R, ceil(K/g), B] of g bits each, for every one-bit plane of the levels' numbers, plane 0 the lowest."""
    numbers = np.searchsorted(levels, rows)
    planes = [pack_full((numbers >> b) & 1, g, (0, 1)) for b in range(planes_of(levels))]
    return np.stack(planes, axis=-1)


@implements(ternary.PackOp)
def _pack(op: ternary.PackOp, args: list[Array], env: Env) -> list[Array]:
    rows = args[0].reshape(-1, args[0].shape[2])
    encoding, levels = op.packed.encoding, op.packed.level_set
    match encoding.kind.data:
        case "tl2":
            return [pack_tl2(rows, encoding.g.data)]
        case "tl1":
            return [pack_full(rows, encoding.g.data, levels)]
        case "bitserial":
            return [pack_bitserial(rows, encoding.g.data, levels)]
        case _:
            return [rows]


@implements(ternary.AccumulateOp)
def _accumulate(op: ternary.AccumulateOp, args: list[Array], env: Env) -> list[Array]:
    assert isinstance(op.packed.type, PackedType)
    return [accumulate(args[0], args[1], op.packed.type.group_size)]


@implements(ternary.DequantizeOp)
def _dequantize(op: ternary.DequantizeOp, args: list[Array], env: Env) -> list[Array]:
    _, scales = weight_arrays(defining_weight(op.weight), env.store)
    y = dequantize(args[0], args[1], scales)
    return [activate(y + args[3] if op.bias is not None else y, op.activation)]
