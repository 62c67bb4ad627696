"""Real models on simulated phase-change memory: tiles, use of arrays, agreement with the float model, time to simulate.

    python benchmarks/analog_models.py [--models minilm,mobilenet] [--json models.json]

The models are those of `examples/models.py` (fetched with pip). MiniLM reads sentences of the Python manual, the
MobileNetV3 classifier made-up images.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import neuc
from neuc.runtime.analog.program import CrossbarProgram

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
TARGET = "xbar-pcm{tile=256x256,adc_bits=8}"
DAY = 86400.0
SENTENCES, IMAGES, DRAWS = 32, 8, 3

Agreement = Callable[[np.ndarray, list[np.ndarray]], str]


@dataclass(frozen=True)
class Found:
    """One model.

    Attributes:
        model: its name.
        tiles, arrays: how many.
        used: share of the arrays' devices that hold weights.
        mapped: which layers stay on the CPU.
        agreement: text: how outputs after a day compare with the float model's.
        milliseconds: CPU time to simulate one inference of one sample.
    """

    model: str
    tiles: int
    arrays: int
    used: float
    mapped: str
    agreement: str
    milliseconds: float


def minilm() -> Found:
    """Cosine between embeddings of the analog and of the float model."""
    from inputs import sentences, tokenize
    from models import minilm as fetch
    from models import minilm_tokenizer

    path = fetch()
    feeds = tokenize(sentences(SENTENCES), minilm_tokenizer())

    def agreement(wanted: np.ndarray, found: list[np.ndarray]) -> str:
        cosines = [float(np.mean(np.sum(wanted * each, axis=1))) for each in found]
        return f"mean cosine {np.mean(cosines):.4f} of {SENTENCES} sentences, {len(found)} draws"

    return measure("MiniLM-L6", path, feeds, SENTENCES, agreement)


def mobilenet() -> Found:
    """Which class wins, and how far probabilities are apart."""
    from models import classifier as fetch

    path = fetch()
    feeds = {"x": np.random.default_rng(0).standard_normal((IMAGES, 3, 48, 192)).astype(np.float32)}

    def agreement(wanted: np.ndarray, found: list[np.ndarray]) -> str:
        same = np.mean([np.mean(each.argmax(axis=1) == wanted.argmax(axis=1)) for each in found])
        distance = np.mean([np.abs(each - wanted).max(axis=1).mean() for each in found])
        return f"same class {same:.0%}, probabilities {distance:.3f} apart, {IMAGES} noise images, {len(found)} draws"

    return measure("MobileNetV3 (text angle)", path, feeds, IMAGES, agreement)


def measure(name: str, path: Path, feeds: Mapping[str, np.ndarray], samples: int, agreement: Agreement) -> Found:
    """Compile for CPU and crossbars, run both on `feeds`."""
    plain = neuc.compile(path, "cpu").session()
    feeds = dict(zip([i.name for i in plain.get_inputs()], feeds.values()))
    wanted = plain.run(None, feeds)[0]
    compiled = neuc.compile(path, TARGET)
    session = compiled.session(threads=1)
    program = CrossbarProgram.from_manifest(compiled.built().facts)
    assert session.analog is not None
    assert program is not None
    found: list[np.ndarray] = []
    for seed in range(DRAWS):
        session.analog.set(DAY, seed)
        found.append(session.run(None, feeds)[0])
    start = time.process_time()
    session.run(None, feeds)
    seconds = time.process_time() - start
    held = sum(tile.rows * tile.columns for tile in program.tiles)
    used = held / (program.cores * program.tile_rows * program.tile_columns)
    notes = [note for note in compiled.report.hints if "on the CPU" in note]
    return Found(
        name,
        len(program.tiles),
        program.cores,
        used,
        "; ".join(notes) or "all layers with constant weights",
        agreement(wanted, found),
        1000 * seconds / samples,
    )


MODELS = {"minilm": minilm, "mobilenet": mobilenet}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [MODELS[name]() for name in arguments.models.split(",")]
    for row in rows:
        print(json.dumps(vars(row), indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([vars(row) for row in rows], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
