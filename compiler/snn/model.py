"""`SpikingModel`: a converted network, ready to run, to sweep over time steps, and to save."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from neuc.compiler.api import compile
from neuc.compiler.driver import Driver, print_module, write_module
from neuc.compiler.files import check_writable
from neuc.compiler.signature import entry_of
from neuc.compiler.snn.data import Data, arrays_of
from neuc.compiler.snn.neurobench import NeuroBench, neurobench
from neuc.compiler.snn.recipes import Recipe, check_steps
from neuc.compiler.snn.report import ConversionReport
from neuc.compiler.snn.simulate import Activity, Simulation, affordable
from neuc.compiler.snn.sweep import STEPS, Sweep, checked_steps, tabulate
from neuc.compiler.snn.synaptic_operations import fan_out, met_weights
from neuc.dialects.context import NeucContext
from neuc.dialects.dense import ConvOp, MatMulOp
from neuc.dialects.interp.core import interpret
from neuc.passes.convert_ann_to_snn import ConvertAnnToSnn
from neuc.runtime.program import IoSpec
from neuc.runtime.signature import listed

if TYPE_CHECKING:
    from neuc.runtime.session import Session

TIMED = 15
"""Runs of one sample, whose median is its time."""
BATCH = 100
"""Samples that are simulated at once: the currents of all steps of a layer are in memory together."""


@dataclass
class SpikingModel:
    """A spiking network made from a float one.

    Attributes:
        module: the network on the paradigm level: dense operations and one `spike.loop`.
        context: the context and weights of all its modules.
        recipe: how it is coded.
        steps: T, the most time steps of `module`.
        start: the first step its read-out counts (rate coding).
        report: what conversion did.
        marked: the float network with its sites and their thresholds, on which `module` was built.
        dense: the float network.
        inputs, outputs: its signature.
    """

    module: ModuleOp
    context: NeucContext
    recipe: Recipe
    steps: int
    start: int
    report: ConversionReport
    marked: ModuleOp
    dense: ModuleOp
    inputs: tuple[IoSpec, ...]
    outputs: tuple[IoSpec, ...]

    def __repr__(self) -> str:
        """Two lines: model, inputs and outputs, recipe, steps, and the layer that loses most; no IR."""
        first = f"<SpikingModel {self.report.model}: {listed(self.inputs)} -> {listed(self.outputs)}"
        return f"{first}\n  {', '.join(self.report.facts())}>"

    def run(self, x: Data, steps: int | None = None) -> list[np.ndarray]:
        """The outputs after `steps` time steps, in numpy.

        Args:
            x: the inputs, [N, …] each; a plain array for a model of one input.
            steps: at most `self.steps`, which is what is left out means.

        Returns:
            One array for each output, as the float network gives it.

        Raises:
            Error: NEUC-E523, steps make no sense; or the inputs do not fit.
        """
        return [array[-1] for array in self.run_over_time(x, steps)]

    def run_over_time(self, x: Data, steps: int | None = None, activity: Activity | None = None) -> list[np.ndarray]:
        """The outputs after each of the first `steps` time steps, from one run.

        Rate recipes give at step t what a run of t steps gives, since nothing depends on how many follow; so does
        differential coding.

        Args:
            x: as of `run`.
            steps: as of `run`; more than `self.steps` is allowed, thresholds are then not the best.
            activity: is given what layers did, synaptic operations counted.

        Returns:
            f32 [T, N, …] for each output.
        """
        count = self.steps if steps is None else steps
        check_steps(count)
        arrays = arrays_of(x, self.inputs, "the input")
        parts: list[list[np.ndarray]] = []
        size = min(BATCH, affordable(self.marked, count))
        for start in range(0, samples_of(arrays), size):
            run = Simulation(self.marked, self.context.weights, self.recipe, count)
            run.start, run.count = min(self.start, count - 1), activity is not None
            batch = [a[start : start + size] if a.ndim else a for a in arrays]
            parts.append([np.stack(over_time) for over_time in run.run(batch)])
            if activity is not None:
                activity.add(run.activity)
        return [np.concatenate(pieces, axis=1) for pieces in zip(*parts)]

    def run_float(self, x: Data) -> list[np.ndarray]:
        """The outputs of the float network it was made from."""
        arrays = arrays_of(x, self.inputs, "the input")
        size = min(BATCH, affordable(self.dense, 1))
        parts = [
            interpret(self.dense, [a[start : start + size] if a.ndim else a for a in arrays], self.context.weights)
            for start in range(0, samples_of(arrays), size)
        ]
        return [np.concatenate(pieces) for pieces in zip(*parts)]

    def sweep(
        self, x: Data, labels: np.ndarray | None = None, steps: Sequence[int] = STEPS, *, timed: bool = False
    ) -> Sweep:
        """Accuracy, agreement with the float network, spikes and synaptic operations for several T, from one run.

        Args:
            x: as of `run`.
            labels: integers [N]; without them there is no accuracy.
            steps: which T.
            timed: also compile the network for each T with target `cpu-spike`, and time one sample on one thread.

        Raises:
            Error: NEUC-E523, a T makes no sense; NEUC-E530, as many labels as samples are needed; or x does not fit.
        """
        wanted, activity = checked_steps(steps), Activity()
        over_time = self.run_over_time(x, wanted[-1], activity)[0]
        found = tabulate(over_time, self.run_float(x)[0], labels, wanted, activity, self.float_multiplications(x))
        if not timed:
            return found
        rows = tuple(replace(row, cpu_seconds=self.seconds(x, row.steps)) for row in found.rows)
        return replace(found, rows=rows)

    def seconds(self, x: Data, steps: int) -> float:
        """How long compiled code of `cpu-spike` takes for one sample and `steps` time steps, on one thread.

        Args:
            x: as of `run`; the first sample is run, the median of `TIMED` runs counts.
            steps: T; more than `self.steps` is allowed.

        Raises:
            Error: NEUC-E523, steps make no sense.
        """
        check_steps(steps)
        feeds = {name: array[:1] if array.ndim else array for name, array in self.feeds(x).items()}
        session = self.session(threads=1, steps=steps)
        session.run(None, feeds)
        took: list[float] = []
        for _ in range(TIMED):
            begun = time.perf_counter()
            session.run(None, feeds)
            took.append(time.perf_counter() - begun)
        return statistics.median(took)

    def float_multiplications(self, x: Data) -> float:
        """Products of a number and a weight, both not 0, that the float network's layers make for one sample."""
        arrays = arrays_of(x, self.inputs, "the input")
        wanted = {v for op in self.dense.walk() if isinstance(op, ConvOp | MatMulOp) for v in op.operands[:1]}
        store, made, size = self.context.weights, 0.0, min(BATCH, affordable(self.dense, 1))
        for start in range(0, samples_of(arrays), size):
            batch = [a[start : start + size] if a.ndim else a for a in arrays]
            arguments: Sequence[SSAValue] = entry_of(self.dense).body.block.args
            seen: dict[SSAValue, np.ndarray] = dict(zip(arguments, batch))

            def observe(op: Operation, results: list[np.ndarray], seen: dict[SSAValue, np.ndarray] = seen) -> None:
                nonlocal made
                seen.update((v, a) for v, a in zip(op.results, results) if v in wanted)
                if isinstance(op, ConvOp | MatMulOp) and op.operands[0] in seen:
                    array = seen[op.operands[0]]
                    fans = fan_out(op, array.shape, store)
                    made += 0.0 if fans is None else met_weights(array, fans)

            interpret(self.dense, batch, store, observe=observe)
        return made / samples_of(arrays)

    @cached_property
    def text(self) -> str:
        """The module as text."""
        return print_module(self.module)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``PATH.mlir`` and its weights beside it, to be compiled, inspected or edited.

        Raises:
            Error: NEUC-E005, it cannot be written.
        """
        target = Path(path)
        check_writable(target)
        write_module(target, self.module, self.context)

    def neurobench(self, x: Data) -> NeuroBench:
        """NeuroBench's metrics on some samples; the reference interpreter counts, so a few are enough.

        Args:
            x: as of `run`.
        """
        return neurobench(self.module, self.context.weights, arrays_of(x, self.inputs, "the input"))

    def session(self, threads: int | None = None, steps: int | None = None) -> Session:
        """The network compiled for this CPU's event-driven target, `cpu-spike`.

        Args:
            threads: threads for each run; by default the CPUs this process may use.
            steps: T, if not `self.steps`.
        """
        module = self.module
        if steps is not None and steps != self.steps:
            module = self.marked.clone()
            conversion = ConvertAnnToSnn(steps, self.recipe.levels, self.recipe.coding, min(self.start, steps - 1))
            Driver(module, self.context).run([conversion])
        with TemporaryDirectory() as folder:
            path = Path(folder) / "network.mlir"
            write_module(path, module, self.context)
            return compile(path, "cpu-spike").session(threads=threads)

    def feeds(self, x: Data) -> Mapping[str, np.ndarray]:
        """The inputs by name, checked."""
        return dict(zip([spec.name for spec in self.inputs], arrays_of(x, self.inputs, "the input")))


def samples_of(arrays: Sequence[np.ndarray]) -> int:
    """How many samples arrays hold."""
    return arrays[0].shape[0] if arrays and arrays[0].ndim else 1
