"""Which loops run layer by layer over all steps, and as what stages: analysis alone, no code.

A loop does if it has no feedback: each state is used by nothing but the operation that makes its next value. Then a
layer's neurons may run all steps before the next layer's begin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from xdsl.dialects import arith
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
    """Neurons over all steps.

    Attributes:
        cell: the neurons.
        places: those of their states among the loop's.
        read: the potential that something reads in each step, of neurons that do not spike; None if nothing does.
    """

    cell: Cell
    places: tuple[int, ...]
    read: SSAValue | None = None


@dataclass(frozen=True)
class Gather:
    """A linear layer from a train, by rows of what is active."""

    op: spike.LinearOp


@dataclass(frozen=True)
class Summing:
    """A sum over time.

    Attributes:
        op: the operation that adds.
        x: what it adds.
        after: the sum after the step.
        place: of the sum among the loop's states.
        start: the first step that counts.
        factor: x is multiplied by this number of the step; None where it is not.
    """

    op: Operation
    x: SSAValue
    after: SSAValue
    place: int
    start: int = 0
    factor: SSAValue | None = None


@dataclass(frozen=True)
class ReadOut:
    """A linear layer that is only summed up over time, and the sum: a layer of sums over time."""

    op: spike.LinearOp
    sum: Summing


@dataclass(frozen=True)
class Sum:
    """A sum over time of anything else."""

    sum: Summing


@dataclass(frozen=True)
class Clock:
    """Numbers that depend on nothing but the number of the step."""

    op: dense.MapOp


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


Stage: TypeAlias = Fixed | Clock | Fire | Gather | ReadOut | Sum | Stacked | Scatter | AddBytes | Rename


@dataclass(frozen=True)
class LoopPlan:
    """What runs, in order.

    Attributes:
        stages: the layers.
        kept: states that stay as they are, by place.
        clocks: states that only say what step it is, by place, and their value after a step.
        channels_last: images have their channels last between the stages.
    """

    stages: tuple[Stage, ...]
    kept: tuple[int, ...]
    clocks: Mapping[int, SSAValue]
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
    clocks: set[SSAValue] = field(default_factory=set[SSAValue])

    def run(self) -> LoopPlan | str:
        loop = self.loop
        self.moving = set(loop.body.block.args)
        self.clocks = {loop.step}
        samples = {samples_of(value) for value in (*loop.slices, *loop.states) if dims_of(value)}
        if len(samples) > 1:
            return "its states have different first axes"
        for op in loop.body.block.ops:
            if isinstance(op, spike.YieldOp) or op in self.done:
                continue
            used = {value for inner in op.walk() for value in inner.operands}
            if not used & self.moving:
                self.stages.append(Fixed(op))
                continue
            self.moving.update(op.results)
            if isinstance(op, dense.MapOp) and not dims_of(op.result) and used & self.moving <= self.clocks:
                self.clocks.add(op.result)
                self.stages.append(Clock(op))
                continue
            reason = self._stage(op)
            if reason is not None:
                return reason
        return self._finish()

    def _finish(self) -> LoopPlan | str:
        last = self.loop.terminator
        for value in last.outputs:
            if value not in self.moving or value in self.loop.body.block.args:
                return "a step gives what does not change"
        kept: list[int] = []
        clocks: dict[int, SSAValue] = {}
        for place, (state, after) in enumerate(zip(self.loop.states, last.states, strict=True)):
            if place in self.taken:
                continue
            if state.first_use is None and after in self.clocks:
                clocks[place] = after
            elif after is state and len(list(state.uses)) == 1:
                kept.append(place)
            else:
                return "a state is fed back"
        last_channels = any(isinstance(stage, Scatter) for stage in self.stages)
        return LoopPlan(tuple(self.stages), tuple(kept), clocks, last_channels)

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
            case spike.AccumulateOp() | dense.MapOp() if (summing := self._summing(op)) is not None:
                if isinstance(summing, str):
                    return summing
                self.stages.append(Sum(summing))
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
        summing = self._summing(uses[0].operation) if len(uses) == 1 else None
        if not isinstance(summing, Summing) or summing.x is not op.current:
            return False
        if summing.factor is not None and (op.bias is not None or element_of(op.weight) == i8):
            return False
        self.stages.append(ReadOut(op, summing))
        self.done.add(summing.op)
        self.moving.add(summing.after)
        return True

    def _summing(self, op: Operation) -> Summing | str | None:
        """The operation as a sum over time; None if it is none, a reason if it is one in a way that has no code."""
        match op:
            case spike.AccumulateOp():
                total, x, factor, start = op.total, op.x, None, op.start.value.data
                if start and op.step is not self.loop.step:
                    return f"{op.name} counts steps of before the loop, too"
            case dense.MapOp() if (found := self._weighted(op)) is not None:
                (total, x, factor), start = found, 0
            case _:
                return None
        places = self._places([total], [op.results[0]], op)
        if isinstance(places, str):
            return places
        if x not in self.moving or x in self.loop.states:
            return f"{op.name} adds up what does not change"
        return Summing(op, x, op.results[0], places[0], start, factor)

    def _weighted(self, op: dense.MapOp) -> tuple[SSAValue, SSAValue, SSAValue] | None:
        """State, x and factor of ``state + x·factor`` in f32, where the factor is a number of the step."""
        by_argument: dict[SSAValue, SSAValue] = dict(zip(op.body.block.args, op.inputs, strict=True))
        match list(op.body.block.ops):
            case [arith.MulfOp() as times, arith.AddfOp() as plus, dense.YieldOp() as end]:
                pass
            case _:
                return None
        parts = [value for value in plus.operands if value is not times.result]
        if end.value is not plus.result or len(parts) != 1:
            return None
        total = by_argument.get(parts[0])
        factors = [by_argument.get(value) for value in times.operands]
        clock = next((value for value in factors if value in self.clocks), None)
        x = next((value for value in factors if value not in self.clocks), None)
        if total is None or total not in self.loop.states or clock is None or x is None:
            return None
        if dims_of(x) != dims_of(total):
            return None
        return total, x, clock

    def _fire(self, cell: Cell) -> str | None:
        potential = cell.after[-1] if cell.events is None else None
        read = potential if potential is not None and len(list(potential.uses)) > 1 else None
        places = self._places(cell.states, cell.after, cell.op, read)
        if isinstance(places, str):
            return places
        if any(value in self.moving for value in cell.parameters):
            return f"a parameter of {cell.op.name} changes"
        if cell.step is not None and cell.step not in self.clocks:
            return f"{cell.op.name} does not count the loop's steps"
        if leading_axes(cell) == 0 and len(dims_of(cell.current)) > 1 and samples_of(cell.current) != 1:
            return f"parameters of {cell.op.name} differ from sample to sample"
        self.stages.append(Fire(cell, places, read))
        return None

    def _places(
        self, before: Sequence[SSAValue], after: Sequence[SSAValue], op: Operation, read: SSAValue | None = None
    ) -> tuple[int, ...] | str:
        """Where the states of an operation stand among the loop's; of those after it, `read` may be used elsewhere."""
        states, last = list(self.loop.states), self.loop.terminator
        found: list[int] = []
        for value, following in zip(before, after, strict=True):
            if value not in states or len(list(value.uses)) != 1:
                return f"a state of {op.name} is used elsewhere"
            place = states.index(value)
            if last.states[place] is not following or (following is not read and len(list(following.uses)) != 1):
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
