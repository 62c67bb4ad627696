"""Trains the network that `event_program.py` makes spiking: needs torch, two minutes on one thread.

    python train_events.py

Counts of events of a whole recording go through two layers without biases, so twice the events give twice the outputs
and the same class: what lets the network answer at any time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from event_camera import POLARITIES, SENSOR, counts
from image_sets import fashion
from torch import nn
from train import PARAMETERS, Recipe, accuracy, rounded, train

HIDDEN = 128
RECIPE = Recipe(epochs=12, batch=128, rate=2e-3)


def network() -> nn.Sequential:
    """f32 [N, inputs] counts -> f32 [N, 10]; counts are brought to a size of one for training alone."""
    inputs = POLARITIES * SENSOR * SENSOR
    return nn.Sequential(
        nn.Dropout(0.1), nn.Linear(inputs, HIDDEN, bias=False), nn.ReLU(), nn.Linear(HIDDEN, 10, bias=False)
    )


def main() -> None:
    """Train and write; thresholds come from the training recordings."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=20_000, help="training recordings")
    options.add_argument("--to", type=Path, default=PARAMETERS)
    given = options.parse_args()
    torch.set_num_threads(1)
    images = fashion()
    x = counts(images.train_images[: given.images, 0])
    torch.manual_seed(0)
    trained = train(network(), x, images.train_labels, RECIPE)
    arrays = rounded({name: value for name, value in trained.state_dict().items()})
    weights = {"hidden": arrays["1.weight"], "out": arrays["3.weight"]}
    hidden = np.maximum(x @ weights["hidden"].astype(np.float32).T, 0)
    largest = np.quantile(hidden, 0.999, axis=0).astype(np.float32)
    np.savez_compressed(given.to / "events_mlp.npz", largest=np.maximum(largest, 1e-3), **weights)
    share = accuracy(trained, counts(images.test_images[:2000, 0]), images.test_labels[:2000])
    print(f"{share:.2%} of 2,000 recordings, {x.sum(1).mean():.0f} events each")


if __name__ == "__main__":
    main()
