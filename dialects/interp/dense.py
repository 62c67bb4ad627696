"""Meaning of the `dense` operations.

f32 stays f32 (and f64 f64, for who computes with it): element-wise operations round after every step; matmul and conv
add up in the order numpy's BLAS chooses; sums over an axis (reduce, softmax, layer_norm, pool) add up in f64 and round
once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from xdsl.dialects.builtin import DenseArrayBase, IntegerType

from neuc.dialects import dense
from neuc.dialects.dense_attrs import ActivationAttr, ActivationKind, Direction, PadMode, PoolKind, ReduceKind, dim_list
from neuc.dialects.interp import dense_attention  # noqa: F401 -- registers its operations
from neuc.dialects.interp.core import Env, implements
from neuc.dialects.interp.scalar import erf, run_body

Array = np.ndarray


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(−x)), without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


_ACTIVATIONS: dict[ActivationKind, Callable[[Array, np.float32, np.float32], Array]] = {
    ActivationKind.NONE: lambda x, a, b: x,
    ActivationKind.RELU: lambda x, a, b: np.maximum(x, 0),
    ActivationKind.CLIP: lambda x, a, b: np.minimum(np.maximum(x, a), b),
    ActivationKind.LEAKY_RELU: lambda x, a, b: np.where(x < 0, a * x, x),
    ActivationKind.SIGMOID: lambda x, a, b: sigmoid(x),
    ActivationKind.TANH: lambda x, a, b: np.tanh(x),
    ActivationKind.GELU: lambda x, a, b: x * (np.float32(0.5) + np.float32(0.5) * erf(x * np.float32(0.5**0.5))),
    ActivationKind.GELU_TANH: lambda x, a, b: (
        x * sigmoid(np.float32(2 * (2 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x * x * x))
    ),
    ActivationKind.SILU: lambda x, a, b: x * sigmoid(x),
    ActivationKind.HARDSIGMOID: lambda x, a, b: np.clip(a * x + b, 0, 1),
    ActivationKind.HARDSWISH: lambda x, a, b: x * np.clip(x * np.float32(1 / 6) + np.float32(0.5), 0, 1),
}


def activate(x: Array, activation: ActivationAttr) -> Array:
    """The activation applied to every element, in the precision of x."""
    alpha, beta = np.float32(activation.alpha), np.float32(activation.beta)
    return _ACTIVATIONS[activation.kind](x, alpha, beta).astype(x.dtype, copy=False)


@implements(dense.MapOp)
def _map(op: dense.MapOp, args: list[Array], env: Env) -> list[Array]:
    return [np.broadcast_to(run_body(op.body.block, args, env), env.shape_of(op.result))]


def _over(kind: ReduceKind, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    match kind:
        case ReduceKind.MAX | ReduceKind.MIN:
            low, high = (False, True) if x.dtype == np.bool_ else _range(x.dtype)
            if kind is ReduceKind.MAX:
                return np.max(x, axis=axes, keepdims=keepdims, initial=low)
            return np.min(x, axis=axes, keepdims=keepdims, initial=high)
        case _:
            function = {ReduceKind.SUM: np.sum, ReduceKind.MEAN: np.mean, ReduceKind.PROD: np.prod}[kind]
            wide = np.float64 if x.dtype.kind == "f" else np.int64
            return function(x, axis=axes, keepdims=keepdims, dtype=wide).astype(x.dtype)


def _range(dtype: np.dtype) -> tuple[float, float]:
    if dtype.kind == "f":
        return -np.inf, np.inf
    return np.iinfo(dtype).min, np.iinfo(dtype).max


@implements(dense.ReduceOp)
def _reduce(op: dense.ReduceOp, args: list[Array], env: Env) -> list[Array]:
    return [_over(op.kind.data, args[0], op.axes.get_values(), op.keepdims is not None)]


@implements(dense.ArgReduceOp)
def _arg_reduce(op: dense.ArgReduceOp, args: list[Array], env: Env) -> list[Array]:
    (x,), axis = args, op.axis.value.data
    find = np.argmax if op.kind.data is ReduceKind.MAX else np.argmin
    if op.select_last is not None:
        index = x.shape[axis] - 1 - find(np.flip(x, axis), axis=axis)
    else:
        index = find(x, axis=axis)
    index = index.astype(np.int64)
    return [np.expand_dims(index, axis) if op.keepdims is not None else index]


@implements(dense.SoftmaxOp)
def _softmax(op: dense.SoftmaxOp, args: list[Array], env: Env) -> list[Array]:
    axis = op.axis.value.data
    shifted = args[0] - np.max(args[0], axis=axis, keepdims=True, initial=-np.inf)
    powers = np.exp(shifted)
    total = np.sum(powers, axis=axis, keepdims=True, dtype=np.float64)
    if op.log is not None:
        return [(shifted - np.log(total)).astype(np.float32)]
    return [powers / total.astype(np.float32)]


@implements(dense.LayerNormOp)
def _layer_norm(op: dense.LayerNormOp, args: list[Array], env: Env) -> list[Array]:
    x = args[0].astype(np.float64)
    axes = tuple(range(op.axis.value.data, x.ndim))
    if op.rms is None:
        x = x - np.mean(x, axis=axes, keepdims=True)
    y = (x / np.sqrt(np.mean(x * x, axis=axes, keepdims=True) + op.eps.value.data)).astype(np.float32)
    for parameter, combine in zip(args[1:], (np.multiply, np.add)):
        y = combine(y, parameter)
    return [y]


@implements(dense.MatMulOp)
def _matmul(op: dense.MatMulOp, args: list[Array], env: Env) -> list[Array]:
    a = args[0] if op.transpose_a is None else np.swapaxes(args[0], -1, -2)
    b = args[1] if op.transpose_b is None else np.swapaxes(args[1], -1, -2)
    y = np.matmul(a, b)
    if op.alpha.value.data != 1.0:
        y = y * np.float32(op.alpha.value.data)
    if op.bias is not None:
        y = y + args[2]
    return [activate(y, op.activation)]


def windows(
    x: Array,
    kernel: Sequence[int],
    strides: DenseArrayBase[IntegerType],
    dilations: DenseArrayBase[IntegerType],
) -> Array:
    """All windows of x[N,C,…] (padded already): a view [N, C, positions…, kernel…]."""
    n = len(kernel)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations.get_values())]
    every = sliding_window_view(x, reach, tuple(range(2, 2 + n)))
    steps = [slice(None, None, s) for s in (*strides.get_values(), *dilations.get_values())]
    return every[(slice(None), slice(None), *steps)]


def pad_spatial(x: Array, pads: Sequence[int], value: float = 0.0) -> Array:
    """x[N,C,…] with `pads` (begins then ends) around its spatial axes."""
    n = x.ndim - 2
    return np.pad(x, [(0, 0), (0, 0), *((pads[i], pads[i + n]) for i in range(n))], constant_values=value)


@implements(dense.ConvOp)
def _conv(op: dense.ConvOp, args: list[Array], env: Env) -> list[Array]:
    x, w = args[0], args[1]
    batch, group, kernel = x.shape[0], op.group.value.data, w.shape[2:]
    patches = windows(pad_spatial(x, op.pads.get_values()), kernel, op.strides, op.dilations)
    out = patches.shape[2 : 2 + len(kernel)]
    # [N, C, positions…, kernel…] -> [N, group, C/group · kernel, positions]
    n = len(kernel)
    order = (0, 1, *range(2 + n, 2 + 2 * n), *range(2, 2 + n))
    columns = patches.transpose(order).reshape(batch, group, int(np.prod(w.shape[1:])), int(np.prod(out)))
    y = np.matmul(w.reshape(group, w.shape[0] // group, -1), columns).reshape(batch, w.shape[0], *out)
    if op.bias is not None:
        y = y + args[2].reshape(-1, *[1] * n)
    return [activate(y, op.activation)]


@implements(dense.PoolOp)
def _pool(op: dense.PoolOp, args: list[Array], env: Env) -> list[Array]:
    x, kernel, pads = args[0], op.kernel.get_values(), op.pads.get_values()
    n, out = len(kernel), env.shape_of(op.result)[2:]
    strides, dilations = op.strides.get_values(), op.dilations.get_values()
    # Windows that ceil_mode lets hang over the end see elements that never win and never count.
    have = [x.shape[2 + i] + pads[i] + pads[i + n] for i in range(n)]
    need = [(out[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 for i in range(n)]
    spare = [max(0, b - a) for a, b in zip(have, need)]
    axes = tuple(range(2 + n, 2 + 2 * n))
    positions = (slice(None), slice(None), *(slice(o) for o in out))

    def windowed(array: Array, value: float) -> Array:
        padded = pad_spatial(array, [*pads[:n], *(p + s for p, s in zip(pads[n:], spare))], value)
        return windows(padded, kernel, op.strides, op.dilations)[positions]

    if op.kind.data is PoolKind.MAX:
        view = windowed(x, -np.inf)
        # One maximum per kernel element is many times faster in numpy than one reduction of tiny windows.
        return [functools.reduce(np.maximum, (view[(..., *element)] for element in np.ndindex(*kernel)))]
    counted = np.ones((1, 1, *x.shape[2:]), np.float64)
    if op.count_include_pad is not None:
        counted = pad_spatial(counted, pads, 1.0)
        counted = pad_spatial(counted, [*[0] * n, *spare])
        count = np.sum(windows(counted, kernel, op.strides, op.dilations)[positions], axis=axes)
    else:
        count = np.sum(windowed(counted, 0.0), axis=axes)
    view = windowed(x.astype(np.float64), 0.0)
    if np.prod(kernel) <= np.prod(out):
        total = functools.reduce(np.add, (view[(..., *element)] for element in np.ndindex(*kernel)))
    else:
        total = np.sum(view, axis=axes)
    return [(total / count).astype(x.dtype)]


@implements(dense.ReshapeOp)
def _reshape(op: dense.ReshapeOp, args: list[Array], env: Env) -> list[Array]:
    return [args[0].reshape(env.shape_of(op.result))]


@implements(dense.TransposeOp)
def _transpose(op: dense.TransposeOp, args: list[Array], env: Env) -> list[Array]:
    return [args[0].transpose(op.perm.get_values())]


@implements(dense.SliceOp)
def _slice(op: dense.SliceOp, args: list[Array], env: Env) -> list[Array]:
    starts, sizes = env.evaluate(dim_list(op.starts)), env.shape_of(op.result)
    picks = [s + np.arange(n) * step for s, n, step in zip(starts, sizes, op.steps.get_values())]
    return [args[0][np.ix_(*picks)]]


@implements(dense.BroadcastOp)
def _broadcast(op: dense.BroadcastOp, args: list[Array], env: Env) -> list[Array]:
    return [np.broadcast_to(args[0], env.shape_of(op.result))]


@implements(dense.ConcatOp)
def _concat(op: dense.ConcatOp, args: list[Array], env: Env) -> list[Array]:
    return [np.concatenate(args, axis=op.axis.value.data)]


@implements(dense.PadOp)
def _pad(op: dense.PadOp, args: list[Array], env: Env) -> list[Array]:
    (x,), pads = args, op.pads.get_values()
    widths = [(pads[i], pads[i + x.ndim]) for i in range(x.ndim)]
    match op.mode.data:
        case PadMode.CONSTANT:
            return [np.pad(x, widths, constant_values=np.asarray(op.value.value.data).astype(x.dtype))]
        case PadMode.REFLECT | PadMode.EDGE as mode:
            return [np.pad(x, widths, mode=mode.value)]


@implements(dense.GatherOp)
def _gather(op: dense.GatherOp, args: list[Array], env: Env) -> list[Array]:
    return [np.take(args[0], args[1], axis=op.axis.value.data)]


@implements(dense.DimsOp)
def _dims(op: dense.DimsOp, args: list[Array], env: Env) -> list[Array]:
    return [np.array(env.evaluate(dim_list(op.exprs)), dtype=np.int64)]


@implements(dense.IotaOp)
def _iota(op: dense.IotaOp, args: list[Array], env: Env) -> list[Array]:
    return [np.arange(env.shape_of(op.result)[0], dtype=np.int64)]


@implements(dense.LstmOp)
def _lstm(op: dense.LstmOp, args: list[Array], env: Env) -> list[Array]:
    x, w, r = args[:3]
    hidden, ways, (steps, batch, _) = op.hidden.value.data, w.shape[0], x.shape
    zeros = np.zeros((ways, batch, hidden), np.float32)
    bias = args[3] if len(args) > 3 else np.zeros((ways, 8 * hidden), np.float32)
    h, c = (args[4].copy(), args[5].copy()) if len(args) > 4 else (zeros, zeros.copy())
    y = np.empty((steps, ways, batch, hidden), np.float32)
    for way in range(ways):
        backwards = op.direction.data is Direction.REVERSE or way == 1
        both = bias[way, : 4 * hidden] + bias[way, 4 * hidden :]
        for t in reversed(range(steps)) if backwards else range(steps):
            gates = x[t] @ w[way].T + h[way] @ r[way].T + both
            i, o, f, g = np.split(gates, 4, axis=-1)
            c[way] = sigmoid(f) * c[way] + sigmoid(i) * np.tanh(g)
            h[way] = sigmoid(o) * np.tanh(c[way])
            y[t, way] = h[way]
    return [y, h, c]
