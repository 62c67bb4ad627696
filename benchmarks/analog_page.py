"""Measures what docs/analog.md shows and writes its tables.

    python benchmarks/analog_page.py [--digits digits.json] [--models models.json] [--fashion fashion.json]
        [--language language.json] [--training training.json] [--page docs/analog.md]

All but the first two tables take minutes; their figures are read from what `analog_digits.py`, `analog_models.py`,
`analog_fashion.py`, `analog_language.py` and `analog_training.py` wrote with --json, if given, else measured anew
(training then without aihwkit). Tables go between the two marks of the page; the rest is written by people.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import analog_digits
import analog_fashion
import analog_language
import analog_models
import analog_training
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from page_marks import fill

import neuc
from neuc.runtime.analog import aihwkit_order
from neuc.runtime.analog.devices_pcm import NandakumarPcm
from neuc.runtime.analog.tiles import Chip
from neuc.runtime.cpu_features import host_cpu_name

SIZE, SAMPLES, RUNS = 512, 64, 60
TIMES = {"0": 0.0, "1 h": 3600.0, "1 d": 86400.0, "30 d": 2592000.0, "1 y": 31536000.0}
TILE = "tile=512x512"
TARGETS = {
    "float matrix product (`cpu`)": "cpu",
    "ideal tile (`xbar-sim`)": f"xbar-sim{{{TILE}}}",
    "8-bit converters": f"xbar-pcm{{{TILE},out_noise=0}}",
    "… and noise of reads and converters: all effects, exact wires being part of the weights": (
        f"xbar-pcm{{{TILE},out_noise=0.04,cycle_noise=0.0175}}"
    ),
    "… and aihwkit's closed form of wire losses for each input: four products": (
        f"xbar-pcm{{{TILE},out_noise=0.04,cycle_noise=0.0175,wires=closed}}"
    ),
}


def speed() -> list[tuple[str, float, float]]:
    """(what, median CPU ms, ratio to the float product) of one layer of 512 x 512, 64 samples, one thread."""
    rng = np.random.default_rng(0)
    w = np.clip(rng.standard_normal((SIZE, SIZE)) * 0.3, -1, 1).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [SAMPLES, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [SAMPLES, SIZE])],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    x = rng.standard_normal((SAMPLES, SIZE)).astype(np.float32)
    sessions = {name: neuc.compile(model, target).session(threads=1) for name, target in TARGETS.items()}
    times: dict[str, list[float]] = {name: [] for name in TARGETS}
    for _ in range(RUNS):
        for name, session in sessions.items():  # in turns, so that all see the same machine
            start = time.process_time()
            session.run(None, {"x": x})
            times[name].append(1000 * (time.process_time() - start))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    first = next(iter(medians.values()))
    return [(name, median, median / first) for name, median in medians.items()]


def weight_errors() -> list[tuple[str, list[float], list[float]]]:
    """(weights, relative errors of physical pairs, those in aihwkit's order) at TIMES, after the best global factor."""
    rng = np.random.default_rng(0)
    device = NandakumarPcm()
    kinds = {
        "Gaussian, clipped at 3.3 σ": np.clip(rng.standard_normal((SIZE, SIZE)) * 0.3, -1, 1),
        "uniform": rng.random((SIZE, SIZE)) * 2 - 1,
        "ternary, a third each": rng.integers(-1, 2, (SIZE, SIZE)).astype(float),
    }
    rows: list[tuple[str, list[float], list[float]]] = []
    for kind, weights in kinds.items():
        tile = Chip(device).program(weights, 0, 1)
        programmed, exponents = aihwkit_order.programmed_weights(weights, device, rng)
        physical = [_error(tile.weights(t), weights) for t in TIMES.values()]
        other = [aihwkit_order.drifted_weights(programmed, exponents, device, t, rng) for t in TIMES.values()]
        rows.append((kind, physical, [_error(found, weights) for found in other]))
    return rows


def _error(found: np.ndarray, wanted: np.ndarray) -> float:
    best = (found * wanted).sum() / (found * found).sum()
    return float(np.linalg.norm(best * found - wanted) / np.linalg.norm(wanted))


Rows = Sequence[dict[str, object]]


def page(digits: Rows, fashion: Rows, language: Rows, training: Rows, models: Rows) -> str:
    """The tables."""
    load = os.getloadavg()[0]
    lines = [f"Measured on {date.today().isoformat()}, {host_cpu_name()}, load average {load:.1f}.", ""]
    lines += [
        "### Time of one layer",
        "",
        f"{SIZE} x {SIZE}, {SAMPLES} samples, one thread, CPU time of a whole run.",
        "",
    ]
    lines += ["| | ms | times the float product |", "|---|---|---|"]
    lines += [f"| {name} | {ms:.2f} | {ratio:.2f} |" for name, ms, ratio in speed()]
    lines += ["", "### Weights on phase-change memory", ""]
    lines += ["Relative error of the weights after the best global factor (model `pcm`, 25 µS).", ""]
    lines += [f"| weights | {' | '.join(TIMES)} |", "|---" * (1 + len(TIMES)) + "|"]
    for kind, physical, other in weight_errors():
        lines.append(f"| {kind} | {' | '.join(f'{e:.3f}' for e in physical)} |")
        lines.append(f"| … in aihwkit's order | {' | '.join(f'{e:.3f}' for e in other)} |")
    lines += ["", "### Digits", "", *_accuracies(digits)]
    lines += ["", "### Fashion-MNIST, a CNN of three convolutions", "", *_accuracies(fashion)]
    lines += ["", "### A language model: perplexity of held-out text", "", *_perplexities(language)]
    lines += ["", "### Digits learnt in the array", "", *_curves(training)]
    lines += ["", "### Real models after one day", ""]
    lines += ["| model | tiles | arrays | devices used | after 1 d against float | ms to simulate |", "|---" * 6 + "|"]
    for row in models:
        figures = f"{row['tiles']} | {row['arrays']} | {100 * _number(row['used']):.0f} %"
        lines.append(f"| {row['model']} | {figures} | {row['agreement']} | {_number(row['milliseconds']):.0f} |")
    return "\n".join(lines)


def _perplexities(cells: Rows) -> list[str]:
    kinds = list(dict.fromkeys(str(cell["kind"]) for cell in cells))
    table = {(str(cell["kind"]), str(cell["setting"])): cell for cell in cells}
    heads = [part for kind in kinds for part in (kind, "times digital")]
    lines = [f"| on `xbar-pcm` | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for setting in dict.fromkeys(str(cell["setting"]) for cell in cells):
        shown: list[str] = []
        for kind in kinds:
            cell, digital = table[kind, setting], _number(table[kind, "digital"]["mean"])
            mean = _number(cell["mean"])
            spread = "" if setting == "digital" else f" ± {_number(cell['std']):.2f}"
            shown += [f"{mean:.2f}{spread}", f"{mean / digital:.3f}"]
        lines.append(f"| {setting} | {' | '.join(shown)} |")
    return lines


def _curves(curves: Rows) -> list[str]:
    lines = ["| rule | devices | by | test accuracy after epochs 1, 2, 4, 8 and the last, % | CPU s a training |"]
    lines.append("|---" * 5 + "|")
    for curve in sorted(curves, key=lambda c: (str(c["device"]), str(c["rule"]), str(c["who"]) != "neuc")):
        accuracies = curve["accuracies"]
        assert isinstance(accuracies, list)
        chosen = [accuracies[i] for i in (0, 1, 3, 7) if i < len(accuracies) - 1] + accuracies[-1:]
        shown = ", ".join(f"{100 * _number(a):.1f}" for a in chosen)
        lines.append(
            f"| {curve['rule']} | {curve['device']} | {curve['who']} | {shown} | {_number(curve['seconds']):.1f} |"
        )
    return lines


def _accuracies(cells: Rows) -> list[str]:
    modes = list(dict.fromkeys(str(cell["mode"]) for cell in cells))
    settings = list(dict.fromkeys((str(cell["setting"]), str(cell["time"])) for cell in cells))
    table = {(str(c["mode"]), str(c["setting"]), str(c["time"])): c for c in cells}
    lines = [f"| test accuracy, % | {' | '.join(modes)} |", "|---" * (1 + len(modes)) + "|"]
    for setting, when in settings:
        found = [table[mode, setting, when] for mode in modes]
        shown = [f"{100 * _number(c['mean']):.1f} ± {100 * _number(c['std']):.1f}" for c in found]
        lines.append(f"| {setting}{'' if when == '-' else ', ' + when} | {' | '.join(shown)} |")
    return lines


def _rows(path: Path | None, measure: Callable[[], Sequence[object]]) -> Rows:
    """Figures of a file, or measured now."""
    return [vars(row) for row in measure()] if path is None else json.loads(path.read_text(encoding="utf-8"))


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("digits", "fashion", "language", "training", "models"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--page", type=Path, default=Path(__file__).parents[1] / "docs" / "analog.md")
    arguments = parser.parse_args()
    digits = _rows(arguments.digits, lambda: analog_digits.measure(3, 4))
    fashion = _rows(arguments.fashion, lambda: analog_fashion.measure(1, 3, 500))
    language = _rows(arguments.language, lambda: analog_language.measure(3))
    training = _rows(arguments.training, lambda: analog_training.ours(1, 12))
    models = _rows(arguments.models, lambda: [row() for row in analog_models.MODELS.values()])
    fill(arguments.page, "analog", page(digits, fashion, language, training, models))


if __name__ == "__main__":
    main()
