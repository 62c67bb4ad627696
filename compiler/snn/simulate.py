"""Running a marked network as a spiking one, layer by layer over all time steps, in numpy.

Layers run one after the other, each over all steps, which is legal as nothing feeds back; so calibration can look at a
layer's currents before the next one runs, and one run shows the outputs of every T at once. What dense operations mean
is asked of the interpreters; neurons are in `neurons.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from neuc.compiler.signature import entry_of
from neuc.compiler.snn import neurons
from neuc.compiler.snn.recipes import Recipe
from neuc.compiler.snn.signals import Signal
from neuc.compiler.snn.synaptic_operations import fan_out, met_weights
from neuc.dialects.dense import ConvOp, MatMulOp
from neuc.dialects.interp.core import Env, run_op
from neuc.dialects.locations import node_names
from neuc.dialects.store import ConstantOp, dims_of
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.passes.analysis.affine import is_affine, moves
from neuc.passes.analysis.neuron_sites import BIAS, CLIP, HALF, IDENTITY, POTENTIAL, SCALE, THRESHOLD, Site, site_of
from neuc.passes.analysis.spiking_roles import Role, roles

Array = np.ndarray
MOST_ELEMENTS = 1 << 26
"""Of all steps of the largest tensor: 256 MB of f32."""
FEW, MORE_ELEMENTS = 32, 1 << 28
"""So few samples say little, so that up to as many may take 1 GB."""


@dataclass
class Layer:
    """What a site did in one run.

    Attributes:
        name: the site's name.
        neurons: how many, for one sample.
        spikes: how many of them fired, by step, over all samples.
        threshold: the mean largest level.
    """

    name: str
    neurons: int
    spikes: list[int]
    threshold: float


@dataclass
class Synapses:
    """What a product with constant weights did in one run.

    Attributes:
        name: the model's node.
        operations: products of an input and a weight, both not 0, by step, over all samples.
        spikes: whether the inputs were spikes, so that nothing was multiplied; else currents or pooled spikes.
        once: whether it ran once, on the analog input.
        dense: operations that there are for one sample and step, zeros or not.
    """

    name: str
    operations: list[float]
    spikes: bool
    once: bool
    dense: float


@dataclass
class Activity:
    """What all layers did, added up over runs.

    Attributes:
        layers: neurons, in order.
        synapses: products, in order.
        samples: how many inputs.
    """

    layers: list[Layer] = field(default_factory=list[Layer])
    synapses: list[Synapses] = field(default_factory=list[Synapses])
    samples: int = 0

    def add(self, other: Activity) -> None:
        """Add what another run of the same network did."""
        self.samples += other.samples
        if not self.layers:
            self.layers, self.synapses = other.layers, other.synapses
            return
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.spikes = [a + b for a, b in zip(mine.spikes, theirs.spikes, strict=True)]
        for mine, theirs in zip(self.synapses, other.synapses, strict=True):
            mine.operations = [a + b for a, b in zip(mine.operations, theirs.operations, strict=True)]


Visitor = Callable[[Site, Signal, Array | None], None]
"""Is shown each site, its current and the number the float network has there, before the site fires."""
Refit = Callable[[Operation, Mapping[SSAValue, Signal], Mapping[SSAValue, Array]], list[tuple[SSAValue, Array]]]
"""Is shown each product that reads what changes, before it runs; gives new constants and their arrays."""


@dataclass
class Simulation:
    """One run of a marked module.

    Attributes:
        module: a module whose @main has sites.
        store: its weights.
        recipe: how it is coded.
        steps: T.
        visit: looks at sites on the way and may write their parameters.
        start: the first step that read-outs count, in rate coding.
        count: whether to count synaptic operations.
        activity: what layers did.
        spiking: is shown each site and its spikes, in the unit of its current.
        feeding: is shown each product that reads what changes, and its input in each step.
        refit: given a product, what changes before it and the float network's numbers, may put new constants before it.
        original: operands that products of the float network have, where they got others.
    """

    module: ModuleOp
    store: WeightStore
    recipe: Recipe
    steps: int
    visit: Visitor | None = None
    start: int = 0
    count: bool = False
    activity: Activity = field(default_factory=Activity)
    spiking: Callable[[Site, Sequence[Array]], None] | None = None
    refit: Refit | None = None
    original: Mapping[Operation, Sequence[SSAValue]] = field(default_factory=dict[Operation, Sequence[SSAValue]])
    feeding: Callable[[Operation, Sequence[Array]], None] | None = None
    _moved: set[SSAValue] = field(default_factory=set[SSAValue])
    _behind: set[Operation] = field(default_factory=set[Operation])

    def run(self, inputs: Sequence[Array]) -> list[list[Array]]:
        """The outputs after each step: one list of T arrays for each output.

        Raises:
            Error: NEUC-E529, a site without thresholds.
        """
        entry = entry_of(self.module)
        block = entry.body.block
        env = Env(self.module, self.store)
        for arg, array in zip(block.args, inputs, strict=True):
            for dim, size in zip(dims_of(arg), array.shape):
                if dim.symbols == {str(dim)}:
                    env.symbols[str(dim)] = size
        samples = self.activity.samples = inputs[0].shape[0] if inputs and inputs[0].ndim else 1
        signals: dict[SSAValue, Signal] = {arg: Signal(array) for arg, array in zip(block.args, inputs)}
        exact: dict[SSAValue, Array] = dict(zip(block.args, inputs)) if self.visit is not None else {}
        last = last_uses(block.ops, self.original)
        # A function behind a delayed read-out sees the counted steps alone.
        delayed = 0 < self.start < self.steps and self.recipe.coding == "rate"
        self._behind = {op for op, role in roles(block).items() if role is Role.READ_OUT} if delayed else set()
        for op in list(block.ops):
            if isinstance(op, func.ReturnOp):
                return [self._read_out(signals[v]) for v in op.operands]
            if self.visit is not None:
                found = run_op(op, [exact[v] for v in self.original.get(op, op.operands)], env)
                exact.update(zip(op.results, found))
            site = site_of(op)
            if site is not None:
                truth = exact.get(site.op.result)
                current = self._bounded(site, signals[site.op.inputs[0]], env)
                signals[site.op.result] = self._fire(site, current, truth, samples)
            else:
                if self.refit is not None and isinstance(op, ConvOp | MatMulOp):
                    if signals[op.operands[0]].steps is not None:
                        new = self.refit(op, signals, exact)
                        signals.update((value, Signal(array)) for value, array in new)
                self._pass(op, signals, env)
            for value in last.get(op, ()):
                signals.pop(value, None)
                exact.pop(value, None)
        return []

    def _bounded(self, site: Site, current: Signal, env: Env) -> Signal:
        """The current of a clip whose spikes are changes: its mean is clipped, since rates do not saturate there."""
        if site.kind != CLIP or self.recipe.coding == "rate":
            return current

        def run(arrays: Sequence[Array | None]) -> list[Array]:
            return run_op(site.op, [a for a in arrays if a is not None], env)

        if current.steps is None:
            return Signal(run([current.static])[0])
        return self._differential(site.op, [current], [0], run)

    def _read_out(self, signal: Signal) -> list[Array]:
        """The estimates of an output after each step."""
        if self.start == 0 or signal.steps is None or self.recipe.coding == "differential":
            return signal.means(self.steps, self.recipe.coding)
        silent = [np.zeros_like(signal.steps[0])] * min(self.start, self.steps)
        return [*silent, *signal.means_from(len(silent), self.steps)]

    def _fire(self, site: Site, current: Signal, truth: Array | None, samples: int) -> Signal:
        if self.visit is not None:
            self.visit(site, current, truth)
        outputs = list(fire(site, current, self.recipe, self.steps))
        if self.spiking is not None:
            self.spiking(site, outputs)
        theta = site.parameter(THRESHOLD)
        level = 0.0 if theta is None else float(theta.mean())
        each = outputs[0].size // max(1, samples)
        self.activity.layers.append(Layer(site.name, each, [int(np.count_nonzero(o)) for o in outputs], level))
        self._moved.add(site.op.result)
        zero = np.zeros(outputs[0].shape, np.float32) if self.recipe.coding == "differential" else None
        return Signal(zero, outputs)

    def _pass(self, op: Operation, signals: dict[SSAValue, Signal], env: Env) -> None:
        """What an operation without neurons makes of signals."""
        given = [signals[v] for v in op.operands]
        changing = [i for i, signal in enumerate(given) if signal.steps is not None]
        if self.count and isinstance(op, ConvOp | MatMulOp):
            self._count(op, given[0])
        if self.feeding is not None and isinstance(op, ConvOp | MatMulOp) and given[0].steps is not None:
            self.feeding(op, given[0].steps)
        if changing and moves(op) and all(op.operands[i] in self._moved for i in changing):
            self._moved.update(op.results)

        def run(arrays: Sequence[Array | None]) -> list[Array]:
            return run_op(op, [a for a in arrays if a is not None], env)

        if not changing:
            results = [] if isinstance(op, ConstantOp) else [s.static for s in given]
            signals.update((v, Signal(a)) for v, a in zip(op.results, run(results)))
        elif self.recipe.coding == "rate":
            found = signals[op.results[0]] = self._rate(op, given, changing, run)
            if op in self._behind:
                numbers = zip(*(signal.means_from(self.start, self.steps) for signal in given), strict=True)
                found.counted = [run(arrays)[0] for arrays in numbers]
        else:
            signals[op.results[0]] = self._differential(op, given, changing, run)

    def _count(self, op: Operation, x: Signal) -> None:
        """Note the synaptic operations of a product with constant weights."""
        arrays = [x.static] if x.steps is None else x.steps
        shape = arrays[0].shape if arrays[0] is not None else ()
        fans = fan_out(op, shape, self.store)
        every = fan_out(op, shape, self.store, dense=True)
        if fans is None or every is None:
            return
        made = [met_weights(a, fans) for a in arrays if a is not None]
        # One sample's inputs, all of them not 0.
        dense = met_weights(np.ones((1, *shape[1:]), np.int8), every)
        spikes = op.operands[0] in self._moved
        name = next(iter(node_names(op)), op.name)
        self.activity.synapses.append(Synapses(name, made, spikes, x.steps is None, dense))

    def _rate(self, op: Operation, given: Sequence[Signal], changing: list[int], run: Run) -> Signal:
        if is_affine(op, changing):
            return Signal(
                None, [run([s.static if s.steps is None else s.steps[t] for s in given])[0] for t in self._ts]
            )
        means = [signal.means(self.steps, "rate") for signal in given]
        made = list[Array]()
        before = np.float32(0)
        for t in self._ts:
            total = run([mean[t] for mean in means])[0] * np.float32(t + 1)
            made.append(total - before)
            before = total
        return Signal(None, made)

    def _differential(self, op: Operation, given: Sequence[Signal], changing: list[int], run: Run) -> Signal:
        static = run([s.static for s in given])[0]
        if is_affine(op, changing):
            rest = [np.zeros_like(s.static) if s.steps is not None else s.static for s in given]  # pyright: ignore[reportArgumentType, reportCallIssue]
            zero = run(rest)[0]
            return Signal(
                static, [run([s.static if s.steps is None else s.steps[t] for s in given])[0] - zero for t in self._ts]
            )
        means = [signal.means(self.steps, "differential") for signal in given]
        made, before = list[Array](), static
        for t in self._ts:
            now = run([mean[t] for mean in means])[0]
            made.append((now - before) * np.float32(t + 1))
            before = now
        return Signal(static, made)

    @property
    def _ts(self) -> range:
        return range(self.steps)


Run = Callable[[Sequence["Array | None"]], "list[Array]"]


def fire(site: Site, current: Signal, recipe: Recipe, steps: int) -> Sequence[Array]:
    """The spikes of a site with calibrated thresholds, in the unit of its current, step by step.

    Raises:
        Error: NEUC-E529, it has no thresholds.
    """
    threshold = site.parameter(THRESHOLD)
    if threshold is None:
        raise Error("NEUC-E529", f"the neurons of {site.name} have no thresholds", hint="calibrate the module first")
    start, bias = site.parameter(POTENTIAL), site.parameter(BIAS)
    theta = site.shaped(threshold)
    extra = None if bias is None else site.shaped(bias)
    shape = next(a.shape for a in (current.static, *(current.steps or [])) if a is not None)
    begin = site.starts(np.full_like(threshold, HALF) if start is None else start, shape)
    out = group_spikes(current, recipe, steps, theta, begin, extra, site)
    scale = site.parameter(SCALE)
    return out if scale is None else [step * site.shaped(scale / threshold) for step in out]


def group_spikes(
    current: Signal, recipe: Recipe, steps: int, theta: Array, start: Array, bias: Array | None, site: Site
) -> list[Array]:
    """What the neurons of a site send, the mean over each group; parameters broadcast to the current."""
    positive = site.kind != IDENTITY
    if site.group == 1:
        return spikes(current, recipe, steps, theta, start, bias, positive=positive)
    starts = [start + np.float32(offset) for offset in site.offsets]
    members = [spikes(current, recipe, steps, theta, begin, bias, positive=positive) for begin in starts]
    return [np.stack(step).sum(axis=0) / np.float32(site.group) for step in zip(*members)]


def spikes(
    current: Signal,
    recipe: Recipe,
    steps: int,
    theta: Array,
    start: Array | None = None,
    bias: Array | None = None,
    *,
    positive: bool,
) -> list[Array]:
    """What neurons with largest level `theta` send for a current; parameters broadcast to it."""
    extra = np.float32(0) if bias is None else bias
    if recipe.coding == "differential":
        assert current.static is not None
        changes: Sequence[Array | None] = [None] * steps if current.steps is None else current.steps
        return list(neurons.differential(current.static + extra, changes, theta, recipe.levels, positive=positive))
    inputs = [current.static] * steps if current.steps is None else current.steps
    shifted = [np.asarray(i + extra) for i in inputs if i is not None]
    if recipe.binary:
        begin = theta * (np.float32(HALF) if start is None else start)
        return list(neurons.integrate_and_fire(shifted, theta, begin))
    return list(neurons.multi_threshold(shifted, theta, recipe.levels, positive=positive))


def last_uses(
    ops: Iterable[Operation], original: Mapping[Operation, Sequence[SSAValue]]
) -> dict[Operation, list[SSAValue]]:
    """For each operation, the values that nothing reads after it, with its present or its original operands."""
    last: dict[SSAValue, Operation] = {}
    for op in ops:
        for value in (*op.operands, *op.results, *original.get(op, ())):
            last[value] = op
    found: dict[Operation, list[SSAValue]] = {}
    for value, op in last.items():
        found.setdefault(op, []).append(value)
    return found


def affordable(module: ModuleOp, steps: int) -> int:
    """How many samples can be simulated at once: all steps of a layer are in memory together, if it has any."""
    largest, spiking = 1, set[SSAValue]()
    for op in entry_of(module).body.block.ops:
        changes = site_of(op) is not None or not spiking.isdisjoint(op.operands)
        for value in () if isinstance(op, ConstantOp) else op.results:
            size = math.prod(dim.value if dim.is_static else 1 for dim in dims_of(value))
            largest = max(largest, size * steps if changes else size)
            spiking.update([value] if changes else [])
    count = MOST_ELEMENTS // largest
    return count if count >= FEW else max(1, min(FEW, MORE_ELEMENTS // largest))
