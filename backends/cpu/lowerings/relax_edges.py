"""Linear operations as lists of edges: which source reaches which target through which weight, as `Sparse` products."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.kernels.relax_rows_products import UNROLLED, Sparse
from neuc.backends.cpu.lowerings.relax_plan import Plan
from neuc.dialects import dense
from neuc.dialects.dense_attrs import ReduceKind
from neuc.dialects.energy_factors import finite
from neuc.dialects.interp.core import Env, run_op
from neuc.dialects.interp.dense import pad_spatial, windows
from neuc.dialects.store import dims_of
from neuc.dialects.weight_store import WeightStore

Array = np.ndarray


def sparse(
    plan: Plan, target: Array, source: Array, k: Array, w: SSAValue | Array, size: int, row: int, scale: float = -1.0
) -> Sparse:
    """scale·Σ w[k]·x[source] for each target, as rows of edges filled up with a row of zeros."""
    order, start, place = edge_rows(target, size)
    near = np.full(int(start[-1]), plan.zeros() - row, np.int32)
    near[place] = source[order]
    shared = np.zeros(int(start[-1]), np.int32)
    shared[place] = k[order]
    slots = plan.array("relax.start", start), plan.array("relax.near", near)
    constant = w if isinstance(w, np.ndarray) else plan.s.constant(w)
    if constant is None:
        assert not isinstance(w, np.ndarray)
        return Sparse(*slots, plan.parameter(w), row, scale, plan.array("relax.shared", shared))
    return Sparse(
        *slots, plan.array("relax.weights", finite(constant, "w").astype(np.float32).reshape(-1)[shared]), row, scale
    )


def edge_rows(target: Array, size: int) -> tuple[Array, Array, Array]:
    """The order of edges by target, where each target's begin (i32 [size + 1]), and each edge's place.

    Targets have a multiple of `UNROLLED` places, and at least one edge is there.
    """
    order = np.argsort(target, kind="stable")
    count = np.bincount(target, minlength=size)
    padded = -(-count // UNROLLED) * UNROLLED
    start = np.concatenate([[0], np.cumsum(padded)])
    if not start[-1]:
        start[-1] = UNROLLED
    rank = np.arange(len(target)) - np.repeat(np.cumsum(count) - count, count)
    return order, start.astype(np.int32), np.repeat(start[:-1], count) + rank


@dataclass(frozen=True)
class Edges:
    """result[target[e]] += scale · w[weight[e]] · x[source[e]].

    Attributes:
        weights: w where it is known now; None where it is the operation's second operand.
    """

    target: Array
    source: Array
    weight: Array
    weights: Array | None
    scale: float = 1.0


def edges_of(op: Operation) -> Edges:
    """The edges of one chain of a product, a convolution, a mean over windows, a sum or a mean over axes."""
    match op:
        case dense.MatMulOp():
            return _product(op)
        case dense.ConvOp():
            return _convolution(op)
        case dense.PoolOp():
            taps = window_taps(op)
            target, tap = np.nonzero(taps >= 0)
            ones = np.ones((1, *_sizes(op.x)), np.float64)
            share = run_op(op, [ones], Env(ModuleOp([]), WeightStore(), {"chains": 1}))[0].reshape(-1)
            count = (taps >= 0).sum(1) / share
            return Edges(target, taps[target, tap], target, (1.0 / count).astype(np.float32))
        case _:
            assert isinstance(op, dense.ReduceOp)
            sizes, axes = _sizes(op.x), [a - 1 for a in op.axes.get_values()]
            kept = [1 if k in axes else n for k, n in enumerate(sizes)]
            target = np.broadcast_to(np.arange(math.prod(kept)).reshape(kept), sizes).reshape(-1)
            mean = op.kind.data is ReduceKind.MEAN
            weight = np.array([math.prod(kept) / math.prod(sizes) if mean else 1.0], np.float32)
            return Edges(target, np.arange(math.prod(sizes)), np.zeros(len(target), np.int64), weight)


def _sizes(value: SSAValue) -> list[int]:
    return [d.value for d in dims_of(value)[1:]]


def _product(op: dense.MatMulOp) -> Edges:
    """Of x [rows, K] of each chain, and w [K, N]."""
    *rows, k = _sizes(op.a)
    n = _sizes(op.result)[-1]
    row, column, inner = (a.reshape(-1) for a in np.indices((math.prod(rows), n, k)))
    weight = inner * n + column if op.transpose_b is None else column * k + inner
    return Edges(row * n + column, row * k + inner, weight, None, op.alpha.value.data)


def _convolution(op: dense.ConvOp) -> Edges:
    channels, *spatial = _sizes(op.x)
    out_channels, own, *kernel = (d.value for d in dims_of(op.w))
    group = op.group.value.data
    numbers = np.arange(1, channels * math.prod(spatial) + 1).reshape(1, channels, *spatial)
    seen = windows(pad_spatial(numbers, op.pads.get_values()), kernel, op.strides, op.dilations)[0]
    places = math.prod(seen.shape[1 : 1 + len(kernel)])
    # [channels, positions…, kernel…] -> [group, own channels, positions, taps], then for each output channel of a group
    seen = seen.reshape(group, 1, own, places, -1)
    m = np.arange(out_channels).reshape(group, -1, 1, 1, 1)
    position = np.arange(places).reshape(1, 1, 1, -1, 1)
    tap = np.arange(own)[:, None, None] * math.prod(kernel) + np.arange(math.prod(kernel))
    shape = np.broadcast_shapes(seen.shape, m.shape, position.shape, tap.shape)
    target, source = (np.broadcast_to(a, shape).reshape(-1) for a in (m * places + position, seen - 1))
    weight = np.broadcast_to(m * own * math.prod(kernel) + tap, shape).reshape(-1)
    return Edges(target[source >= 0], source[source >= 0], weight[source >= 0], None)


def window_taps(op: dense.PoolOp) -> Array:
    """[windows, taps]: which element of a chain each tap of each window reads; -1 in padding."""
    sizes, kernel = _sizes(op.x), op.kernel.get_values()
    out, n = _sizes(op.result)[1:], len(kernel)
    pads, strides, dilations = (a.get_values() for a in (op.pads, op.strides, op.dilations))
    reach = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, strides, kernel, dilations)]
    spare = [max(0, r - (sizes[1 + i] + pads[i] + pads[i + n])) for i, r in enumerate(reach)]
    numbers = np.arange(1, math.prod(sizes) + 1).reshape(1, *sizes)
    padded = pad_spatial(numbers, [*pads[:n], *(p + s for p, s in zip(pads[n:], spare))])
    seen = windows(padded, kernel, op.strides, op.dilations)
    kept = seen[(slice(None), slice(None), *(slice(o) for o in out))]
    return kept.reshape(math.prod((sizes[0], *out)), -1).astype(np.int64) - 1
