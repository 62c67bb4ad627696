"""Pictures of a spiking network: who fires when, how often layers fire, and what more time steps bring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuc.compiler.snn.data import Data, arrays_of
from neuc.compiler.snn.simulate import Simulation
from neuc.compiler.snn.sweep import Sweep
from neuc.errors import Error
from neuc.passes.analysis.neuron_sites import Site

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from neuc.compiler.snn.model import SpikingModel

RASTER_NEURONS = 200
"""Most neurons of a layer in a raster, evenly picked."""
SAMPLES = 16
"""Most inputs that rates are the mean of."""
_DPI = 120


def write_plots(model: SpikingModel, x: Data, found: Sweep | None, folder: Path) -> list[Path]:
    """Write ``raster.png``, ``rates.png`` and, with a sweep, ``steps.png``.

    Args:
        model: the network.
        x: inputs; the raster is of the first.
        found: a sweep.
        folder: where to; it is made if it is missing.

    Returns:
        The files.

    Raises:
        Error: NEUC-E531, matplotlib is missing; NEUC-E005, a file cannot be written.
    """
    trains = _trains(model, x)
    figures = {"raster.png": _raster(trains), "rates.png": _rates(trains, model.steps)}
    if found is not None:
        figures["steps.png"] = _curve(found)
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            figure.savefig(folder / name, dpi=_DPI, bbox_inches="tight")
            written.append(folder / name)
    except OSError as error:
        raise Error("NEUC-E005", f"cannot write to {folder}: {error.strerror}", hint="choose another folder") from error
    return written


def require_matplotlib() -> None:
    """Find out before a long job that there can be no pictures.

    Raises:
        Error: NEUC-E531.
    """
    _figure(1, 1)


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise Error("NEUC-E531", "matplotlib is not installed", hint='pip install "neuc[plot]"') from error
    return Figure(figsize=(width, height), layout="constrained")


def _trains(model: SpikingModel, x: Data) -> dict[str, np.ndarray]:
    """The sign of each spike by site: int8 [T, samples, neurons]."""
    found: dict[str, np.ndarray] = {}

    def note(site: Site, spikes: Sequence[np.ndarray]) -> None:
        signs = np.stack([np.sign(step).astype(np.int8) for step in spikes])
        found[site.name] = signs.reshape(signs.shape[0], signs.shape[1] if signs.ndim > 1 else 1, -1)

    run = Simulation(model.marked, model.context.weights, model.recipe, model.steps, spiking=note)
    run.run([array[:SAMPLES] if array.ndim else array for array in arrays_of(x, model.inputs, "the input")])
    return found


def _raster(trains: dict[str, np.ndarray]) -> Figure:
    figure = _figure(7, 1.2 + 1.3 * len(trains))
    for i, (name, signs) in enumerate(trains.items(), start=1):
        axes = figure.add_subplot(len(trains), 1, i)
        first = signs[:, 0, :]
        picked = np.linspace(0, first.shape[1] - 1, min(RASTER_NEURONS, first.shape[1])).astype(int)
        for sign, colour in ((1, "tab:blue"), (-1, "tab:red")):
            step, neuron = np.nonzero(first[:, picked] == sign)
            axes.plot(step + 1, neuron, "|" if len(first) > 8 else "_", markersize=2, color=colour)
        axes.set_xlim(0.5, len(first) + 0.5)
        axes.set_ylabel(name, rotation=0, ha="right", fontsize=7)
        axes.set_yticks([])
    figure.supxlabel("time step (blue: +, red: −)")
    return figure


def _rates(trains: dict[str, np.ndarray], steps: int) -> Figure:
    figure = _figure(7, 1 + 0.35 * len(trains))
    axes = figure.add_subplot()
    rates = [np.abs(signs).mean(axis=(0, 1)) for signs in trains.values()]
    axes.boxplot(rates, orientation="horizontal", showfliers=False, whis=(1, 99))
    axes.set_yticks(range(1, len(trains) + 1), list(trains), fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(f"spikes per neuron and step, mean over inputs (T = {steps}; box: quartiles, whiskers: 1 and 99 %)")
    return figure


def _curve(found: Sweep) -> Figure:
    figure = _figure(6, 4)
    axes = figure.add_subplot()
    steps = [row.steps for row in found.rows]
    if found.float_accuracy is not None:
        axes.plot(steps, [100 * (row.accuracy or 0.0) for row in found.rows], "o-", label="accuracy")
        axes.axhline(100 * found.float_accuracy, linestyle="--", color="grey", label="float network")
    axes.plot(steps, [100 * row.agreement for row in found.rows], "s-", label="agreement with the float network")
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.set_xlabel("time steps")
    axes.set_ylabel(f"% of {found.samples} samples")
    right = axes.twinx()
    right.plot(steps, [row.spikes_per_neuron for row in found.rows], "^:", color="tab:green", label="spikes per neuron")
    right.set_ylabel("spikes per neuron")
    lines = [*axes.get_lines(), *right.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], loc="center right", fontsize=8)
    return figure
