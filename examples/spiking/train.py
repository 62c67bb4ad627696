"""Trains the networks of `networks.py` and writes their parameters: needs torch, one thread, minutes a network.

    python train.py                      # all, into parameters/
    python train.py fashion_cnn --epochs 1 --images 2000 --to somewhere

Split, seed and order of batches are fixed; on another CPU the last bits may still differ, so what tests and benchmarks
use is what is committed. Matrices are rounded to f16 with 6 bits behind the point (so that files stay small): the
rounded network is the network, its accuracy is what is printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from image_sets import IMAGE_SETS
from networks import NETWORKS
from torch import nn

PARAMETERS = Path(__file__).parent / "parameters"
KEPT_BITS = 6
"""Of the ten bits of an f16 mantissa; the others are 0, and zipped away."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: passes over the images, images a step, the highest step width."""

    epochs: int
    batch: int
    rate: float


RECIPES = {
    "fashion_mlp": Recipe(12, 128, 2e-3),
    "fashion_cnn": Recipe(5, 128, 6e-3),
    "fashion_resnet": Recipe(5, 128, 6e-3),
    "fashion_vit": Recipe(8, 128, 3e-3),
    "mnist_cnn": Recipe(10, 64, 5e-3),
    "digits_mlp": Recipe(60, 64, 4e-3),
    "digits_vit": Recipe(120, 64, 4e-3),
}


def train(network: nn.Module, images: np.ndarray, labels: np.ndarray, recipe: Recipe, seed: int = 0) -> nn.Module:
    """Train on images f32 [N, 1, H, W] with labels i64 [N]: AdamW, one rise and fall of the step width."""
    torch.manual_seed(seed)
    x, y = torch.from_numpy(images), torch.from_numpy(labels[: len(images)])
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=0.02)
    steps = recipe.epochs * (len(x) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps)
    network.train()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(x))
        for batch in order[: len(x) // recipe.batch * recipe.batch].split(recipe.batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def rounded(parameters: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Matrices as f16 with `KEPT_BITS` bits of mantissa (to nearest), vectors as f32; counters are left out."""
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in parameters.items():
        array = tensor.detach().numpy()
        if array.ndim > 1:
            unit = 1 << 10 - KEPT_BITS
            bits = array.astype(np.float16).view(np.uint16).astype(np.uint32) + unit // 2
            array = (bits & ~np.uint32(unit - 1)).astype(np.uint16).view(np.float16)
        if array.ndim:
            arrays[name] = array
    return arrays


def load_parameters(network: nn.Module, path: Path) -> nn.Module:
    """Put the arrays of a file that `main` wrote into a network; returns it, in eval mode."""
    with np.load(path) as arrays:
        state = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files}
    missing, unexpected = network.load_state_dict(state, strict=False)
    wrong = unexpected + [name for name in missing if not name.endswith("num_batches_tracked")]
    if wrong:
        raise SystemExit(f"{path} does not fit the network: {', '.join(wrong)}")
    return network.eval()


def accuracy(network: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images that the network names rightly."""
    with torch.no_grad():
        guesses = torch.cat([network(part).argmax(1) for part in torch.from_numpy(images).split(500)])
    return float(np.mean(guesses.numpy() == labels))


def main() -> None:
    """Train and write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; default: all")
    options.add_argument("--epochs", type=int, help="instead of the network's own")
    options.add_argument("--images", type=int, help="only so many training images")
    options.add_argument("--to", type=Path, default=PARAMETERS)
    given = options.parse_args()
    torch.set_num_threads(1)
    given.to.mkdir(parents=True, exist_ok=True)
    for name in given.names or list(NETWORKS):
        images = IMAGE_SETS[name.split("_")[0]]()
        recipe = RECIPES[name]
        recipe = Recipe(given.epochs or recipe.epochs, recipe.batch, recipe.rate)
        begin = time.process_time()
        torch.manual_seed(0)  # of the first weights
        network = train(NETWORKS[name](), images.train_images[: given.images], images.train_labels, recipe)
        path = given.to / f"{name}.npz"
        np.savez_compressed(path, **rounded(network.state_dict()))  # pyright: ignore[reportArgumentType]
        share = accuracy(load_parameters(network, path), images.test_images, images.test_labels)
        spent = time.process_time() - begin
        print(f"{name}: {share:.2%} of {len(images.test_labels):,} test images, {path.stat().st_size:,} bytes, "
              f"{spent:.0f} s of CPU", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
