"""`spike.loop`: all steps of a layer in one go where its neurons allow it, else step by step.

What "allow" means is `spike_plan.py`'s business, how a layer runs `spike_layers.py`'s; here is the rest: steps that are
few and known are unrolled, others are a loop of launches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.kernels.copy_bytes import BYTES_PER_UNIT, CopyBytesKernel
from neuc.backends.cpu.kernels.iota import DimsKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers, unsupported_reason
from neuc.backends.cpu.lowerings.iteration import contiguous_strides
from neuc.backends.cpu.lowerings.movement import copy_strided
from neuc.backends.cpu.lowerings.spike_layers import lower_layers
from neuc.backends.cpu.lowerings.spike_maps import value_of
from neuc.backends.cpu.lowerings.spike_plan import AddBytes, Fixed, LoopPlan, Stacked, plan_loop
from neuc.dialects import dense, spike
from neuc.dialects.dims import Dim, product
from neuc.dialects.store import dims_of, element_of, make_constant, tensor_type

WORTH_UNROLLING = 4_000
"""Operations of all steps together, beyond which a loop is a loop of launches: each takes a millisecond to compile."""


def unsupported_loop(op: spike.LoopOp) -> str | None:
    """Why the loop has no CPU code; None if it has."""
    plan = plan_loop(op)
    if isinstance(plan, LoopPlan):
        plain = [stage.op for stage in plan.stages if isinstance(stage, Fixed | Stacked | AddBytes)]
        return next((reason for inner in plain if (reason := unsupported_reason(inner)) is not None), None)
    for inner in op.body.block.ops:
        reason = None if isinstance(inner, spike.YieldOp) else unsupported_reason(inner)
        if reason is not None:
            return reason
    return None


def _unrolls(op: spike.LoopOp) -> bool:
    """Whether the steps are known and few enough to be compiled one by one."""
    steps = op.step_count
    return steps.is_static and steps.value * len(op.body.block.ops) <= WORTH_UNROLLING


@lowers(spike.LoopOp, supports=unsupported_loop)
def lower_loop(op: spike.LoopOp, s: SegmentLowering) -> None:
    """Layer by layer, unrolled, or as a loop of launches."""
    plan = plan_loop(op)
    if isinstance(plan, LoopPlan):
        lower_layers(op, plan, s)
    elif _unrolls(op):
        _unroll(op, s)
    else:
        _repeat(op, s)


def _repeat(op: spike.LoopOp, s: SegmentLowering) -> None:
    """Launches of one step, run for every step; states are buffers that the step's last launches write."""
    changing = _changing(op)
    states: list[SSAValue] = []
    for inside, before, after in zip(op.states, op.initial, op.final, strict=True):
        state = s.temp(s.nbytes(inside))
        _copy(s.buffer(before), state, s.nbytes(inside), op, s)
        s.alias(inside, state)
        s.alias(after, state)
        states.append(state)
    inner = [o for o in op.body.block.ops if not isinstance(o, spike.YieldOp)]
    for once in inner:
        if once not in changing:
            s.lower(once)
    with s.repeated(op.step_count) as t:
        s.remember(op.step, t)
        s.launch(DimsKernel(1), [s.buffer(op.step), t], work=1, op=op)
        for whole, part in zip(op.scanned, op.slices, strict=True):
            _take(whole, part, t, op, s)
        for each in inner:
            if each in changing:
                s.lower(each)
        for value, whole in zip(op.terminator.outputs, op.outputs, strict=True):
            _put(value, whole, t, op, s)
        ready = [s.buffer(value) for value in op.terminator.states]
        for place, (value, source, state) in enumerate(zip(op.terminator.states, ready, states, strict=True)):
            if source in states and source is not state:
                # States that change places: all are read before any is written.
                ready[place] = s.temp(s.nbytes(value))
                _copy(source, ready[place], s.nbytes(value), op, s)
        for value, source, state in zip(op.terminator.states, ready, states, strict=True):
            if source is not state:
                _copy(source, state, s.nbytes(value), op, s)


def _copy(source: SSAValue, target: SSAValue, nbytes: Dim, op: spike.LoopOp, s: SegmentLowering) -> None:
    s.launch(CopyBytesKernel(), [source, target, nbytes], work=nbytes.ceildiv(BYTES_PER_UNIT), op=op)


def _take(whole: SSAValue, part: SSAValue, t: Dim, op: spike.LoopOp, s: SegmentLowering) -> None:
    """Copy step t of what is scanned."""
    dims, strides = _dims_of_step(part)
    source, target, size = s.buffer(whole), s.buffer(part), s.itemsize(part)
    copy_strided(s, source, target, size, dims, strides, strides, source_offset=product(dims) * t, op=op)


def _dims_of_step(part: SSAValue) -> tuple[Sequence[Dim], Sequence[Dim]]:
    """The space of one step's value, and its strides in memory; the same among those of all steps."""
    dims = dims_of(part) or (Dim.of(1),)
    return dims, contiguous_strides(dims)


def _unroll(op: spike.LoopOp, s: SegmentLowering) -> None:
    """Every step's operations one after the other; states pass from step to step as values."""
    steps = op.step_count.value
    states: list[SSAValue] = list(op.initial)
    ready: list[tuple[list[Operation], list[SSAValue]]] = []
    outside: dict[SSAValue, SSAValue] = {}
    changing = _changing(op)
    for inner in op.body.block.ops:
        # What is the same in each step runs once.
        if inner not in changing:
            clone = inner.clone(value_mapper=outside)
            outside.update(zip(inner.results, clone.results, strict=True))
            s.lower(clone)
    for t in range(steps):
        values: dict[SSAValue, SSAValue] = {**outside, op.step: _constant_step(t, s)}
        values.update(zip(op.states, states, strict=True))
        taken: list[Operation] = []
        for whole, part in zip(op.scanned, op.slices, strict=True):
            values[part] = _slice(whole, part, t, s)
        for inner in op.body.block.ops:
            if isinstance(inner, spike.YieldOp):
                ready.append((taken, [values.get(v, v) for v in inner.outputs]))
                states = [values.get(v, v) for v in inner.states]
            elif inner in changing:
                clone = inner.clone(value_mapper=values)
                values.update(zip(inner.results, clone.results, strict=True))
                taken.append(clone)
    for t, (ops, outputs) in enumerate(ready):
        for inner in ops:
            s.lower(inner)
        for value, whole in zip(outputs, op.outputs, strict=True):
            _put(value, whole, Dim.of(t), op, s)
    for value, after in zip(states, op.final, strict=True):
        s.alias(after, value)


def _changing(op: spike.LoopOp) -> set[Operation]:
    """The operations of the region that depend on its arguments, or end it."""
    moving: set[SSAValue] = set(op.body.block.args)
    found: set[Operation] = set()
    for inner in op.body.block.ops:
        used = {value for deep in inner.walk() for value in deep.operands}
        if isinstance(inner, spike.YieldOp) or used & moving:
            found.add(inner)
            moving.update(inner.results)
    return found


def _constant_step(t: int, s: SegmentLowering) -> SSAValue:
    return make_constant("spike.step", np.array(t, np.int64), s.store).result


def _slice(whole: SSAValue, part: SSAValue, t: int, s: SegmentLowering) -> SSAValue:
    """Step t of what is scanned, copied."""
    dims = dims_of(whole)
    taken = dense.SliceOp(
        whole, [t, *[0] * (len(dims) - 1)], [1] * len(dims), tensor_type(element_of(whole), [Dim.of(1), *dims[1:]])
    )
    s.lower(taken)
    return value_of(taken.result, part.type, s)


def _put(value: SSAValue, whole: SSAValue, t: Dim, op: spike.LoopOp, s: SegmentLowering) -> None:
    """Copy a step's output to its place among those of all steps."""
    dims, strides = _dims_of_step(value)
    source, target, size = s.buffer(value), s.buffer(whole), s.itemsize(value)
    copy_strided(s, source, target, size, dims, strides, strides, target_offset=product(dims) * t, op=op)
