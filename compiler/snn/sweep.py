"""Accuracy, agreement, spikes and synaptic operations of a spiking network for several numbers of time steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuc.compiler.snn.chip_cost import ChipCost, chip_cost
from neuc.compiler.snn.recipes import check_steps
from neuc.compiler.snn.simulate import Activity
from neuc.errors import Error, Exit

STEPS = (1, 2, 4, 8, 16, 32, 64)
"""The T of a sweep if none are given."""


@dataclass(frozen=True)
class SweepRow:
    """The network after T steps.

    Attributes:
        steps: T.
        accuracy: the part of samples with the right largest output; None without labels.
        agreement: the part of samples whose largest output is the float network's.
        error: relative L2 distance of the outputs to the float network's.
        spikes_per_neuron: mean over neurons and samples, all steps together.
        accumulations: per sample: weights that spikes met, all steps together; nothing is multiplied.
        multiplications: per sample: weights that numbers met: the analog input's layer, once, and products of pooled
            spikes and currents.
        cpu_seconds: of one sample in compiled code on this machine, one thread, the median of some runs; None where it
            was not measured.
    """

    steps: int
    accuracy: float | None
    agreement: float
    error: float
    spikes_per_neuron: float
    accumulations: float
    multiplications: float
    cpu_seconds: float | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep over T.

    Attributes:
        rows: by T.
        samples: how many inputs.
        float_accuracy: of the float network; None without labels.
        float_multiplications: effective ones of the float network's layers with constant weights, per sample.
        chip: what a sample would cost on a neuromorphic chip, by T: a model's estimate from counts.
    """

    rows: tuple[SweepRow, ...]
    samples: int
    float_accuracy: float | None
    float_multiplications: float
    chip: tuple[ChipCost, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Everything, for `json.dumps`."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """A table for people."""
        chip = {cost.steps: cost for cost in self.chip}
        timed = any(r.cpu_seconds is not None for r in self.rows)
        head = "    T  accuracy  agreement  output error  spikes/neuron  accumulations  multiplications"
        lines = [head + "  chip, nJ  chip, µs" + ("  CPU, ms" if timed else "")]
        for r in self.rows:
            cost = chip.get(r.steps)
            energy, latency = (
                ("-", "-") if cost is None else (_short(1e9 * cost.total_energy), _short(1e6 * cost.latency))
            )
            measured = "-" if r.cpu_seconds is None else _short(1e3 * r.cpu_seconds)
            accuracy = "-" if r.accuracy is None else f"{100 * r.accuracy:.2f}%"
            lines.append(
                f"{r.steps:>5}  {accuracy:>8}  {100 * r.agreement:>8.2f}%  {100 * r.error:>11.2f}%"
                f"  {r.spikes_per_neuron:>13.3f}  {r.accumulations:>13,.0f}  {r.multiplications:>15,.0f}"
                f"  {energy:>8}  {latency:>8}" + (f"  {measured:>7}" if timed else "")
            )
        known = "" if self.float_accuracy is None else f"{100 * self.float_accuracy:.2f}%"
        lines.append(f"float  {known:>8}  {'':>9}  {'':>12}  {'':>13}  {'':>13}  {self.float_multiplications:>15,.0f}")
        lines.append(
            "all of one sample, over its T steps; accumulations: weights that spikes met, multiplications: numbers"
        )
        if self.chip:
            lines.append(f"chip: {self.chip[0].chip.name}, estimated from these counts, not measured")
        if timed:
            lines.append("CPU: latency as measured here, compiled")
        return "\n".join(lines)


def _short(value: float) -> str:
    """Three digits, without an exponent where numbers are large."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def checked_steps(steps: Sequence[int]) -> list[int]:
    """The T of a sweep, ascending.

    Raises:
        Error: NEUC-E523, there are none, or one makes no sense.
    """
    wanted = sorted(set(steps))
    if not wanted:
        raise Error("NEUC-E523", "a sweep over no time steps", hint="give some T", exit_code=Exit.USAGE)
    for count in wanted:
        check_steps(count)
    return wanted


def check_labels(labels: np.ndarray, outputs: int) -> None:
    """Refuse labels that no sample could get right.

    Raises:
        Error: NEUC-E530.
    """
    if labels.size and not (0 <= labels.min() and labels.max() < outputs):
        what = f"labels {labels.min()} to {labels.max()} for a model of {outputs} outputs"
        hint = f"labels are the numbers of outputs, 0 to {outputs - 1}"
        raise Error("NEUC-E530", what, hint=hint, exit_code=Exit.USAGE)


def tabulate(
    over_time: np.ndarray,
    exact: np.ndarray,
    labels: np.ndarray | None,
    steps: Sequence[int],
    activity: Activity,
    float_multiplications: float,
) -> Sweep:
    """The rows of a sweep from one run.

    Args:
        over_time: outputs after each step, [T, N, …].
        exact: the float network's, [N, …].
        labels: integers [N], or None.
        steps: which T.
        activity: what layers did.
        float_multiplications: of the float network, per sample.

    Raises:
        Error: NEUC-E530, as many labels as samples are needed, each of them the number of an output.
    """
    if labels is not None and np.shape(labels) != (exact.shape[0],):
        what = f"labels of shape {list(np.shape(labels))} for {exact.shape[0]} samples"
        raise Error("NEUC-E530", what, hint="one whole number for each sample", exit_code=Exit.USAGE)
    if labels is not None:
        check_labels(labels, math.prod(exact.shape[1:]))
    truth = np.argmax(exact.reshape(exact.shape[0], -1), axis=1)
    size = max(float(np.linalg.norm(exact)), 1e-30)
    rows: list[SweepRow] = []
    for count in steps:
        found = over_time[count - 1]
        guess = np.argmax(found.reshape(found.shape[0], -1), axis=1)
        rows.append(
            SweepRow(
                count,
                None if labels is None else float(np.mean(guess == labels)),
                float(np.mean(guess == truth)),
                float(np.linalg.norm(found - exact)) / size,
                spikes_per_neuron(activity, count),
                operations(activity, count, spikes=True),
                operations(activity, count, spikes=False),
            )
        )
    accuracy = None if labels is None else float(np.mean(truth == labels))
    costs = tuple(chip_cost(activity, count) for count in steps)
    return Sweep(tuple(rows), int(exact.shape[0]), accuracy, float_multiplications, costs)


def spikes_per_neuron(activity: Activity, steps: int) -> float:
    """Spikes of a neuron in `steps` steps, the mean over neurons and samples."""
    neurons = sum(layer.neurons for layer in activity.layers)
    return sum(sum(layer.spikes[:steps]) for layer in activity.layers) / max(1, neurons * activity.samples)


def operations(activity: Activity, steps: int, *, spikes: bool) -> float:
    """Synaptic operations of a sample in `steps` steps: those of spikes, or those of numbers."""
    made = [sum(s.operations[:1] if s.once else s.operations[:steps]) for s in activity.synapses if s.spikes == spikes]
    return sum(made) / max(1, activity.samples)
