"""Device models against their published formulas, written here a second time, over many draws; trajectories; tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neuc.errors import Error
from neuc.runtime.analog import aihwkit_order
from neuc.runtime.analog.devices_pcm import NandakumarPcm
from neuc.runtime.analog.models import make_model, model_names
from neuc.runtime.analog.tiles import Chip

DRAWS = 80_000
WITHIN = 0.01
"""Of a standard deviation, DRAWS give 0.25 %."""
TIMES = {"0": 0.0, "1 h": 3600.0, "1 d": 86400.0, "30 d": 2592000.0, "1 y": 31536000.0}
LEVELS = (0.4, 0.6, 0.8, 1.0)
"""Targets relative to g_max, far enough from 0 that nothing is cut off."""


def poly(*coefficients: float) -> Callable[[float], float]:
    return lambda r: sum(c * r**n for n, c in enumerate(coefficients))


def within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


PCM_FORMULAS = {
    "pcm": (
        poly(0.26348, 1.9650, -1.1731),
        lambda r: within(-0.0155 * np.log(r) + 0.0244, 0.049, 0.1),
        lambda r: within(-0.0125 * np.log(r) - 0.0059, 0.008, 0.045),
        lambda r: min(0.0088 / r**0.65, 0.2),
        (25.0, 20.0, 250e-9),
    ),
    "hermes1": (
        poly(0.15781817, 2.32443916, -2.16310839, 0.68841818),
        lambda r: -0.0436 * r * r - 0.0126 * r + 0.0736,
        lambda r: (
            within(-0.0120 * np.log(r) - 0.0023, 0.0124, 0.04) if r < 0.3039 else -0.0165 * r * r + 0.0116 * r + 0.0104
        ),
        poly(0.0088, 0.0768, -0.1352, 0.0664),
        (10.35, 200.0, 512e-9),
    ),
    "hermes2": (
        poly(0.16603222, 4.71806468, -8.48101252, 4.68961419),
        lambda r: -0.0436 * r * r - 0.0126 * r + 0.0736,
        lambda r: (
            within(-0.0117 * np.log(r) - 0.0057, 0.0091, 0.04) if r < 0.3055 else -0.0118 * r * r + 0.0093 * r + 0.0073
        ),
        poly(0.0123, 0.0211, -0.028, 0.0069),
        (20.7, 300.0, 512e-9),
    ),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", PCM_FORMULAS)
def test_pcm_keeps_to_its_formulas(name: str, level: float) -> None:
    std, nu_mean, nu_std, read, (g_max, t0, t_read) = PCM_FORMULAS[name]
    model = make_model(name)
    assert model.g_max == g_max
    rng = np.random.default_rng(5)
    devices = model.program(np.full(DRAWS, level * g_max), rng)
    assert devices.programmed.mean() == pytest.approx(level * g_max, rel=WITHIN)
    assert devices.programmed.std() == pytest.approx(std(level), rel=WITHIN)
    for seconds in TIMES.values():
        g = model.conductance(devices, seconds)
        if seconds:
            exponents = -np.log(g / devices.programmed) / np.log((seconds + t0) / t0)
            assert exponents.mean() == pytest.approx(nu_mean(level), rel=WITHIN)
            assert exponents.std() == pytest.approx(nu_std(level), rel=WITHIN)
        growth = np.sqrt(np.log((seconds + t0 + t_read) / (2 * t_read)))
        noise = (model.read(devices, seconds, rng) - g) / g
        # Q depends on what was programmed, which spreads around the level: the mean of squares over that spread.
        programmed = rng.normal(level * g_max, std(level), DRAWS) / g_max
        q = np.sqrt(np.mean([read(r) ** 2 for r in programmed[:4000]]))
        assert noise.std() == pytest.approx(q * growth, rel=WITHIN)


def test_joshi_keeps_to_its_formula() -> None:
    model = make_model("joshi")
    for g in (5.0, 12.0, 25.0):
        devices = model.program(np.full(DRAWS, g), np.random.default_rng(1))
        assert devices.programmed.std() == pytest.approx(-0.00178767 * g * g + 0.07585724 * g + 0.28638599, rel=WITHIN)
        np.testing.assert_array_equal(model.conductance(devices, 1e6), devices.programmed)


WAN = {
    1.0: poly(0.348, 16.03, -43.853, 45.393, -16.815),
    86400.0: poly(0.701, 22.086, -50.773, 47.095, -16.458),
    172800.0: poly(0.782, 20.274, -43.507, 37.062, -11.934),
}


@pytest.mark.parametrize("level", LEVELS)
def test_reram_spreads_as_measured_and_is_held_outside(level: float) -> None:
    model = make_model("reram")
    devices = model.program(np.full(DRAWS, level * 40.0), np.random.default_rng(2))
    for seconds, std in ((0.0, WAN[1.0]), *WAN.items(), (31536000.0, WAN[172800.0])):
        g = model.conductance(devices, seconds)
        assert g.mean() == pytest.approx(level * 40.0, rel=WITHIN)
        assert g.std() == pytest.approx(std(level), rel=WITHIN)
    hour = model.conductance(devices, 3600.0).std()
    share = np.log(3600) / np.log(86400)
    assert hour == pytest.approx((1 - share) * WAN[1.0](level) + share * WAN[86400.0](level), rel=WITHIN)


@pytest.mark.parametrize("level", [20.0, 50.0, 80.0])
def test_cmo_relaxes_with_the_logarithm_of_time(level: float) -> None:
    for acceptance, base, slope in ((2.0, 0.0112185391, 0.01129027418), (0.2, 0.00081107, 0.00106879)):
        model = make_model("reram-cmo", {"acceptance": acceptance})
        rng = np.random.default_rng(3)
        devices = model.program(np.full(DRAWS, level), rng)
        programmed = base + slope * level
        assert devices.programmed.std() == pytest.approx(programmed, rel=WITHIN)
        for seconds in (3600.0, 86400.0, 2592000.0, 31536000.0):
            log = np.log(seconds)
            spread = 0.04201137 * log + 0.41183342
            g = model.conductance(devices, seconds)
            assert g.mean() == pytest.approx(level - 0.08900206 * log, rel=WITHIN)
            assert g.std() == pytest.approx(np.hypot(programmed, spread), rel=WITHIN)
            noise = model.read(devices, seconds, rng) - g
            growth = np.sqrt(np.log((seconds + 1e-6) / 2e-6))
            assert noise.std() == pytest.approx(0.0277316483 * np.log10(g.mean()) * growth, rel=WITHIN)


@pytest.mark.parametrize("level", [4.0, 10.0, 16.0])
def test_sonos_spreads_and_drifts_as_tabulated(level: float) -> None:
    model = make_model("sonos")
    rng = np.random.default_rng(4)
    devices = model.program(np.full(DRAWS, level), rng)
    current = 100 * level
    assert 100 * devices.programmed.std() == pytest.approx(19.88665 * (1 - np.exp(-current / 176.3115)), rel=WITHIN)
    day = (0.68365, 6.5125e-3, -4.03163e-4, 3.37944e-6, -1.87435e-8, 5.88902e-11)
    day += (-1.07685e-13, 1.17751e-16, -7.60016e-20, 2.67255e-23, -3.94954e-27)
    mean = current + poly(*day)(current)
    g = 100 * model.conductance(devices, 86400.0)
    assert g.mean() == pytest.approx(mean, rel=WITHIN)
    assert g.std() == pytest.approx(25.59102 * (1 - np.exp(-mean / 186.85544)), rel=WITHIN)
    noise = 100 * model.read(devices, 0.0, rng) - 100 * devices.programmed
    assert noise.std() == pytest.approx(12.58037 * (1 - np.exp(-current / 215.36557)), rel=WITHIN)


def test_a_device_has_one_trajectory() -> None:
    """Reads at different times differ by drift and read noise, not by another programming."""
    for name in model_names():
        model = make_model(name)
        target = np.full(1000, 0.7 * model.g_max)
        devices = model.program(target, np.random.default_rng(0))
        first, second = model.conductance(devices, 3600.0), model.conductance(devices, 86400.0)
        if first.std():
            assert np.corrcoef(first, second)[0, 1] > 0.9
        np.testing.assert_array_equal(first, model.conductance(devices, 3600.0))


SAMPLES_WITHIN = 0.03
"""Of aihwkit's means and deviations: 200,000 samples give its deviations within 0.5 %."""


@pytest.mark.parametrize("name", ["pcm", "hermes1", "hermes2", "reram"])
def test_conductances_are_distributed_as_aihwkit_samples_them(name: str) -> None:
    with np.load(Path(__file__).parents[1] / "data" / "analog" / "aihwkit_devices.npz") as golden:
        moments, targets, times = golden[name], golden[f"{name} targets"], golden[f"{name} times"]
    model = make_model(name)
    for target, rows in zip(targets, moments, strict=True):
        rng = np.random.default_rng(9)
        devices = model.program(np.full(DRAWS, target), rng)
        for seconds, (mean, std) in zip(times, rows, strict=True):
            g = model.read(devices, float(seconds), rng)
            assert g.mean() == pytest.approx(mean, rel=SAMPLES_WITHIN), (target, seconds)
            assert g.std() == pytest.approx(std, rel=SAMPLES_WITHIN), (target, seconds)


TABLE = {
    "gaussian": (0.1175, 0.1325, 0.1494, 0.1717, 0.1896),
    "uniform": (0.0800, 0.0941, 0.1104, 0.1313, 0.1478),
    "ternary": (0.0572, 0.0732, 0.0914, 0.1139, 0.1314),
}
"""Relative weight error after the best global rescale at TIMES, of an independent program in numpy."""
AIHWKIT_TABLE = {
    "gaussian": (0.120, 0.136, 0.153, 0.174, 0.193),
    "uniform": (0.083, 0.097, 0.113, 0.134, 0.151),
    "ternary": (0.060, 0.076, 0.094, 0.116, 0.133),
}
"""The same, sampled from aihwkit 1.2."""
TABLE_WITHIN = 0.03


def sample_weights(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    size = (300, 300)
    match kind:
        case "gaussian":
            return np.clip(rng.standard_normal(size) * 0.3, -1, 1)
        case "uniform":
            return rng.random(size) * 2 - 1
        case _:
            return rng.integers(-1, 2, size).astype(float)


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    best = (found * wanted).sum() / (found * found).sum()
    return float(np.linalg.norm(best * found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("kind", TABLE)
def test_weight_error_through_a_year(kind: str) -> None:
    weights = sample_weights(kind)
    tile = Chip(make_model("pcm")).program(weights, 0, 1)
    for seconds, expected in zip(TIMES.values(), TABLE[kind]):
        assert relative_error(tile.weights(seconds), weights) == pytest.approx(expected, rel=TABLE_WITHIN)


@pytest.mark.parametrize("kind", AIHWKIT_TABLE)
def test_aihwkits_way_through_time(kind: str) -> None:
    weights, rng, device = sample_weights(kind), np.random.default_rng(1), NandakumarPcm()
    programmed, exponents = aihwkit_order.programmed_weights(weights, device, rng)
    for seconds, expected in zip(TIMES.values(), AIHWKIT_TABLE[kind]):
        found = aihwkit_order.drifted_weights(programmed, exponents, device, seconds, rng)
        assert relative_error(found, weights) == pytest.approx(expected, rel=TABLE_WITHIN)


def test_seeds_and_tiles_are_independent_and_repeatable() -> None:
    chip, weights = Chip(make_model("pcm")), np.full((20, 20), 0.5)
    first = chip.program(weights, 3, 7).weights(3600.0)
    np.testing.assert_array_equal(first, chip.program(weights, 3, 7).weights(3600.0))
    for tile, seed in ((4, 7), (3, 8)):
        other = chip.program(weights, tile, seed).weights(3600.0)
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.2


def test_stuck_devices_stay_where_they_are_whatever_is_programmed() -> None:
    chip = Chip(make_model("pcm"), stuck_low=0.1, stuck_high=0.05, chip=11)
    plus = [chip.program(np.full((200, 200), 0.5), 0, seed).conductances(0.0)[0] for seed in (1, 2)]
    low = [g == 0.0 for g in plus]
    high = [g == 25.0 for g in plus]
    np.testing.assert_array_equal(high[0], high[1])
    assert high[0].mean() == pytest.approx(0.05, rel=0.1)
    assert low[0].mean() == pytest.approx(0.1, rel=0.1)


def test_program_and_verify_brings_devices_nearer() -> None:
    weights = np.full((100, 100), 0.5)
    chips = [Chip(make_model("pcm"), verify_rounds=rounds, verify_tolerance=0.2) for rounds in (0, 3)]
    spread = [chip.program(weights, 0, 0).halves[0].programmed.std() for chip in chips]
    assert spread[1] < 0.5 * spread[0]


def test_heat_speeds_up_relaxation() -> None:
    warm, cold = (Chip(make_model("reram"), temperature=t) for t in (85.0, 25.0))
    assert cold.equivalent_time(100.0) == 100.0
    assert warm.equivalent_time(100.0) > 1000.0


def test_a_table_of_measurements_is_a_model() -> None:
    parameters = {
        "targets": [0.0, 10.0],
        "times": [0.0, 100.0],
        "means": [[0.0, 10.0], [0.0, 8.0]],
        "stds": [[0.1, 0.5], [0.1, 1.0]],
    }
    model = make_model("table", {"g_max": 10.0, **parameters})
    devices = model.program(np.full(DRAWS, 10.0), np.random.default_rng(0))
    assert devices.programmed.std() == pytest.approx(0.5, rel=WITHIN)
    g = model.conductance(devices, 100.0)
    assert (g.mean(), g.std()) == (pytest.approx(8.0, rel=WITHIN), pytest.approx(1.0, rel=WITHIN))


@pytest.mark.parametrize(
    ("name", "parameters", "code"),
    [
        ("pmc", {}, "NEUC-E640"),
        ("pcm", {"gmax": 1.0}, "NEUC-E641"),
        ("pcm", {"g_max": float("nan")}, "NEUC-E641"),
        ("pcm", {"prog_noise": -1.0}, "NEUC-E641"),
        ("pcm", {"g_min": 30.0}, "NEUC-E642"),
        ("pcm", {"g_min": -1.0}, "NEUC-E642"),
    ],
)
def test_models_that_make_no_sense(name: str, parameters: dict[str, object], code: str) -> None:
    with pytest.raises(Error) as caught:
        make_model(name, parameters)
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize("time", [-1.0, float("nan"), float("inf")])
def test_times_that_are_none(time: float) -> None:
    with pytest.raises(Error) as caught:
        Chip(make_model("pcm")).program(np.zeros((2, 2)), 0, 0).weights(time)
    assert caught.value.code == "NEUC-E644"


@pytest.mark.parametrize("rates", [(-0.1, 0.0), (0.6, 0.6), (float("nan"), 0.0)])
def test_stuck_rates_that_make_no_sense(rates: tuple[float, float]) -> None:
    with pytest.raises(Error) as caught:
        Chip(make_model("pcm"), stuck_low=rates[0], stuck_high=rates[1])
    assert caught.value.code == "NEUC-E643"
