"""Thresholds of neurons from samples of their currents and of what the float network has there: one function a method.

Samples are per channel, f32 [channels, samples]. Where samples come from is `calibrate.py`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product as each

import numpy as np

from neuc.compiler.snn.neurons import spike_counts
from neuc.compiler.snn.recipes import Recipe
from neuc.compiler.snn.signals import Signal
from neuc.compiler.snn.simulate import spikes
from neuc.dialects.interp.scalar import erf
from neuc.passes.analysis.neuron_sites import HALF

Array = np.ndarray
LTB_CHANGE = 1e-3
"""Relative change of a threshold in one round at which local threshold balancing has converged."""
LTB_ROUNDS = 1000
GAUSSIAN_ROUNDS = 100
RATIOS = np.linspace(0.15, 1.1, 20).astype(np.float32)
"""Thresholds that a search tries, in parts of a channel's largest activation."""
FAST = (2.0 ** np.arange(0, 3.5, 0.5)).astype(np.float32)
"""The same for spikes that carry changes and have so many levels that small ones stay: in step t a mean moves by at
most threshold / t, so that neurons behind many layers, whose inputs are right late, would not arrive with smaller
ones; and with many powers of two it matters little which is the first."""
MANY_LEVELS = 5
"""How many powers of two of a spike are enough for that."""
COMMON = 0.9
"""With so many levels, channels move at least as fast as those at this quantile of the layer: a channel that was nearly
silent for the calibration data would else take many steps to follow an input that it answers to."""
LATE = (0.25, 0.5, 1.0, 1.5)
"""How much less charge binary neurons may begin with, in thresholds; it comes back over the steps."""
REFINEMENTS = 2
"""Rounds of small changes that a search of binary neurons ends with."""
COARSE = 1024
"""About how many samples of a channel a search of binary neurons looks at until it refines, and one of many levels."""


@dataclass(frozen=True)
class Found:
    """Parameters per channel, f32 [channels].

    Attributes:
        threshold: the largest output of a step.
        start: the first potential, in parts of the threshold; None for half of it.
        bias: what is added to the current; None for nothing.
        scale: what a spike stands for; None for the threshold.
    """

    threshold: Array
    start: Array | None = None
    bias: Array | None = None
    scale: Array | None = None


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
    current: Signal,
    truth: Array,
    recipe: Recipe,
    steps: int,
    *,
    positive: bool,
    bound: float = float("inf"),
    offset: Array | None = None,
    members: Sequence[float] = (0.0,),
) -> Found:
    """Thresholds, and for binary neurons all that goes with them, whose spikes come closest to `truth`.

    For each channel the candidate with the smallest mean squared error of the output after `steps` steps wins. The bias
    of a candidate is the mean error it has without (light calibration, Li et al., ICML 2021). Binary neurons may also
    begin with less charge and get it back over the steps, so that they fire later, when their mean current is known
    better; and what a spike stands for is fitted by least squares.

    Args:
        current: what neurons get, arrays [channels, samples].
        truth: what the float network has there, [channels, samples].
        recipe: which neurons.
        steps: T.
        positive: whether outputs never sum below 0.
        bound: thresholds are at most this.
        offset: how far the first potential of each sample's neuron is off its channel's, in thresholds.
        members: how far those of the neurons of a group are off that, whose mean is the output.
    """
    shift = np.zeros((), np.float32) if offset is None else offset
    trial = _Trial(current, truth, recipe, steps, positive, shift, members)
    fast = recipe.coding == "differential" and recipe.levels >= MANY_LEVELS
    coarse = trial.thinned(max(1, truth.shape[1] // COARSE)) if recipe.binary or fast else trial
    most = np.maximum(largest(truth), np.float32(1e-12))
    if fast:
        most = np.maximum(most, np.quantile(most, COMMON).astype(np.float32))
    for ratio in FAST if fast else RATIOS:
        threshold = np.minimum(most * ratio, np.float32(bound))
        if recipe.coding == "differential":
            coarse.attempt(Found(threshold))
            continue
        _with_bias(coarse, threshold, 0.0)
    if recipe.binary:
        assert coarse.best is not None
        theta = coarse.best.threshold
        for late, factor in each(LATE, (0.8, 1.0, 1.25)):
            _with_bias(coarse, np.minimum(theta * np.float32(factor), np.float32(bound)), late)
        trial.attempt(coarse.best)
        for _ in range(REFINEMENTS):
            _refine(trial, bound)
    best = trial.best if recipe.binary else coarse.best
    assert best is not None
    return best


def _with_bias(trial: _Trial, threshold: Array, late: float) -> None:
    """Try a threshold with a later start, and with the bias that takes its mean error away."""
    start = np.full(threshold.shape, HALF - late, np.float32)
    charge = threshold * np.float32(late / trial.steps)
    off = trial.attempt(Found(threshold, start, charge))
    trial.attempt(Found(threshold, start, (charge + off).astype(np.float32)))


def _refine(trial: _Trial, bound: float) -> None:
    """Try small changes of the best candidate, one parameter after the other."""
    for factor in (0.93, 1.07):
        best = trial.best
        assert best is not None
        trial.attempt(replace(best, threshold=np.minimum(best.threshold * np.float32(factor), np.float32(bound))))
    for shift in (-0.15, 0.15):
        best = trial.best
        assert best is not None
        assert best.start is not None
        trial.attempt(replace(best, start=best.start + np.float32(shift)))
    for shift in (-0.3, 0.3):
        best = trial.best
        assert best is not None
        assert best.bias is not None
        trial.attempt(replace(best, bias=best.bias + best.threshold * np.float32(shift / trial.steps)))


@dataclass
class _Trial:
    """Candidates tried on one site, and the best parameters of each channel so far."""

    current: Signal
    truth: Array
    recipe: Recipe
    steps: int
    positive: bool
    offset: Array
    members: Sequence[float] = (0.0,)
    best: Found | None = None

    def __post_init__(self) -> None:
        self.error = np.full(self.truth.shape[0], np.inf)

    def attempt(self, found: Found) -> Array:
        """Keep the candidate for those channels where it is better; the mean error of each channel."""
        guess = self._guess(found)
        mean_error = (self.truth - guess).mean(axis=1)
        if self.recipe.binary:
            fit = np.sum(self.truth * guess, axis=1) / np.maximum(np.sum(guess * guess, axis=1), 1e-30)
            fit = np.where(fit > 0, fit, 1.0)
            guess = guess * fit[:, None]
            found = replace(found, scale=(found.threshold * fit).astype(np.float32))
        error = np.mean((self.truth - guess) ** 2, axis=1)
        better = error < self.error
        self.error = np.where(better, error, self.error)
        self.best = found if self.best is None else _merged(better, found, self.best)
        return mean_error

    def _guess(self, found: Found) -> Array:
        """The numbers that neurons with these parameters stand for, f64."""
        theta = found.threshold[:, None]
        start = None if found.start is None else found.start[:, None] + self.offset
        bias = None if found.bias is None else found.bias[:, None]
        if self.recipe.binary and start is not None and bias is not None:
            static = self.current.static
            currents = self.current.steps or ([] if static is None else [static] * self.steps)
            starts = [theta * (start + np.float32(member)) for member in self.members]
            count = sum(spike_counts(currents, theta, begin, bias) for begin in starts)
            return count * (theta / np.float64(self.steps * len(starts)))
        out = spikes(self.current, self.recipe, self.steps, theta, start, bias, positive=self.positive)
        return estimate(out, self.recipe).astype(np.float64)

    def thinned(self, every: int) -> _Trial:
        """The same with one of `every` samples."""

        def kept(array: Array) -> Array:
            return np.ascontiguousarray(array[:, ::every])

        static = None if self.current.static is None else kept(self.current.static)
        steps = None if self.current.steps is None else [kept(step) for step in self.current.steps]
        offset = kept(self.offset) if self.offset.ndim else self.offset
        return replace(self, current=Signal(static, steps), truth=kept(self.truth), offset=offset)


def estimate(out: list[Array], recipe: Recipe) -> Array:
    """The number that spikes of all steps stand for."""
    total = np.zeros(out[0].shape, np.float32)
    for t, step in enumerate(out, start=1):
        total += step / np.float32(t) if recipe.coding == "differential" else step
    return total if recipe.coding == "differential" else total / np.float32(len(out))


def _merged(better: Array, new: Found, old: Found) -> Found:
    """The parameters of `new` for channels where it is better."""
    values = [
        None if a is None or b is None else np.where(better, a, b)
        for a, b in zip((new.start, new.bias, new.scale), (old.start, old.bias, old.scale))
    ]
    return Found(np.where(better, new.threshold, old.threshold), *values)
