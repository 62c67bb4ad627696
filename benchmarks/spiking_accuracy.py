"""Accuracy of converted networks against T: neuc's recipes beside SpikingJelly's, same weights, same images.

    python benchmarks/spiking_accuracy.py fashion_cnn --peers ENV/bin/python [--images 2000]

Each network is converted from calibration images of three seeds, anew for every T, and runs as code of the target
cpu-spike. The result goes to the history that `spiking_page.py` reads. ENV is an environment with spikingjelly 2.0.0
and torch; without `--peers` only neuc is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
from spiking_records import Record, add, interval

import neuc
from neuc.compiler.snn.model import SpikingModel

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples" / "spiking"
sys.path.append(str(EXAMPLES))

from image_sets import IMAGE_SETS, ImageSet  # noqa: E402
from onnx_networks import BUILDERS, PARAMETERS, onnx_network  # noqa: E402

STEPS = (1, 2, 4, 8, 16, 32)
CALIBRATION = 2_000
SEEDED = (4, 8)
"""T, those of the goals, for which several choices of calibration images are converted; for others the first is."""
BATCH = 200
COUNTED = 50
"""Images whose spikes are counted."""
RATE_RECIPES = ("max", "99.9%", "99.9% half", "99.9% half channel", "LTB")
TRANSFORMER_RECIPES = ("STA spiking encoder",)


Right = dict[int, np.ndarray]
"""T -> which images were named rightly, bool [seeds, images]."""


@dataclass
class Runs:
    """What the recipes of one tool said.

    Attributes:
        right: by recipe.
        notes: facts by recipe, or why it failed.
    """

    right: dict[str, Right] = field(default_factory=dict)
    notes: dict[str, Record] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A network with the images it is judged by.

    Attributes:
        name: the network.
        images: its data.
        count: how many test images, from the first.
        seeds: how many choices of calibration images.
    """

    name: str
    images: ImageSet
    count: int
    seeds: int

    @property
    def test(self) -> np.ndarray:
        """f32 [count, 1, H, W]."""
        return self.images.test_images[: self.count]

    @property
    def labels(self) -> np.ndarray:
        """i64 [count]."""
        return self.images.test_labels[: self.count]

    def calibration(self, seed: int) -> np.ndarray:
        """Training images, chosen by `seed`."""
        order = np.random.default_rng(seed).permutation(len(self.images.train_images))
        return self.images.train_images[order[:CALIBRATION]]

    def seeds_at(self, steps: int) -> int:
        """How many choices of calibration images are converted for T = `steps`."""
        return self.seeds if steps in SEEDED else 1

    @property
    def is_transformer(self) -> bool:
        return self.name.endswith("vit")


def ann_logits(task: Task) -> np.ndarray:
    """f32 [count, 10] of the float network in onnxruntime."""
    session = onnxruntime.InferenceSession(onnx_network(task.name).SerializeToString())
    return np.asarray(session.run(None, {"images": task.test})[0])


def peer_runs(task: Task, python: str, steps: Sequence[int]) -> tuple[Runs, np.ndarray, dict[str, str]]:
    """SpikingJelly's recipes: their runs, torch's logits of the float network, versions."""
    recipes = TRANSFORMER_RECIPES if task.is_transformer else RATE_RECIPES
    with tempfile.TemporaryDirectory() as folder:
        images = {f"calibration_{seed}": task.calibration(seed) for seed in range(task.seeds)}
        np.savez(Path(folder) / "images.npz", test=task.test, **images)  # pyright: ignore[reportArgumentType]
        request = {
            "network": task.name,
            "parameters": str(PARAMETERS / f"{task.name}.npz"),
            "images": str(Path(folder) / "images.npz"),
            "result": str(Path(folder) / "result.npz"),
            "recipes": recipes,
            "steps": [[step for step in steps if seed < task.seeds_at(step)] for seed in range(task.seeds)],
        }
        answer = ask(python, request)
        with np.load(request["result"]) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    runs = Runs()
    for recipe in recipes:
        if all(f"{recipe}/{seed}" in found for seed in range(task.seeds)):
            runs.right[recipe] = {
                step: np.stack([
                    found[f"{recipe}/{seed}"][asked.index(step)] == task.labels
                    for seed, asked in enumerate(request["steps"])
                    if step in asked
                ])
                for step in steps
            }  # fmt: skip
        runs.notes[recipe] = answer["runs"][f"{recipe}/0"]
    return runs, found["ann"], {name: answer[name] for name in ("spikingjelly", "torch")}


def ask(python: str, request: Record) -> Record:
    """One answer of the worker.

    Raises:
        SystemExit: the worker failed; what it said last.
    """
    done = subprocess.run(
        [python, str(HERE / "spikingjelly_worker.py")],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES), "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"the worker failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def kept_peer_runs(task: Task, python: str, folder: Path | None) -> tuple[Runs, np.ndarray, dict[str, str]]:
    """As `peer_runs`, but what `folder` keeps of an earlier run of the same task is taken from there."""
    file = None if folder is None else folder / f"{task.name}_{task.count}_{task.seeds}.npz"
    if file is not None and file.exists():
        with np.load(file) as arrays:
            facts = json.loads(str(arrays["facts"]))
            right = {name: {step: arrays[f"{name}/{step}"] for step in STEPS} for name in facts["recipes"]}
            return Runs(right, facts["notes"]), arrays["ann"], facts["versions"]
    runs, ann, versions = peer_runs(task, python, STEPS)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        facts = {"recipes": list(runs.right), "notes": runs.notes, "versions": versions}
        arrays = {f"{name}/{step}": made for name, right in runs.right.items() for step, made in right.items()}
        np.savez_compressed(file, ann=ann, facts=np.array(json.dumps(facts)), **arrays)  # pyright: ignore[reportArgumentType]
    return runs, ann, versions


def our_runs(task: Task, recipes: Sequence[str], steps: Sequence[int]) -> Runs:
    """Neuc's recipes, each converted anew for every T and run as emitted code by the target cpu-spike."""
    runs = Runs()
    for recipe in recipes:
        runs.right[recipe], runs.notes[recipe] = {}, {"spikes": {}}
        for step in steps:
            made = []
            for seed in range(task.seeds_at(step)):
                model = neuc.convert_to_snn(
                    onnx_network(task.name), task.calibration(seed), recipe=recipe, steps=step, start=None, seed=seed
                )
                made.append(emitted_classes(model, task.test) == task.labels)
                if seed == 0:
                    (row,) = model.sweep(task.test[:COUNTED], steps=[step]).rows
                    runs.notes[recipe]["spikes"][step] = row.spikes_per_neuron
            runs.right[recipe][step] = np.stack(made)
            print(f"{task.name} {recipe} T={step}: {np.mean(made):.2%}", file=sys.stderr, flush=True)
    return runs


def emitted_classes(model: SpikingModel, images: np.ndarray) -> np.ndarray:
    """Classes i64 [N] of compiled code."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.mlir")
        session = neuc.compile(Path(folder) / "model.mlir", target="cpu-spike").session(threads=1)
        parts = [session.run(None, {"images": images[at : at + BATCH]})[0] for at in range(0, len(images), BATCH)]
    return np.concatenate(parts).argmax(1)


def summary(right: Right, ann: np.ndarray, best: Right | None) -> list[Record]:
    """One recipe at each T: shares of 1, with 95 % bootstrap intervals over images.

    Args:
        right: of the recipe.
        ann: whether the float network is right, bool [images].
        best: of the best peer at each T.

    Returns:
        For each T `accuracy` (mean over seeds), `spread` (largest less least), `seeds`, `gap` to the float network, and
        `lead` over the best peer, both with intervals.
    """
    rows: list[Record] = []
    for step, made in right.items():
        shares, often = made.mean(1), made.mean(0)
        gap = often - ann
        row: Record = {
            "T": step,
            "accuracy": float(shares.mean()),
            "spread": float(np.ptp(shares)),
            "seeds": len(shares),
            "gap": float(gap.mean()),
            "gap_interval": interval(gap),
        }
        if best is not None:
            # Of as many seeds as here, so that what differs between seeds counts on both sides.
            lead = often - best[step][: len(made)].mean(0)
            row |= {"lead": float(lead.mean()), "lead_interval": interval(lead)}
        rows.append(row)
    return rows


def best_peer(runs: Runs) -> tuple[Right, dict[int, str]]:
    """The peer's recipe of highest mean accuracy at each T, and its name."""
    steps = next(iter(runs.right.values()))
    names = {step: max(runs.right, key=lambda name: runs.right[name][step].mean()) for step in steps}
    return {step: runs.right[name][step] for step, name in names.items()}, names


def measure(task: Task, recipes: Sequence[str], python: str | None, keep: Path | None, steps: Sequence[int]) -> Record:
    """Everything about one network, for the history."""
    logits = ann_logits(task)
    ann = logits.argmax(1) == task.labels
    record: Record = {"network": task.name, "images": task.count, "ann": float(ann.mean()), "recipes": {}, "peers": {}}
    ours = our_runs(task, recipes, steps)
    best: Right | None = None
    if python is not None:
        peers, torch_logits, record["versions"] = kept_peer_runs(task, python, keep)
        if not np.allclose(logits, torch_logits, atol=1e-3):
            raise SystemExit(f"{task.name}: the peer's float network gives other logits")
        best, record["best_peer"] = best_peer(peers)
        record["peers"] = {name: summary(right, ann, None) for name, right in peers.right.items()}
        record["peer_notes"] = peers.notes
    record["recipes"] = {name: summary(right, ann, best) for name, right in ours.right.items()}
    record["notes"] = ours.notes
    return record


def main() -> None:
    """Measure the networks named."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(BUILDERS)}; default: all")
    options.add_argument("--peers", metavar="PYTHON", help="of an environment with spikingjelly 2.0.0 and torch")
    options.add_argument("--keep", type=Path, help="folder where what the peers said is kept, and looked for")
    options.add_argument("--recipes", help="separated by commas; default: a,b,c, for Transformers b,c")
    options.add_argument("--steps", default=",".join(map(str, STEPS)), help="separated by commas")
    options.add_argument("--images", type=int, default=2_000, help="test images")
    options.add_argument("--seeds", type=int, default=3, help="choices of calibration images")
    given = options.parse_args()
    for name in given.networks or list(BUILDERS):
        images = IMAGE_SETS[name.split("_")[0]]()
        task = Task(name, images, min(given.images, len(images.test_labels)), given.seeds)
        recipes = (given.recipes or ("b,c" if task.is_transformer else "a,b,c")).split(",")
        steps = [int(step) for step in given.steps.split(",")]
        add(f"accuracy/{name}", measure(task, recipes, given.peers, given.keep, steps))


if __name__ == "__main__":
    main()
