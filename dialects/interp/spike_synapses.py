"""Meaning of the synapses of `spike`: f32 sums in the order numpy's BLAS chooses, integer sums exactly."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import DenseArrayBase, IntegerType

from neuc.dialects import spike
from neuc.dialects.dense_attrs import ints
from neuc.dialects.interp.core import Env, implements
from neuc.dialects.interp.dense import pad_spatial, windows
from neuc.dialects.interp.ternary import accumulate, dequantize
from neuc.dialects.store import element_of, numpy_dtype
from neuc.dialects.ternary_weights import defining_weight, weight_arrays

Array = np.ndarray


def product(x: Array, weight: Array) -> Array:
    """x[…, K]·weight[N, K]ᵀ: f32, or int32 for int8 weights (f64 holds each of their partial sums exactly)."""
    if weight.dtype == np.int8:
        return (x.astype(np.float64) @ weight.T.astype(np.float64)).astype(np.int64).astype(np.int32)
    return x.astype(np.float32) @ weight.T


def _rows(op: spike.SynapseOp, x: Array, args: list[Array], env: Env, part: slice = slice(None)) -> Array:
    """x[…, K] times rows `part` of the weight, with ternary scales applied."""
    if op.trits is None:
        return product(x, args[1].reshape(args[1].shape[0], -1)[part])
    trits, scales = args[1][:, part], weight_arrays(defining_weight(op.weight), env.store)[1][:, part]
    acc = accumulate(x, trits.reshape(-1, trits.shape[2]), op.trits.group_size)
    return dequantize(acc, np.ones((), np.float32), scales)


@implements(spike.LinearOp)
def _linear(op: spike.LinearOp, args: list[Array], env: Env) -> list[Array]:
    y = _rows(op, args[0], args, env)
    return [y + args[2] if op.bias is not None else y]


@implements(spike.ConvOp)
def _conv(op: spike.ConvOp, args: list[Array], env: Env) -> list[Array]:
    x, group = args[0], op.group.value.data
    kernel: Sequence[int] = op.kernel.get_values() if op.kernel is not None else args[1].shape[2:]
    patches = windows(pad_spatial(x, op.pads.get_values()), kernel, op.strides, op.dilations)
    n = len(kernel)
    positions = tuple(range(2, 2 + n))
    # [N, C, positions…, kernel…] -> [N, group, positions, C/group · kernel]
    ordered = patches.transpose((0, *positions, 1, *range(2 + n, 2 + 2 * n)))
    rows = ordered.reshape(x.shape[0], int(np.prod(ordered.shape[1 : 1 + n])), group, -1)
    outputs = env.shape_of(op.current)[1] // group
    parts = [_rows(op, rows[:, :, g], args, env, slice(g * outputs, (g + 1) * outputs)) for g in range(group)]
    y = np.concatenate(parts, axis=-1)
    if op.bias is not None:
        y = y + args[2]
    return [np.moveaxis(y, 2, 1).reshape(env.shape_of(op.current))]


@implements(spike.ScaleOp)
def _scale(op: spike.ScaleOp, args: list[Array], env: Env) -> list[Array]:
    dtype = numpy_dtype(element_of(op.current))
    y = args[0].astype(dtype) * args[1].astype(dtype)
    return [y + args[2] if op.bias is not None else y]


def _unit_dilations(op: spike.SumPoolOp | spike.MaxPoolOp) -> DenseArrayBase[IntegerType]:
    return ints([1] * len(op.kernel.get_values()))


@implements(spike.SumPoolOp)
def _sum_pool(op: spike.SumPoolOp, args: list[Array], env: Env) -> list[Array]:
    kernel = op.kernel.get_values()
    view = windows(pad_spatial(args[0], op.pads.get_values()), kernel, op.strides, _unit_dilations(op))
    axes = tuple(range(view.ndim - len(kernel), view.ndim))
    wide = np.float64 if args[0].dtype.kind == "f" else np.int64
    return [np.sum(view, axis=axes, dtype=wide).astype(numpy_dtype(element_of(op.current)))]


@implements(spike.MaxPoolOp)
def _max_pool(op: spike.MaxPoolOp, args: list[Array], env: Env) -> list[Array]:
    x, total = args
    kernel, dilations = op.kernel.get_values(), _unit_dilations(op)
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(np.int32).min

    def largest(values: Array) -> Array:
        view = windows(pad_spatial(values, op.pads.get_values(), lowest), kernel, op.strides, dilations)
        return functools.reduce(np.maximum, (view[(..., *element)] for element in np.ndindex(*kernel)))

    after = total + x
    return [largest(after) - largest(total), after]
