"""Equilibrium propagation on a simulated chip: a network that learned in floats, and one that learned through the chip.

    OPENBLAS_NUM_THREADS=1 python benchmarks/energy_crossbar.py [--seeds 3] [--page docs/energy.md]

The network is 64-128-10 on scikit-learn's digits. It answers by settling on target xbar-pcm or xbar-reram (generated
code, noise in every sweep), for some ages of the chip. Learning through the chip: before every batch the weights are
programmed anew on the device model (programming noise; reads some seconds later, with read noise of its own in each of
the three phases), products pass an 8-bit converter, and slopes are those of the states that came of it; the digital
weights are what changes, by Adam's steps. Its options were chosen on a held-out quarter of the training images.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import energy_learning
import numpy as np
from page_marks import fill

from neuc import energy
from neuc.compiler.api import compile_model
from neuc.compiler.energy.learning_rules import Layers
from neuc.compiler.energy.networks import Layer, Network
from neuc.compiler.options import CompileOptions
from neuc.compiler.source import Source
from neuc.runtime.analog.models import make_model
from neuc.runtime.analog.tiles import Chip, ProgrammedTile

Array = np.ndarray
SIZES, EPOCHS = (64, 128, 10), 20
AGES = {"20 s": 20.0, "1 d": 86400.0, "1 y": 31536000.0}
TARGETS = {"xbar-pcm": "pcm", "xbar-reram": "reram"}
THROUGH: dict[str, Any] = {"rate": 2e-3, "decay": 0.9, "beta": 0.5, "adaptive": True}
"""Adam averages what differs from one programming to the next; a strong nudge moves states past a converter's step."""
ADC_LEVELS, ADC_BOUND = 127, 10.0
"""Steps of a signed 8-bit converter, and its range in units of the largest weight times the largest input."""


class ThroughChip(energy.EquilibriumPropagation):
    """Equilibrium propagation whose sweeps multiply with devices; subclasses name the device model."""

    device = "pcm"
    draws = itertools.count()

    def slopes(self, layers: Layers, x: Array, y: Array, rng: np.random.Generator) -> Layers:
        """Program the weights once for the batch, forwards and backwards on devices of their own; then three phases."""
        self.tiles = [[self._programmed(w if ahead else w.T) for w, _ in layers] for ahead in (True, False)]
        return super().slopes(layers, x, y, rng)

    def settle(
        self, layers: Layers, x: Array, states: Sequence[Array], steps: int, nudge: float = 0.0, y: Array | None = None
    ) -> list[Array]:
        """Sweeps with weights as the devices are read in this phase."""
        forward, backward = ([(t.weights(next(self.draws) * 1e-3), s) for t, s in side] for side in self.tiles)
        settled, last = list(states), len(layers) - 1
        drive = converted(x, *forward[0]) + layers[0][1]
        for _ in range(steps):
            for number, (_, b) in enumerate(layers):
                pull = drive if number == 0 else converted(settled[number - 1], *forward[number]) + b
                if number < last:
                    pull = pull + converted(settled[number + 1], *backward[number + 1])
                elif y is not None and nudge:
                    pull = (pull + nudge * y) / (1.0 + nudge)
                settled[number] = np.clip(pull, 0.0, 1.0).astype(np.float32)
        return settled

    def _programmed(self, w: Array) -> tuple[ProgrammedTile, Array]:
        """Devices that hold the weights, and the scale of each column."""
        scale = np.maximum(np.abs(w).max(0), 1e-12)
        return Chip(make_model(self.device)).program(w / scale, tile=0, seed=next(self.draws)), scale


class ThroughReram(ThroughChip):
    """On resistive memory."""

    device = "reram"


def converted(x: Array, w: Array, scale: Array) -> Array:
    """The product x W through an 8-bit converter whose range is that of the largest input."""
    largest = np.maximum(np.abs(x).max(1, keepdims=True), 1e-12)
    step = ADC_BOUND / ADC_LEVELS
    return (np.clip(np.rint(x / largest @ w / step), -ADC_LEVELS, ADC_LEVELS) * step * largest * scale).astype(
        np.float32
    )


def settling(layers: Layers, steps: int) -> Network:
    """The learned network as a program that settles."""
    return energy.network([Layer(w, b, "clip") for w, b in layers], steps=steps)


def on_chip(net: Network, target: str, images: Array, labels: Array, seed: int) -> dict[str, float]:
    """Accuracies by age, for one draw of the devices."""
    program = net.program
    source = Source(program.module.clone(), program.context, "ep", None, graph_level=False)
    session = compile_model(source, CompileOptions(target=target)).session()
    names = [spec.name for spec in session.program.outputs]
    feeds, found = program.feeds(**net.feeds(images)), dict[str, float]()
    assert session.analog is not None
    for age, seconds in AGES.items():
        session.analog.set(seconds, seed)
        scores = session.run(None, feeds)[names.index("answer")]
        found[age] = float((scores.argmax(1) == labels).mean())
    return found


def rows(seeds: int, epochs: int) -> list[list[str]]:
    """The rows: learning, digital accuracy, and accuracies on each chip; for each seed a network and devices."""
    learnt, (test_x, test_y) = energy_learning.digits()
    plain = energy.EquilibriumPropagation()
    table: list[list[str]] = []
    for name, rule in (
        ("in floats", plain),
        ("through pcm", ThroughChip(**THROUGH)),
        ("through reram", ThroughReram(**THROUGH)),
    ):
        runs = [energy.train(SIZES, *learnt, rule, epochs=epochs, seed=seed) for seed in range(seeds)]
        digital = [float((plain.scores(r.layers, test_x.astype(np.float32)).argmax(1) == test_y).mean()) for r in runs]
        for target, device in TARGETS.items():
            if isinstance(rule, ThroughChip) and rule.device != device:
                continue
            found = [
                on_chip(settling(run.layers, plain.answer_steps), target, test_x, test_y, seed)
                for seed, run in enumerate(runs)
            ]
            by_age = [[accuracies[age] for accuracies in found] for age in AGES]
            table.append([name, shown(digital), target, *map(shown, by_age)])
            print(table[-1], f"{runs[0].cpu_seconds:.1f} CPU s of learning", flush=True)
    return table


def shown(accuracies: Sequence[float]) -> str:
    """Their mean and standard deviation."""
    return f"{np.mean(accuracies):.1%} ± {np.std(accuracies):.1%}"


def main() -> None:
    """Measure, print, and write the page's part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    head = ["learned", "digital accuracy", "settles on", *(f"after {age}" for age in AGES)]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows(options.seeds, options.epochs))]
    text = "\n".join(lines)
    print(text)
    if options.page:
        note = (
            f"450 test images, {options.seeds} networks, each with devices of its own; mean ± standard deviation.\n\n"
        )
        fill(options.page, "crossbar", note + text)


if __name__ == "__main__":
    main()
