"""Real networks as spiking ones: how far outputs are from the float network's, against T.

    python benchmarks/spiking_models.py [speech] [efficientnet_lite0] [--recipes b] [--steps 8,16]

Nothing says what is right for these inputs, so outputs are compared with those of the float network. A network is
converted anew for each T and runs as code of the target cpu-spike. Each recipe and T is a record of its own in the
history that `spiking_page.py` reads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
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
TEST = 16
COUNTED = 4
"""Inputs whose spikes are counted, in numpy."""


@dataclass(frozen=True)
class RealModel:
    """A network with inputs.

    Attributes:
        load: the model, and f32 inputs [calibration + TEST, …].
        calibration: how many inputs to calibrate with; the rest is the test.
        inputs: what they are.
        classes: whether the largest output means anything.
        options: of `convert_to_snn`, for recipes of graded spikes.
    """

    load: Callable[[], tuple[object, np.ndarray]]
    calibration: int
    inputs: str
    classes: bool
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


VOICES, CROPS = 8, 24
"""Calibration inputs."""
SIDE = 64
"""Of images, in pixels."""


def speech() -> tuple[object, np.ndarray]:
    """The speech-quality CNN, and features of synthetic voices in noise of different loudness."""
    from inputs import log_mel, spoken_sound
    from models import speech as path

    features = []
    for seed in range(VOICES + TEST):
        rng = np.random.default_rng(seed)
        sound = spoken_sound(seed=seed)
        noise = 10 ** rng.uniform(-4, -0.5) * rng.standard_normal(len(sound))
        features.append(log_mel((sound + noise).astype(np.float32))[0])
    return path(), np.stack(features)


def efficientnet() -> tuple[object, np.ndarray]:
    """EfficientNet-Lite0 at `SIDE` pixels, and crops of photographs; those of one are in the test alone."""
    from efficientnet import crops, efficientnet_lite0

    unseen = TEST // 2
    seen = crops(SIDE, CROPS + TEST - unseen)
    return efficientnet_lite0(SIDE), np.concatenate([seen, crops(SIDE, unseen, portrait=True)])


MODELS = {
    "speech": RealModel(speech, VOICES, "synthetic voices in noise", classes=False),
    # So few inputs say too little about weights, and 50 layers in a row need thresholds with room to move.
    "efficientnet_lite0": RealModel(
        efficientnet,
        CROPS,
        f"crops of photographs, half of them of one that calibration did not see, {SIDE} pixels",
        classes=True,
        options={"levels": 7, "refit": False},
    ),
}


def measure(name: str, recipe: str, step: int) -> Record:
    """Errors of one network for one recipe and T."""
    model = MODELS[name]
    source, inputs = model.load()
    calibration, test = inputs[: model.calibration], inputs[model.calibration :]
    options = model.options if recipe != "a" else {}
    said = recipe if "levels" not in options else f"{recipe}, {options['levels']} levels"
    about = {"model": name, "inputs": f"{TEST} {model.inputs}", "calibration": model.calibration}
    about |= {"recipe": said, "T": step}
    try:
        snn = neuc.convert_to_snn(source, calibration, recipe=recipe, steps=step, **options)
    except Error as error:
        return {**about, "refused": error.message}
    exact = snn.run_float(test)[0].reshape(TEST, -1).astype(np.float64)
    found = np.asarray(snn.session(threads=1).run(None, snn.feeds(test))[0]).reshape(TEST, -1).astype(np.float64)
    activity = Activity()
    snn.run_over_time(test[:COUNTED], step, activity)
    neurons = sum(layer.neurons for layer in activity.layers)
    return {
        **about,
        "error": float(np.linalg.norm(found - exact) / np.linalg.norm(exact)),
        "correlation": float(np.corrcoef(found.reshape(-1), exact.reshape(-1))[0, 1]),
        "agreement": float(np.mean(found.argmax(1) == exact.argmax(1))) if model.classes else None,
        "spikes": sum(sum(layer.spikes) for layer in activity.layers) / neurons / COUNTED,
    }


def main() -> None:
    """Measure the networks named."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}; default: all")
    options.add_argument("--recipes", default=",".join(RECIPES), help="separated by commas")
    options.add_argument("--steps", default=",".join(map(str, STEPS)), help="separated by commas")
    given = options.parse_args()
    for name in given.names or list(MODELS):
        for recipe in given.recipes.split(","):
            for step in map(int, given.steps.split(",")):
                record = measure(name, recipe, step)
                add(f"models/{name}/{recipe}/{step}", record)
                print(record, file=sys.stderr, flush=True)
                if "refused" in record:
                    break


if __name__ == "__main__":
    main()
