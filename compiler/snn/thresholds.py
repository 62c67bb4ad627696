"""Thresholds of neurons from samples of their currents and of what the float network has there: one function a method.

Samples are per channel, f32 [channels, samples]. Where samples come from is `calibrate.py`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuc.compiler.snn.recipes import Recipe
from neuc.compiler.snn.simulate import HALF, Signal, spikes
from neuc.dialects.interp.scalar import erf

Array = np.ndarray
LTB_CHANGE = 1e-3
"""Relative change of a threshold in one round at which local threshold balancing has converged."""
LTB_ROUNDS = 1000
GAUSSIAN_ROUNDS = 100
RATIOS = np.linspace(0.15, 1.1, 20).astype(np.float32)
"""Thresholds that a search tries, in parts of a channel's largest activation."""
STARTS = (0.5, 0.35, 0.65)
"""First potentials that a search tries for binary neurons, in parts of the threshold."""


@dataclass(frozen=True)
class Found:
    """Parameters per channel, f32 [channels].

    Attributes:
        threshold: the largest output of a step.
        start: the first potential, in parts of the threshold; None for half of it.
        bias: what is added to the current; None for nothing.
    """

    threshold: Array
    start: Array | None = None
    bias: Array | None = None


def largest(truth: Array) -> Array:
    """The largest magnitude of each channel."""
    return np.max(np.abs(truth), axis=1)


def quantile(truth: Array, q: float) -> Array:
    """The `q` quantile of magnitudes of each channel; the largest where that is 0."""
    found = np.quantile(np.abs(truth), q, axis=1).astype(np.float32)
    return np.where(found > 0, found, largest(truth))


def local_balance(truth: Array) -> tuple[Array, int]:
    """Local threshold balancing (Bu et al., CVPR 2025): θ += 2·mean(max(a − θ, 0)) until θ stays; θ and the rounds.

    Looped over the same samples: a single pass over few batches leaves θ too small.
    """
    theta = np.zeros(truth.shape[0], np.float32)
    magnitude = np.abs(truth)
    for rounds in range(1, LTB_ROUNDS + 1):
        step = 2 * np.mean(np.maximum(magnitude - theta[:, None], 0), axis=1)
        theta = theta + step
        if np.all(step <= LTB_CHANGE * theta):
            return theta.astype(np.float32), rounds
    return theta.astype(np.float32), LTB_ROUNDS


def gaussian(current: Array, levels: int) -> Array:
    """Thresholds that quantise normal currents to `levels` even levels best (Huang et al., ICML 2025, appendix).

    With c_i = (2i − 1)θ/2n and e_i = erf((c_i − μ)/(√2 σ)), θ is iterated on the condition that the mean squared error
    has no slope; where a round gives no positive number the last one stays.
    """
    mean, sigma = current.mean(axis=1, dtype=np.float64), np.maximum(current.std(axis=1, dtype=np.float64), 1e-12)
    theta = np.maximum(mean + 2 * sigma, 1e-6 * sigma)
    odd = 2 * np.arange(1, levels + 1)[None, :] - 1.0
    for _ in range(GAUSSIAN_ROUNDS):
        z = (odd * theta[:, None] / (2 * levels) - mean[:, None]) / sigma[:, None]
        e = erf(z / np.sqrt(2.0))
        normal = np.exp(-(z**2) / 2)
        above = mean * (1 - e.mean(axis=1)) + sigma / np.sqrt(np.pi / 2) * normal.mean(axis=1)
        below = 1 - np.sum(odd / levels**2 * e, axis=1)
        with np.errstate(all="ignore"):
            new = above / below
        theta = np.where(np.isfinite(new) & (new > 0), new, theta)
    return theta.astype(np.float32)


def search(
    current: Signal, truth: Array, recipe: Recipe, steps: int, *, positive: bool, bound: float = float("inf")
) -> Found:
    """Thresholds, and for binary neurons first potentials and biases, whose spikes come closest to `truth`.

    For each channel the candidate with the smallest mean squared error of the output after `steps` steps wins. The bias
    of a candidate is the mean error it has without (light calibration, Li et al., ICML 2021).

    Args:
        current: what neurons get, arrays [channels, samples].
        truth: what the float network has there, [channels, samples].
        recipe: which neurons.
        steps: T.
        positive: whether outputs never sum below 0.
        bound: thresholds are at most this.
    """
    most = np.maximum(largest(truth), np.float32(1e-12))
    best: Found | None = None
    error = np.full(truth.shape[0], np.inf)

    def attempt(threshold: Array, start: Array | None, bias: Array | None) -> Array:
        """Keep the candidate where it is better; the mean error of each channel."""
        nonlocal best, error
        columns = [None if v is None else v[:, None] for v in (start, bias)]
        out = spikes(current, recipe, steps, threshold[:, None], *columns, positive=positive)
        off = truth - estimate(out, recipe)
        found = np.mean(off.astype(np.float64) ** 2, axis=1)
        better = found < error
        error = np.where(better, found, error)
        full = Found(threshold, _filled(start, threshold, HALF), _filled(bias, threshold, 0.0))
        best = full if best is None else _merged(better, full, best)
        return off.mean(axis=1)

    for ratio in RATIOS:
        threshold = np.minimum(most * ratio, np.float32(bound))
        for start in STARTS if recipe.binary else (HALF,):
            begin = _filled(None, threshold, start)
            off = attempt(threshold, begin, None)
            if recipe.coding == "rate":
                attempt(threshold, begin, off.astype(np.float32))
    assert best is not None
    return best


def estimate(out: list[Array], recipe: Recipe) -> Array:
    """The number that spikes of all steps stand for."""
    total = np.zeros(out[0].shape, np.float32)
    for t, step in enumerate(out, start=1):
        total += step / np.float32(t) if recipe.coding == "differential" else step
    return total if recipe.coding == "differential" else total / np.float32(len(out))


def _filled(values: Array | None, like: Array, value: float) -> Array:
    return np.full(like.shape, value, np.float32) if values is None else values


def _merged(better: Array, new: Found, old: Found) -> Found:
    def pick(a: Array | None, b: Array | None) -> Array:
        assert a is not None
        assert b is not None
        return np.where(better, a, b)

    return Found(pick(new.threshold, old.threshold), pick(new.start, old.start), pick(new.bias, old.bias))
