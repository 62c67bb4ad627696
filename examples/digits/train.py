"""Trains the digits classifiers and writes their parameters and the held-out images: needs torch and scikit-learn.

    python train.py                # all of them, into this folder

Everything is fixed: split, seeds, order of batches, one thread. On another CPU the last bits of the parameters may
still differ, so what the tests use is what is committed.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from bitlinear import BitLinear, classifier, parameters
from torch import nn

HERE = Path(__file__).parent
HELD_OUT = 450
EPOCHS = 150
BATCH = 64
KINDS = {
    "ternary": ("ternary", "ternary", "ternary"),
    "mixed": ("float", "ternary", "float"),
    "binary": ("binary", "binary", "binary"),
}
"""Levels of each layer's weights, by the name of the model."""


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images u8[1347, 64] and labels, held-out images u8[450, 64] and labels."""
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    images, labels = pixels.astype(np.uint8), targets.astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order]
    return images[HELD_OUT:], labels[HELD_OUT:], images[:HELD_OUT], labels[:HELD_OUT]


def train(levels: tuple[str, ...], images: np.ndarray, labels: np.ndarray, *, epochs: int, seed: int) -> nn.Sequential:
    """A classifier trained on images u8[N, 64]."""
    torch.manual_seed(seed)
    model = classifier(levels)
    x, y = torch.from_numpy(images.astype(np.float32)), torch.from_numpy(labels.astype(np.int64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.02)
    steps = -(-len(x) // BATCH) * epochs
    # Weights swing about a threshold by a step; steps that shrank to nothing would leave them on it.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=5e-4)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(BATCH):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def settle(model: nn.Sequential, images: np.ndarray, *, seed: int) -> float:
    """Change gains in their fourth digit until no image has an activation close to where rounding turns over.

    Then any order of summation gives the same codes, on every machine and in every form of the model.

    Returns:
        The least distance of x·a from a half, in steps of the 8-bit grid.
    """
    rng = torch.Generator().manual_seed(seed)
    gains = [layer.norm.weight for layer in model if isinstance(layer, BitLinear)]
    trained = [gain.detach().clone() for gain in gains]
    for _ in range(1000):
        distance = distance_from_halves(model, images)
        if distance > 1e-4:
            return distance
        for gain, start in zip(gains, trained):
            gain.data = start * (1 + 1e-3 * torch.randn(start.shape, generator=rng))
    raise SystemExit("no gains keep all activations away from halves")


def distance_from_halves(model: nn.Sequential, images: np.ndarray) -> float:
    """The least distance of any x·a from a half, computed in f64; x·a is what an activation quantiser rounds."""
    x, least = torch.from_numpy(images.astype(np.float64)), 0.5
    with torch.no_grad():
        for layer in copy.deepcopy(model).double():
            if isinstance(layer, BitLinear):
                normed = layer.norm(x)
                scaled = normed * (127.0 / normed.abs().amax(-1, keepdim=True))
                least = min(least, float((scaled - scaled.floor() - 0.5).abs().min()))
            x = layer(x)
    return least


def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images u8[N, 64] that the model names rightly."""
    with torch.no_grad():
        guesses = model(torch.from_numpy(images.astype(np.float32))).argmax(1).numpy()
    return float(np.mean(guesses == labels))


def main() -> None:
    """Train and write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=EPOCHS)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--to", type=Path, default=HERE)
    given = options.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    images, labels, held_out, held_out_labels = data()
    np.savez_compressed(given.to / "held_out.npz", images=held_out, labels=held_out_labels)
    trained: dict[str, np.ndarray] = {}
    for name, levels in KINDS.items():
        model = train(levels, images, labels, epochs=given.epochs, seed=given.seed)
        distance = settle(model, held_out, seed=given.seed)
        share = accuracy(model, held_out, held_out_labels)
        print(f"{name}: {share:.2%} of {HELD_OUT} held-out images, {distance:.1e} steps from a half", flush=True)
        trained |= {f"{name}.{key}": array for key, array in parameters(model).items()}
    np.savez_compressed(given.to / "parameters.npz", **trained)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main()
