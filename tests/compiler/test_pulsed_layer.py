"""Generated pulsed updates: what numpy's rules do where nothing is chance, and aihwkit's weights where all is."""

from __future__ import annotations

import numpy as np
import pytest

import pulsed_golden
from kernel_harness import runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.compiler.analog.pulsed_layer import PulsedLayer
from neuc.runtime.analog.pulsed_devices import PulsedDevice, pulsed_device
from neuc.runtime.analog.pulsed_update import RULES, PulsedSgd, PulseTrains

SAME = 2e-5
"""Of weights below 1 after some hundred steps in f32."""
SPREADS = ("step_dtod", "up_down_dtod", "bounds_dtod", "slope_dtod")


def cases() -> list[tuple[str, str, Isa]]:
    """Everything on the widest instruction set, on the others what has the most in it."""
    widest, *others = runnable_isas()
    every = [(rule, device, widest) for rule in RULES for device in ("soft-bounds", "ecram")]
    return [*every, *(("tiki-taka", "soft-bounds", isa) for isa in others)]


@pytest.mark.parametrize(
    ("rule", "device", "isa"), cases(), ids=lambda case: case.name if isinstance(case, Isa) else case
)
def test_certain_pulses_are_those_of_the_equations(rule: str, device: str, isa: Isa) -> None:
    """At a rate at which every line fires in every slot; sizes fill no vectors."""
    rng = np.random.default_rng(0)
    kind, trains = pulsed_device(device, step=0.01, step_noise=0.0), PulseTrains(length=5, managed=False)
    made = RULES[rule](kind, rng.uniform(-0.3, 0.3, (19, 7)), rng, trains)
    if rule != "sgd":
        made.fast.weights = np.clip(made.reference + 0.1, made.fast.w_min, made.fast.w_max)  # type: ignore[attr-defined]
    layer = PulsedLayer(made, 0, isa)
    np.testing.assert_allclose(layer.weights, made.weights, atol=SAME)
    rate = 0.3 if rule == "tiki-taka-2" else 1e9
    for _ in range(3):
        x, d = rng.uniform(-1, 1, (4, 7)), rng.uniform(-1, 1, (4, 19))
        x[:, 2], d[:, 5] = 0, 0
        if rule == "tiki-taka-2":  # the buffer alone: pulses of the fast array would be left to chance
            x[...] = 0
        made.update(x, d, rate)
        layer.update(x, d, rate)
        np.testing.assert_allclose(layer.weights, made.weights, atol=SAME)
    assert np.abs(layer.weights).max() > 0.1


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("soft-bounds", pulsed_device("soft-bounds", step=0.01, w_max=0.8, **dict.fromkeys(SPREADS, 0.0))),
        ("linear", PulsedDevice("", 0.01, 0.0, 0.3, 0.2, 0.0, -0.6, 0.8, 0.0, 0.3, 0.6, 0.0, False)),
    ],
)
def test_weights_after_ten_updates_are_those_of_aihwkit(name: str, device: PulsedDevice) -> None:
    theirs = pulsed_golden.aihwkit_weights(name)
    lines, rng = theirs.shape[1], np.random.default_rng(3)
    x, d = np.tile(np.linspace(0.2, 1, lines), (10, 1)), np.tile(np.linspace(-1, 1, lines), (10, 1))
    rows: list[np.ndarray] = []
    for seed in range(len(theirs)):
        layer = PulsedLayer(PulsedSgd(device, np.full((lines, lines), 0.1), rng, PulseTrains()), seed)
        layer.update(x, d, 0.05)
        rows.append(layer.weights.copy())
    pulsed_golden.assert_same_up_to_chance(np.stack(rows), theirs)


def test_learning_in_pieces_draws_what_learning_at_once_draws() -> None:
    """Random numbers belong to a sample's number, whatever batch it is in; another seed draws others."""
    rng = np.random.default_rng(1)
    x, d = rng.uniform(-1, 1, (6, 20)), rng.uniform(-0.1, 0.1, (6, 9))

    def learnt(seed: int, *cuts: int) -> np.ndarray:
        rule = RULES["tiki-taka"](
            pulsed_device("soft-bounds"), np.zeros((9, 20)), np.random.default_rng(2), PulseTrains()
        )
        layer = PulsedLayer(rule, seed)
        for xs, ds in zip(np.split(x, cuts), np.split(d, cuts), strict=True):
            layer.update(xs, ds, 0.1)
        return layer.weights

    np.testing.assert_array_equal(learnt(5, 2, 3), learnt(5))
    assert not np.array_equal(learnt(5), learnt(6))
    assert not np.array_equal(learnt(5), learnt(5 + 2**40))
