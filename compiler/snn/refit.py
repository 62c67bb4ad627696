"""Weights fitted to what spikes bring: a ridge regression for each layer, in closed form, on calibration data.

A layer's inputs are rounded, and what they lose is not independent: neighbours round alike, channels clip together. The
weights that make the float network's currents out of spikes are therefore not quite the float network's weights. Where
ReLU neurons follow, a current that has to be negative is as good as any that is negative enough, so that the fit can
spend its weights on the others; and where something is added on the way (a shortcut), the fit also makes up for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects import arith
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from neuc.dialects.dense import ConvOp, MapOp, MatMulOp, YieldOp
from neuc.dialects.interp.dense import pad_spatial, windows
from neuc.dialects.locations import node_names
from neuc.dialects.store import constant_value, make_constant
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.neuron_sites import CLIP, RELU, Site, is_site, site_of

Array = np.ndarray
ROWS = 8192
"""Most samples of a regression."""
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
"""Penalties on changes of weights that are tried, in parts of the mean square of the inputs' sums."""
GAIN = 0.98
"""Changed weights have to bring the error on samples that were held out below this part of what it was."""
MARGIN = 0.5
"""How far below 0 a current has to be in front of a ReLU, in parts of the root mean square of its positive ones: uneven
spikes bring it higher for some steps."""
ROUNDS = 6
"""Steps of the fit where ReLUs follow: each is a regression on those samples that are off."""


@dataclass(frozen=True)
class Target:
    """What a product should have behind it.

    Attributes:
        truth: what the float network has there, with what is added before the next neurons.
        beside: what the spiking network adds there, the mean over the steps; None for nothing.
        rectified: whether ReLU neurons follow.
    """

    truth: Array
    beside: Array | None = None
    rectified: bool = False


def target_of(op: Operation, exact: Mapping[SSAValue, Array], mean: Callable[[SSAValue], Array | None]) -> Target:
    """The target of a product.

    Args:
        op: the product.
        exact: the float network's numbers.
        mean: means of the spiking network's, None for what has not run yet.
    """
    result = op.results[0]
    follower = result.get_user_of_unique_use()
    if isinstance(follower, MapOp) and is_site(follower):
        return Target(exact[result], None, _rectifies(site_of(follower)))
    if isinstance(follower, MapOp) and _is_sum(follower) and follower.inputs[0].type == follower.inputs[1].type:
        site = follower.result.get_user_of_unique_use()
        other = follower.inputs[1] if follower.inputs[0] is result else follower.inputs[0]
        beside = mean(other)
        if site is not None and is_site(site) and other is not result and beside is not None and other in exact:
            return Target(exact[result] + exact[other], beside, _rectifies(site_of(site)))
    return Target(exact[result])


def reads_out(op: Operation) -> bool:
    """Whether no neurons follow: errors of the product are errors of the outputs."""
    users = [use.operation for result in op.results for use in result.uses]
    return not any(is_site(user) or not reads_out(user) for user in users)


def _rectifies(site: Site | None) -> bool:
    return site is not None and site.kind in (RELU, CLIP)


def _is_sum(op: MapOp) -> bool:
    """Whether a map adds its two inputs and does nothing else."""
    kinds = [type(inner) for inner in op.body.block.ops]
    return len(op.inputs) == 2 and kinds == [arith.AddfOp, YieldOp]


def refit(
    op: Operation, x: Array, target: Target, store: WeightStore, rng: np.random.Generator
) -> list[tuple[SSAValue, Array]]:
    """Give a product weights, and a bias, that bring its currents closer to the float network's.

    The penalty is chosen on a third of the inputs; nothing changes where no penalty helps there.

    Args:
        op: a product with constant weights; its constants are replaced.
        x: the means of its inputs over the steps.
        target: what it should have behind it.
        store: where weights are.
        rng: picks samples.

    Returns:
        The new constants and their arrays.
    """
    if isinstance(op, ConvOp):
        return _refit_conv(op, x, target, store, rng)
    if isinstance(op, MatMulOp):
        return _refit_matmul(op, x, target, store, rng)
    return []


def _refit_matmul(
    op: MatMulOp, x: Array, target: Target, store: WeightStore, rng: np.random.Generator
) -> list[tuple[SSAValue, Array]]:
    weight = constant_value(op.b, store)
    bias = None if op.bias is None else constant_value(op.bias, store)
    alpha = np.float32(op.alpha.value.data)
    if weight is None or weight.ndim != 2 or op.transpose_a is not None or bias is None or bias.ndim != 1 or alpha == 0:
        return []
    rows = (weight if op.transpose_b is not None else weight.T) * alpha
    flat = x.reshape(-1, x.shape[-1])
    picked, held = _drawn(x.shape[0], len(flat) // x.shape[0], rng)
    wanted, beside = _rows(target, picked, -1)
    found = _solve(flat[picked], wanted, beside, held, target.rectified, rows, bias)
    if found is None:
        return []
    rows, bias = found[0] / alpha, found[1]
    return _replaced(op, [(1, rows if op.transpose_b is not None else rows.T), (2, bias)], store)


def _refit_conv(
    op: ConvOp, x: Array, target: Target, store: WeightStore, rng: np.random.Generator
) -> list[tuple[SSAValue, Array]]:
    weight = constant_value(op.w, store)
    bias = None if op.bias is None else constant_value(op.bias, store)
    if weight is None or bias is None:
        return []
    n, group = weight.ndim - 2, op.group.value.data
    patches = windows(pad_spatial(x, op.pads.get_values()), weight.shape[2:], op.strides, op.dilations)
    # [N, C, positions…, kernel…]: each position of each sample is a row.
    positions = (x.shape[0], *patches.shape[2 : 2 + n])
    picked, held = _drawn(x.shape[0], int(np.prod(positions[1:])), rng)
    where = np.unravel_index(picked, positions)
    columns = np.moveaxis(patches, 1, 1 + n)[where].reshape(len(picked), group, -1)
    wanted, beside = _rows(target, picked, 1)
    outputs = np.arange(weight.shape[0]).reshape(group, -1)
    old = weight.reshape(group, weight.shape[0] // group, -1)
    found = [
        _solve(columns[:, g], wanted[:, of], beside[:, of], held, target.rectified, old[g], bias[of])
        for g, of in enumerate(outputs)
    ]
    if all(part is None for part in found):
        return []
    rows = np.stack([old[g] if part is None else part[0] for g, part in enumerate(found)])
    shift = np.stack([bias.reshape(group, -1)[g] if part is None else part[1] for g, part in enumerate(found)])
    return _replaced(op, [(1, rows.reshape(weight.shape)), (2, shift.reshape(bias.shape))], store)


def _drawn(samples: int, places: int, rng: np.random.Generator) -> tuple[Array, int]:
    """Some rows of all places of all samples, those that are held out first, and how many these are.

    All places of a sample are on one side: what is fitted to one place of an image suits the others, too.
    """
    picked = rng.permutation(samples * places)[:ROWS]
    held = np.isin(picked // places, rng.permutation(samples)[: max(1, samples // 3)])
    return np.concatenate([picked[held], picked[~held]]), int(held.sum())


def _rows(target: Target, picked: Array, axis: int) -> tuple[Array, Array]:
    """Some rows [len(picked), outputs] of a target and of what is beside it; outputs are on `axis`."""

    def of(array: Array) -> Array:
        last = np.moveaxis(array, axis, -1)
        return last.reshape(-1, last.shape[-1])[picked].astype(np.float64)

    wanted = of(target.truth)
    return wanted, np.zeros_like(wanted) if target.beside is None else of(target.beside)


def _solve(
    x: Array, wanted: Array, beside: Array, held: int, rectified: bool, rows: Array, bias: Array
) -> tuple[Array, Array] | None:
    """Rows and bias with less error on the first `held` samples than before; None if no ridge finds any."""
    wide = np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1).astype(np.float64)
    base = x.astype(np.float64) @ rows.T.astype(np.float64) + bias + beside
    fit, test, every = slice(held, None), slice(0, held), slice(None)
    enough = MARGIN * np.sqrt(np.mean(np.maximum(wanted, 0) ** 2, axis=0))

    def off(change: Array | None, part: slice) -> Array:
        now = base[part] if change is None else base[part] + wide[part] @ change
        missing = wanted[part] - now
        if not rectified:
            return missing
        too_high = np.minimum(np.maximum(wanted[part], -enough) - now, 0)
        return np.where(wanted[part] < 0, too_high, missing)

    def fitted(part: slice, square: Array, ridge: float) -> Array:
        penalty = ridge * np.trace(square) / len(square)
        inverse = np.linalg.inv(square + penalty * np.eye(len(square)))
        change = inverse @ (wide[part].T @ off(None, part))
        for _ in range(ROUNDS - 1 if rectified else 0):
            change = change + inverse @ (wide[part].T @ off(change, part) - penalty * change)
        return change

    if held < 1 or len(x) - held < 2:
        return None
    best, error = None, GAIN * float(np.mean(off(None, test) ** 2))
    if error == 0:
        return None
    square = wide[fit].T @ wide[fit]
    for ridge in RIDGES:
        left = float(np.mean(off(fitted(fit, square, ridge), test) ** 2))
        if left < error:
            best, error = ridge, left
    if best is None:
        return None
    change = fitted(every, square + wide[test].T @ wide[test], best)
    return (rows + change[:-1].T).astype(np.float32), (bias + change[-1]).astype(np.float32)


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
