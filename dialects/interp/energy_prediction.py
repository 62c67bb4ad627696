"""Meaning of `energy.prediction`: the region forwards by the meanings of its operations, backwards by their transposes.

Everything is computed in the precision of the states, f64, whatever the region's types say.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from neuc.dialects import dense
from neuc.dialects import energy as e
from neuc.dialects.dense_attrs import PoolKind, ReduceKind
from neuc.dialects.energy_derivatives import derivative
from neuc.dialects.energy_prediction import CHAINS, is_affine
from neuc.dialects.interp.core import Env, run_op
from neuc.dialects.interp.dense import pad_spatial, windows
from neuc.dialects.interp.energy_terms import Gradients, TermMeaning, Values, means
from neuc.dialects.interp.energy_values import Array, read
from neuc.dialects.interp.scalar import run_body
from neuc.dialects.weight_store import WeightStore

Back = Callable[[Operation, list[Array], Array, Env], "list[Array]"]
_BACK: dict[type[Operation], Back] = {}


@means(e.PredictionOp)
class _Prediction(TermMeaning):
    op: e.PredictionOp

    def _forward(self, v: Values) -> tuple[dict[SSAValue, Array], Env, Array, Array]:
        """All values of the region, its environment, x and f, both [C, …]."""
        x = read(self.op.x, v)
        env = Env(ModuleOp([]), WeightStore(), {CHAINS: len(x)})
        values: dict[SSAValue, Array] = {}
        for argument, operand in zip(self.op.block.args, self.op.args):
            is_variable = isinstance(operand.type, e.VarType)
            values[argument] = read(operand, v) if is_variable else self.p(operand)
        for op in list(self.op.block.ops)[:-1]:
            values[op.results[0]] = run_op(op, [values[a] for a in op.operands], env)[0]
        return values, env, x, values[self.op.predicted]

    def _backward(self, v: Values) -> tuple[dict[SSAValue, Array], Array, Array]:
        """dF/d(operand) by argument of the region, then x and f."""
        values, env, x, f = self._forward(v)
        p = self.op.precision.value.data
        seed = -p * x if self.op.product is not None else -p * (x - f)
        slopes: dict[SSAValue, Array] = {self.op.predicted: seed}
        for op in reversed(list(self.op.block.ops)[:-1]):
            g = slopes.get(op.results[0])
            if g is None:
                continue
            back = _BACK[type(op)](op, [values[a] for a in op.operands], g, env)
            for operand, part in zip(op.operands, back):
                slopes[operand] = slopes.get(operand, 0.0) + part
        return slopes, x, f

    def energy(self, v: Values) -> Array:
        _, _, x, f = self._forward(v)
        p = self.op.precision.value.data
        each = -p * x * f if self.op.product is not None else 0.5 * p * (x - f) ** 2
        return each.reshape(len(x), -1).sum(1)

    def gradient(self, v: Values) -> Gradients:
        slopes, x, f = self._backward(v)
        p = self.op.precision.value.data
        own = -p * f if self.op.product is not None else p * (x - f)
        arguments = zip(self.op.args, self.op.block.args)
        read_by_f = [(o, slopes[a]) for o, a in arguments if isinstance(o.type, e.VarType) and a in slopes]
        return [(self.op.x, own), *read_by_f]

    def slopes(self, v: Values) -> Gradients:
        slopes, x, _ = self._backward(v)
        arguments = zip(self.op.args, self.op.block.args)
        parameters = [(o, a) for o, a in arguments if not isinstance(o.type, e.VarType)]
        return [(o, slopes.get(a, np.zeros(self.p(o).shape)) / len(x)) for o, a in parameters]

    def curvature(self, variable: SSAValue) -> Array | float | None:
        read = [o for o in self.op.args if isinstance(o.type, e.VarType) and e.variable_of(o) is variable]
        if self.op.product is not None and variable in read and variable is not self.op.x and is_affine(self.op):
            return 0.0
        if read:
            return None
        quadratic = self.op.product is None and self.op.x is variable
        return self.op.precision.value.data if quadratic else 0.0


def _backwards(op: type[Operation]) -> Callable[[Back], Back]:
    """Register what takes (operation, operands, g) to the operands' parts of a gradient."""

    def register(function: Back) -> Back:
        _BACK[op] = function
        return function

    return register


def _summed(g: Array, shape: tuple[int, ...]) -> Array:
    """The transpose of a broadcast from `shape`."""
    g = g.sum(tuple(range(g.ndim - len(shape))))
    return g.sum(tuple(k for k, size in enumerate(shape) if size == 1), keepdims=True) if shape else g


@_backwards(dense.MapOp)
def _map(op: Operation, args: list[Array], g: Array, env: Env) -> list[Array]:
    assert isinstance(op, dense.MapOp)
    parts = [run_body(derivative(op.body.block, k), [*args, g], env) for k in range(len(args))]
    return [_summed(np.broadcast_to(part, g.shape), a.shape) for part, a in zip(parts, args)]


@_backwards(dense.MatMulOp)
def _matmul(op: Operation, args: list[Array], g: Array, env: Env) -> list[Array]:
    assert isinstance(op, dense.MatMulOp)
    a = args[0] if op.transpose_a is None else np.swapaxes(args[0], -1, -2)
    b = args[1] if op.transpose_b is None else np.swapaxes(args[1], -1, -2)
    scaled = op.alpha.value.data * g
    to_a, to_b = scaled @ np.swapaxes(b, -1, -2), np.swapaxes(a, -1, -2) @ scaled
    to_a = to_a if op.transpose_a is None else np.swapaxes(to_a, -1, -2)
    to_b = to_b if op.transpose_b is None else np.swapaxes(to_b, -1, -2)
    bias = [_summed(g, args[2].shape)] if op.bias is not None else []
    return [_summed(to_a, args[0].shape), _summed(to_b, args[1].shape), *bias]


@_backwards(dense.ConvOp)
def _conv(op: Operation, args: list[Array], g: Array, env: Env) -> list[Array]:
    assert isinstance(op, dense.ConvOp)
    x, w = args[0], args[1]
    n, group, pads = w.ndim - 2, op.group.value.data, op.pads.get_values()
    seen = windows(pad_spatial(x, pads), w.shape[2:], op.strides, op.dilations)
    seen = seen.reshape(len(x), group, -1, *seen.shape[2:])
    g_of, w_of = g.reshape(len(x), group, -1, *g.shape[2:]), w.reshape(group, -1, *w.shape[1:])
    sites, taps = "uvwxyz"[:n], "klmopq"[:n]
    to_w = np.einsum(f"bgi{sites}{taps},bgj{sites}->gji{taps}", seen, g_of)
    spread = np.einsum(f"bgj{sites},gji{taps}->bgi{sites}{taps}", g_of, w_of)
    bias = [g.sum((0, *range(2, g.ndim)))] if op.bias is not None else []
    return [_unwindowed(op, x, spread.reshape(len(x), x.shape[1], *spread.shape[3:])), to_w.reshape(w.shape), *bias]


def _unwindowed(op: dense.ConvOp | dense.PoolOp, x: Array, parts: Array) -> Array:
    """The transpose of padding and `windows`: parts [N, C, positions…, kernel…] added up where they were read."""
    n = x.ndim - 2
    pads, strides, dilations = (a.get_values() for a in (op.pads, op.strides, op.dilations))
    out, kernel = parts.shape[2 : 2 + n], parts.shape[2 + n :]
    reach = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, strides, kernel, dilations)]
    sizes = [max(r, x.shape[2 + i] + pads[i] + pads[i + n]) for i, r in enumerate(reach)]
    total = np.zeros((*x.shape[:2], *sizes), parts.dtype)
    for tap in np.ndindex(*kernel):
        where = (slice(t * d, t * d + (o - 1) * s + 1, s) for t, d, o, s in zip(tap, dilations, out, strides))
        total[(slice(None), slice(None), *where)] += parts[(..., *tap)]
    return total[(slice(None), slice(None), *(slice(pads[i], pads[i] + x.shape[2 + i]) for i in range(n)))]


@_backwards(dense.PoolOp)
def _pool(op: Operation, args: list[Array], g: Array, env: Env) -> list[Array]:
    """Maxima go to the first largest of a window, means to all that counted."""
    assert isinstance(op, dense.PoolOp)
    x, kernel, n = args[0], op.kernel.get_values(), args[0].ndim - 2
    pads, strides, dilations = (a.get_values() for a in (op.pads, op.strides, op.dilations))
    reach = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(g.shape[2:], strides, kernel, dilations)]
    spare = [max(0, r - (x.shape[2 + i] + pads[i] + pads[i + n])) for i, r in enumerate(reach)]
    positions = (slice(None), slice(None), *(slice(o) for o in g.shape[2:]))

    def seen(array: Array, value: float) -> Array:
        around = [*pads[:n], *(p + s for p, s in zip(pads[n:], spare))]
        found = windows(pad_spatial(array, around, value), kernel, op.strides, op.dilations)[positions]
        return found.reshape(*found.shape[: 2 + n], -1)

    if op.kind.data is PoolKind.MAX:
        best = seen(x, -np.inf).argmax(-1)
        parts = (best[..., None] == np.arange(np.prod(kernel))) * g[..., None]
    else:
        inside = np.ones((1, 1, *x.shape[2:]))
        if op.count_include_pad is not None:
            inside = pad_spatial(inside, pads, 1.0)
            around = pad_spatial(inside, [*[0] * n, *spare])
            counted = windows(around, kernel, op.strides, op.dilations)[positions].reshape(1, 1, *g.shape[2:], -1)
        else:
            counted = seen(inside, 0.0)
        parts = np.broadcast_to((g / counted.sum(-1))[..., None], (*g.shape, counted.shape[-1]))
    return [_unwindowed(op, x, parts.reshape(*g.shape, *kernel))]


@_backwards(dense.ReduceOp)
def _reduce(op: Operation, args: list[Array], g: Array, env: Env) -> list[Array]:
    assert isinstance(op, dense.ReduceOp)
    (x,), axes = args, op.axes.get_values()
    g = g if op.keepdims is not None else np.expand_dims(g, axes)
    count = np.prod([x.shape[a] for a in axes]) if op.kind.data is ReduceKind.MEAN else 1.0
    return [np.broadcast_to(g / count, x.shape)]


def origins(op: Operation, shapes: list[tuple[int, ...]], env: Env) -> Array:
    """Of an operation that only moves elements: which of its operands' elements, counted through, each result is.

    -1 where it is none of them (what is padded).
    """
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    numbers = [np.arange(a + 1.0, b + 1.0).reshape(shape) for a, b, shape in zip(ends, ends[1:], shapes)]
    found = run_op(op, numbers, env)[0]
    if isinstance(op, dense.PadOp):
        inside = run_op(op, [np.full(shape, np.nan) for shape in shapes], env)[0]
        found = np.where(np.isnan(inside), found, 0.0)
    return found.astype(np.int64).reshape(-1) - 1


@_backwards(dense.ReshapeOp)
@_backwards(dense.TransposeOp)
@_backwards(dense.SliceOp)
@_backwards(dense.ConcatOp)
@_backwards(dense.PadOp)
@_backwards(dense.BroadcastOp)
def _moved(op: Operation, args: list[Array], g: Array, env: Env) -> list[Array]:
    source = origins(op, [a.shape for a in args], env)
    ends = np.cumsum([0, *(a.size for a in args)])
    total = np.zeros(int(ends[-1]), g.dtype)
    np.add.at(total, source[source >= 0], g.reshape(-1)[source >= 0])
    return [total[a:b].reshape(x.shape) for a, b, x in zip(ends, ends[1:], args)]
