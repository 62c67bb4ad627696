"""Meaning of the neurons of `spike`. f32 rounds after every operation; i32 is exact, and wraps as int32 does.

In integers a decay or gain is in units of 1/4096 and products are cut towards 0.
"""

from __future__ import annotations

import numpy as np

from neuc.dialects import spike
from neuc.dialects.interp.core import Env, implements
from neuc.dialects.spike_types import EventType

Array = np.ndarray


def scaled(factor: Array, value: Array) -> Array:
    """factor·value; in integers factor is in units of 1/4096 and the product is cut towards 0."""
    if value.dtype.kind == "f":
        return factor * value
    product = factor.astype(np.int64) * value.astype(np.int64)
    return (np.sign(product) * (np.abs(product) // spike.DECAY_ONE)).astype(np.int32)


def fires(u: Array, threshold: Array, fire: spike.Fire) -> Array:
    """Where a potential fires; never where it is NaN."""
    return u >= threshold if fire is spike.Fire.GE else u > threshold


def _after(op: spike.NeuronOp, u: Array, fired: Array, threshold: Array, reset_value: Array | None) -> Array:
    """The potential u once the neurons that fired are reset."""
    if op.is_soft:
        return np.where(fired, u - (threshold if reset_value is None else reset_value), u)
    return np.where(fired, u.dtype.type(0) if reset_value is None else reset_value, u)


def _split(op: spike.NeuronOp, args: list[Array]) -> tuple[list[Array], Array | None]:
    """The parameters and the reset value, which may be missing."""
    given = args[1 + len(op.STATES) :]
    count = len(op.PARAMETERS)
    return given[:count], given[count] if len(given) > count else None


def _spike(op: spike.NeuronOp, u: Array, threshold: Array, reset_value: Array | None) -> tuple[Array, Array]:
    """The events and the next potential."""
    fired = fires(u, threshold, op.fire.data)
    return fired.astype(np.int8), _after(op, u, fired, threshold, reset_value)


@implements(spike.IfOp)
def _if(op: spike.IfOp, args: list[Array], env: Env) -> list[Array]:
    (threshold,), reset_value = _split(op, args)
    return list(_spike(op, args[1] + args[0], threshold, reset_value))


@implements(spike.LifOp)
def _lif(op: spike.LifOp, args: list[Array], env: Env) -> list[Array]:
    (decay, threshold), reset_value = _split(op, args)
    return list(_spike(op, scaled(decay, args[1]) + args[0], threshold, reset_value))


def _cuba(args: list[Array], reads: spike.Reads) -> tuple[Array, Array]:
    """Synaptic current and potential after a step, before any reset."""
    current, synapse, potential, synapse_decay, decay, gain = args[:6]
    after = scaled(synapse_decay, synapse) + current
    seen = after if reads is spike.Reads.NEW else synapse
    return after, scaled(decay, potential) + scaled(gain, seen)


@implements(spike.CubaLifOp)
def _cuba_lif(op: spike.CubaLifOp, args: list[Array], env: Env) -> list[Array]:
    synapse, u = _cuba(args, op.reads.data)
    parameters, reset_value = _split(op, args)
    events, potential = _spike(op, u, parameters[3], reset_value)
    return [events, synapse, potential]


@implements(spike.AlphaOp)
def _alpha(op: spike.AlphaOp, args: list[Array], env: Env) -> list[Array]:
    current, excitation, inhibition = args[:3]
    (excitation_decay, inhibition_decay, gain, threshold), reset_value = _split(op, args)
    e, h = excitation_decay * excitation + current, inhibition_decay * inhibition + current
    fired = fires(gain * (e - h), threshold, op.fire.data)
    if op.is_soft:
        e = np.where(fired, e - (threshold if reset_value is None else reset_value) / gain, e)
    else:
        start = np.float32(0) if reset_value is None else reset_value / gain
        e, h = np.where(fired, start, e), np.where(fired, np.float32(0), h)
    return [fired.astype(np.int8), e, h]


@implements(spike.AdaptiveOp)
def _adaptive(op: spike.AdaptiveOp, args: list[Array], env: Env) -> list[Array]:
    current, potential, adaptation = args[:3]
    (decay, adaptation_decay, adaptation_gain, threshold), reset_value = _split(op, args)
    moved = threshold + scaled(adaptation_gain, adaptation)
    events, after = _spike(op, scaled(decay, potential) + current, moved, reset_value)
    one = 1 if current.dtype.kind == "f" else spike.DECAY_ONE
    return [events, after, scaled(adaptation_decay, adaptation) + events * current.dtype.type(one)]


@implements(spike.IntegratorOp)
def _integrator(op: spike.IntegratorOp, args: list[Array], env: Env) -> list[Array]:
    return [args[1] + args[0]]


@implements(spike.LiOp)
def _li(op: spike.LiOp, args: list[Array], env: Env) -> list[Array]:
    current, potential, decay = args
    return [scaled(decay, potential) + current]


@implements(spike.CubaLiOp)
def _cuba_li(op: spike.CubaLiOp, args: list[Array], env: Env) -> list[Array]:
    return list(_cuba(args, op.reads.data))


@implements(spike.ThresholdOp)
def _threshold(op: spike.ThresholdOp, args: list[Array], env: Env) -> list[Array]:
    return [fires(args[0], args[1], op.fire.data).astype(np.int8)]


def _level_events(op: spike.LevelsOp, m: Array, output: Array, unit: Array) -> Array:
    """The int8 events of membranes m: the largest level that fires, in units of the smallest.

    Bounds are fire_at·level, in f32 rounded once, in integers compared exactly.
    """
    event: EventType = op.event
    events = np.zeros(m.shape, np.int8)
    for k in range(event.level_count):
        level = unit * unit.dtype.type(1 << k)
        if m.dtype.kind == "f":
            bound, height = level * np.float32(op.fire_at.value.data), m
        else:
            bound, height = level.astype(np.int64) * int(op.fire_at.value.data * 4), m.astype(np.int64) * 4
        down = height <= -bound
        if op.relu is not None:
            down = down & (output >= level)
        events = np.where(height >= bound, 1 << k, np.where(down, -(1 << k), events)).astype(np.int8)
    return events


@implements(spike.MultiThresholdOp)
def _multi_threshold(op: spike.MultiThresholdOp, args: list[Array], env: Env) -> list[Array]:
    current, membrane, output, unit = args
    m = membrane + current
    events = _level_events(op, m, output, unit)
    sent = events * unit
    return [events, m - sent, output + sent]


@implements(spike.DifferentialOp)
def _differential(op: spike.DifferentialOp, args: list[Array], env: Env) -> list[Array]:
    current, membrane, output, mean_in, mean_out, step, unit = args
    n = np.float32(int(step) + 1)
    m = membrane + current + mean_in - mean_out
    c = output + mean_out
    events = _level_events(op, m, c, unit)
    sent = events * unit
    return [events, m - sent, c + sent, mean_in + current / n, mean_out + sent / n]
