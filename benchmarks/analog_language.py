"""Perplexity of a ternary language model and its float twin on phase-change memory, as it ages and with faults.

    python benchmarks/analog_language.py [--draws 5] [--json language.json]

The models are those of `examples/analog`, the text is what they did not see of the manual that this Python carries; its
digest is printed, since manuals differ. Every matrix is on arrays, attention itself on the CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

import neuc

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "analog"))
from manual_text import manual, windows
from onnx_language_model import KINDS, language_model

LENGTH = 64
TIMES = {"1 s": 1.0, "1 h": 3600.0, "1 d": 86400.0, "30 d": 2592000.0, "1 y": 31536000.0}
STUCK = (0.001, 0.01, 0.05)
DAY = 86400.0
TARGET = "xbar-pcm{{tile=256x256,doublings=6{}}}"


@dataclass(frozen=True)
class Cell:
    """Mean perplexity of one model in one setting, and its standard deviation between draws."""

    kind: str
    setting: str
    mean: float
    std: float


def perplexity(logits: np.ndarray, targets: np.ndarray) -> float:
    """Exp of the mean cross-entropy of logits [N, S, V] at the tokens that followed [N, S]."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    surprise = np.log(np.exp(wide).sum(axis=-1)) - np.take_along_axis(wide, targets[..., None], -1)[..., 0]
    return float(np.exp(surprise.mean()))


def aged(model: onnx.ModelProto, options: str, times: list[float], draws: int) -> Iterator[list[float]]:
    """Perplexities of the draws at each time."""
    tokens, targets = windows(manual().held_out, LENGTH)
    session = neuc.compile(model, TARGET.format(options)).session(threads=1)
    assert session.analog is not None
    for time in times:
        found: list[float] = []
        for seed in range(draws):
            session.analog.set(time, seed)
            found.append(perplexity(session.run(None, {"tokens": tokens})[0], targets))
        yield found


def measure(draws: int) -> list[Cell]:
    """All settings of both models."""
    tokens, targets = windows(manual().held_out, LENGTH)
    cells: list[Cell] = []

    def add(kind: str, setting: str, found: list[float]) -> None:
        cells.append(Cell(kind, setting, float(np.mean(found)), float(np.std(found))))
        print(f"{kind:8} {setting:24} {cells[-1].mean:8.3f} ± {cells[-1].std:.3f}", flush=True)

    for kind in KINDS:
        model = language_model(kind)
        digital = neuc.compile(model, "cpu").session(threads=1).run(None, {"tokens": tokens})[0]
        add(kind, "digital", [perplexity(digital, targets)])
        for label, found in zip(TIMES, aged(model, "", list(TIMES.values()), draws)):
            add(kind, label, found)
        for rate in STUCK:
            for remap in ("no", "yes"):
                options = f",stuck_low={rate / 2:g},stuck_high={rate / 2:g},remap={remap}"
                flipped = ", remapped" if remap == "yes" else ""
                for found in aged(model, options, [DAY], draws):
                    add(kind, f"{100 * rate:g}% stuck{flipped}, 1 d", found)
    return cells


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    text = manual()
    print(f"text {text.digest}: {len(text.held_out)} characters held out")
    cells = measure(arguments.draws)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([vars(cell) for cell in cells], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
