"""Trains the blocks of `block_networks.py` on the 8x8 digits: needs torch; a minute or two each on one thread.

    python train_blocks.py                # all, into parameters/
    python train_blocks.py --choose       # their constants, on images held out of the training part

Constants are chosen on validation images alone: the last fifth of the training part, which these short trainings do
not see. What each choice gave stands in `parameters/blocks_choice.json`. Test images are for the result.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import block_networks
import numpy as np
import torch
from block_networks import BLOCKS
from image_sets import digits
from train import PARAMETERS, Recipe, accuracy, train

RECIPE = Recipe(epochs=60, batch=64, rate=4e-3)
CHOOSING = Recipe(epochs=20, batch=64, rate=4e-3)
CHOICES: dict[str, list[dict[str, float]]] = {
    "spike_mamba": [{"UNIT": unit, "LEAK": leak} for leak in (0.25, 0.0) for unit in (0.5, 0.75, 1.0)],
    "spike_transformer": [{"DECAY": decay} for decay in (0.25, 0.5, 0.75)],
}
"""Constants of `block_networks.py` that are tried."""
VALIDATION = 0.2
"""The part of the training images that choices are judged on."""


def choose(folder: Path) -> None:
    """Train with each choice of constants on the first part of the training images, and judge on the rest."""
    images = digits()
    count = len(images.train_images) - int(VALIDATION * len(images.train_images))
    found: dict[str, list[dict[str, float]]] = {}
    for name, choices in CHOICES.items():
        found[name] = []
        for choice in choices:
            for constant, value in choice.items():
                setattr(block_networks, constant, value)
            torch.manual_seed(0)
            network = train(BLOCKS[name](), images.train_images[:count], images.train_labels, CHOOSING)
            right = accuracy(network, images.train_images[count:], images.train_labels[count:])
            found[name].append({**choice, "validation": right})
            print(name, found[name][-1], flush=True)
            text = json.dumps(found, indent=1, sort_keys=True) + "\n"
            (folder / "blocks_choice.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Train and write; accuracies as measured in torch go into `blocks.json`."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", metavar="NETWORK", help=f"of {', '.join(BLOCKS)}; default: all")
    options.add_argument(
        "--choose", action="store_true", help="try constants on validation images, and train nothing else"
    )
    options.add_argument("--epochs", type=int, default=RECIPE.epochs)
    options.add_argument("--to", type=Path, default=PARAMETERS)
    given = options.parse_args()
    torch.set_num_threads(1)
    given.to.mkdir(parents=True, exist_ok=True)
    if given.choose:
        choose(given.to)
        return
    images = digits()
    found: dict[str, float] = {}
    record = given.to / "blocks.json"
    if record.exists():
        found = json.loads(record.read_text(encoding="utf-8"))
    for name in given.names or list(BLOCKS):
        begin = time.process_time()
        torch.manual_seed(0)
        network = train(
            BLOCKS[name](), images.train_images, images.train_labels, Recipe(given.epochs, RECIPE.batch, RECIPE.rate)
        )
        if not name.endswith("twin"):  # of twins only the accuracy is wanted
            arrays = {key: value.detach().numpy() for key, value in network.program_parameters().items()}
            np.savez_compressed(given.to / f"{name}.npz", **arrays)  # pyright: ignore[reportArgumentType]
        found[name] = accuracy(network, images.test_images, images.test_labels)
        record.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        rates = getattr(network, "rates", [m.rate for m in network.modules() if hasattr(m, "rate")])
        print(
            f"{name}: {found[name]:.2%}, {time.process_time() - begin:.0f} s of CPU, rates {np.round(rates, 3)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
