"""Which loops run layer by layer over all steps, and as what stages: analysis alone, no code.

A loop does if it has no feedback: each state is used by nothing but the operation that makes its next value. Then a
layer's neurons may run all steps before the next layer's begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from xdsl.dialects.builtin import IntegerType, i8
from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.lowerings.spike_cells import Cell, cell_of, leading_axes
from neuc.backends.cpu.lowerings.spike_windows import adds_bytes, choose_conv
from neuc.dialects import dense, spike
from neuc.dialects.dims import Dim, product
from neuc.dialects.spike_types import event_of
from neuc.dialects.store import dims_of, element_of


@dataclass(frozen=True)
class Fixed:
    """An operation that is the same in each step and runs once."""

    op: Operation


@dataclass(frozen=True)
class Fire:
    """Neurons over all steps; `places` are those of their states among the loop's."""

    cell: Cell
    places: tuple[int, ...]


@dataclass(frozen=True)
class Gather:
    """A linear layer from a train, by rows of what is active."""

    op: spike.LinearOp


@dataclass(frozen=True)
class ReadOut:
    """A linear layer that is only summed up over time, and the sum: a layer of sums over time."""

    op: spike.LinearOp
    sum: spike.AccumulateOp
    place: int


@dataclass(frozen=True)
class Sum:
    """A sum over time."""

    op: spike.AccumulateOp
    place: int


@dataclass(frozen=True)
class Stacked:
    """An operation without a state, for all steps at once: they are further samples to it."""

    op: Operation


@dataclass(frozen=True)
class Scatter:
    """A convolution by scatter, channels last."""

    op: spike.ConvOp


@dataclass(frozen=True)
class AddBytes:
    """A sum over windows of events in bytes, channels last."""

    op: spike.SumPoolOp


@dataclass(frozen=True)
class Rename:
    """A reshape that keeps samples apart."""

    op: dense.ReshapeOp


Stage: TypeAlias = Fixed | Fire | Gather | ReadOut | Sum | Stacked | Scatter | AddBytes | Rename


@dataclass(frozen=True)
class LoopPlan:
    """What runs, in order.

    Attributes:
        stages: the layers.
        fixed: values that are the same in each step.
        kept: states that stay as they are, by place.
        channels_last: images have their channels last between the stages.
    """

    stages: tuple[Stage, ...]
    fixed: frozenset[SSAValue]
    kept: tuple[int, ...]
    channels_last: bool


_STATELESS = (
    spike.LinearOp,
    spike.ConvOp,
    spike.ScaleOp,
    spike.SumPoolOp,
    dense.MapOp,
    dense.ConvOp,
    dense.PoolOp,
    dense.ConcatOp,
)


def samples_of(value: SSAValue) -> Dim:
    """How many samples a step's value has: its first axis, if it has two or more."""
    dims = dims_of(value)
    return dims[0] if len(dims) > 1 else Dim.of(1)


def neurons_of(value: SSAValue) -> Dim:
    """How many neurons each sample has."""
    dims = dims_of(value)
    return product(dims[1:]) if len(dims) > 1 else product(dims)


def plan_loop(op: spike.LoopOp) -> LoopPlan | str:
    """The stages of a loop, or why it has to run step by step."""
    return _Planner(op).run()


@dataclass
class _Planner:
    loop: spike.LoopOp
    stages: list[Stage] = field(default_factory=list[Stage])
    moving: set[SSAValue] = field(default_factory=set[SSAValue])
    done: set[Operation] = field(default_factory=set[Operation])
    taken: set[int] = field(default_factory=set[int])

    def run(self) -> LoopPlan | str:
        loop = self.loop
        self.moving = set(loop.body.block.args)
        samples = {samples_of(value) for value in (*loop.slices, *loop.states)}
        if len(samples) > 1:
            return "its states have different first axes"
        fixed: set[SSAValue] = set()
        for op in loop.body.block.ops:
            if isinstance(op, spike.YieldOp) or op in self.done:
                continue
            used = {value for inner in op.walk() for value in inner.operands}
            if not used & self.moving:
                fixed.update(op.results)
                self.stages.append(Fixed(op))
                continue
            self.moving.update(op.results)
            reason = self._stage(op)
            if reason is not None:
                return reason
        return self._finish(fixed)

    def _finish(self, fixed: set[SSAValue]) -> LoopPlan | str:
        last = self.loop.terminator
        for value in last.outputs:
            if value not in self.moving or value in self.loop.body.block.args:
                return "a step gives what does not change"
        kept: list[int] = []
        for place, (state, after) in enumerate(zip(self.loop.states, last.states, strict=True)):
            if place in self.taken:
                continue
            if after is not state or state.first_use is None or len(list(state.uses)) > 1:
                return "a state is fed back"
            kept.append(place)
        last_channels = any(isinstance(stage, Scatter) for stage in self.stages)
        return LoopPlan(tuple(self.stages), frozenset(fixed), tuple(kept), last_channels)

    def _stage(self, op: Operation) -> str | None:
        """Add the stage of an operation that differs from step to step; or why there is none."""
        cell = cell_of(op)
        if cell is not None:
            return self._fire(cell)
        match op:
            case spike.LinearOp() if op.trits is None and op.x in self.moving and op.x not in self.loop.states:
                if len(dims_of(op.x)) > 2:
                    return f"{op.name} has more than one axis of samples"
                if isinstance(element_of(op.x), IntegerType) and element_of(op.weight) != i8:
                    return f"{op.name} of integers with weights in f32"
                if self._read_out(op):
                    return None
                self.stages.append(Gather(op) if event_of(op.x) is not None else Stacked(op))
            case spike.ConvOp() if op.x in self.moving and op.x not in self.loop.states and choose_conv(op).scatter:
                self.stages.append(Scatter(op))
            case spike.SumPoolOp() if op.x in self.moving and op.x not in self.loop.states and adds_bytes(op):
                self.stages.append(AddBytes(op))
            case spike.AccumulateOp():
                place = self._places([op.total], [op.next_total], op)
                if isinstance(place, str):
                    return place
                if op.x not in self.moving:
                    return f"{op.name} adds up what does not change"
                self.stages.append(Sum(op, place[0]))
            case dense.ReshapeOp() if samples_of(op.x) == samples_of(op.result) and len(dims_of(op.x)) > 1:
                self.stages.append(Rename(op))
            case _ if isinstance(op, _STATELESS):
                return self._stacked(op)
            case _:
                return f"{op.name} has no code for all steps at once"
        return None

    def _read_out(self, op: spike.LinearOp) -> bool:
        """Whether the layer is only summed up over time: then its stage is there now."""
        uses = list(op.current.uses)
        sum_ = uses[0].operation if len(uses) == 1 else None
        if not isinstance(sum_, spike.AccumulateOp) or sum_.x is not op.current:
            return False
        places = self._places([sum_.total], [sum_.next_total], sum_)
        if isinstance(places, str):
            return False
        self.stages.append(ReadOut(op, sum_, places[0]))
        self.done.add(sum_)
        self.moving.add(sum_.next_total)
        return True

    def _fire(self, cell: Cell) -> str | None:
        places = self._places(cell.states, cell.after, cell.op)
        if isinstance(places, str):
            return places
        if any(value in self.moving for value in cell.parameters):
            return f"a parameter of {cell.op.name} changes"
        if cell.step is not None and cell.step is not self.loop.step:
            return f"{cell.op.name} does not count the loop's steps"
        if leading_axes(cell) == 0 and len(dims_of(cell.current)) > 1 and samples_of(cell.current) != 1:
            return f"parameters of {cell.op.name} differ from sample to sample"
        if cell.events is None and any(
            use.operation is not self.loop.terminator for value in cell.after for use in value.uses
        ):
            return f"{cell.op.name} passes its potential on"
        self.stages.append(Fire(cell, places))
        return None

    def _places(self, before: Sequence[SSAValue], after: Sequence[SSAValue], op: Operation) -> tuple[int, ...] | str:
        """Where the states of an operation stand among the loop's."""
        states, last = list(self.loop.states), self.loop.terminator
        found: list[int] = []
        for value, following in zip(before, after, strict=True):
            if value not in states or len(list(value.uses)) != 1:
                return f"a state of {op.name} is used elsewhere"
            place = states.index(value)
            uses = list(following.uses)
            if last.states[place] is not following or len(uses) != 1:
                return f"a state of {op.name} is used elsewhere"
            found.append(place)
        self.taken.update(found)
        return tuple(found)

    def _stacked(self, op: Operation) -> str | None:
        """All steps at once, if no operand but those that change has an axis of samples."""
        if isinstance(op, dense.ConcatOp) and op.axis.value.data == 0:
            return f"{op.name} along samples"
        rank = len(dims_of(op.results[0]))
        if rank < 2:
            return f"{op.name} has no axis of samples"
        for index, value in enumerate(op.operands):
            if value in self.loop.states or value is self.loop.step:
                return f"{op.name} reads a state"
            if value in self.moving:
                if len(dims_of(value)) != rank and not isinstance(op, spike.LinearOp):
                    return f"{op.name} broadcasts what changes"
            elif isinstance(op, dense.MapOp | spike.ScaleOp):
                dims = dims_of(value)
                if len(dims) == rank and dims[0] != 1:
                    return f"{op.name} reads what is the same in each step, but not in each sample"
            elif index == 0 or isinstance(op, dense.ConcatOp):
                return f"{op.name} reads what is the same in each step"
        self.stages.append(Stacked(op))
        return None
