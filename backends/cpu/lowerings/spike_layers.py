"""Layers of a spiking network over all steps: the launches of each stage that `spike_plan.py` found.

Between stages a value is a train of frames (`kernels/spike_lists.py`) or a tensor with an axis of time in front; each
is made of the other where a stage needs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from xdsl.ir import Attribute, Operation, SSAValue

from neuc.backends.cpu.kernels.spike_linear import SpikeLinearKernel
from neuc.backends.cpu.kernels.spike_lists import FRAME, FRAME_BYTES
from neuc.backends.cpu.kernels.spike_trains import SpikeFramesKernel, SpikeSumKernel
from neuc.backends.cpu.lowering import SegmentLowering
from neuc.backends.cpu.lowerings.spike_cells import launch_fire, place_parameters
from neuc.backends.cpu.lowerings.spike_maps import mapped, value_of
from neuc.backends.cpu.lowerings.spike_plan import (
    Fire,
    Fixed,
    Gather,
    LoopPlan,
    ReadOut,
    Rename,
    Stacked,
    Sum,
    neurons_of,
    samples_of,
)
from neuc.backends.cpu.lowerings.spike_synapses import launch_rows
from neuc.dialects import dense, spike
from neuc.dialects.spike_types import event_of
from neuc.dialects.store import dims_of, element_of, numpy_dtype, tensor_type
from neuc.errors import InternalError


def lower_layers(op: spike.LoopOp, plan: LoopPlan, s: SegmentLowering) -> None:
    """The launches of a loop's stages, and of what it gives."""
    layers = _Layers(op, plan, s)
    for stage in plan.stages:
        layers.lower(stage)
    layers.finish()


@dataclass
class _Layers:
    loop: spike.LoopOp
    plan: LoopPlan
    s: SegmentLowering
    trains: dict[SSAValue, SSAValue] = field(default_factory=dict["SSAValue", "SSAValue"])
    """Buffers of trains [B, frames, N]."""
    stacked: dict[SSAValue, SSAValue] = field(default_factory=dict["SSAValue", "SSAValue"])
    """Buffers of values with time in front, [T, B, …]."""

    def __post_init__(self) -> None:
        self.steps = self.loop.step_count
        self.frames = self.steps.ceildiv(FRAME)
        for whole, part in zip(self.loop.scanned, self.loop.slices, strict=True):
            self.stacked[part] = self.s.buffer(whole)
        last = self.loop.terminator
        self.given: dict[SSAValue, SSAValue] = {}
        for whole, part in zip(self.loop.outputs, last.outputs, strict=True):
            self.given.setdefault(part, whole)

    def lower(self, stage: object) -> None:
        """The launches of one stage."""
        match stage:
            case Fixed(op):
                self.s.lower(op)
            case Fire():
                self._fire(stage)
            case Gather(op):
                self._gather(op)
            case ReadOut():
                self._read_out(stage)
            case Sum(op, place):
                self._sum(op, place)
            case Stacked(op):
                self._run_stacked(op)
            case Rename(op):
                for known in (self.trains, self.stacked):
                    if op.x in known:
                        known[op.result] = known[op.x]
            case _:
                raise InternalError(f"stage {stage}")

    def finish(self) -> None:
        """What the loop gives, where no stage has put it there already."""
        s, last = self.s, self.loop.terminator
        for whole, part in zip(self.loop.outputs, last.outputs, strict=True):
            buffer = self.as_stacked(part)
            if whole.first_use is not None and s.buffer(whole) is not buffer:
                s.alias(whole, buffer)
        for place in self.plan.kept:
            s.alias(self.loop.final[place], self.loop.initial[place])

    def as_train(self, value: SSAValue) -> SSAValue:
        """The buffer of a value's frames, packed now if it has none."""
        if value not in self.trains:
            samples, count = samples_of(value), neurons_of(value)
            train = self.s.temp(samples * self.frames * count * FRAME_BYTES)
            args = [self.stacked[value], train, self.steps, samples, count]
            self.s.launch(SpikeFramesKernel("pack"), args, work=samples * self.frames)
            self.trains[value] = train
        return self.trains[value]

    def as_stacked(self, value: SSAValue) -> SSAValue:
        """The buffer of a value with time in front, unpacked now if it has none."""
        if value not in self.stacked:
            samples, count = samples_of(value), neurons_of(value)
            plain = self._room(value)
            args = [self.trains[value], plain, self.steps, samples, count]
            self.s.launch(SpikeFramesKernel("unpack"), args, work=samples * self.frames)
            self.stacked[value] = plain
        return self.stacked[value]

    def _room(self, value: SSAValue) -> SSAValue:
        """Where a value with time in front goes: to what the loop gives, if it does."""
        whole = self.given.get(value)
        if whole is not None and whole.first_use is not None:
            return self.s.buffer(whole)
        return self.s.temp(self.steps * self.s.nbytes(value))

    def _fire(self, stage: Fire) -> None:
        s, cell = self.s, stage.cell
        samples, count = samples_of(cell.current), neurons_of(cell.current)
        before: list[SSAValue] = []
        shared: list[int] = []
        for index, place in enumerate(stage.places):
            alike = _alike(self.loop.initial[place], s)
            if alike is None:
                before.append(s.buffer(self.loop.initial[place]))
            else:
                before.append(alike)
                shared.append(index)
        events: SSAValue | None = None
        if cell.events is not None:
            events = self.trains[cell.events] = s.temp(samples * self.frames * count * FRAME_BYTES)
        moving = cell.current in self.stacked
        launch_fire(
            cell,
            s,
            currents=("steps", self.stacked[cell.current]) if moving else ("fixed", s.buffer(cell.current)),
            before=before,
            shared=shared,
            after=[s.buffer(self.loop.final[place]) for place in stage.places],
            parameters=place_parameters(cell, 1 if len(dims_of(cell.current)) > 1 else 0, s),
            events=("frames", events),
            samples=samples,
            count=count,
            steps=self.steps,
        )

    def _gather(self, op: spike.LinearOp) -> None:
        s, event = self.s, event_of(op.x)
        weight = s.constant(op.weight)
        assert event is not None
        assert weight is not None
        n, k = weight.shape
        kernel = SpikeLinearKernel(k, n, _kind(weight), op.bias is not None, event.is_binary)
        cut = kernel.blocks(s.isa)
        samples = samples_of(op.x)
        currents = self.stacked[op.current] = self._room(op.current)
        rows = s.weight("spike.rows", cut.pack(weight))
        bias = currents if op.bias is None else s.buffer(op.bias)
        s.launch(
            kernel,
            [self.as_train(op.x), rows, bias, currents, self.steps, samples],
            work=samples * cut.blocks,
            scratch=kernel.scratch_bytes(s.isa),
            op=op,
        )

    def _read_out(self, stage: ReadOut) -> None:
        """Spike counts, then one product: Σ_t (W·s_t + b) = W·Σ_t s_t + b·(T − start)."""
        s, op = self.s, stage.op
        weight = s.constant(op.weight)
        assert weight is not None
        start = stage.sum.start.value.data
        number = "i32" if weight.dtype == np.int8 else "f32"
        samples, k = samples_of(op.x), weight.shape[1]
        counts = s.temp(samples * (4 * k))
        none = s.weight("spike.none", np.zeros(k, np.int32))
        s.launch(
            SpikeSumKernel("frames", number, shared=True),
            [self.as_train(op.x), none, counts, self.steps, k, start, samples],
            work=samples,
        )
        final, initial = self.loop.final[stage.place], self.loop.initial[stage.place]
        nothing = _alike(initial, s, zero=True) is not None
        target = s.buffer(final) if nothing else s.temp(s.nbytes(final))
        times = (self.steps - start).maximum(0)
        bias = None if op.bias is None else s.buffer(op.bias)
        launch_rows(s, counts, number, samples, weight, bias, target, times=times)
        if not nothing:
            added = value_of(target, final.type, s)
            held = element_of(final)
            s.alias(final, mapped(s, [initial, added], held, dims_of(final), lambda x: x[0] + x[1]))

    def _sum(self, op: spike.AccumulateOp, place: int) -> None:
        s = self.s
        initial, final = self.loop.initial[place], self.loop.final[place]
        number = "f32" if _dtype(final) == np.float32 else "i32"
        samples, count = samples_of(op.total), neurons_of(op.total)
        alike = _alike(initial, s)
        event = event_of(op.x)
        source = self.as_train(op.x) if event is not None else self.stacked[op.x]
        kind = "frames" if event is not None else "f32" if _dtype(op.x) == np.float32 else "i32"
        s.launch(
            SpikeSumKernel(kind, number, shared=alike is not None),
            [
                source,
                s.buffer(initial) if alike is None else alike,
                s.buffer(final),
                self.steps,
                count,
                op.start.value.data,
                samples,
            ],
            work=samples,
            op=op,
        )

    def _run_stacked(self, op: Operation) -> None:
        """Lower the operation with T·B samples."""
        s = self.s
        operands: list[SSAValue] = []
        for value in op.operands:
            if value in self.stacked or value in self.trains:
                operands.append(value_of(self.as_stacked(value), self._type(value), s))
            else:
                operands.append(value)
        result = op.results[0]
        clone = type(op).create(
            operands=operands,
            result_types=[self._type(result)],
            properties=dict(op.properties),
            attributes=dict(op.attributes),
            regions=[region.clone() for region in op.regions],
        )
        clone.location = op.location
        room = self._room(result)
        s.alias(clone.results[0], room)
        s.lower(clone)
        # Some lowerings put the result elsewhere.
        self.stacked[result] = s.buffer(clone.results[0])

    def _type(self, value: SSAValue) -> Attribute:
        dims = dims_of(value)
        return tensor_type(element_of(value), [self.steps * dims[0], *dims[1:]])


def _alike(value: SSAValue, s: SegmentLowering, *, zero: bool = False) -> SSAValue | None:
    """A buffer [N] of a state that all samples begin with alike, a broadcast constant; None if it is none.

    With `zero`, only of zeros.
    """
    owner = value.owner
    constant = owner.x if isinstance(owner, dense.BroadcastOp) else value
    array = s.constant(constant)
    dims = dims_of(value)
    if array is None or not all(dim.is_static for dim in dims[1:]):
        return None
    if len(dims) > 1 and array.ndim == len(dims):
        if array.shape[0] != 1 and (array != array[:1]).any():
            return None
        array = array[:1].reshape(array.shape[1:])
    if zero and array.any():
        return None
    shape = [dim.value for dim in (dims[1:] if len(dims) > 1 else dims)]
    return s.weight("spike.begin", np.ascontiguousarray(np.broadcast_to(array, shape)))


def _dtype(value: SSAValue) -> np.dtype | None:
    return numpy_dtype(element_of(value))


def _kind(weight: np.ndarray) -> str:
    return "i8" if weight.dtype == np.int8 else "f32"
