"""Devices that learn by pulses: steps, bounds, symmetric points, means of updates, aihwkit's weights after the same."""

from __future__ import annotations

import numpy as np
import pytest

import pulsed_golden
from neuc.errors import Error
from neuc.runtime.analog.pulsed_devices import PULSED_DEVICES, PulsedArray, PulsedDevice, pulsed_device
from neuc.runtime.analog.pulsed_update import PulsedSgd, PulseTrains, TikiTaka, TikiTaka2

SPREADS = ("step_dtod", "up_down_dtod", "bounds_dtod", "slope_dtod")
SIGMAS = 5.0
"""Of a standard error; with a few thousand comparisons none is beyond by chance."""


def alike(kind: str | PulsedDevice, **changes: float) -> PulsedDevice:
    """Devices without spread from one to the next."""
    return pulsed_device(kind, **{**dict.fromkeys(SPREADS, 0.0), **changes})


def array(device: PulsedDevice, size: int = 4000) -> PulsedArray:
    return PulsedArray(device, (1, size), np.random.default_rng(0))


@pytest.mark.parametrize("name", PULSED_DEVICES)
@pytest.mark.parametrize("start", [-0.4, 0.0, 0.3])
def test_one_pulse_is_the_equations_step(name: str, start: float) -> None:
    device = alike(name)
    for sign in (1, -1):
        made = array(device)
        made.write(np.full((1, 4000), start))
        made.pulse(np.full((1, 4000), sign))
        slope = device.slope_up / device.w_max if sign > 0 else device.slope_down / device.w_min
        mean = device.step * (1 - slope * start)
        std = device.step_noise * (mean if device.multiplicative else device.step)
        moved = sign * (made.weights - start)
        assert abs(moved.mean() - mean) < SIGMAS * std / np.sqrt(4000)
        assert moved.std() == pytest.approx(std, rel=SIGMAS / np.sqrt(2 * 4000))


def test_soft_bounds_are_approached_exponentially() -> None:
    device = alike("soft-bounds", step=0.01, step_noise=0.0)
    made = array(device, 3)
    counts = np.array([[1, 40, -25]])
    made.pulse(counts)
    ratio = 0.01 / 0.6
    expected = 0.6 * (1 - (1 - ratio) ** np.abs(counts)) * np.sign(counts)
    np.testing.assert_allclose(made.weights, expected, rtol=1e-12)
    made.pulse(np.full((1, 3), 10_000))
    np.testing.assert_allclose(made.weights, 0.6, atol=1e-12)


def test_constant_steps_end_at_hard_bounds() -> None:
    made = array(alike("constant", step=0.05), 50)
    made.pulse(np.full((1, 50), 40))
    assert (made.weights <= 0.6).all()
    made.pulse(np.full((1, 50), -80))
    assert (made.weights >= -0.6).all()


def test_alternating_pulses_end_at_the_symmetric_point() -> None:
    device = pulsed_device("soft-bounds", step=0.01, step_noise=0.0, up_down=0.2)
    made = array(device, 300)
    made.write(np.full((1, 300), 0.5))
    ones = np.ones((1, 300), np.int64)
    for _ in range(2000):
        made.pulse(ones)
        made.pulse(-ones)
    up, down = made.steps(made.symmetric_point())
    np.testing.assert_allclose(up, down, rtol=1e-9)
    # A pulse up and one down: within a step of the point.
    assert np.abs(made.weights - made.symmetric_point()).max() < 2 * made.step_up.max()
    assert made.symmetric_point().mean() > 0.02  # smaller down steps: it lies above 0


@pytest.mark.parametrize("managed", [True, False])
def test_the_mean_of_an_update_is_the_gradients(managed: bool) -> None:
    rng = np.random.default_rng(1)
    x, d = rng.uniform(-1, 1, 7), rng.uniform(-0.05, 0.05, 5)
    draws, step, rate = 4000, 0.001, 0.03  # no line fires with more than certainty
    trains = PulseTrains(managed=managed)
    counts = np.array([trains.counts(x, d, rate, step, rng) for _ in range(draws)])
    wanted = -rate * np.outer(d, x) / step
    error = np.abs(counts.mean(axis=0) - wanted)
    assert (error < SIGMAS * counts.std(axis=0) / np.sqrt(draws) + 1e-9).all()
    longest = np.ceil(rate * np.abs(x).max() * np.abs(d).max() / step) if managed else 31
    assert np.abs(counts).max() <= longest


def test_nothing_is_learnt_from_nothing() -> None:
    counts = PulseTrains().counts(np.zeros(3), np.ones(2), 0.1, 0.001, np.random.default_rng(0))
    np.testing.assert_array_equal(counts, np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("soft-bounds", alike("soft-bounds", step=0.01, w_min=-0.6, w_max=0.8)),
        (
            "linear",
            PulsedDevice("", 0.01, 0.0, 0.3, 0.2, 0.0, -0.6, 0.8, 0.0, 0.3, 0.6, 0.0, False),
        ),
    ],
)
def test_weights_after_ten_updates_are_those_of_aihwkit(name: str, device: PulsedDevice) -> None:
    theirs = pulsed_golden.aihwkit_weights(name)
    lines, rng = theirs.shape[1], np.random.default_rng(3)
    x, d = np.linspace(0.2, 1, lines), np.linspace(-1, 1, lines)
    rows: list[np.ndarray] = []
    for _ in range(len(theirs)):
        rule = PulsedSgd(device, np.full((lines, lines), 0.1), rng, PulseTrains())
        for _ in range(10):
            rule.update(x[None], d[None], 0.05)
        rows.append(rule.weights.copy())
    pulsed_golden.assert_same_up_to_chance(np.stack(rows), theirs)


def test_the_fast_array_rests_at_its_symmetric_point_and_columns_take_turns() -> None:
    rng = np.random.default_rng(0)
    device = pulsed_device("soft-bounds", step=0.01, up_down=0.1)
    rule = TikiTaka(device, np.zeros((3, 4)), rng, PulseTrains())
    np.testing.assert_array_equal(rule.fast.weights, rule.reference)
    rule.fast.weights = rule.reference + 0.2
    rule.update(np.zeros((1, 4)), np.zeros((1, 3)), 1.0)  # no gradient: column 0 alone is transferred
    assert (rule.weights[:, 0] > 0.1).all()
    np.testing.assert_array_equal(rule.weights[:, 1:], 0)


def test_the_buffer_sends_a_pulse_once_a_step_has_gathered() -> None:
    device = alike("constant", step=0.01, step_noise=0.0)
    rule = TikiTaka2(device, np.zeros((1, 1)), np.random.default_rng(0), PulseTrains())
    rule.fast.weights = np.full((1, 1), 0.04)
    found: list[float] = []
    for _ in range(6):
        rule.update(np.zeros((1, 1)), np.zeros((1, 1)), 0.1)  # 0.004 gathers each time
        found.append(float(rule.weights[0, 0]))
    np.testing.assert_allclose(found, [0, 0, 0.01, 0.01, 0.02, 0.02], atol=1e-12)


@pytest.mark.parametrize(
    "changes", [{"step": 0.0}, {"w_min": 0.1}, {"up_down": 1.0}, {"step_noise": -1.0}, {"w_max": np.nan}, {"sprung": 1}]
)
def test_devices_that_make_no_sense(changes: dict[str, float]) -> None:
    with pytest.raises(Error) as caught:
        pulsed_device("soft-bounds", **changes)
    assert caught.value.code == "NEUC-E662"
    with pytest.raises(Error, match="unknown"):
        pulsed_device("softbounds")
    with pytest.raises(Error, match="slots"):
        PulseTrains(0)
