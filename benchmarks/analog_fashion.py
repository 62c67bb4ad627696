"""The Fashion-MNIST CNN on phase-change memory: float, noise-trained and ternary, as the digits are measured.

    python benchmarks/analog_fashion.py [--networks 3] [--draws 4] [--images 2000] [--pieces fashion.jsonl]
        [--json fashion.json]

The networks are those of `examples/analog/train_fashion.py` (parameters/fashion_cnn.npz), the images the first ones of
the test set (Debian package dataset-fashion-mnist); settings are those of `analog_digits.py`. Each draw is one
programming of a network, and with stuck devices a chip of its own. With --pieces, what was measured is kept there, one
line a piece, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from analog_digits import TIMES, Cell, accuracies, settings
from spiking_records import Record, add, newest

import neuc

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES / "spiking"))
from image_sets import fashion  # noqa: E402
from onnx_networks import Graph, cnn  # noqa: E402

PARAMETERS = EXAMPLES / "analog" / "parameters" / "fashion_cnn.npz"
WAYS = {"float": "float", "noise-trained": "noise", "ternary": "ternary"}
"""Columns of the table, and what the training script calls them."""
CHIPS = 100
"""From one network's first chip to the next one's."""
NETWORKS, DRAWS, IMAGES = 3, 4, 2000


def network(way: str, seed: int) -> onnx.ModelProto:
    """One trained network."""
    start = f"{way}.{seed}."
    with np.load(PARAMETERS) as arrays:
        graph = Graph({name.removeprefix(start): arrays[name] for name in arrays.files if name.startswith(start)})
    return graph.model("fashion_cnn", 28, cnn(graph))


def measure(networks: int, draws: int, images: int, pieces: Path | None = None) -> list[Cell]:
    """All settings of all networks: mean and spread over networks and draws."""
    data, rows = fashion(), dict[tuple[str, str, str], list[float]]()
    x, y = data.test_images[:images], data.test_labels[:images]
    known = {} if pieces is None else newest(pieces)
    for seed in range(networks):
        for setting, target in {"digital": "cpu", **settings()}.items():
            for mode, way in WAYS.items():
                key = f"{mode}, {setting}, network {seed}, {images} images"
                times = ("-",) if setting == "digital" else tuple(TIMES)
                found = known.get(key)
                if found is None or any(len(found[time]) < draws for time in times if time != "-"):
                    found = _piece(network(way, seed), target, {"images": x}, y, range(draws), seed)
                    if pieces is not None:
                        add(key, found, pieces)
                    print(key, {time: f"{np.mean(found[time]):.2%}" for time in times}, flush=True)
                for time in times:
                    rows.setdefault((mode, setting, time), []).extend(found[time][:draws])
    return [Cell(*what, float(np.mean(values)), float(np.std(values))) for what, values in rows.items()]


def _piece(
    model: onnx.ModelProto, target: str, feeds: dict[str, np.ndarray], labels: np.ndarray, draws: range, seed: int
) -> Record:
    """Accuracies of network number `seed` in one setting, by time."""
    if target == "cpu":
        scores = neuc.compile(model, target).session(threads=1).run(None, feeds)[0]
        return {"-": [float(np.mean(scores.argmax(axis=1) == labels))]}
    if "stuck" in target:
        chips = {draw: f"{target.removesuffix('}')},chip={CHIPS * seed + draw}}}" for draw in draws}
        found = [row for draw, chip in chips.items() for row in accuracies(model, chip, feeds, labels, [draw])]
    else:
        found = list(accuracies(model, target, feeds, labels, draws))
    return {time: [row[time] for row in found] for time in TIMES}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=NETWORKS)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--pieces", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cells = measure(arguments.networks, arguments.draws, arguments.images, arguments.pieces)
    for cell in cells:
        print(f"{cell.mode:14} {cell.setting:28} {cell.time:4} {100 * cell.mean:6.2f} ± {100 * cell.std:.2f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([vars(cell) for cell in cells], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
