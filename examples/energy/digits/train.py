"""Teach spins to draw digits: a Boltzmann machine of 64 pixels, hidden spins and a label, by contrastive divergence.

``python examples/energy/digits/train.py`` writes ``weights.npz`` beside this file; `draw.py` draws with them. The data
are scikit-learn's 8 x 8 digits (UCI, CC BY 4.0), bundled with it. Learning is plain numpy here; drawing is neuc's
samplers.

F(v, h, y) = -v·W·h - b·v - c·h - h·U[:, y], with v and h spins and y one of ten categories, clamped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

PIXELS, CLASSES, LEVELS = 64, 10, 16
WEIGHTS = Path(__file__).with_name("weights.npz")

Array = np.ndarray


def digits() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Images f64 [n, 64] in 0 to 1 and labels [n]: 1,347 to learn from, 450 held out."""
    from sklearn.datasets import load_digits

    pixels, answers = (np.asarray(part) for part in load_digits(return_X_y=True))
    order = np.random.default_rng(0).permutation(len(answers))
    images, labels = pixels[order] / LEVELS, answers[order]
    return (images[:1347], labels[:1347]), (images[1347:], labels[1347:])


def hidden_means(v: Array, y: Array, w: Array, c: Array, u: Array) -> Array:
    """⟨h⟩ given pixels and labels: tanh of the field."""
    return np.tanh(v @ w + c + u[:, y].T)


def drawn(means: Array, rng: np.random.Generator) -> Array:
    """Spins with these means."""
    return np.where(rng.random(means.shape) < 0.5 * (1.0 + means), 1.0, -1.0)


def train(hidden: int, epochs: int, rate: float, chains: int, sweeps: int, decay: float, seed: int) -> dict[str, Array]:
    """Persistent contrastive divergence (Tieleman 2008): the negative phase goes on from its last state.

    Pixels are drawn anew each epoch as spins with the grey value as their mean, so that means of spins are grey values.
    """
    rng = np.random.default_rng(seed)
    (images, labels), _ = digits()
    w, b = rng.normal(0, 0.02, (PIXELS, hidden)), np.arctanh(np.clip(2 * images.mean(0) - 1, -0.99, 0.99))
    c, u = np.zeros(hidden), rng.normal(0, 0.02, (hidden, CLASSES))
    fantasy, of = drawn(np.zeros((chains, PIXELS)), rng), np.arange(chains) % CLASSES
    one_hot, batch = np.eye(CLASSES), 50
    for epoch in range(epochs):
        step = rate * (1.0 - epoch / epochs)
        order = rng.permutation(len(images))
        for begin in range(0, len(order) - batch + 1, batch):
            chosen = order[begin : begin + batch]
            v, y = drawn(2 * images[chosen] - 1, rng), labels[chosen]
            h = hidden_means(v, y, w, c, u)
            for _ in range(sweeps):
                states = drawn(hidden_means(fantasy, of, w, c, u), rng)
                fantasy = drawn(np.tanh(states @ w.T + b), rng)
            dreamed = hidden_means(fantasy, of, w, c, u)
            w += step * (v.T @ h / batch - fantasy.T @ dreamed / chains - decay * w)
            b += step * (v.mean(0) - fantasy.mean(0))
            c += step * (h.mean(0) - dreamed.mean(0))
            u += step * (h.T @ one_hot[y] / batch - dreamed.T @ one_hot[of] / chains - decay * u)
    return {name: array.astype(np.float32) for name, array in (("w", w), ("b", b), ("c", c), ("u", u))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--chains", type=int, default=200)
    parser.add_argument("--sweeps", type=int, default=2)
    parser.add_argument("--decay", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=WEIGHTS)
    options = vars(parser.parse_args())
    output = options.pop("output")
    np.savez_compressed(output, **train(**options))  # pyright: ignore[reportArgumentType] - keywords are array names
    print(f"{output}: {output.stat().st_size} bytes")
