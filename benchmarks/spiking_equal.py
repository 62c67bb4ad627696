"""Speed at equal accuracy: every engine at the smallest T with which it comes near the float network's accuracy.

    python benchmarks/spiking_equal.py --peers PYTHON [--networks fashion_mlp fashion_cnn] [--images 2000]

neuc runs its own recipes. The others, and neuc's engine once more, run what their best training-free recipe here
makes (SpikingJelly's, with a threshold for each channel, potentials at half of it), thresholds folded into weights.
One thread; images a second are of process time. The record goes to the history that `spiking_page.py` reads.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from spiking_engine import ANNS, BATCHES, Peers, Row, Run, ann_session, runner, save, spiking_session
from spiking_networks import EXAMPLES, PIXELS, Network, read
from spiking_records import Record, add

import neuc
from neuc.runtime.session import Session

sys.path.append(str(EXAMPLES))
from image_sets import ImageSet, fashion
from onnx_networks import onnx_network

STEPS = (1, 2, 4, 8, 16, 32, 64)
ROUNDS = 3
REPEATS = {1: 20, 100: 2}
"""Runs of an engine in a turn, by batch, the first of which does not count."""
ALLOWED = 0.005
"""Below the float network's accuracy."""
CALIBRATION = 2_000
PART = 100
ALIKE = ("SpikingJelly s", "SpikingJelly m", "snnTorch")
"""Engines whose neurons are those of our engine, so that T is its T; `COMPARED` images show that it is so."""
COMPARED = 200
SAME = 0.98
"""Of these images, how many have to get the same class: sums in floats are rounded in other orders."""
QUANTILES = "neuc, quantiles"


@dataclass(frozen=True)
class Contender:
    """An engine with a network.

    Attributes:
        name: what it is called.
        classes: the classes i64 [N] of the first N images after so many steps.
        run: what is timed at so many steps.
    """

    name: str
    classes: Callable[[int, int], np.ndarray]
    run: Callable[[int], Run]


def smallest(
    contender: Contender, labels: np.ndarray, wanted: float, least: int
) -> tuple[int | None, dict[int, float]]:
    """The first T of `least` or more that is accurate enough, and the accuracies up to it."""
    found: dict[int, float] = {}
    for steps in (steps for steps in STEPS if steps >= least):
        found[steps] = float((contender.classes(steps, len(labels)) == labels).mean())
        print(f"{contender.name} T={steps}: {found[steps]:.2%}", file=sys.stderr, flush=True)
        if found[steps] >= wanted:
            return steps, found
    return None, found


def compare(contender: Contender, ours: Contender, steps: int) -> None:
    """Make sure that an engine gives the classes of ours.

    Raises:
        SystemExit: it does not.
    """
    same = float((contender.classes(steps, COMPARED) == ours.classes(steps, COMPARED)).mean())
    if same < SAME:
        raise SystemExit(f"{contender.name} gives {same:.1%} of the classes of {ours.name} at T = {steps}")


def own(name: str, make: Callable[[int], Session], images: np.ndarray) -> Contender:
    """An engine of ours; sessions are made once for each T."""
    made: dict[int, Session] = {}

    def session(steps: int) -> Session:
        if steps not in made:
            made[steps] = make(steps)
        return made[steps]

    return Contender(
        name,
        lambda steps, count: classes(session(steps), images[:count]),
        lambda steps: runner(session(steps), images),
    )


def other(name: str, peers: Peers) -> Contender:
    """An engine in the process of the peers."""

    def run(steps: int) -> Run:
        def timed(batch: int, repeats: int, first: int) -> tuple[list[float], list[float]]:
            got: Record = peers.ask(op="run", engine=name, steps=steps, batch=batch, repeats=repeats, first=first)
            return got["wall"], got["cpu"]

        return timed

    def named(steps: int, count: int) -> np.ndarray:
        return np.array(peers.ask(op="classes", engine=name, steps=steps, count=count)["classes"])

    return Contender(name, named, run)


def classes(session: Session, images: np.ndarray) -> np.ndarray:
    """The class of each image, i64 [N]."""
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: images[at : at + PART]})[0] for at in range(0, len(images), PART)]
    return np.concatenate(parts).argmax(1)


def converted(name: str, recipe: str, data: ImageSet) -> Callable[[int], Session]:
    """Recipes of neuc, converted anew for each T."""
    order = np.random.default_rng(0).permutation(len(data.train_images))[:CALIBRATION]

    def make(steps: int) -> Session:
        model = neuc.convert_to_snn(
            onnx_network(name), data.train_images[order], recipe=recipe, steps=steps, start=None, seed=0
        )
        return model.session(threads=1)

    return make


def measure(name: str, count: int, recipes: str, least: int, python: str | None) -> Record:
    """All engines on one network."""
    data = fashion()
    network = read(name, data, channels=True)
    network = Network(name, network.layers, network.images[:count], network.labels[:count])
    flat, labels = network.images, network.labels
    square = np.ascontiguousarray(flat.reshape(-1, 1, 28, 28))
    ann = own(ANNS[0], lambda _: ann_session(name), square)
    wanted = float((ann.classes(1, count) == labels).mean()) - ALLOWED
    print(f"{name}: {wanted + ALLOWED:.2%}", file=sys.stderr, flush=True)
    contenders = [own(f"neuc, recipe {recipe}", converted(name, recipe, data), square) for recipe in recipes]
    quantiles = own(QUANTILES, lambda steps: spiking_session(network, steps, whole=False), flat)
    contenders.append(quantiles)
    whole = np.round(flat * PIXELS).astype(np.int8)
    contenders.append(own("neuc, quantiles, int8", lambda steps: spiking_session(network, steps, whole=True), whole))
    facts: Record = {}
    peers = Peers(python) if python else None
    try:
        if peers is not None:
            with tempfile.TemporaryDirectory() as folder:
                save(Path(folder) / "network.npz", network)
                facts = peers.ask(op="load", path=str(Path(folder) / "network.npz"))
            contenders += [other(engine, peers) for engine in facts["versions"] if engine != ANNS[1]]
        reached: dict[str, tuple[int, float]] = {}
        missed: dict[str, float] = {}
        for contender in contenders:
            if contender.name in ALIKE:
                if QUANTILES in reached:
                    compare(contender, quantiles, reached[QUANTILES][0])
                    reached[contender.name] = reached[QUANTILES]
                else:
                    missed[contender.name] = missed[QUANTILES]
                continue
            # The others have the same thresholds: they do not need less than half as many steps.
            first = least if contender.name.startswith("neuc") else reached.get(QUANTILES, (least, 0))[0] // 2
            steps, found = smallest(contender, labels, wanted, first)
            if steps is None:
                missed[contender.name] = max(found.values())
            else:
                reached[contender.name] = steps, found[steps]
        runs = {c.name: (reached[c.name][0], c.run(reached[c.name][0])) for c in contenders if c.name in reached}
        runs[ANNS[0]] = 1, ann.run(1)
        if peers is not None:
            runs[ANNS[1]] = 1, other(ANNS[1], peers).run(1)
        rows = [row for batch in BATCHES for row in turns(name, batch, runs)]
    finally:
        if peers is not None:
            peers.close()
    return {
        "network": name,
        "images": count,
        "ann": wanted + ALLOWED,
        "steps": [steps for steps in STEPS if steps >= least],
        "missed": missed,
        "versions": facts.get("versions", {}),
        "missing": facts.get("missing", {}),
        "rows": [
            {
                "engine": row.engine,
                "T": row.steps,
                "batch": row.batch,
                "rate": row.rate,
                "median": row.median,
                "accuracy": reached[row.engine][1] if row.engine in reached else None,
            }
            for row in rows
        ],
    }


def turns(network: str, batch: int, runs: Mapping[str, tuple[int, Run]]) -> list[Row]:
    """Times of all engines, in turns."""
    rows = {engine: Row(network, engine, steps, batch) for engine, (steps, _) in runs.items()}
    for turn in range(ROUNDS):
        for engine, (_, run) in runs.items():
            wall, cpu = run(batch, REPEATS[batch], turn * 131)
            rows[engine].wall += wall[1:]
            rows[engine].cpu += cpu[1:]
    return list(rows.values())


def main() -> None:
    """Measure the networks named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="a Python with torch and the other engines")
    parser.add_argument("--networks", nargs="+", default=["fashion_mlp", "fashion_cnn"])
    parser.add_argument("--images", type=int, default=2_000, help="test images, from the first")
    parser.add_argument("--recipes", default="ba", help="of neuc's conversion")
    parser.add_argument("--least", type=int, default=1, help="T that searches begin with")
    options = parser.parse_args()
    for name in options.networks:
        add(f"speed/{name}", measure(name, options.images, options.recipes, options.least, options.peers))


if __name__ == "__main__":
    main()
