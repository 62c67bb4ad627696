"""The Fashion-MNIST CNN on phase-change memory: float, noise-trained and ternary, as the digits are measured.

    python benchmarks/analog_fashion.py [--networks 1] [--draws 3] [--images 500] [--json fashion.json]

The networks are those of `examples/analog/train_fashion.py` (parameters/fashion_cnn.npz), the images the first ones of
the test set (Debian package dataset-fashion-mnist); settings are those of `analog_digits.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from analog_digits import Cell, accuracies, settings

import neuc

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES / "spiking"))
from image_sets import fashion  # noqa: E402
from onnx_networks import Graph, cnn  # noqa: E402

PARAMETERS = EXAMPLES / "analog" / "parameters" / "fashion_cnn.npz"
WAYS = {"float": "float", "noise-trained": "noise", "ternary": "ternary"}
"""Columns of the table, and what the training script calls them."""
LEFT_OUT = ("no compensation", "1% stuck")
"""Settings of the digits that are not measured here."""


def network(way: str, seed: int) -> onnx.ModelProto:
    """One trained network."""
    start = f"{way}.{seed}."
    with np.load(PARAMETERS) as arrays:
        graph = Graph({name.removeprefix(start): arrays[name] for name in arrays.files if name.startswith(start)})
    return graph.model("fashion_cnn", 28, cnn(graph))


def measure(networks: int, draws: int, images: int) -> list[Cell]:
    """All settings of all networks."""
    data, cells = fashion(), list[Cell]()
    x, y = data.test_images[:images], data.test_labels[:images]

    def add(mode: str, setting: str, time: str, values: list[float]) -> None:
        cells.append(Cell(mode, setting, time, float(np.mean(values)), float(np.std(values))))
        print(f"{mode:14} {setting:22} {time:4} {100 * cells[-1].mean:6.2f} ± {100 * cells[-1].std:.2f}", flush=True)

    for mode, way in WAYS.items():
        models = [network(way, seed) for seed in range(networks)]
        digital = [neuc.compile(model, "cpu").session(threads=1).run(None, {"images": x})[0] for model in models]
        add(mode, "digital", "-", [float(np.mean(scores.argmax(axis=1) == y)) for scores in digital])
        for setting, target in settings().items():
            if any(name in setting for name in LEFT_OUT):
                continue
            rows = [row for model in models for row in accuracies(model, target, {"images": x}, y, draws)]
            for time in rows[0]:
                add(mode, setting, time, [row[time] for row in rows])
    return cells


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=1)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cells = measure(arguments.networks, arguments.draws, arguments.images)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([vars(cell) for cell in cells], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
