"""Pictures of a sampler's results: energy by sweep, marginals, correlations, spins, beliefs; and their numbers as JSON.

What is drawn is what the program returns (`results.py` noted what that is). matplotlib is imported when a picture is
drawn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np

from neuc.compiler.files import replacing
from neuc.errors import Error, Exit

Array = np.ndarray

_MOST_CHAINS = 16
"""Chains that are drawn each; of more only the mean and the range, or the first of them."""
_MOST_SITES = 1024
"""Sites that a matrix of correlations or an axis shows."""
_LEAST_CHAINS = 8
"""Fewer chains say nothing about correlations."""
_MOST_STATES = 64
"""States of a histogram, the most frequent first."""
NUMBERS = "plots.json"


@dataclass(frozen=True)
class Plot:
    """Numbers and how to draw them.

    Attributes:
        name: of the file, without its ending.
        kind: lines, images, bars, matrix.
        title: above it.
        axes: what its axes are.
        values: [series, points] of lines, [images, rows, columns], [bars], or a matrix.
        start: the first x of lines, and the step to the next.
    """

    name: str
    kind: str
    title: str
    axes: tuple[str, str]
    values: Array
    start: tuple[int, int] = (0, 1)

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        parts: dict[str, object] = {"kind": self.kind, "title": self.title, "axes": list(self.axes)}
        if self.kind == "lines":
            parts |= {"first": self.start[0], "step": self.start[1]}
        return {**parts, "values": np.asarray(self.values, np.float64).round(9).tolist()}


def plots_of(facts: object, results: Mapping[str, Array], sweeps: int | None) -> list[Plot]:
    """What can be drawn of a run's results.

    Args:
        facts: what is noted under ``energy``.
        results: arrays by name.
        sweeps: how many sweeps the run made, if it made any.

    Raises:
        Error: NEUC-E636, nothing can.
    """
    known = cast("dict[str, Any]", facts).get("results", {}) if isinstance(facts, dict) else {}
    found = [
        plot for name, array in results.items() if name in known for plot in _plots(name, array, known[name], sweeps)
    ]
    if not found:
        raise Error(
            "NEUC-E636",
            "the program returns nothing that can be drawn",
            hint="return samples.energies(), samples.sums(x), samples.pairs(x, i, j) or state[x]",
            exit_code=Exit.USAGE,
        )
    return found


def write_plots(plots: list[Plot], folder: Path) -> list[Path]:
    """Write a PNG for each, and ``plots.json`` with their numbers.

    Raises:
        Error: NEUC-E636, matplotlib is missing; NEUC-E005, the folder cannot be made.
    """
    prepare(folder)
    figures = _matplotlib()
    written: list[Path] = []
    for plot in plots:
        figure = figures.Figure(figsize=(6.4, 4.0), layout="constrained")
        _DRAWN[plot.kind](figure, plot)
        path = folder / f"{_file_name(plot.name)}.png"
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
        written.append(path)
    path = folder / NUMBERS
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({plot.name: plot.to_json() for plot in plots}, indent=1), encoding="utf-8")
    return [*written, path]


def _matplotlib() -> Any:
    try:
        return import_module("matplotlib.figure")
    except ImportError as error:
        raise Error("NEUC-E636", "pictures need matplotlib", hint='pip install "neuc[plot]"') from error


def prepare(folder: Path) -> None:
    """Make the folder, and see that pictures can be drawn: before a long run rather than after it.

    Raises:
        Error: NEUC-E636, matplotlib is missing; NEUC-E005, the folder cannot be made.
    """
    _matplotlib()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"cannot make the folder {folder}: {error.strerror or error}"
        raise Error("NEUC-E005", what, hint="choose another place", exit_code=Exit.USAGE) from error


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


def _plots(name: str, array: Array, fact: Mapping[str, Any], sweeps: int | None) -> list[Plot]:
    """What one result gives."""
    kept = max(1, (sweeps or 0) - fact.get("warmup", 0)) // fact.get("thin", 1) or 1
    match fact["kind"]:
        case "energy":
            start = (fact["warmup"], fact["thin"])
            return [Plot(name, "lines", "energy of each chain", ("sweep", "F"), array.T, start)]
        case "sum":
            return [_marginals(name, array.astype(np.float64) / kept, fact)]
        case "pairs":
            return [_pair_means(name, array.astype(np.float64).mean(0) / kept, fact)]
        case "histogram":
            counts = array.sum(0)
            often = np.sort(counts)[::-1][:_MOST_STATES] / max(1, counts.sum())
            return [Plot(name, "bars", "joint states, most frequent first", ("rank", "share"), often)]
        case "evaluated":
            return [Plot(name, "bars", "energy of each chain", ("chain", "F"), array.reshape(-1))]
        case _:
            return _values(name, array, fact)


def _marginals(name: str, means: Array, fact: Mapping[str, Any]) -> Plot:
    """Means of spins, or how often each category was, over sweeps and chains."""
    shape, overall = list(fact["shape"]), means.mean(0)
    if fact["levels"]:
        flat = overall.reshape(-1, fact["levels"]).T
        return Plot(name, "matrix", "share of each category", ("site", "category"), flat)
    if len(shape) == 2:
        return Plot(name, "images", "mean of each spin", ("", ""), overall.reshape(1, *shape))
    return Plot(name, "bars", "mean of each spin", ("site", "mean"), overall.reshape(-1))


def _pair_means(name: str, means: Array, fact: Mapping[str, Any]) -> Plot:
    """Mean products as a matrix where the sites are known, in the order of pairs otherwise."""
    sites = int(np.prod(fact["shape"]))
    if "i" in fact and sites <= _MOST_SITES:
        matrix = np.eye(sites)
        matrix[fact["i"], fact["j"]] = matrix[fact["j"], fact["i"]] = means
        return Plot(name, "matrix", "mean products of spins", ("site", "site"), matrix)
    return Plot(name, "bars", "mean products of pairs", ("pair", "mean"), means)


def _values(name: str, array: Array, fact: Mapping[str, Any]) -> list[Plot]:
    """The values of a variable, [chains, …]; and of spins the correlations over chains."""
    shape, chains = list(fact["shape"]), len(array)
    if fact["space"] == "simplex":
        # A window of steps, of the first agent; or one belief of each agent.
        rows = array[0] if array[0].size > fact["levels"] else array
        return [Plot(name, "matrix", "beliefs", ("step", "state"), rows.reshape(-1, fact["levels"]).T)]
    rows = array[:_MOST_CHAINS].astype(np.float64)
    if len(shape) == 2:
        found = [Plot(name, "images", f"{fact['space']} of each chain", ("", ""), rows.reshape(-1, *shape))]
    else:
        flat = rows.reshape(len(rows), -1)[:, :_MOST_SITES]
        found = [Plot(name, "matrix", f"{fact['space']} of each chain", ("site", "chain"), flat)]
    sites = int(np.prod(shape))
    if fact["space"] == "spin" and chains >= _LEAST_CHAINS and 1 < sites <= _MOST_SITES:
        spins = array.reshape(chains, sites).astype(np.float64)
        title = f"mean products over {chains} chains"
        found.append(Plot(f"{name}.correlation", "matrix", title, ("site", "site"), spins.T @ spins / chains))
    return found


def _draw_lines(figure: Any, plot: Plot) -> None:
    axes = figure.add_subplot()
    x = plot.start[0] + plot.start[1] * np.arange(plot.values.shape[1])
    if len(plot.values) > _MOST_CHAINS:
        low, high = plot.values.min(0), plot.values.max(0)
        axes.fill_between(x, low, high, alpha=0.25, label=f"range of {len(plot.values)} chains")
    else:
        for series in plot.values:
            axes.plot(x, series, linewidth=0.6, alpha=0.6)
    axes.plot(x, plot.values.mean(0), color="black", linewidth=1.4, label="mean")
    axes.legend()
    _label(axes, plot)


def _draw_images(figure: Any, plot: Plot) -> None:
    columns = int(np.ceil(np.sqrt(len(plot.values))))
    rows = -(-len(plot.values) // columns)
    low, high = float(plot.values.min()), float(plot.values.max())
    for number, image in enumerate(plot.values, 1):
        axes = figure.add_subplot(rows, columns, number)
        shown = axes.imshow(image, cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        if len(plot.values) == 1:
            figure.colorbar(shown)
    figure.suptitle(f"{plot.name}: {plot.title}")


def _draw_bars(figure: Any, plot: Plot) -> None:
    axes = figure.add_subplot()
    axes.bar(np.arange(len(plot.values)), plot.values, width=1.0)
    _label(axes, plot)


def _draw_matrix(figure: Any, plot: Plot) -> None:
    axes = figure.add_subplot()
    largest = float(np.abs(plot.values).max())
    limits = {"vmin": -largest, "vmax": largest, "cmap": "RdBu_r"} if plot.values.min() < 0 else {"cmap": "viridis"}
    shown = axes.imshow(plot.values, aspect="auto", interpolation="nearest", **limits)
    figure.colorbar(shown)
    _label(axes, plot)


def _label(axes: Any, plot: Plot) -> None:
    axes.set_title(f"{plot.name}: {plot.title}")
    axes.set_xlabel(plot.axes[0])
    axes.set_ylabel(plot.axes[1])


_DRAWN = {"lines": _draw_lines, "images": _draw_images, "bars": _draw_bars, "matrix": _draw_matrix}
