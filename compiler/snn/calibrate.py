"""Calibration: thresholds, first potentials and biases of all sites from data, written on the sites.

Methods for one site are in `thresholds.py`; here is which data they see, and what is wrong with data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from neuc.compiler.snn import refit as regression
from neuc.compiler.snn import thresholds
from neuc.compiler.snn.recipes import THRESHOLDS, Recipe
from neuc.compiler.snn.signals import Signal
from neuc.compiler.snn.simulate import Simulation, affordable
from neuc.compiler.universe import nearest
from neuc.dialects.dense import MatMulOp
from neuc.dialects.locations import node_names
from neuc.dialects.store import dims_of
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, Exit
from neuc.passes.analysis.neuron_sites import BIAS, CLIP, IDENTITY, POTENTIAL, SCALE, SPREAD, THRESHOLD, Site, sites

Array = np.ndarray
SAMPLES = 4096
"""Most samples per channel that thresholds are found from."""
LEAST_INPUTS, MOST_INPUTS = 256, 1024
"""How many inputs are simulated, if there are so many: a channel of a convolution has many samples in each of them."""
READ_OUT_STEPS = 16384
"""On about how many inputs, times steps, read-outs are fitted."""
FEW_SAMPLES = 8
"""Samples for each weight of an output that are enough to fit it."""
QUANTILE = 0.999
SATURATED = 0.01
"""A channel is saturated if more than this part of its outputs lie above the largest number that its spikes reach."""


@dataclass
class SiteFacts:
    """What calibration found about one site.

    Attributes:
        name: the site.
        channels: how many.
        mean, sigma: of its currents, over all samples.
        largest: the largest magnitude that the float network has there.
        threshold: least and largest threshold.
        dead: channels that were 0 for all samples.
        saturated: channels that are too often above what their spikes can stand for.
        rounds: rounds until local threshold balancing converged; 0 for other methods.
    """

    name: str
    channels: int
    mean: float
    sigma: float
    largest: float
    threshold: tuple[float, float]
    dead: tuple[int, ...]
    saturated: tuple[int, ...]
    rounds: int = 0


@dataclass
class Calibration:
    """What calibration did.

    Attributes:
        method: how thresholds were found.
        samples: how many inputs.
        sites: what it found about each site.
        warnings: what is odd about the data or the network.
        refitted: products whose weights were fitted to spikes.
        original: their operands before.
    """

    method: str
    samples: int
    sites: list[SiteFacts] = field(default_factory=list[SiteFacts])
    warnings: list[str] = field(default_factory=list[str])
    refitted: list[str] = field(default_factory=list[str])
    original: dict[Operation, tuple[SSAValue, ...]] = field(default_factory=dict[Operation, tuple[SSAValue, ...]])


def check_data(inputs: Sequence[Array], names: Sequence[str]) -> list[str]:
    """Refuse calibration data that say nothing; warnings about data that say little.

    Raises:
        Error: NEUC-E520, there are none; NEUC-E521, NaN or infinity.
    """
    warnings: list[str] = []
    for name, array in zip(names, inputs, strict=True):
        if array.size == 0 or not array.shape or array.shape[0] == 0:
            raise Error("NEUC-E520", f"calibration input {name} is empty", hint="give at least one sample")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise Error("NEUC-E521", f"calibration input {name} holds NaN or infinity", hint="clean the data")
    if all((array == array[:1]).all() for array in inputs):
        samples = inputs[0].shape[0]
        what = "all calibration samples are the same" if samples > 1 else "there is one calibration sample"
        warnings.append(f"{what}: thresholds fit that one alone")
    if all(array.dtype.kind == "f" and (array == array.reshape(-1)[0]).all() for array in inputs):
        warnings.append("calibration data are constant: channels look dead or saturated that are not")
    return warnings


def calibrate(
    module: ModuleOp,
    store: WeightStore,
    inputs: Sequence[Array],
    names: Sequence[str],
    recipe: Recipe,
    steps: int,
    method: str = "search",
    *,
    q: float = QUANTILE,
    seed: int = 0,
    spread: float = 0.0,
    refit: bool = False,
) -> Calibration:
    """Write thresholds on every site of a marked module.

    Args:
        module: the module, whose sites are changed.
        store: its weights.
        inputs: one array [samples, …] for each input of the model.
        names: their names.
        recipe: which neurons they are for.
        steps: T they are for.
        method: one of `recipes.THRESHOLDS`.
        q: quantile of that method.
        seed: which samples of a channel are looked at where there are more than `SAMPLES`.
        spread: how far first potentials of neighbours differ; of `search` for binary spikes.
        refit: fit weights, too, to what spikes bring them; of `search`.

    Raises:
        Error: NEUC-E520, no data; NEUC-E521, data or activations are no finite numbers; NEUC-E527, no such method.
    """
    if method not in THRESHOLDS:
        hint = nearest(method, THRESHOLDS)
        raise Error("NEUC-E527", f"thresholds {method!r}: no such method", hint=hint, exit_code=Exit.USAGE)
    done = Calibration(method, inputs[0].shape[0] if inputs and inputs[0].ndim else 0)
    done.warnings += check_data(inputs, names)
    picker = _Calibrator(recipe, steps, method, q, np.random.default_rng(seed), done, spread, store)
    count = affordable(module, steps)
    if method == "search":
        count = min(count, simulated(module))
    run = Simulation(module, store, recipe, steps, picker.visit, original=done.original)
    late = _wide_read_outs(module, count, done.samples) if refit and method == "search" else []
    if refit and method == "search":
        run.refit = lambda op, signals, exact: [] if op in late else picker.refit(op, *picker.seen(op, signals, exact))
    run.run([array[:count] for array in inputs])
    if late:
        picker.refit_read_outs(late, module, inputs, count)
    return done


def _wide_read_outs(module: ModuleOp, count: int, samples: int) -> list[MatMulOp]:
    """Products behind all neurons whose weights are too many to be fitted on `count` inputs, where there are more."""
    if samples <= count:
        return []
    found = [op for op in module.walk() if isinstance(op, MatMulOp) and regression.reads_out(op)]
    return [op for op in found if dims_of(op.a)[-1].is_static and dims_of(op.a)[-1].value * FEW_SAMPLES > count]


def simulated(module: ModuleOp) -> int:
    """How many inputs give every channel about `SAMPLES` samples."""
    least = SAMPLES
    for site in sites(module):
        sizes = [dim.value if dim.is_static else 1 for dim in dims_of(site.op.result)[1:]]
        least = min(least, max(1, math.prod(sizes) // site.channels))
    return min(MOST_INPUTS, max(LEAST_INPUTS, SAMPLES // least))


@dataclass
class _Calibrator:
    recipe: Recipe
    steps: int
    method: str
    q: float
    rng: np.random.Generator
    done: Calibration
    spread: float
    store: WeightStore

    def visit(self, site: Site, current: Signal, exact: Array | None) -> None:
        """Find and write the parameters of one site."""
        assert exact is not None
        if not np.isfinite(exact).all():
            raise Error(
                "NEUC-E521",
                f"the float network's activations at {site.name} hold NaN or infinity",
                hint="a weight or an input before it does: check the model in onnxruntime",
            )
        truth = site.by_channel(exact)
        columns = self.rng.permutation(truth.shape[1])[:SAMPLES]
        truth = truth[:, columns]
        seen = _sampled(site, current, columns)
        found, rounds = self._found(site, seen, truth, self._offsets(site, exact.shape, columns))
        dead = np.flatnonzero(thresholds.largest(truth) == 0)
        found = _without_dead(found, dead)
        if site.kind == CLIP and self.recipe.coding == "rate":
            limit = np.minimum(found.threshold, np.float32(site.bound))
            found = replace(found, threshold=limit)
        site.write(THRESHOLD, found.threshold)
        for key, values in ((POTENTIAL, found.start), (BIAS, found.bias), (SCALE, found.scale)):
            if values is not None:
                site.write(key, values)
        self._note(site, seen, truth, found.threshold, dead, rounds)

    def seen(
        self, op: Operation, signals: Mapping[SSAValue, Signal], exact: Mapping[SSAValue, Array]
    ) -> tuple[Array, regression.Target]:
        """The mean input of a product, and what it should make of it."""

        def mean(value: SSAValue) -> Array | None:
            signal = signals.get(value)
            return None if signal is None else signal.means(self.steps, self.recipe.coding)[-1]

        x = mean(op.operands[0])
        assert x is not None
        return x, regression.target_of(op, exact, mean)

    def refit(self, op: Operation, x: Array, target: regression.Target) -> list[tuple[SSAValue, Array]]:
        """Fit the weights of one product, and note it."""
        before = tuple(op.operands)
        new = regression.refit(op, x, target, self.store, self.rng)
        if new:
            self.done.refitted.append(next(iter(node_names(op)), op.name))
            self.done.original[op] = before
        return new

    def refit_read_outs(self, ops: Sequence[MatMulOp], module: ModuleOp, inputs: Sequence[Array], count: int) -> None:
        """Fit products behind all neurons on more inputs than the network was calibrated on, `count` at a time."""
        pieces: dict[Operation, list[tuple[Array, Array]]] = {op: [] for op in ops}

        def look(
            op: Operation, signals: Mapping[SSAValue, Signal], exact: Mapping[SSAValue, Array]
        ) -> list[tuple[SSAValue, Array]]:
            if op in pieces:
                x, target = self.seen(op, signals, exact)
                pieces[op].append((x, target.truth))
            return []

        for start in range(0, min(self.done.samples, max(count, READ_OUT_STEPS // self.steps)), count):
            run = Simulation(module, self.store, self.recipe, self.steps, lambda *_: None, original=self.done.original)
            run.refit = look
            run.run([array[start : start + count] if array.ndim else array for array in inputs])
        for op, found in pieces.items():
            x, truth = (np.concatenate(part) for part in zip(*found, strict=True))
            self.refit(op, x, regression.Target(truth))

    def _offsets(self, site: Site, shape: tuple[int, ...], columns: Array) -> Array | None:
        """Spread first potentials where that is wanted: by how much those of samples are off their channel's."""
        if not self.spread or not self.recipe.binary or self.method != "search" or len(shape) != 4:
            return None
        site.write(SPREAD, np.array([self.spread / site.group], np.float32))
        zero = np.zeros(site.channels, np.float32)
        return site.by_channel(np.broadcast_to(site.starts(zero, shape), shape))[:, columns]

    def _found(self, site: Site, current: Signal, truth: Array, offset: Array | None) -> tuple[thresholds.Found, int]:
        match self.method:
            case "max":
                return thresholds.Found(thresholds.largest(truth)), 0
            case "quantile":
                return thresholds.Found(thresholds.quantile(truth, self.q)), 0
            case "ltb":
                theta, rounds = thresholds.local_balance(truth)
                return thresholds.Found(theta), rounds
            case "gaussian":
                levels = self.steps if self.recipe.binary else 2 ** (self.recipe.levels - 1)
                pre = truth if site.kind == IDENTITY else _mean(current, self.recipe)
                return thresholds.Found(np.minimum(thresholds.gaussian(pre, levels), thresholds.largest(truth))), 0
            case "mse":
                own = Signal(_mean(current, self.recipe) if site.kind == IDENTITY else truth)
            case _:
                own = current
        bound = site.bound if self.recipe.coding == "rate" else float("inf")
        positive = site.kind != IDENTITY
        found = thresholds.search(
            own,
            truth,
            self.recipe,
            self.steps,
            positive=positive,
            bound=bound,
            offset=offset,
            members=site.offsets,
        )
        return found, 0

    def _note(self, site: Site, current: Signal, truth: Array, threshold: Array, dead: Array, rounds: int) -> None:
        pre = _mean(current, self.recipe)
        reach = (
            threshold
            if self.recipe.coding == "rate"
            else threshold * np.float32(sum(1 / t for t in range(1, self.steps + 1)))
        )
        over = np.mean(np.abs(truth) > reach[:, None] * np.float32(1 + 1e-6), axis=1)
        full = np.flatnonzero(over > SATURATED) if site.kind != CLIP else np.array([], int)
        self.done.sites.append(
            SiteFacts(
                site.name,
                site.channels,
                float(pre.mean(dtype=np.float64)),
                float(pre.std(dtype=np.float64)),
                float(np.abs(truth).max()),
                (float(threshold.min()), float(threshold.max())),
                tuple(int(c) for c in dead),
                tuple(int(c) for c in full),
                rounds,
            )
        )
        if dead.size:
            all_ = "all its channels" if dead.size == site.channels else f"{dead.size} of {site.channels} channels"
            self.done.warnings.append(f"{site.name}: {all_} are dead: 0 for every calibration sample")


def _sampled(site: Site, current: Signal, columns: Array) -> Signal:
    """The current of some samples of each channel."""
    static = None if current.static is None else site.by_channel(current.static)[:, columns]
    steps = None if current.steps is None else [site.by_channel(step)[:, columns] for step in current.steps]
    return Signal(static, steps)


def _mean(current: Signal, recipe: Recipe) -> Array:
    """The number a current stands for after its last step."""
    steps = 1 if current.steps is None else len(current.steps)
    return current.means(steps, recipe.coding)[-1]


def _without_dead(found: thresholds.Found, dead: Array) -> thresholds.Found:
    """Dead channels get the largest threshold of the others, so that noise does not make them fire; or 1."""
    if not dead.size:
        return found
    threshold = found.threshold.copy()
    threshold[dead] = 0
    threshold[dead] = threshold.max() if threshold.max() > 0 else 1.0
    bias = None if found.bias is None else np.where(np.isin(np.arange(threshold.size), dead), 0, found.bias)
    scale = None if found.scale is None else np.where(np.isin(np.arange(threshold.size), dead), threshold, found.scale)
    return replace(found, threshold=threshold, bias=bias, scale=scale)
