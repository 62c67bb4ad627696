"""Pieces of the accuracy benchmark: what one recipe with one choice of calibration images names, each in a file.

A run that is stopped goes on where it was, and what stays the same is not measured again: a file's name holds a digest
of everything that its classes follow from. What pieces say together is the business of `spiking_accuracy.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from spiking_records import Record

import neuc
from neuc.compiler.snn.model import SpikingModel

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples" / "spiking"
sys.path.append(str(EXAMPLES))

from image_sets import ImageSet  # noqa: E402
from onnx_networks import PARAMETERS, onnx_network  # noqa: E402

CALIBRATION = 2_000
BATCH = 200
COUNTED = 50
"""Images whose spikes are counted."""
WORKER = HERE / "spikingjelly_worker.py"
NEUC = Path(neuc.__file__).resolve().parent
GROUPS = {"a2": ("a", 2)}
"""Recipes whose numbers are carried by several neurons: the recipe, and how many."""
DECIDING = (
    *(f"compiler/snn/{name}.py" for name in ("calibrate", "convert", "neurons", "recipes", "refit", "simulate")),
    "compiler/snn/thresholds.py",
    "passes/convert_ann_to_snn.py",
    "passes/group_neurons.py",
)
"""Files that a converted network's numbers follow from."""


@dataclass(frozen=True)
class Task:
    """A network with the images it is judged by.

    Attributes:
        name: the network.
        images: its data.
        count: how many test images, from the first.
        seeds: how many choices of calibration images.
        folder: where its pieces are.
    """

    name: str
    images: ImageSet
    count: int
    seeds: int
    folder: Path

    @property
    def test(self) -> np.ndarray:
        """f32 [count, 1, H, W]."""
        return self.images.test_images[: self.count]

    @property
    def labels(self) -> np.ndarray:
        """i64 [count]."""
        return self.images.test_labels[: self.count]

    @property
    def parameters(self) -> Path:
        """The file of its trained parameters."""
        return PARAMETERS / f"{self.name}.npz"

    def calibration(self, seed: int) -> np.ndarray:
        """Training images, chosen by `seed`."""
        order = np.random.default_rng(seed).permutation(len(self.images.train_images))
        return self.images.train_images[order[:CALIBRATION]]

    def piece(self, tool: str, recipe: str, seed: int, digest: str) -> Path:
        """The file of a piece."""
        recipe = re.sub(r"[^\w.]+", "_", recipe)
        return self.folder / self.name / f"{tool}_{recipe}_seed{seed}_{self.count}_{digest}.npz"


def digest_of(files: Iterable[Path], *facts: object) -> str:
    """12 hex digits of what files and facts say."""
    made = hashlib.sha256(json.dumps(facts).encode())
    for file in files:
        made.update(file.read_bytes())
    return made.hexdigest()[:12]


def read_piece(path: Path) -> tuple[np.ndarray | None, Record] | None:
    """Classes [steps, images] (None if the recipe failed) and facts; None where there is no piece, or a damaged one."""
    try:
        with np.load(path) as arrays:
            classes = arrays["classes"].astype(np.int64) if "classes" in arrays.files else None
            return classes, json.loads(str(arrays["facts"]))
    except (FileNotFoundError, BadZipFile, KeyError, ValueError):
        return None


def peer_pieces(
    task: Task, python: str, recipes: Sequence[str], steps: Sequence[int], *, kept_only: bool = False
) -> tuple[list[list[Path]], Path]:
    """SpikingJelly's pieces, made where there are none: a file for each recipe and seed, and one of torch's logits."""
    digest = digest_of((WORKER, task.parameters), list(steps))
    files = [[task.piece("spikingjelly", recipe, seed, digest) for seed in range(task.seeds)] for recipe in recipes]
    ann = task.piece("torch", "ann", 0, digest)
    missing = [
        (recipe, seed, str(file))
        for recipe, row in zip(recipes, files, strict=True)
        for seed, file in enumerate(row)
        if read_piece(file) is None
    ]
    if (missing or not ann.exists()) and not kept_only:
        ann.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            images = {f"calibration_{seed}": task.calibration(seed) for seed in {seed for _, seed, _ in missing}}
            np.savez(Path(folder) / "images.npz", test=task.test, **images)  # pyright: ignore[reportArgumentType]
            request = {
                "network": task.name,
                "parameters": str(task.parameters),
                "images": str(Path(folder) / "images.npz"),
                "ann": str(ann),
                "steps": list(steps),
                "pieces": missing,
            }
            ask(python, request)
    return files, ann


def ask(python: str, request: Record) -> None:
    """Have the worker do what a request says.

    Raises:
        SystemExit: it failed; what it said is on the error stream.
    """
    done = subprocess.run(
        [python, str(WORKER)],
        input=json.dumps(request),
        stdout=sys.stderr,
        text=True,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES), "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"the worker ended with {done.returncode}")


def our_piece(
    task: Task, recipe: str, seed: int, step: int, *, kept_only: bool = False
) -> tuple[np.ndarray, Record] | None:
    """Classes [images] of a network converted for T = `step`, and spikes per neuron, from its piece if there is one.

    With `kept_only`, None if there is none.
    """
    digest = digest_of((*(NEUC / file for file in DECIDING), task.parameters), step)
    file = task.piece("neuc", f"{recipe}_T{step}", seed, digest)
    found = read_piece(file)
    if (found is None or found[0] is None) and kept_only:
        return None
    if found is None or found[0] is None:
        name, group = GROUPS.get(recipe, (recipe, 1))
        images = task.calibration(seed)
        model = neuc.convert_to_snn(
            onnx_network(task.name), images, recipe=name, group=group, steps=step, start=None, seed=seed
        )
        classes = emitted_classes(model, task.test)
        (row,) = model.sweep(task.test[:COUNTED], steps=[step]).rows
        found = classes[None], {"spikes": row.spikes_per_neuron, "start": model.start}
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        np.savez_compressed(part, classes=classes[None].astype(np.int8), facts=np.array(json.dumps(found[1])))
        part.replace(file)
        right = np.mean(classes == task.labels)
        print(f"{task.name} {recipe} T={step} seed {seed}: {right:.2%}", file=sys.stderr, flush=True)
    assert found[0] is not None
    return found[0][0], found[1]


def emitted_classes(model: SpikingModel, images: np.ndarray) -> np.ndarray:
    """Classes i64 [N] of compiled code."""
    session = model.session(threads=1)
    parts = [session.run(None, {"images": images[at : at + BATCH]})[0] for at in range(0, len(images), BATCH)]
    return np.concatenate(parts).argmax(1)
