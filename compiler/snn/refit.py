"""Weights fitted to what spikes bring: a ridge regression for each layer, in closed form, on calibration data.

A layer's inputs are rounded, and what they lose is not independent: neighbours round alike, channels clip together. The
weights that make the float network's currents out of spikes are therefore not quite the float network's weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from neuc.dialects.dense import ConvOp, MatMulOp
from neuc.dialects.interp.dense import pad_spatial, windows
from neuc.dialects.locations import node_names
from neuc.dialects.store import constant_value, make_constant
from neuc.dialects.weight_store import WeightStore

Array = np.ndarray
ROWS = 8192
"""Most samples of a regression."""
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Penalties on changes of weights that are tried, in parts of the mean square of the inputs' sums."""
GAIN = 0.98
"""Changed weights have to bring the error on samples that were held out below this part of what it was."""


def refit(
    op: Operation, x: Array, truth: Array, store: WeightStore, rng: np.random.Generator
) -> list[tuple[SSAValue, Array]]:
    """Give a product weights, and a bias, that bring its currents closer to the float network's.

    The penalty is chosen on a third of the samples; nothing changes where no penalty helps there.

    Args:
        op: a product with constant weights; its constants are replaced.
        x: the means of its inputs over the steps.
        truth: what the float network has behind it.
        store: where weights are.
        rng: picks samples.

    Returns:
        The new constants and their arrays.
    """
    if isinstance(op, ConvOp):
        return _refit_conv(op, x, truth, store, rng)
    if isinstance(op, MatMulOp):
        return _refit_matmul(op, x, truth, store, rng)
    return []


def _refit_matmul(
    op: MatMulOp, x: Array, truth: Array, store: WeightStore, rng: np.random.Generator
) -> list[tuple[SSAValue, Array]]:
    weight = constant_value(op.b, store)
    bias = None if op.bias is None else constant_value(op.bias, store)
    alpha = np.float32(op.alpha.value.data)
    if weight is None or weight.ndim != 2 or op.transpose_a is not None or bias is None or bias.ndim != 1 or alpha == 0:
        return []
    rows = (weight if op.transpose_b is not None else weight.T) * alpha
    flat, target = x.reshape(-1, x.shape[-1]), truth.reshape(-1, truth.shape[-1])
    picked = rng.permutation(len(flat))[:ROWS]
    found = _solve(flat[picked], target[picked], rows, bias)
    if found is None:
        return []
    rows, bias = found[0] / alpha, found[1]
    return _replaced(op, [(1, rows if op.transpose_b is not None else rows.T), (2, bias)], store)


def _refit_conv(
    op: ConvOp, x: Array, truth: Array, store: WeightStore, rng: np.random.Generator
) -> list[tuple[SSAValue, Array]]:
    weight = constant_value(op.w, store)
    bias = None if op.bias is None else constant_value(op.bias, store)
    if weight is None or bias is None:
        return []
    n, group = weight.ndim - 2, op.group.value.data
    patches = windows(pad_spatial(x, op.pads.get_values()), weight.shape[2:], op.strides, op.dilations)
    # [N, C, positions…, kernel…]: each position of each sample is a row.
    positions = (x.shape[0], *patches.shape[2 : 2 + n])
    picked = rng.permutation(int(np.prod(positions)))[:ROWS]
    where = np.unravel_index(picked, positions)
    columns = np.moveaxis(patches, 1, 1 + n)[where].reshape(len(picked), group, -1)
    target = np.moveaxis(truth, 1, -1)[where].reshape(len(picked), group, -1)
    old = weight.reshape(group, weight.shape[0] // group, -1)
    found = [_solve(columns[:, g], target[:, g], old[g], bias.reshape(group, -1)[g]) for g in range(group)]
    if all(part is None for part in found):
        return []
    rows = np.stack([old[g] if part is None else part[0] for g, part in enumerate(found)])
    shift = np.stack([bias.reshape(group, -1)[g] if part is None else part[1] for g, part in enumerate(found)])
    return _replaced(op, [(1, rows.reshape(weight.shape)), (2, shift.reshape(bias.shape))], store)


def _solve(x: Array, target: Array, rows: Array, bias: Array) -> tuple[Array, Array] | None:
    """Rows and bias with less error on held-out samples; None if no ridge finds any."""
    held = max(1, len(x) // 3)
    wide = np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1).astype(np.float64)
    off = target.astype(np.float64) - x.astype(np.float64) @ rows.T.astype(np.float64) - bias
    fit, test = slice(held, None), slice(0, held)
    best, error = None, GAIN * float(np.mean(off[test] ** 2))
    if len(x) - held < 2 or error == 0:
        return None
    square, mixed = wide[fit].T @ wide[fit], wide[fit].T @ off[fit]
    size = float(np.trace(square)) / len(square)
    for ridge in RIDGES:
        change = np.linalg.solve(square + ridge * size * np.eye(len(square)), mixed)
        left = float(np.mean((off[test] - wide[test] @ change) ** 2))
        if left < error:
            best, error = change, left
    if best is None:
        return None
    return (rows + best[:-1].T).astype(np.float32), (bias + best[-1]).astype(np.float32)


def _replaced(op: Operation, arrays: Sequence[tuple[int, Array]], store: WeightStore) -> list[tuple[SSAValue, Array]]:
    """Put new constants in front of a product."""
    name = next(iter(node_names(op)), op.name)
    made: list[tuple[SSAValue, Array]] = []
    for index, array in arrays:
        constant = make_constant(f"{name}.refitted{index}", np.ascontiguousarray(array), store)
        constant.location = op.location
        Rewriter.insert_op(constant, InsertPoint.before(op))
        op.operands[index] = constant.result
        made.append((constant.result, array))
    return made
