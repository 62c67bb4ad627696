"""Neurons of the `spike` dialect as kernels see them, and the launch that runs them, for one step or for all.

How steps become a loop is `spike_loop.py`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.kernels.spike_fire import NEURONS_PER_UNIT, SpikeFireKernel
from neuc.backends.cpu.kernels.spike_neurons import Neuron
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.movement import broadcast_to
from neuc.dialects import spike
from neuc.dialects.cpu_launch import LaunchArg
from neuc.dialects.dims import Dim, DimLike, product
from neuc.dialects.store import dims_of, element_of


@dataclass(frozen=True)
class Cell:
    """One neuron operation, its operands and results by their parts.

    Attributes:
        op: the operation.
        neuron: its kind.
        current: what it integrates.
        states: before the step.
        parameters: what broadcasts to the current's shape.
        events: its spikes; None of a neuron that has none.
        after: the states after the step.
        step: the number of the step, of those that ask for it.
    """

    op: Operation
    neuron: Neuron
    current: SSAValue
    states: tuple[SSAValue, ...]
    parameters: tuple[SSAValue, ...]
    events: SSAValue | None
    after: tuple[SSAValue, ...]
    step: SSAValue | None = None


def cell_of(op: Operation) -> Cell | None:
    """`op` as a neuron; None if it is none."""
    match op:
        case spike.MembraneOp():
            neuron = Neuron(
                kind=op.name.removeprefix("spike."),
                number=_number(op.operands[0]),
                states=len(op.states),
                parameters=len(op.parameters),
                hard=isinstance(op, spike.NeuronOp) and not op.is_soft,
                above=isinstance(op, spike.NeuronOp) and op.fire.data is spike.Fire.GT,
                reset_value=isinstance(op, spike.NeuronOp) and op.reset_operand is not None,
                old=getattr(op, "reads", spike.ReadsAttr(spike.Reads.NEW)).data is spike.Reads.OLD,
            )
            events = op.results[0] if isinstance(op, spike.NeuronOp) else None
            return Cell(op, neuron, op.operands[0], op.states, op.parameters, events, op.next_states)
        case spike.LevelsOp():
            neuron = Neuron(
                kind=op.name.removeprefix("spike."),
                number=_number(op.operands[0]),
                states=len(op.states),
                parameters=1,
                levels=op.event.level_count,
                relu=op.relu is not None,
                quarters=int(op.fire_at.value.data * 4),
            )
            step = op.step if isinstance(op, spike.DifferentialOp) else None
            return Cell(op, neuron, op.operands[0], op.states, (op.unit_value,), op.results[0], op.next_states, step)
        case spike.ThresholdOp():
            neuron = Neuron("threshold", _number(op.x), 0, 1, above=op.fire.data is spike.Fire.GT)
            return Cell(op, neuron, op.x, (), (op.threshold,), op.events, ())
        case _:
            return None


def _number(value: SSAValue) -> Literal["f32", "i32"]:
    return "f32" if element_of(value) == f32 else "i32"


def leading_axes(cell: Cell) -> int:
    """How many axes of the current come before those along which parameters differ."""
    current = dims_of(cell.current)
    lead = len(current)
    for value in cell.parameters:
        dims = dims_of(value)
        missing = len(current) - len(dims)
        varying = [missing + axis for axis, dim in enumerate(dims) if dim != 1]
        lead = min([lead, *varying])
    return lead


@dataclass(frozen=True)
class Parameters:
    """Buffers of a cell's parameters, and which of them are one number."""

    buffers: tuple[SSAValue, ...]
    single: tuple[int, ...]


def place_parameters(cell: Cell, lead: int, s: SegmentLowering) -> Parameters:
    """Parameters as kernels read them: one number, or one for each of the neurons behind the first `lead` axes."""
    wanted = dims_of(cell.current)[lead:]
    buffers: list[SSAValue] = []
    single: list[int] = []
    for index, value in enumerate(cell.parameters):
        dims = dims_of(value)
        while dims and dims[0] == 1:
            dims = dims[1:]
        if product(dims) == 1:
            single.append(index)
            buffers.append(s.buffer(value))
        elif tuple(dims) == tuple(wanted):
            buffers.append(s.buffer(value))
        else:
            buffers.append(_broadcast(value, dims, wanted, cell, s))
    return Parameters(tuple(buffers), tuple(single))


def _broadcast(value: SSAValue, dims: Sequence[Dim], wanted: Sequence[Dim], cell: Cell, s: SegmentLowering) -> SSAValue:
    array = s.constant(value)
    if array is not None and all(dim.is_static for dim in wanted):
        shape = tuple(dim.value for dim in wanted)
        whole = np.ascontiguousarray(np.broadcast_to(array.reshape([dim.value for dim in dims]), shape))
        return s.weight("spike.parameter", whole)
    repeated = s.temp(product(wanted) * 4)
    broadcast_to(s, s.buffer(value), dims, repeated, wanted, 4, cell.op)
    return repeated


def step_number(value: SSAValue | None, s: SegmentLowering) -> int:
    """The step a single step is; 0 where nobody asks."""
    array = None if value is None else s.constant(value)
    return 0 if array is None else int(array)


def launch_fire(
    cell: Cell,
    s: SegmentLowering,
    *,
    currents: tuple[Literal["fixed", "steps"], SSAValue],
    before: Sequence[SSAValue],
    shared: Sequence[int],
    after: Sequence[SSAValue],
    parameters: Parameters,
    events: tuple[Literal["frames", "plain"], SSAValue | None],
    samples: DimLike,
    count: DimLike,
    steps: DimLike,
    first: int | SSAValue = 0,
) -> None:
    """Run the cell's neurons, all arguments buffers; see `SpikeFireKernel`.

    `events` of neurons without any take the potentials of all steps; `first` may be the numbers of all steps.
    """
    trace = cell.events is None and events[1] is not None
    clock = isinstance(first, SSAValue)
    kernel = SpikeFireKernel(cell.neuron, currents[0], events[0], parameters.single, tuple(shared), clock, trace)
    args: list[LaunchArg] = [currents[1], *before, *after, *parameters.buffers]
    if events[1] is not None:
        args.append(events[1])
    args += [steps, count, first, samples]
    s.launch(kernel, args, work=Dim.of(samples) * Dim.of(count).ceildiv(NEURONS_PER_UNIT), op=cell.op)


def lower_cell(op: Operation, s: SegmentLowering) -> None:
    """One step of a neuron: one launch; its number is in memory if it is not known."""
    cell = cast(Cell, cell_of(op))
    clock = None if cell.step is None or s.constant(cell.step) is not None else s.buffer(cell.step)
    dims, lead = dims_of(cell.current), leading_axes(cell)
    launch_fire(
        cell,
        s,
        currents=("fixed", s.buffer(cell.current)),
        before=[s.buffer(v) for v in cell.states],
        shared=(),
        after=[s.buffer(v) for v in cell.after],
        parameters=place_parameters(cell, lead, s),
        events=("plain", None if cell.events is None else s.buffer(cell.events)),
        samples=product(dims[:lead]),
        count=product(dims[lead:]),
        steps=1,
        first=step_number(cell.step, s) if clock is None else clock,
    )


for _op_class in (
    spike.IfOp,
    spike.LifOp,
    spike.CubaLifOp,
    spike.AlphaOp,
    spike.AdaptiveOp,
    spike.IntegratorOp,
    spike.LiOp,
    spike.CubaLiOp,
    spike.ThresholdOp,
    spike.MultiThresholdOp,
    spike.DifferentialOp,
):
    lowers(_op_class)(lower_cell)
