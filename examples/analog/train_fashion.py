"""Trains the Fashion-MNIST CNN of the spiking examples further, in three ways, for devices with noise: needs torch.

    python train_fashion.py          # parameters/fashion_cnn.npz: 3 ways, 3 seeds, 15 s of CPU a network

| way | weights while training |
|---|---|
| `float` | as they are |
| `noise` | with normal noise of 6 % of the largest, new at each step |
| `ternary` | -1, 0, 1 times the mean magnitude of each output's, rounded anew at each step |

All start from the same float network and see the same images in the same order; only weights differ. What devices make
of them is `benchmarks/analog_fashion.py`'s business.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

HERE = Path(__file__).parent
SPIKING = HERE.parent / "spiking"
sys.path.append(str(SPIKING))

from image_sets import fashion  # noqa: E402
from networks import NETWORKS  # noqa: E402
from train import Recipe, accuracy, load_parameters, rounded, train  # noqa: E402

RECIPE = Recipe(epochs=1, batch=128, rate=4e-3)
IMAGES = 20_000
"""A third of the training images: all ways start from a trained network."""
NOISE = 0.06
SEEDS = 3


class Ternary(nn.Module):
    """Weights rounded as BitNet b1.58 does, with a scale for each output; gradients pass through."""

    def forward(self, w: Tensor) -> Tensor:
        """f32 [outputs, …] -> the same shape."""
        scale = w.abs().mean(dim=tuple(range(1, w.dim())), keepdim=True).clamp(min=1e-6)
        return w + ((w / scale).round().clamp(-1, 1) * scale - w).detach()


class Noise(nn.Module):
    """Weights with noise relative to the largest while training."""

    def forward(self, w: Tensor) -> Tensor:
        """f32 -> the same shape."""
        return w + NOISE * w.detach().abs().max() * torch.randn_like(w) if self.training else w


WAYS: dict[str, type[nn.Module] | None] = {"float": None, "noise": Noise, "ternary": Ternary}


def trained(way: str, seed: int, images: np.ndarray, labels: np.ndarray) -> nn.Module:
    """The network after more training on images f32 [N, 1, 28, 28], with its weights as they are used."""
    network = load_parameters(NETWORKS["fashion_cnn"](), SPIKING / "parameters" / "fashion_cnn.npz")
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    kind = WAYS[way]
    for layer in layers if kind is not None else ():
        parametrize.register_parametrization(layer, "weight", kind())
    train(network, images, labels, RECIPE, seed)
    for layer in layers if kind is not None else ():
        parametrize.remove_parametrizations(layer, "weight")
    return network.eval()


def main() -> None:
    """Train and write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=SEEDS)
    options.add_argument("--images", type=int, default=IMAGES, help="so many training images")
    options.add_argument("--to", type=Path, default=HERE / "parameters")
    given = options.parse_args()
    torch.set_num_threads(1)
    images = fashion()
    arrays: dict[str, np.ndarray] = {}
    for seed in range(given.seeds):
        for way in WAYS:
            begin = time.process_time()
            network = trained(way, seed, images.train_images[: given.images], images.train_labels)
            share = accuracy(network, images.test_images, images.test_labels)
            print(f"{way} {seed}: {share:.2%} of all test images, {time.process_time() - begin:.0f} CPU s", flush=True)
            arrays |= {f"{way}.{seed}.{name}": array for name, array in rounded(network.state_dict()).items()}
            given.to.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(given.to / "fashion_cnn.npz", **arrays)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main()
