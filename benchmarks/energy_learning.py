"""Test accuracy of local learning rules beside backpropagation: digits, and convolutions on Fashion-MNIST.

    OPENBLAS_NUM_THREADS=1 python benchmarks/energy_learning.py [--page docs/energy.md] [--seeds 5]
    OPENBLAS_NUM_THREADS=1 python benchmarks/energy_learning.py --convolutions [--page docs/energy.md]

With --page, the table between the marks of that page is written anew. Digits are scikit-learn's, the split is fixed:
1347 images to learn from, 450 to test with; options were chosen on these, by hand. Fashion-MNIST comes from the Debian
package dataset-fashion-mnist; the first 3000 images are learnt from, the first 1000 of the test set are never looked at
but for the curve.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import sys
from pathlib import Path

import numpy as np
from page_marks import fill
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from neuc import energy
from neuc.compiler.energy.learning_rules import Backpropagation, Rule

FASHION = Path("/usr/share/datasets/fashion-mnist")
NETWORK = ((1, 28, 28), energy.Conv(16, 5, stride=2), energy.Conv(32, 3, stride=2), 10)
CONVOLUTIONS: dict[str, Rule | str] = {
    "predictive coding": "pc",
    "equilibrium propagation, centred": energy.EquilibriumPropagation(rate=0.5),
    "backpropagation, cross-entropy": "bp",
    "backpropagation, squared error": Backpropagation(squared=True),
}
EPOCHS, LEARNT, TESTED = 10, 3000, 1000
SHOWN = (1, 2, 4, 7, EPOCHS)
CASES: dict[str, tuple[Rule | str, tuple[int, ...], int]] = {
    "equilibrium propagation, centred": ("ep", (64, 128, 10), 40),
    "predictive coding": ("pc", (64, 128, 10), 40),
    "Forward-Forward": ("ff", (64, 256, 256, 10), 60),
    "contrastive Hebbian learning": ("chl", (64, 128, 10), 25),
    "holomorphic equilibrium propagation": ("hep", (64, 128, 10), 8),
    "contrastive divergence": ("cd", (64, 128, 10), 40),
    "incremental predictive coding": ("ipc", (64, 128, 10), 10),
    "scaled predictive coding (µPC)": ("mupc", (64, 128, 10), 25),
    "self-contrastive Forward-Forward": ("scff", (64, 256, 256, 10), 20),
    "dendritic learning": ("dendritic", (64, 128, 10), 40),
    "backpropagation, cross-entropy": ("bp", (64, 128, 10), 40),
    "backpropagation, squared error": (Backpropagation(squared=True), (64, 128, 10), 40),
}


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, test images, training labels, test labels; pixels in [0, 1]."""
    pixels, labels = load_digits(return_X_y=True)
    pixels, labels = np.asarray(pixels) / 16, np.asarray(labels)
    split = train_test_split(pixels, labels, test_size=0.25, random_state=0, stratify=labels)
    images, test_images, answers, test_answers = (np.asarray(part) for part in split)
    return images, test_images, answers, test_answers


def table(seeds: int) -> str:
    """One row a rule."""
    images, test_images, labels, test_labels = digits()
    lines = [
        f"{len(images)} images to learn from, {len(test_images)} to test with, {seeds} seeds; medians of CPU seconds "
        "(all threads) and the peak of one step in numpy. What has a native time learnt by generated code.",
        "",
        "| rule | layers | epochs | test accuracy, mean | lowest … highest | CPU s, native | CPU s, numpy | peak, kB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (method, sizes, epochs) in CASES.items():
        runs = [energy.train(sizes, images, labels, method, epochs=epochs, seed=seed) for seed in range(seeds)]
        found = [100 * run.accuracy(test_images, test_labels) for run in runs]
        cpu, peak = statistics.median(run.cpu_seconds for run in runs), max(run.peak_bytes for run in runs)
        times = f"– | {cpu:.2f}"
        if runs[0].engine == "native":
            plain = energy.train(sizes, images, labels, method, epochs=epochs, engine="numpy").cpu_seconds
            times = f"{cpu:.2f} | {plain:.2f}"
        lines.append(
            f"| {name} | {'-'.join(map(str, sizes))} | {epochs} | {statistics.mean(found):.2f} % "
            f"| {min(found):.1f} … {max(found):.1f} % | {times} | {peak / 1000:.0f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def fashion(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images, pixels in [0, 1], and their labels."""
    pixels = np.frombuffer(
        gzip.decompress((FASHION / f"{name}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
    )
    labels = np.frombuffer(gzip.decompress((FASHION / f"{name}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return pixels.reshape(-1, 784)[:count].astype(np.float32) / 255, labels[:count].astype(np.int64)


def convolution_table() -> str:
    """Curves of one network by four rules."""
    images, labels = fashion("train", LEARNT)
    test = fashion("t10k", TESTED)
    lines = [
        f"Fashion-MNIST, {LEARNT} images to learn from, {TESTED} to test with, one seed; 16 filters of 5 × 5 and 32 of "
        f"3 × 3, both of stride 2, then 10 outputs, for all rules; batches of 32, {EPOCHS} epochs. Test accuracy after",
        "",
        f"| rule | {' | '.join(f'epoch {n}' for n in SHOWN)} | training images, last | CPU s | of that compiling |",
        "|---" * (len(SHOWN) + 4) + "|",
    ]
    for name, method in CONVOLUTIONS.items():
        run = energy.train(NETWORK, images, labels, method, epochs=EPOCHS, curve=True, test=test)
        points = " | ".join(f"{100 * run.test_curve[n - 1]:.1f} %" for n in SHOWN)
        total = run.cpu_seconds + run.compile_seconds
        last = f"{100 * run.train_curve[-1]:.1f} % | {total:.0f} | {run.compile_seconds:.1f}"
        lines.append(f"| {name} | {points} | {last} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--convolutions", action="store_true")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    mark = "convolutions" if options.convolutions else "learning"
    text = convolution_table() if options.convolutions else table(options.seeds)
    print(text)
    if options.page is not None:
        fill(options.page, mark, text)


if __name__ == "__main__":
    main()
