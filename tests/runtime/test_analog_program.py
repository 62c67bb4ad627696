"""The crossbar program of an artifact: it comes back from its data, and damaged ones are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from neuc.errors import Error
from neuc.runtime.analog.drawing import AnalogState
from neuc.runtime.analog.models import make_model
from neuc.runtime.analog.photonic import PhotonicChip
from neuc.runtime.analog.program import MANIFEST_KEY, STATE, CrossbarProgram, TileEntry
from neuc.runtime.analog.tiles import Chip

TILE = TileEntry(0, "fc", 6, 5, "t.weights", "t.gains", compensation="column", adc_levels=254, adc_bound=10.0)
CHIPS = {
    "memory": Chip(make_model("reram-cmo", {"acceptance": 0.2}), stuck_low=0.1, chip=3, r_word=0.5, temperature=60.0),
    "table": Chip(make_model("table", {"targets": [0.0, 9.0], "means": [[0.0, 8.0]], "stds": [[0.1, 0.2]]})),
    "photonic": PhotonicChip("reck", loss_db=0.1, phase_bits=8),
}


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    panels = np.zeros((2, 6, 4), np.float32)
    panels[0], panels[1, :, :1] = rng.uniform(-1, 1, (6, 4)), rng.uniform(-1, 1, (6, 1))
    return {"t.weights": panels, "t.gains": np.ones(8, np.float32), STATE: np.zeros(2, np.int64)}


@pytest.mark.parametrize("chip", CHIPS)
def test_a_program_comes_back_from_its_data(chip: str) -> None:
    program = CrossbarProgram(CHIPS[chip], (TILE,), 8, 8, 1)
    assert CrossbarProgram.from_manifest({MANIFEST_KEY: program.to_json()}) == program
    assert CrossbarProgram.from_manifest({}) is None


def test_padding_stays_zero_and_runs_are_counted() -> None:
    state = AnalogState(CrossbarProgram(CHIPS["memory"], (TILE,), 8, 8, 1), arrays())
    state.set(3600.0, 5)
    held = state.arrays["t.weights"]
    assert np.abs(held[0]).min() > 0
    np.testing.assert_array_equal(held[1, :, 1:], 0)
    state.begin_run()
    assert state.arrays[STATE].tolist() == [5, 1]


def without(*path: str) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key] if not isinstance(data, list) else data[0]
        del data[path[-1]]

    return change


def with_(value: object, *path: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (with_(2, "format"), "NEUC-E645"),
        (without("tiles"), "NEUC-E645"),
        (without("chip", "stuck_low"), "NEUC-E645"),
        (with_("x", "tiles", 0, "rows"), "NEUC-E645"),
        (with_(-1, "tiles", 0, "number"), "NEUC-E645"),
        (with_([0, 8], "tile"), "NEUC-E645"),
        (with_([8], "tile"), "NEUC-E645"),
        (with_("magic", "device", "model"), "NEUC-E640"),
        (with_({"g_max": "wide"}, "device", "parameters"), "NEUC-E641"),
        (with_({"g_max": [1.0]}, "device", "parameters"), "NEUC-E641"),
        (with_({"model": "table", "parameters": {"times": [0.0, 1.0]}}, "device"), "NEUC-E641"),
        (with_(7, "chip", "stuck_low"), "NEUC-E643"),
    ],
)
def test_damaged_programs_are_refused(change: Callable[[Any], None], code: str) -> None:
    data = copy.deepcopy(CrossbarProgram(Chip(make_model("pcm")), (TILE,), 8, 8, 1).to_json())
    data["tiles"] = [dict(tile) for tile in data["tiles"]]  # type: ignore[attr-defined]
    change(data)
    with pytest.raises(Error) as caught:
        CrossbarProgram.from_manifest({MANIFEST_KEY: data})
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("t.weights", np.zeros((2, 5, 4), np.float32)),
        ("t.weights", np.zeros((1, 6, 4), np.float32)),
        ("t.weights", np.zeros(48, np.float32)),
        ("t.gains", np.zeros(5, np.float32)),
        ("t.gains", None),
    ],
)
def test_weights_that_do_not_belong_to_the_program_are_refused(name: str, array: np.ndarray | None) -> None:
    given = {key: value for key, value in {**arrays(), name: array}.items() if value is not None}
    with pytest.raises(Error) as caught:
        AnalogState(CrossbarProgram(CHIPS["memory"], (TILE,), 8, 8, 1), given)
    assert caught.value.code == "NEUC-E645"
