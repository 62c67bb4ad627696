"""Encoders, decoders, delays and expectations of the `spike` dialect, one step at a time.

Which step it is they know where it is a constant; else they read it from memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.dialects import arith
from xdsl.dialects.builtin import f32, i8, i32
from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.kernels.copy_bytes import BYTES_PER_UNIT, CopyBytesKernel
from neuc.backends.cpu.kernels.spike_philox import WORDS, SpikeRateKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers, unsupported_reason
from neuc.backends.cpu.lowerings.movement import broadcast_to
from neuc.backends.cpu.lowerings.spike_cells import step_number
from neuc.backends.cpu.lowerings.spike_maps import casted, converted, mapped
from neuc.dialects import spike
from neuc.dialects.dims import product
from neuc.dialects.store import dims_of, element_of
from neuc.passes.scalar_builder import Scalar, floor, minimum, where

_RATE_GRAIN = 256


def _clock(step: SSAValue | None, s: SegmentLowering) -> list[SSAValue]:
    """The number of the step as something to read from memory; nothing if it is known, or nobody asks."""
    return [] if step is None or s.constant(step) is not None else [step]


@lowers(spike.SilenceOp)
def lower_silence(op: spike.SilenceOp, s: SegmentLowering) -> None:
    """Zeros."""
    zero = s.weight("spike.zero", np.zeros(1, np.int8))
    broadcast_to(s, zero, (), s.buffer(op.events), dims_of(op.events), 1, op)


@lowers(spike.AccumulateOp)
def lower_accumulate(op: spike.AccumulateOp, s: SegmentLowering) -> None:
    """One launch, or none before the first step that counts."""
    start, held, dims = op.start.value.data, element_of(op.total), dims_of(op.total)
    clock = _clock(op.step, s) if start else []
    if op.step is not None and not clock and step_number(op.step, s) < start:
        s.alias(op.next_total, op.total)
        return

    def body(x: Sequence[Scalar]) -> Scalar:
        sum_ = x[0] + casted(x[1], held)
        return where(x[2] >= start, sum_, x[0]) if clock else sum_

    s.alias(op.next_total, mapped(s, [op.total, op.x, *clock], held, dims, body))


@lowers(spike.EncodeRateOp)
def lower_encode_rate(op: spike.EncodeRateOp, s: SegmentLowering) -> None:
    """One launch."""
    count, clock = product(dims_of(op.x)), _clock(op.step, s)
    s.launch(
        SpikeRateKernel(op.seed.value.data, bool(clock)),
        [s.buffer(op.x), s.buffer(op.events), count, s.buffer(clock[0]) if clock else step_number(op.step, s)],
        work=count.ceildiv(WORDS),
        grain=_RATE_GRAIN,
        op=op,
    )


@lowers(spike.EncodeLatencyOp)
def lower_encode_latency(op: spike.EncodeLatencyOp, s: SegmentLowering) -> None:
    """One launch."""
    clock, last = _clock(op.step, s), float(op.steps.value.data - 1)

    def body(x: Sequence[Scalar]) -> Scalar:
        now = casted(x[1], f32) if clock else float(step_number(op.step, s))
        late = (1.0 - where(x[0] < 1.0, x[0], 1.0)) * last
        fires = (x[0] > 0.0) & floor(late + 0.5).equals(now)
        return fires.emit(arith.ExtUIOp(fires.value, i8))

    s.alias(op.events, mapped(s, [op.x, *clock], i8, dims_of(op.x), body))


@lowers(spike.EncodeDeltaOp)
def lower_encode_delta(op: spike.EncodeDeltaOp, s: SegmentLowering) -> None:
    """Two launches: events, and the reference they move."""
    dims = dims_of(op.x)

    def events(x: Sequence[Scalar]) -> Scalar:
        change = x[0] - x[1]
        up, down = change >= x[2], change <= -x[2]
        return up.emit(arith.ExtUIOp(up.value, i8)) - down.emit(arith.ExtUIOp(down.value, i8))

    s.alias(op.events, mapped(s, [op.x, op.reference, op.threshold], i8, dims, events))
    inputs = [op.reference, op.threshold, op.events]
    moved = mapped(s, inputs, f32, dims, lambda x: x[0] + x[1] * casted(x[2], f32))
    s.alias(op.next_reference, moved)


@lowers(spike.FirstSpikeOp)
def lower_first_spike(op: spike.FirstSpikeOp, s: SegmentLowering) -> None:
    """One launch."""
    clock = _clock(op.step, s)

    def body(x: Sequence[Scalar]) -> Scalar:
        now = casted(x[2], i32) if clock else step_number(op.step, s)
        return where(x[0].differs(0), minimum(x[1], now), x[1])

    s.alias(op.next_first, mapped(s, [op.events, op.first, *clock], i32, dims_of(op.first), body))


@lowers(spike.DelayOp)
def lower_delay(op: spike.DelayOp, s: SegmentLowering) -> None:
    """Copies of bytes: the oldest out, the others forward, the newest behind them."""
    size = s.nbytes(op.x)
    depth = dims_of(op.ring)[0]
    ring, after = s.buffer(op.ring), s.buffer(op.next_ring)
    kept = size * (depth - 1)
    s.launch(CopyBytesKernel(), [ring, s.buffer(op.y), size], work=size.ceildiv(BYTES_PER_UNIT))
    if depth != 1:
        s.launch(CopyBytesKernel(), [(ring, size), after, kept], work=kept.ceildiv(BYTES_PER_UNIT))
    s.launch(CopyBytesKernel(), [s.buffer(op.x), (after, kept), size], work=size.ceildiv(BYTES_PER_UNIT))


def _unsupported_expectation(op: spike.ExpectationOp) -> str | None:
    return next((why for inner in op.body.block.ops if (why := _inner_reason(inner)) is not None), None)


def _inner_reason(op: Operation) -> str | None:
    return None if isinstance(op, spike.YieldOp) else unsupported_reason(op)


@lowers(spike.ExpectationOp, supports=_unsupported_expectation)
def lower_expectation(op: spike.ExpectationOp, s: SegmentLowering) -> None:
    """The totals, the region on the means, and what its answer changes by; the step as a number or from memory."""
    rate = op.form.data is spike.Form.RATE
    # What a map reads behind its own operands.
    also = _clock(op.step, s)

    def done(v: Sequence[Scalar]) -> Scalar | float:
        """The steps before this one."""
        return casted(v[-1], f32) if also else float(step_number(op.step, s))

    means: list[SSAValue] = []
    for x, total, after in zip(op.xs, op.totals, op.next_totals, strict=True):
        dims = dims_of(total)
        if rate:
            sum_ = mapped(s, [total, converted(x, f32, s)], f32, dims, lambda v: v[0] + v[1])
            means.append(mapped(s, [sum_, *also], f32, dims, lambda v: v[0] / (done(v) + 1.0)))
        else:
            part = mapped(s, [x, *also], f32, dims, lambda v: casted(v[0], f32) / (done(v) + 1.0))
            sum_ = mapped(s, [total, part], f32, dims, lambda v: v[0] + v[1])
            means.append(sum_)
        s.alias(after, sum_)
    now = _inline(op, means, s)
    s.alias(op.next_last, now)
    dims = dims_of(op.last)
    if rate:
        body = lambda v: v[0] * (done(v) + 1.0) - v[1] * done(v)  # noqa: E731
    else:
        body = lambda v: (v[0] - v[1]) * (done(v) + 1.0)  # noqa: E731
    s.alias(op.result, mapped(s, [now, op.last, *also], f32, dims, body))


def _inline(op: spike.ExpectationOp, inputs: list[SSAValue], s: SegmentLowering) -> SSAValue:
    """Lower the region's operations on these inputs; what it yields."""
    values: dict[SSAValue, SSAValue] = dict(zip(op.body.block.args, inputs, strict=True))
    for inner in op.body.block.ops:
        if isinstance(inner, spike.YieldOp):
            return values.get(inner.outputs[0], inner.outputs[0])
        clone = inner.clone(value_mapper=values)
        values.update(zip(inner.results, clone.results, strict=True))
        s.lower(clone)
    raise AssertionError("a region without spike.yield")
