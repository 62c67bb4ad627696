"""Accuracy of converted networks against T: neuc's recipes beside SpikingJelly's, same weights, same images.

    python benchmarks/spiking_accuracy.py fashion_cnn --peers ENV/bin/python [--images 2000]

Each network is converted from calibration images of three seeds, anew for every T, and runs as code of the target
cpu-spike. The result goes to the history that `spiking_page.py` reads. ENV is an environment with spikingjelly 2.0.0
and torch; without `--peers` only neuc is measured. How single conversions are measured, and kept, so that a run that
was stopped goes on, is in `spiking_pieces.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import numpy as np
import onnxruntime
from spiking_pieces import Task, our_piece, peer_pieces, read_piece
from spiking_records import Record, add, interval

from image_sets import IMAGE_SETS  # isort: skip
from onnx_networks import BUILDERS, onnx_network  # isort: skip

STEPS = (1, 2, 4, 8, 16, 32)
RATE_RECIPES = ("max", "99.9%", "99.9% half", "99.9% half channel", "LTB")
TRANSFORMER_RECIPES = ("STA spiking encoder",)
KEPT = Path(__file__).resolve().parent / "spiking_pieces.kept"


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


def is_transformer(network: str) -> bool:
    """Whether a network needs recipes for Transformers."""
    return network.endswith("vit")


def ann_logits(task: Task) -> np.ndarray:
    """f32 [count, 10] of the float network in onnxruntime."""
    session = onnxruntime.InferenceSession(onnx_network(task.name).SerializeToString())
    return np.asarray(session.run(None, {"images": task.test})[0])


def peer_runs(task: Task, python: str, *, kept_only: bool = False) -> tuple[Runs, np.ndarray]:
    """SpikingJelly's recipes at every T of `STEPS`: their runs, and torch's logits of the float network.

    With `kept_only` those recipes and seeds of them that are kept, from the first seed on.
    """
    recipes = TRANSFORMER_RECIPES if is_transformer(task.name) else RATE_RECIPES
    files, ann = peer_pieces(task, python, recipes, STEPS, kept_only=kept_only)
    runs = Runs()
    for recipe, row in zip(recipes, files, strict=True):
        pieces = [piece for piece in takewhile(bool, map(read_piece, row)) if piece is not None]
        if not pieces:
            continue
        runs.notes[recipe] = pieces[0][1]
        classes = [piece[0] for piece in pieces if piece[0] is not None]
        if len(classes) == len(pieces):
            right = np.stack(classes) == task.labels
            runs.right[recipe] = {step: right[:, at] for at, step in enumerate(STEPS)}
    with np.load(ann) as arrays:
        return runs, arrays["logits"]


def our_runs(task: Task, recipes: Sequence[str], steps: Sequence[int], *, kept_only: bool = False) -> Runs:
    """Neuc's recipes; with `kept_only` those of them, of T and of seeds that are kept, from the first seed on."""
    runs = Runs()
    for recipe in recipes:
        runs.right[recipe], runs.notes[recipe] = {}, {"spikes": {}, "start": {}}
        for step in steps:
            pieces: list[tuple[np.ndarray, Record]] = []
            for seed in range(task.seeds):
                piece = our_piece(task, recipe, seed, step, kept_only=kept_only)
                if piece is None:
                    break
                pieces.append(piece)
            if not pieces:
                continue
            runs.right[recipe][step] = np.stack([classes == task.labels for classes, _ in pieces])
            for fact in ("spikes", "start"):
                runs.notes[recipe][fact][step] = pieces[0][1][fact]
    return runs


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


def measure(
    task: Task, recipes: Sequence[str], python: str | None, steps: Sequence[int], *, kept_only: bool = False
) -> Record:
    """Everything about one network, for the history."""
    logits = ann_logits(task)
    ann = logits.argmax(1) == task.labels
    record: Record = {"network": task.name, "images": task.count, "ann": float(ann.mean()), "recipes": {}, "peers": {}}
    ours = our_runs(task, recipes, steps, kept_only=kept_only)
    best: Right | None = None
    if python is not None:
        peers, torch_logits = peer_runs(task, python, kept_only=kept_only)
        if not np.allclose(logits, torch_logits, atol=1e-3):
            raise SystemExit(f"{task.name}: the peer's float network gives other logits")
        best, record["best_peer"] = best_peer(peers)
        record["peers"] = {name: summary(right, ann, None) for name, right in peers.right.items()}
        record["peer_notes"] = peers.notes
    record["recipes"] = {name: summary(right, ann, best) for name, right in ours.right.items() if right}
    record["notes"] = ours.notes
    return record


def main() -> None:
    """Measure the networks named."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(BUILDERS)}; default: all")
    options.add_argument("--peers", metavar="PYTHON", help="of an environment with spikingjelly 2.0.0 and torch")
    options.add_argument("--keep", type=Path, default=KEPT, help="folder where pieces of runs are kept, and looked for")
    options.add_argument("--recipes", help="separated by commas; default: a,b,c, for Transformers b,c")
    options.add_argument("--steps", default=",".join(map(str, STEPS)), help="separated by commas")
    options.add_argument("--images", type=int, default=2_000, help="test images")
    options.add_argument("--seeds", type=int, default=3, help="choices of calibration images")
    options.add_argument("--key", default="accuracy", help="of the record; groups: for recipe a2 at the T of its goal")
    options.add_argument("--kept-only", action="store_true", help="measure nothing: make the record of what is kept")
    given = options.parse_args()
    for name in given.networks or list(BUILDERS):
        images = IMAGE_SETS[name.split("_")[0]]()
        task = Task(name, images, min(given.images, len(images.test_labels)), given.seeds, given.keep)
        recipes = (given.recipes or ("b,c" if is_transformer(name) else "a,b,c")).split(",")
        steps = [int(step) for step in given.steps.split(",")]
        add(f"{given.key}/{name}", measure(task, recipes, given.peers, steps, kept_only=given.kept_only))


if __name__ == "__main__":
    main()
