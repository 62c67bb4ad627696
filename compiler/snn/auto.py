"""`--recipe auto`: the fewest time steps, and among equals the fewest operations, that keep a network's accuracy.

What a single recipe does is in `convert.py`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neuc.compiler.snn import front
from neuc.compiler.snn.convert import convert_marked
from neuc.compiler.snn.data import Data, arrays_of
from neuc.compiler.snn.model import SpikingModel
from neuc.compiler.snn.recipes import RECIPES, check_steps, for_depth
from neuc.compiler.snn.sweep import SweepRow
from neuc.errors import Error, Exit
from neuc.passes.analysis.neuron_sites import sites

TRIED = (("a", "search"), ("a", "ltb"), ("b", "search"), ("b", "quantile"), ("c", "search"))
"""Recipes and ways to find thresholds, in the order they are tried: what is simplest to build in hardware first."""
HELD_OUT = 0.5
"""The part of the calibration data that thresholds do not see, and candidates are judged on."""
FEWEST = 4
"""With fewer samples than this none are held out."""


@dataclass(frozen=True)
class Goal:
    """What `auto` looks for.

    Attributes:
        max_steps: the most time steps.
        max_drop: how much accuracy may be lost against the float network, as a part of the samples.
        labels: of the calibration data; without them agreement with the float network counts.
    """

    max_steps: int
    max_drop: float
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class _Candidate:
    model: SpikingModel
    row: SweepRow
    drop: float

    @property
    def cost(self) -> tuple[int, float]:
        """Steps first, then operations."""
        return self.row.steps, self.row.accumulations + self.row.multiplications


def convert_auto(
    model: object,
    calibration: Data,
    goal: Goal,
    *,
    steps: int | None = None,
    shapes: Mapping[str, tuple[int | str, ...]] | None = None,
    example_inputs: tuple[object, ...] | None = None,
    spiking_after: str | None = None,
    seed: int = 0,
) -> SpikingModel:
    """The cheapest conversion that reaches the goal on the half of the calibration data that thresholds do not see.

    Args:
        model: as of `convert_to_snn`.
        calibration: inputs; one half calibrates, the other judges.
        goal: what is wanted.
        steps: T, if only recipes are to be chosen.
        shapes: as of `convert_to_snn`.
        example_inputs: as of `convert_to_snn`.
        spiking_after: as of `convert_to_snn`.
        seed: as of `convert_to_snn`.

    Raises:
        Error: NEUC-E528, no candidate reaches it; or as `convert_to_snn` does.
    """
    check_steps(goal.max_steps)
    if not 0 <= goal.max_drop < 1:
        raise Error(
            "NEUC-E527", f"max drop {goal.max_drop}", hint="a part of the samples, such as 0.005", exit_code=Exit.USAGE
        )
    begun = time.perf_counter()
    marked = front.mark(model, RECIPES["a"], shapes, example_inputs, spiking_after)
    arrays = arrays_of(calibration, marked.inputs, "calibration data")
    samples = arrays[0].shape[0] if arrays[0].ndim else 1
    split = samples - int(samples * HELD_OUT) if samples >= FEWEST else samples
    fit = [a[:split] for a in arrays]
    names = [spec.name for spec in marked.inputs]
    judged = dict(zip(names, [a[split:] if split < samples else a for a in arrays]))
    labels = None if goal.labels is None else np.asarray(goal.labels)[split if split < samples else 0 :]
    measure = "agreement with the float network" if labels is None else "accuracy"
    judges = f"{samples - split} held-out" if split < samples else f"{samples}"
    tried: list[str] = []
    best: _Candidate | None = None
    closest: _Candidate | None = None
    for recipe, thresholds in TRIED:
        for count in (steps,) if steps is not None else _doubling(goal.max_steps):
            if best is not None and count > best.row.steps:
                break
            try:
                remarked = marked.remarked(RECIPES[recipe])
                chosen = for_depth(RECIPES[recipe], sum(1 for _ in sites(remarked.module)))
                made = convert_marked(remarked, fit, chosen, count, thresholds, seed=seed)
            except Error as error:
                if error.code not in ("NEUC-E524", "NEUC-E525"):
                    raise
                why = f"recipe {recipe}: {error.message}"
                tried += [] if why in tried else [why]  # whatever finds its thresholds
                break
            found = _judged(made, judged, labels, goal)
            tried.append(
                f"recipe {recipe}, {thresholds}, T = {count}: {100 * found.drop:.2f} points of {measure} lost on"
                f" {judges} samples, {found.row.accumulations:,.0f} accumulations"
            )
            if closest is None or found.drop < closest.drop:
                closest = found
            if found.drop <= goal.max_drop + 1e-12:
                best = found if best is None or found.cost < best.cost else best
                break
    if best is None:
        nearest = (
            "" if closest is None else f"; closest is {_named(closest.model)}, {100 * closest.drop:.2f} points lost"
        )
        raise Error(
            "NEUC-E528",
            f"no recipe loses at most {100 * goal.max_drop:.2f} points within {steps or goal.max_steps} steps{nearest}",
            hint="allow more steps (--max-steps) or a larger drop (--max-drop)",
            exit_code=Exit.MISMATCH,
        )
    best.model.report.chosen = tried
    best.model.report.seconds = time.perf_counter() - begun
    return best.model


def _doubling(most: int) -> list[int]:
    counts = [1]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    return counts if counts[-1] == most else [*counts, most]


def _judged(model: SpikingModel, x: Data, labels: np.ndarray | None, goal: Goal) -> _Candidate:
    found = model.sweep(x, labels, [model.steps])
    row = found.rows[-1]
    if row.accuracy is None or found.float_accuracy is None:
        return _Candidate(model, row, 1.0 - row.agreement)
    return _Candidate(model, row, found.float_accuracy - row.accuracy)


def _named(model: SpikingModel) -> str:
    return f"recipe {model.recipe.name} at T = {model.steps}"
