"""Sites as neurons, and read-outs: what makes spikes, and what makes numbers of them."""

from __future__ import annotations

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import Operation, SSAValue

from neuc.dialects import spike
from neuc.dialects.dense import ConvOp, MatMulOp
from neuc.dialects.dense_attrs import NO_ACTIVATION
from neuc.dialects.spike_types import EventType
from neuc.dialects.store import constant_value, dims_of, tensor_type
from neuc.errors import Error
from neuc.passes.analysis.neuron_sites import BIAS, CLIP, HALF, IDENTITY, POTENTIAL, SCALE, THRESHOLD, Site
from neuc.passes.map_building import map_of
from neuc.passes.spiking import functions
from neuc.passes.spiking.loop_builder import LoopBuilder, f32_like
from neuc.passes.spiking.values import Array, Value, sizes_of

_PRODUCTS = (spike.LinearOp, spike.ConvOp, MatMulOp, ConvOp)


def neuron(site: Site, value: Value, event: EventType, build: LoopBuilder) -> Value:
    """The spikes of a site.

    Raises:
        Error: NEUC-E529, it has no thresholds.
    """
    threshold = site.parameter(THRESHOLD)
    if threshold is None:
        raise Error(
            "NEUC-E529",
            f"the neurons of {site.name} have no thresholds",
            hint="neuc.convert_to_snn calibrates; in text, write attribute spike.threshold = array<f32: …> on the map",
        )
    if len(threshold) != site.channels or not (np.isfinite(threshold).all() and (threshold > 0).all()):
        raise Error(
            "NEUC-E529",
            f"the thresholds of {site.name} are not {site.channels} positive numbers",
            hint="one for each channel of the axis spike.channel_axis",
        )
    bias = site.parameter(BIAS)
    shift = None if bias is None or not bias.any() else site.shaped(bias)
    theta = site.shaped(threshold)
    if event.is_binary:
        return _binary(site, value, theta, shift, build)
    unit = (theta * np.float32(2.0 ** (1 - event.level_count))).astype(np.float32)
    if build.differential:
        return _differential(site, value, unit, shift, event, build)
    current = _biased(build.per_step(value, site.op.inputs[0]), shift, site, build)
    zeros = build.zeros(current.type)
    states = [build.state(zeros), build.state(zeros)]
    relu = site.kind != IDENTITY
    fired = spike.MultiThresholdOp(current, states, build.constant(unit, f"{site.name}.unit"), event, relu=relu)
    events = build.inside(fired)
    for state, after in zip(states, fired.next_states):
        build.set_next(state, after)
    return Value(inner=events, scale=unit)


def _binary(site: Site, value: Value, theta: Array, shift: Array | None, build: LoopBuilder) -> Value:
    current = _biased(build.per_step(value, site.op.inputs[0]), shift, site, build)
    part = site.parameter(POTENTIAL)
    part = np.full(site.channels, HALF, np.float32) if part is None else part
    start = theta * site.starts(part, sizes_of(site.op.result))
    potential = build.state(build.broadcast(start, f32_like(current), f"{site.name}.potential"))
    fired = spike.IfOp(current, [potential], [build.constant(theta, f"{site.name}.threshold")])
    events = build.inside(fired)
    build.set_next(potential, fired.next_potential)
    scale = site.parameter(SCALE)
    return Value(inner=events, scale=theta if scale is None else site.shaped(scale))


def _differential(
    site: Site, value: Value, unit: Array, shift: Array | None, event: EventType, build: LoopBuilder
) -> Value:
    current, mean = build.current(value), build.static(value, site.op.inputs[0])
    if site.kind == CLIP:
        # A rate saturates, a sum of changes does not: the mean is clipped before the neuron sees it.
        clipped = value if current is None else Value(value.static, current)
        mean = build.before(functions.copied(site.op, [mean]))
        current = None if current is None else functions.function(site.op, [clipped], [0], build)
    if shift is not None:
        mean = _added(mean, shift, site, build)
    type_ = f32_like(mean)
    zeros = build.zeros(type_)
    states = [build.state(zeros), build.state(zeros), build.state(mean), build.state(zeros)]
    fired = spike.DifferentialOp(
        zeros if current is None else current,
        states,
        build.step,
        build.constant(unit, f"{site.name}.unit"),
        event,
        relu=site.kind != IDENTITY,
    )
    events = build.inside(fired)
    for state, after in zip(states, fired.next_states):
        build.set_next(state, after)
    return Value(inner=events, scale=unit)


def _biased(current: SSAValue, shift: Array | None, site: Site, build: LoopBuilder) -> SSAValue:
    """A current with a constant per channel added: in the synapse before, where it is the only one that reads it."""
    if shift is None:
        return current
    op, flat = current.owner, shift.reshape(-1)
    alone = current.first_use is None and site.op.inputs[0].has_one_use()
    plain = not isinstance(op, MatMulOp | ConvOp) or op.activation == NO_ACTIVATION
    if alone and plain and isinstance(op, _PRODUCTS) and flat.size in (1, site.channels):
        old = np.zeros(site.channels, np.float32) if op.bias is None else constant_value(op.bias, build.store)
        if old is not None and old.shape == flat.shape:
            bias = build.constant(old + flat, f"{site.name}.current")
            rebuilt = type(op).create(
                operands=[*op.operands[:2], bias],
                result_types=[current.type],
                properties=dict(op.properties),
                attributes=dict(op.attributes),
            )
            made = build.inside(rebuilt) if op.parent is build.body else build.before(rebuilt)
            rebuilt.location = op.location
            op.detach()
            op.erase()
            return made
    where = build.inside if isinstance(op, Operation) and op.parent is build.body else build.before
    added = map_of([current, build.constant(shift, f"{site.name}.bias")], lambda a, b: a + b, dims_of(current))
    return where(added)


def _added(mean: SSAValue, shift: Array, site: Site, build: LoopBuilder) -> SSAValue:
    bias = build.constant(shift, f"{site.name}.bias")
    return build.before(map_of([mean, bias], lambda a, b: a + b, dims_of(mean)))


def read_out(value: Value, like: SSAValue, start: int, build: LoopBuilder) -> SSAValue:
    """The number that a value stands for after the last step, behind the loop."""
    if value.after is not None:
        return value.after
    if value.inner is None:
        return build.static(value, like)
    type_ = tensor_type(f32, dims_of(like))
    total = build.state(build.zeros(type_))
    if build.differential:
        inner = build.current(value)
        assert inner is not None
        added = map_of([total, inner, build.weight()], lambda y, s, w: y + s * w, dims_of(like))
        build.set_next(total, build.inside(added))
        final = build.final(total)
        if value.static is None:
            return final
        return build.behind(map_of([final, build.static(value, like)], lambda a, b: a + b, dims_of(like)))
    step = build.step if start else None
    build.set_next(total, build.inside(spike.AccumulateOp(value.inner, total, step, start=start)))
    count = build.final(build.count(start))
    mean = build.behind(map_of([build.final(total), count], lambda a, n: a / n, dims_of(like)))
    if value.scale is None:
        return mean
    scale = build.constant(value.scale, "scale")
    return build.behind(map_of([mean, scale], lambda a, s: a * s, dims_of(like)))
