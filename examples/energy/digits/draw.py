"""Spins draw digits: samples of the Boltzmann machine that `train.py` taught, and noisy digits made clean.

``python examples/energy/digits/draw.py PICTURE.png`` (with matplotlib). Sampling is generated code: block Gibbs sweeps
over 64 pixels and 128 hidden spins, from random spins at a rising β. Noise that flips a pixel with probability p is a
clamped spin beside each pixel, coupled by ½ ln((1 − p)/p): samples are then of the digit behind the noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from neuc import energy

PIXELS, CLASSES, SIDE = 64, 10, 8
WEIGHTS = Path(__file__).with_name("weights.npz")
SHOWN = 10
"""Last sweeps whose mean is the picture: grey values are means of spins."""

Array = np.ndarray


def machine(sweeps: int, flips: float | None = None) -> energy.Program:
    """The program that samples: inputs ``pixels``, ``hidden``, ``label`` and, with `flips`, ``noisy``."""
    with np.load(WEIGHTS) as weights:
        w, b, c, u = (weights[name] for name in "wbcu")
    model = energy.Model()
    pixels, hidden = model.spin(PIXELS, name="pixels"), model.spin(len(c), name="hidden")
    label = model.categories(CLASSES, 1, name="label", clamped=True)
    model.couple(pixels, w, hidden)
    model.linear(pixels, b)
    model.linear(hidden, c)
    model.table([hidden, label], u, [np.arange(len(c)), np.zeros(len(c), np.int64)])
    if flips is not None:
        noisy = model.spin(PIXELS, name="noisy", clamped=True)
        strength = 0.5 * np.log((1 - flips) / flips)
        model.edges(pixels, np.arange(PIXELS), np.arange(PIXELS), np.full(PIXELS, strength), noisy)
    beta = np.concatenate([np.linspace(0.1, 1.0, sweeps - SHOWN), np.ones(SHOWN)])
    samples = model.state("chains").sample(beta=beta.tolist(), warmup=sweeps - SHOWN)
    return model.program(sums=samples.sums(pixels))


def draw(labels: Array, *, sweeps: int = 300, seed: int = 0, noisy: Array | None = None, flips: float = 0.1) -> Array:
    """Images f64 [n, 64] in 0 to 1 of digits i64 [n]; of what is behind ``noisy`` pixels (-1, 1), if they are given."""
    rng = np.random.default_rng(seed)
    program = machine(sweeps, None if noisy is None else flips)
    with np.load(WEIGHTS) as weights:
        hidden = len(weights["c"])
    start = {"pixels": rng.choice([-1, 1], (len(labels), PIXELS)), "hidden": rng.choice([-1, 1], (len(labels), hidden))}
    given = start | {"label": np.asarray(labels)[:, None]} | ({} if noisy is None else {"noisy": noisy})
    return (program.run(seed=seed, **given).sums / SHOWN + 1) / 2


def picture(path: Path, images: Array, columns: int) -> None:
    """Write images side by side."""
    from matplotlib import image

    rows = images.reshape(-1, columns, SIDE, SIDE)
    framed = np.pad(rows, ((0, 0), (0, 0), (1, 1), (1, 1)))
    whole = framed.transpose(0, 2, 1, 3).reshape(len(rows) * (SIDE + 2), columns * (SIDE + 2))
    image.imsave(path, np.kron(whole, np.ones((4, 4))), cmap="gray_r")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--columns", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    picture(options.picture, draw(np.repeat(np.arange(CLASSES), options.columns), seed=options.seed), options.columns)
