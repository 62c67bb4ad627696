"""Test accuracy of local learning rules on scikit-learn's digits beside backpropagation, five seeds each.

    OPENBLAS_NUM_THREADS=1 python benchmarks/energy_learning.py [--page docs/energy.md] [--seeds 5]

With --page, the table between the marks of that page is written anew. The split is fixed: 1347 images to learn from,
450 to test with; options were chosen on these, by hand.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from neuc import energy
from neuc.compiler.energy.learning_rules import Backpropagation, Rule

BEGIN, END = "<!-- learning -->", "<!-- /learning -->"
CASES: dict[str, tuple[Rule | str, tuple[int, ...], int]] = {
    "equilibrium propagation, centred": ("ep", (64, 128, 10), 40),
    "predictive coding": ("pc", (64, 128, 10), 40),
    "Forward-Forward": ("ff", (64, 256, 256, 10), 60),
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
        "(all threads) and the peak of one step.",
        "",
        "| rule | layers | epochs | test accuracy, mean | lowest … highest | CPU s | peak memory, kB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (method, sizes, epochs) in CASES.items():
        runs = [energy.train(sizes, images, labels, method, epochs=epochs, seed=seed) for seed in range(seeds)]
        found = [100 * run.accuracy(test_images, test_labels) for run in runs]
        cpu, peak = statistics.median(run.cpu_seconds for run in runs), max(run.peak_bytes for run in runs)
        lines.append(
            f"| {name} | {'-'.join(map(str, sizes))} | {epochs} | {statistics.mean(found):.2f} % "
            f"| {min(found):.1f} … {max(found):.1f} % | {cpu:.2f} | {peak / 1000:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    text = table(options.seeds)
    print(text)
    if options.page is not None:
        page = options.page.read_text(encoding="utf-8")
        head, rest = page.split(BEGIN)
        _, tail = rest.split(END)
        options.page.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
