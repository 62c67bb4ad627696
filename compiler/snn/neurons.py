"""Neurons over all time steps in numpy, for calibration and sweeps: the equations of the papers, one function each.

Independent of the `spike` dialect's interpreters, which tests compare them with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

Array = np.ndarray
FIRE = np.float32(0.75)
"""Of a level: from here on a multi-threshold neuron fires it, halfway to the level above in a sense of ratios."""


def integrate_and_fire(currents: Sequence[Array], threshold: Array, start: Array) -> Iterator[Array]:
    """Binary spikes of neurons with soft reset (Han et al. 2020): u += I; s = [u ≥ θ]; u −= θ·s.

    Args:
        currents: f32 arrays of one shape, one a step.
        threshold: θ, broadcasts to them.
        start: u before the first step, broadcasts, too.

    Yields:
        Spikes times θ, f32, step by step.
    """
    u = np.broadcast_to(start, currents[0].shape).astype(np.float32)
    for current in currents:
        u = u + current
        out = np.where(u >= threshold, threshold, np.float32(0))
        u = u - out
        yield out


def spike_counts(currents: Sequence[Array], threshold: Array, start: Array, bias: Array) -> Array:
    """How often neurons of `integrate_and_fire` fire, f32: the same numbers, in place, for searches that try many.

    Args:
        currents: as there.
        threshold: θ, broadcasts to them.
        start: u before the first step, broadcasts, too.
        bias: what is added to each current, broadcasts.
    """
    shape = currents[0].shape
    u = np.empty(shape, np.float32)
    u[...] = start
    count, given, fired = np.zeros(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.float32)
    for current in currents:
        np.add(current, bias, out=given)
        u += given
        np.greater_equal(u, threshold, out=fired, casting="unsafe")
        count += fired
        fired *= threshold
        u -= fired
    return count


def multi_threshold(currents: Sequence[Array], threshold: Array, levels: int, *, positive: bool) -> Iterator[Array]:
    """Spikes ±θ·2^−k, k < `levels`, of neurons with soft reset (Huang et al., ICML 2025).

    The largest level fires with m ≥ 0.75·θ_k, or m ≤ −0.75·θ_k; if `positive`, no level goes off that would take the
    sum of spikes below 0.

    Yields:
        Spikes in the unit of the currents, f32, step by step.
    """
    m = np.zeros(currents[0].shape, np.float32)
    total = np.zeros_like(m)
    for current in currents:
        m += current
        out = fired(m, total, threshold, levels, positive)
        m -= out
        total += out
        yield out


def differential(
    static: Array, changes: Sequence[Array | None], threshold: Array, levels: int, *, positive: bool
) -> Iterator[Array]:
    """Multi-threshold neurons that send changes of their mean (differential coding, Huang et al., ICML 2025).

    m += J + xi − xo, total += xo, fire s from m; m −= s, total += s, xi += J/t, xo += s/t, from xi = `static`, xo = 0.

    Yields:
        s of each step: the output's estimate at step t is Σ s/t.
    """
    xi = static.astype(np.float32)
    m, total, xo = (np.zeros(xi.shape, np.float32) for _ in range(3))
    for t, change in enumerate(changes, start=1):
        m += xi
        m -= xo
        total += xo
        if change is not None:
            m += change
            xi += change / np.float32(t)
        out = fired(m, total, threshold, levels, positive)
        m -= out
        total += out
        xo += out / np.float32(t)
        yield out


def fired(m: Array, total: Array, threshold: Array, levels: int, positive: bool) -> Array:
    """What multi-threshold neurons with membranes `m` and sums `total` fire."""
    # A neuron that reaches n levels fires the n-th smallest: counting bytes is many times faster than choosing floats.
    up, down = np.zeros(m.shape, np.uint8), np.zeros(m.shape, np.uint8)
    reached, covered = np.empty(m.shape, np.bool_), np.empty(m.shape, np.bool_)
    for k in range(levels):
        level = threshold * np.float32(2.0**-k)
        up += np.greater_equal(m, FIRE * level, out=reached).view(np.uint8)
        np.less_equal(m, -FIRE * level, out=reached)
        if positive:
            reached &= np.greater_equal(total, level, out=covered)
        down += reached.view(np.uint8)
    one = np.uint8(1)
    multiple = ((one << up) >> one).view(np.int8) - ((one << down) >> one).view(np.int8)
    return (multiple * (threshold * np.float32(2.0 ** (1 - levels)))).astype(np.float32, copy=False)
