"""Real networks as spiking ones: how far outputs are from the float network's, against T.

    python benchmarks/spiking_models.py [speech] [efficientnet_lite0] [--recipes b]

Nothing says what is right for these inputs, so outputs are compared with those of the float network. A network is
converted anew for each T. The result goes to the history that `spiking_page.py` reads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from spiking_records import Record, add

import neuc
from neuc.compiler.snn.simulate import Activity
from neuc.errors import Error

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path += [str(EXAMPLES), str(EXAMPLES / "spiking")]

RECIPES = ("b", "a", "c")
STEPS = (1, 2, 4, 8, 16, 32)
CALIBRATION, TEST = 8, 16


@dataclass(frozen=True)
class RealModel:
    """A network with inputs.

    Attributes:
        load: the model, and f32 inputs [CALIBRATION + TEST, …].
        inputs: what they are.
        classes: whether the largest output means anything.
        options: of `convert_to_snn`, for recipes of graded spikes.
    """

    load: Callable[[], tuple[object, np.ndarray]]
    inputs: str
    classes: bool
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


def speech() -> tuple[object, np.ndarray]:
    """The speech-quality CNN, and features of synthetic voices in noise of different loudness."""
    from inputs import log_mel, spoken_sound
    from models import speech as path

    features = []
    for seed in range(CALIBRATION + TEST):
        rng = np.random.default_rng(seed)
        sound = spoken_sound(seed=seed)
        noise = 10 ** rng.uniform(-4, -0.5) * rng.standard_normal(len(sound))
        features.append(log_mel((sound + noise).astype(np.float32))[0])
    return path(), np.stack(features)


def efficientnet() -> tuple[object, np.ndarray]:
    """EfficientNet-Lite0 at `SIDE` pixels, and crops of photographs; those of one are in the test alone."""
    from efficientnet import crops, efficientnet_lite0

    unseen = TEST // 2
    seen = crops(SIDE, CALIBRATION + TEST - unseen)
    return efficientnet_lite0(SIDE), np.concatenate([seen, crops(SIDE, unseen, portrait=True)])


SIDE = 64
MODELS = {
    "speech": RealModel(speech, "synthetic voices in noise", classes=False),
    # So few inputs say too little about weights, and 50 layers in a row need thresholds with room to move.
    "efficientnet_lite0": RealModel(
        efficientnet,
        f"crops of photographs, half of them of one that calibration did not see, {SIDE} pixels",
        classes=True,
        options={"levels": 7, "refit": False},
    ),
}


def measure(name: str, recipes: Sequence[str], steps: Sequence[int]) -> Record:
    """Errors of one network for each recipe and T."""
    model = MODELS[name]
    source, inputs = model.load()
    calibration, test = inputs[:CALIBRATION], inputs[CALIBRATION:]
    rows: list[Record] = []
    for recipe in recipes:
        options = model.options if recipe != "a" else {}
        said = recipe if "levels" not in options else f"{recipe}, {options['levels']} levels"
        for step in steps:
            try:
                snn = neuc.convert_to_snn(source, calibration, recipe=recipe, steps=step, **options)
            except Error as error:
                rows.append({"recipe": said, "T": step, "refused": error.message})
                break
            exact = snn.run_float(test)[0].reshape(TEST, -1).astype(np.float64)
            activity = Activity()
            found = snn.run_over_time(test, step, activity)[0][-1].reshape(TEST, -1).astype(np.float64)
            neurons = sum(layer.neurons for layer in activity.layers)
            rows.append({
                "recipe": said,
                "T": step,
                "error": float(np.linalg.norm(found - exact) / np.linalg.norm(exact)),
                "correlation": float(np.corrcoef(found.reshape(-1), exact.reshape(-1))[0, 1]),
                "agreement": float(np.mean(found.argmax(1) == exact.argmax(1))) if model.classes else None,
                "spikes": sum(sum(layer.spikes) for layer in activity.layers) / neurons / TEST,
            })  # fmt: skip
            print(name, rows[-1], file=sys.stderr, flush=True)
    return {"model": name, "inputs": f"{TEST} {model.inputs}", "rows": rows}


def main() -> None:
    """Measure the networks named."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}; default: all")
    options.add_argument("--recipes", default=",".join(RECIPES), help="separated by commas")
    options.add_argument("--steps", default=",".join(map(str, STEPS)), help="separated by commas")
    given = options.parse_args()
    for name in given.names or list(MODELS):
        add(f"models/{name}", measure(name, given.recipes.split(","), [int(t) for t in given.steps.split(",")]))


if __name__ == "__main__":
    main()
