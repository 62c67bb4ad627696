"""Neurons over time against scalar loops written from the papers' equations, and the bounds that rates obey."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuc.compiler.snn import neurons
from neuc.compiler.snn.recipes import recipe_of
from neuc.compiler.snn.signals import Signal
from neuc.compiler.snn.simulate import spikes
from neuc.compiler.snn.thresholds import estimate, gaussian, local_balance, quantile, search

ROUNDING = 1e-4
"""f32 sums of 64 currents of size 1, relative to a threshold of about 1."""


def scalar_if(currents: list[float], theta: float, start: float) -> list[float]:
    u, out = np.float32(start), []
    for current in currents:
        u = np.float32(u + np.float32(current))
        s = 1 if u >= theta else 0
        u = np.float32(u - np.float32(s * theta))
        out.append(s * theta)
    return out


def scalar_levels(m: float, total: float, theta: float, levels: int, positive: bool) -> float:
    """What one membrane fires: the levels one by one, the largest first."""
    for k in range(levels):
        level = theta / 2**k
        if m >= 0.75 * level:
            return level
        if m <= -0.75 * level and (not positive or total >= level):
            return -level
    return 0.0


def scalar_differential(static: float, changes: list[float], theta: float, levels: int, positive: bool) -> list[float]:
    m = total = mean_out = 0.0
    mean_in, out = static, []
    for t, change in enumerate(changes, start=1):
        m += change + mean_in - mean_out
        total += mean_out
        s = scalar_levels(m, total, theta, levels, positive)
        m, total = m - s, total + s
        mean_in, mean_out = mean_in + change / t, mean_out + s / t
        out.append(s)
    return out


def test_counts_of_searches_are_those_of_the_neurons():
    rng = np.random.default_rng(1)
    currents = list((rng.integers(-8, 24, (9, 3, 40)) / 16).astype(np.float32))
    theta, bias = np.array([[0.5], [1.25], [2.0]], np.float32), np.array([[0.25], [0.0], [-0.5]], np.float32)
    start = theta * rng.random((3, 40)).astype(np.float32)
    spikes_made = np.stack(list(neurons.integrate_and_fire([c + bias for c in currents], theta, start)))
    np.testing.assert_array_equal(neurons.spike_counts(currents, theta, start, bias), (spikes_made > 0).sum(0))


def test_integrate_and_fire_is_the_scalar_loop():
    rng = np.random.default_rng(0)
    currents = (rng.integers(-8, 24, (12, 5)) / 16).astype(np.float32)
    theta = np.array([0.5, 0.75, 1.0, 1.25, 2.0], np.float32)
    got = np.stack(list(neurons.integrate_and_fire(list(currents), theta, theta / 2)))
    for i in range(5):
        assert got[:, i].tolist() == scalar_if(currents[:, i].tolist(), float(theta[i]), float(theta[i]) / 2)


@pytest.mark.parametrize("positive", [True, False])
def test_multi_threshold_is_the_scalar_loop(positive: bool):
    rng = np.random.default_rng(1)
    currents = (rng.integers(-32, 48, (10, 40)) / 16).astype(np.float32)
    got = np.stack(list(neurons.multi_threshold(list(currents), np.array(1, np.float32), 4, positive=positive)))
    for i in range(40):
        m = total = 0.0
        for t in range(10):
            m += float(currents[t, i])
            s = scalar_levels(m, total, 1.0, 4, positive)
            m, total = m - s, total + s
            assert got[t, i] == s


@pytest.mark.parametrize("positive", [True, False])
def test_differential_coding_is_the_scalar_loop(positive: bool):
    rng = np.random.default_rng(2)
    changes = (rng.integers(-32, 48, (4, 40)) / 16).astype(np.float32)
    changes[2] = 0  # a third is no dyadic number: with no change then, sums stay exact in f32 and f64
    static = (rng.integers(-16, 32, 40) / 16).astype(np.float32)
    got = np.stack(list(neurons.differential(static, list(changes), np.array(2, np.float32), 4, positive=positive)))
    for i in range(40):
        expected = scalar_differential(float(static[i]), changes[:, i].tolist(), 2.0, 4, positive)
        assert got[:3, i].tolist() == expected[:3]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 64), st.floats(0.05, 4.0), st.floats(0.0, 1.0))
def test_rates_are_off_by_half_a_step_at_most(steps: int, theta: float, part: float):
    """|a − θN/T| ≤ θ/2T for a constant current within [0, θ], from a half-charged membrane (Bu et al., 2022)."""
    level = np.array(theta, np.float32)
    a = np.float32(part) * np.float32(theta)
    out = list(neurons.integrate_and_fire([np.array([a])] * steps, level, level / 2))
    rate = float(np.sum(np.stack(out), dtype=np.float64)) / steps
    assert abs(rate - float(a)) <= theta / (2 * steps) + ROUNDING * theta


@settings(max_examples=30, deadline=None)
@given(st.floats(-3.0, 3.0), st.sampled_from(["b", "c"]))
def test_signed_spikes_come_as_close_as_their_smallest_level(x: float, recipe: str):
    chosen = recipe_of(recipe)
    out = spikes(Signal(np.array([x], np.float32)), chosen, 32, np.array(4, np.float32), positive=False)
    assert abs(float(estimate(out, chosen)[0]) - x) <= 4 / 2 ** (chosen.levels - 1)


def test_thresholds_of_known_samples():
    samples = np.linspace(0, 1, 1001, dtype=np.float32)[None, :]
    assert quantile(samples, 0.9)[0] == pytest.approx(0.9, abs=1e-6)
    theta, rounds = local_balance(samples**4)
    assert 2 * np.mean(np.maximum(samples**4 - theta, 0)) <= 1e-3 * theta[0]
    assert 0.5 < theta[0] <= 1.0
    assert rounds > 2


def test_gaussian_thresholds_have_least_error():
    """The iteration's fixed point against a scan of the error it minimises."""
    rng = np.random.default_rng(3)
    current = rng.normal(0.2, 1.0, (1, 50_000)).astype(np.float32)
    for levels in (1, 2, 4):
        theta = float(gaussian(current, levels)[0])

        def error(t: float, n: int = levels) -> float:
            code = np.clip(np.floor(current / t * n + 0.5), 0, n) * t / n
            return float(np.mean((np.maximum(current, 0) - code) ** 2))

        grid = np.linspace(0.3, 4, 200)
        best = min(error(float(t)) for t in grid)
        assert error(theta) <= best * 1.02


def test_searched_thresholds_are_no_worse_than_the_largest_activation():
    rng = np.random.default_rng(4)
    truth = np.maximum(rng.normal(0, 1, (6, 500)), 0).astype(np.float32)
    for name in ("a", "b", "c"):
        recipe = recipe_of(name)
        found = search(Signal(truth), truth, recipe, 4, positive=True)

        def error(theta: np.ndarray, start: np.ndarray | None, bias: np.ndarray | None, r=recipe) -> float:
            columns = [None if v is None else v[:, None] for v in (start, bias)]
            out = spikes(Signal(truth), r, 4, theta[:, None], *columns, positive=True)
            return float(np.mean((estimate(out, r) - truth) ** 2))

        assert error(found.threshold, found.start, found.bias) <= error(truth.max(axis=1), None, None)


def test_many_levels_follow_a_mean_that_moves_late():
    """0 in the first steps and then `truth`: thresholds above the largest activation get there, and stay exact."""
    truth = np.random.default_rng(3).random((1, 400)).astype(np.float32)
    moved, steps = 5, 8
    changes = [np.zeros_like(truth)] * steps
    changes[moved - 1] = truth * moved  # A change of step t counts 1/t.
    current = Signal(np.zeros_like(truth), changes)
    errors = []
    for levels in (4, 7):
        recipe = recipe_of("b", levels)
        found = search(current, truth, recipe, steps, positive=True)
        made = estimate(spikes(current, recipe, steps, found.threshold[:, None], positive=True), recipe)
        errors.append(float(np.sqrt(np.mean((made - truth) ** 2))))
        assert (found.threshold > 1.1 * truth.max()) == (levels == 7)
    assert errors[1] < 0.3 * errors[0]


def test_channels_that_calibration_hardly_saw_follow_inputs_they_answer_to():
    """With many levels a nearly silent channel gets thresholds like its layer's, and stays exact for what it had."""
    rng, steps = np.random.default_rng(5), 8
    truth = rng.random((8, 400)).astype(np.float32)
    truth[0] *= 0.01
    new = np.full((1, 1), 0.9, np.float32)
    errors = []
    for levels in (4, 7):
        recipe = recipe_of("b", levels)
        theta = search(Signal(truth), truth, recipe, steps, positive=True).threshold[:1, None]
        seen = estimate(spikes(Signal(truth[:1]), recipe, steps, theta, positive=True), recipe)
        # A neuron below 3/4 of its smallest level is silent: no mean is off by more than that.
        assert np.abs(seen - truth[:1]).max() <= theta[0, 0] / 2 ** (levels - 1)
        errors.append(
            abs(float(estimate(spikes(Signal(new), recipe, steps, theta, positive=True), recipe)[0, 0]) - 0.9)
        )
    assert errors[1] < 0.05 < 0.5 < errors[0]
