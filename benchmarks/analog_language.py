"""Perplexity of a ternary language model and its float twin on phase-change memory, as it ages and with faults.

    python benchmarks/analog_language.py [--draws 5] [--pieces language.jsonl] [--json language.json]

The models are those of `examples/analog`, the text is what they did not see of the manual that this Python carries; its
digest is printed, since manuals differ. Every matrix is on arrays, attention itself on the CPU. Each draw is one
programming, and with stuck devices a chip of its own. With --pieces, what was measured is kept there, one line a piece,
and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import onnx
from spiking_records import Record, add, newest

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


def aged(model: onnx.ModelProto, options: str, times: list[float], seeds: range) -> list[list[float]]:
    """Perplexities at each time, of each draw."""
    tokens, targets = windows(manual().held_out, LENGTH)
    session = neuc.compile(model, TARGET.format(options)).session(threads=1)
    assert session.analog is not None
    found: list[list[float]] = []
    for time in times:
        found.append([])
        for seed in seeds:
            session.analog.set(time, seed)
            found[-1].append(perplexity(session.run(None, {"tokens": tokens})[0], targets))
    return found


def pieces(draws: int) -> Iterator[tuple[str, str, Callable[[], Record]]]:
    """What is measured: kind of model, name of the piece, and a function that gives perplexities by setting."""
    for kind in KINDS:
        model = language_model(kind)
        yield kind, "digital", partial(_digital, model)
        yield kind, "ageing", partial(_ageing, model, draws)
        for rate, remap in product(STUCK, ("no", "yes")):
            label = f"{100 * rate:g}% stuck{', remapped' if remap == 'yes' else ''}, 1 d"
            for chip in range(draws):
                options = f",stuck_low={rate / 2:g},stuck_high={rate / 2:g},remap={remap},chip={chip}"
                yield kind, f"{label}, chip {chip}", partial(_faulty, model, label, options, chip)


def _digital(model: onnx.ModelProto) -> Record:
    tokens, targets = windows(manual().held_out, LENGTH)
    logits = neuc.compile(model, "cpu").session(threads=1).run(None, {"tokens": tokens})[0]
    return {"perplexities": {"digital": [perplexity(logits, targets)]}}


def _ageing(model: onnx.ModelProto, draws: int) -> Record:
    return {"perplexities": dict(zip(TIMES, aged(model, "", list(TIMES.values()), range(draws))))}


def _faulty(model: onnx.ModelProto, label: str, options: str, chip: int) -> Record:
    return {"perplexities": {label: aged(model, options, [DAY], range(chip, chip + 1))[0]}}


def measure(draws: int, kept: Path | None = None) -> list[Cell]:
    """All settings of both models."""
    known = {} if kept is None else newest(kept)
    found: dict[tuple[str, str], list[float]] = {}
    for kind, name, work in pieces(draws):
        key = f"{kind}, {name}, {draws} draws"
        record = known.get(key)
        if record is None:
            record = work()
            if kept is not None:
                add(key, record, kept)
            print(key, {label: f"{np.mean(v):.3f}" for label, v in record["perplexities"].items()}, flush=True)
        for setting, values in record["perplexities"].items():
            found.setdefault((kind, setting), []).extend(values)
    return [Cell(*what, float(np.mean(values)), float(np.std(values))) for what, values in found.items()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--pieces", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    text = manual()
    print(f"text {text.digest}: {len(text.held_out)} characters held out")
    cells = measure(arguments.draws, arguments.pieces)
    for cell in cells:
        print(f"{cell.kind:8} {cell.setting:24} {cell.mean:8.3f} ± {cell.std:.3f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([vars(cell) for cell in cells], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
