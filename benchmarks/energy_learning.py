"""Test accuracy of local learning rules beside backpropagation: digits, and convolutions on two sets of 28 × 28 pixels.

    OPENBLAS_NUM_THREADS=1 python benchmarks/energy_learning.py [--page docs/energy.md] [--seeds 5] [--only ff,bp]
    OPENBLAS_NUM_THREADS=1 python benchmarks/energy_learning.py --convolutions [--page docs/energy.md]

With --page, the table between the marks of that page is written anew. Rates are chosen in the same run, for every rule
alike, on a part of the training images that is held out meanwhile; test images are only looked at for the table. Digits
are scikit-learn's, 1347 to learn from and 450 to test with; `examples/spiking/image_sets.py` has the others.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from page_marks import fill
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from neuc import energy
from neuc.compiler.energy.learning_methods import make_rule
from neuc.compiler.energy.learning_rules import Backpropagation, Rule
from neuc.errors import Error

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "spiking"))

from image_sets import ImageSet, fashion, mnist

Arrays = tuple[np.ndarray, np.ndarray]
ADAPTIVE_RATES, PLAIN_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (0.03, 0.1, 0.2, 0.5)
TRIALS = 2
"""Seeds that a rate is tried with."""


@dataclass(frozen=True)
class Case:
    """A row of the table of digits."""

    name: str
    method: Rule
    sizes: tuple[int, ...] = (64, 128, 10)
    epochs: int = 40


WIDE = (64, 256, 256, 10)
CASES = {
    "ep": Case("equilibrium propagation, centred", make_rule("ep", {})),
    "pc": Case("predictive coding", make_rule("pc", {})),
    "ff": Case("Forward-Forward", make_rule("ff", {}), WIDE, 60),
    "chl": Case("contrastive Hebbian learning", make_rule("chl", {})),
    "hep": Case("holomorphic equilibrium propagation", make_rule("hep", {})),
    "cd": Case("contrastive divergence", make_rule("cd", {})),
    "ipc": Case("incremental predictive coding", make_rule("ipc", {})),
    "mupc": Case("scaled predictive coding (µPC)", make_rule("mupc", {})),
    "scff": Case("self-contrastive Forward-Forward", make_rule("scff", {}), WIDE, 60),
    "dendritic": Case("dendritic learning", make_rule("dendritic", {})),
    "bp": Case("backpropagation, cross-entropy", make_rule("bp", {})),
    "bp-squared": Case("backpropagation, squared error", Backpropagation(squared=True)),
}

NETWORK = ((1, 28, 28), energy.Conv(16, 5, stride=2), energy.Conv(32, 3, stride=2), 10)
LEARNT, HELD_OUT, TESTED, EPOCHS, TRIAL_EPOCHS = 3000, 1000, 2000, 10, 5
SHOWN = (1, 2, 4, 7, EPOCHS)
DECAY = 0.85
"""Of the rates of convolutional networks, each epoch: for all rules the same."""
_RATES = (1e-3, 2e-3)


def _few_sweeps(rate: float) -> energy.EquilibriumPropagation:
    """Enough for three layers to settle, in half the time of the defaults."""
    return energy.EquilibriumPropagation(
        rate=rate, decay=DECAY, adaptive=True, free_steps=12, nudged_steps=5, answer_steps=12
    )


CONVOLUTIONS: dict[str, Sequence[Rule]] = {
    "equilibrium propagation, centred": [_few_sweeps(rate) for rate in _RATES],
    "predictive coding": [energy.PredictiveCoding(rate=2e-3, decay=DECAY, steps=steps) for steps in (20, 2)],
    "backpropagation, cross-entropy": [Backpropagation(rate=rate, decay=DECAY) for rate in _RATES],
    "backpropagation, squared error": [Backpropagation(rate=rate, decay=DECAY, squared=True) for rate in _RATES],
}


def digits() -> tuple[Arrays, Arrays]:
    """Images and labels to learn from, and to test with; pixels in [0, 1]."""
    pixels, labels = load_digits(return_X_y=True)
    return parted(np.asarray(pixels) / 16, np.asarray(labels))


def parted(images: np.ndarray, labels: np.ndarray) -> tuple[Arrays, Arrays]:
    """Three quarters and a quarter, classes in equal shares."""
    split = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    first, second, answers, others = (np.asarray(part) for part in split)
    return (first, answers), (second, others)


def chosen_rate(case: Case, data: Arrays) -> float:
    """The rate with the best mean on a held-out quarter of the training images; the smaller of equals."""
    learnt, held_out = parted(*data)
    found: dict[float, float] = {}
    for rate in ADAPTIVE_RATES if case.method.adaptive else PLAIN_RATES:
        rule = replace(case.method, rate=rate)  # type: ignore[type-var]
        accuracies: list[float] = []
        for seed in range(TRIALS):
            try:
                run = energy.train(case.sizes, *learnt, rule, epochs=case.epochs, seed=seed)
            except Error:  # a rate at which weights grow without bounds
                accuracies = [0.0]
                break
            accuracies.append(run.accuracy(*held_out))
        found[rate] = statistics.mean(accuracies)
    print(case.name, {rate: f"{100 * a:.1f}" for rate, a in found.items()}, file=sys.stderr, flush=True)
    return max(found, key=lambda rate: (found[rate], -rate))


def table(seeds: int, cases: Sequence[Case]) -> str:
    """One row a rule."""
    data, test = digits()
    lines = [
        f"{len(data[1])} images to learn from, {len(test[1])} to test with, {seeds} seeds; by generated code: medians "
        f"of CPU seconds and the memory of a step. Rates: the best of {len(ADAPTIVE_RATES)} ({len(PLAIN_RATES)} of "
        f"plain steps) on a held-out quarter of the training images, {TRIALS} seeds each. Numpy: one run of the same.",
        "",
        "| rule | layers | epochs | rate | test accuracy, mean | lowest … highest | CPU s | CPU s, numpy | peak, kB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        rate = chosen_rate(case, data)
        rule = replace(case.method, rate=rate)  # type: ignore[type-var]
        runs = [energy.train(case.sizes, *data, rule, epochs=case.epochs, seed=seed) for seed in range(seeds)]
        numpy = energy.train(case.sizes, *data, rule, epochs=case.epochs, engine="numpy")
        found = [100 * run.accuracy(*test) for run in runs]
        cpu, peak = statistics.median(run.cpu_seconds for run in runs), max(run.peak_bytes for run in runs)
        lines.append(
            f"| {case.name} | {'-'.join(map(str, case.sizes))} | {case.epochs} | {rate:g} "
            f"| {statistics.mean(found):.2f} % | {min(found):.1f} … {max(found):.1f} % "
            f"| {cpu:.2f} | {numpy.cpu_seconds:.2f} | {peak / 1000:.0f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def chosen_rule(rules: Sequence[Rule], images: ImageSet) -> Rule:
    """The rule with the best answers on training images that nothing is learnt from."""
    x, y = images.train_images[: LEARNT + HELD_OUT], images.train_labels[: LEARNT + HELD_OUT]
    found: list[float] = []
    for rule in rules:
        run = energy.train(NETWORK, x[:LEARNT], y[:LEARNT], rule, epochs=TRIAL_EPOCHS)
        found.append(run.accuracy(x[LEARNT:], y[LEARNT:]))
        print(f"{100 * found[-1]:.1f} % {rule}", file=sys.stderr, flush=True)
    return rules[int(np.argmax(found))]


def convolution_table() -> str:
    """Curves of one network by each rule on both sets; options come from the first."""
    clothes = fashion()
    chosen = {name: chosen_rule(rules, clothes) for name, rules in CONVOLUTIONS.items()}
    lines = [
        f"{LEARNT} images to learn from, {TESTED} to test with, one seed; 16 filters of 5 × 5 and 32 of 3 × 3, both of "
        f"stride 2, then 10 outputs, for all rules; batches of 32, {EPOCHS} epochs of Adam. Of two rates (of 20 and 2 "
        f"steps for predictive coding) the better on {HELD_OUT} other training images of Fashion-MNIST after "
        f"{TRIAL_EPOCHS} epochs, for both sets. Test accuracy after",
    ]
    for title, images in (("Fashion-MNIST", clothes), ("MNIST", mnist())):
        lines += [
            "",
            f"| {title} | chosen | {' | '.join(f'epoch {n}' for n in SHOWN)} | training images, last | CPU s |",
        ]
        lines.append("|---" * (len(SHOWN) + 4) + "|")
        test = images.test_images[:TESTED], images.test_labels[:TESTED]
        for name, rule in chosen.items():
            learnt = images.train_images[:LEARNT], images.train_labels[:LEARNT]
            run = energy.train(NETWORK, *learnt, rule, epochs=EPOCHS, curve=True, test=test)
            points = " | ".join(f"{100 * run.test_curve[n - 1]:.1f} %" for n in SHOWN)
            last = f"{100 * run.train_curve[-1]:.1f} % | {run.cpu_seconds:.0f}"
            said = f"{rule.steps} steps" if isinstance(rule, energy.PredictiveCoding) else f"rate {rule.rate:g}"
            lines.append(f"| {name} | {said} | {points} | {last} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default=",".join(CASES), help="rules of digits, by name")
    parser.add_argument("--convolutions", action="store_true")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    mark = "convolutions" if options.convolutions else "learning"
    text = (
        convolution_table()
        if options.convolutions
        else table(options.seeds, [CASES[n] for n in options.only.split(",")])
    )
    print(text)
    if options.page is not None:
        fill(options.page, mark, text)


if __name__ == "__main__":
    main()
