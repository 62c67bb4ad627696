"""Layers of a spiking network over all steps: the launches of each stage that `spike_plan.py` found.

The forms values have between stages are in `spike_forms.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects.builtin import i64
from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.kernels.spike_conv import SpikeConvKernel, SpikePoolKernel
from neuc.backends.cpu.kernels.spike_linear import SpikeLinearKernel
from neuc.backends.cpu.kernels.spike_trains import SpikeSumKernel
from neuc.backends.cpu.lowering import SegmentLowering
from neuc.backends.cpu.lowerings.movement import copy_strided
from neuc.backends.cpu.lowerings.spike_cells import Cell, Parameters, launch_fire, place_parameters
from neuc.backends.cpu.lowerings.spike_forms import Forms, Last, alike, bytes_of, image_of, kind_of, kind_of_weight
from neuc.backends.cpu.lowerings.spike_maps import mapped, value_of
from neuc.backends.cpu.lowerings.spike_plan import (
    AddBytes,
    Clock,
    Fire,
    Fixed,
    Gather,
    LoopPlan,
    ReadOut,
    Rename,
    Scatter,
    Stacked,
    Stage,
    Sum,
    Summing,
    neurons_of,
    samples_of,
)
from neuc.backends.cpu.lowerings.spike_synapses import launch_rows
from neuc.dialects import dense, spike
from neuc.dialects.dims import Dim, DimLike
from neuc.dialects.spike_types import event_of
from neuc.dialects.store import dims_of, element_of, tensor_type
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
    forms: Forms = field(init=False)
    clocks: dict[SSAValue, SSAValue] = field(default_factory=dict["SSAValue", "SSAValue"])
    """Buffers of numbers of the step, [T]."""

    def __post_init__(self) -> None:
        self.forms = Forms(self.loop, self.s)
        self.steps = self.forms.steps

    def lower(self, stage: Stage) -> None:
        """The launches of one stage."""
        match stage:
            case Fixed(op):
                self.s.lower(op)
            case Fire(cell):
                last = self.plan.channels_last and len(dims_of(cell.current)) == 4
                (self._fire_last if last else self._fire)(stage)
            case Gather(op):
                self._gather(op)
            case ReadOut():
                self._read_out(stage)
            case Sum(summing):
                self._sum(summing)
            case Clock(op):
                self._tick(op)
            case Scatter(op):
                self._scatter(op)
            case AddBytes(op) if self.plan.channels_last:
                self._add_bytes(op)
            case Rename(op):
                self._rename(op)
            case Stacked(op) | AddBytes(op):
                self._run_stacked(op)
            case _:
                raise InternalError(f"stage {stage}")

    def finish(self) -> None:
        """What the loop gives, where no stage has put it there already."""
        s, last = self.s, self.loop.terminator
        for whole, part in zip(self.loop.outputs, last.outputs, strict=True):
            if whole.first_use is not None:
                buffer = self.forms.as_stacked(part)
                if s.buffer(whole) is not buffer:
                    s.alias(whole, buffer)
        for place, value in self.plan.clocks.items():
            self._last_tick(place, value)
        for place in self.plan.kept:
            s.alias(self.loop.final[place], self.loop.initial[place])

    def _fire(self, stage: Fire) -> None:
        s, forms, cell, places = self.s, self.forms, stage.cell, stage.places
        before, shared = self._begin(places, None)
        if stage.read is not None:
            made = forms.stacked[stage.read] = forms.room(stage.read)
        elif cell.events is not None:
            made = forms.trains[cell.events] = forms.room_for_train(cell.events)
        else:
            made = None
        moving = forms.moves(cell.current)
        current = forms.as_stacked(cell.current) if moving else s.buffer(cell.current)
        launch_fire(
            cell,
            s,
            currents=("steps" if moving else "fixed", current),
            before=before,
            shared=shared,
            after=[s.buffer(self.loop.final[place]) for place in places],
            parameters=place_parameters(cell, 1 if len(dims_of(cell.current)) > 1 else 0, s),
            events=("frames" if stage.read is None else "plain", made),
            samples=samples_of(cell.current),
            count=neurons_of(cell.current),
            steps=self.steps,
            first=self._first(cell),
        )

    def _fire_last(self, stage: Fire) -> None:
        """Neurons of images, their channels last."""
        s, forms, cell, places = self.s, self.forms, stage.cell, stage.places
        image, kind = image_of(cell.current), cell.neuron.number
        samples, count = samples_of(cell.current), neurons_of(cell.current)
        before, shared = self._begin(places, image)
        moving = forms.moves(cell.current)
        if moving:
            current = forms.as_last(cell.current).buffer
        else:
            current = s.temp(samples * count * 4)
            forms.turn(s.buffer(cell.current), current, samples, image, kind, to_last=True)
        after = [s.temp(samples * count * 4) for _ in places]
        if stage.read is not None:
            made = s.temp(self.steps * samples * count * 4)
            forms.last[stage.read] = Last(made, kind, image)
        elif cell.events is not None:
            made = s.temp(self.steps * samples * count)
            forms.last[cell.events] = Last(made, "i8", image)
        else:
            made = None
        launch_fire(
            cell,
            s,
            currents=("steps" if moving else "fixed", current),
            before=before,
            shared=shared,
            after=after,
            parameters=self._parameters_last(cell, image),
            events=("plain", made),
            samples=samples,
            count=count,
            steps=self.steps,
            first=self._first(cell),
        )
        for place, state in zip(places, after, strict=True):
            forms.turn(state, s.buffer(self.loop.final[place]), samples, image, kind, to_last=False)

    def _first(self, cell: Cell) -> int | SSAValue:
        """What the neurons' steps are counted from: 0, or numbers of their own."""
        return 0 if cell.step is None or cell.step is self.loop.step else self.clocks[cell.step]

    def _begin(self, places: Sequence[int], image: tuple[int, int, int] | None) -> tuple[list[SSAValue], list[int]]:
        """Buffers of the states before the first step, and which of them are one sample's for all."""
        s = self.s
        before: list[SSAValue] = []
        shared: list[int] = []
        for index, place in enumerate(places):
            value = self.loop.initial[place]
            array = alike(value, s)
            if array is not None:
                shared.append(index)
                turned = array if image is None else array.transpose(1, 2, 0)
                before.append(s.weight("spike.begin", np.ascontiguousarray(turned)))
            elif image is None:
                before.append(s.buffer(value))
            else:
                own = s.temp(s.nbytes(value))
                kind = kind_of(element_of(value))
                self.forms.turn(s.buffer(value), own, samples_of(value), image, kind, to_last=True)
                before.append(own)
        return before, shared

    def _parameters_last(self, cell: Cell, image: tuple[int, int, int]) -> Parameters:
        plain = place_parameters(cell, 1, self.s)
        buffers: list[SSAValue] = []
        for index, (value, buffer) in enumerate(zip(cell.parameters, plain.buffers, strict=True)):
            if index in plain.single:
                buffers.append(buffer)
                continue
            array = self.s.constant(value)
            if array is not None:
                whole = np.broadcast_to(array.reshape(array.shape[-3:]), image).transpose(1, 2, 0)
                buffers.append(self.s.weight("spike.parameter", np.ascontiguousarray(whole)))
                continue
            turned = self.s.temp(neurons_of(cell.current) * 4)
            self.forms.turn(buffer, turned, Dim.of(1), image, cell.neuron.number, to_last=True)
            buffers.append(turned)
        return Parameters(tuple(buffers), plain.single)

    def _gather(self, op: spike.LinearOp) -> None:
        s, forms, event = self.s, self.forms, event_of(op.x)
        weight = self._weight(op)
        assert event is not None
        n, k = weight.shape
        kernel = SpikeLinearKernel(k, n, kind_of_weight(weight), op.bias is not None, event.is_binary)
        cut, samples = kernel.blocks(s.isa), samples_of(op.x)
        train = forms.as_train(op.x)
        currents = forms.stacked[op.current] = forms.room(op.current)
        rows = s.weight("spike.rows", cut.pack(weight))
        bias = currents if op.bias is None else s.buffer(op.bias)
        s.launch(
            kernel,
            [train, rows, bias, currents, self.steps, samples],
            work=samples * cut.blocks,
            scratch=kernel.scratch_bytes(s.isa),
            op=op,
        )

    def _weight(self, op: spike.LinearOp) -> np.ndarray:
        """The weights, their columns in the order that the inputs are in."""
        weight = self.s.constant(op.weight)
        assert weight is not None
        held = self.forms.last.get(op.x)
        return weight if held is None else held.columns(weight)

    def _read_out(self, stage: ReadOut) -> None:
        """Sums over time, then one product: Σ_t (W·x_t + b) = W·Σ_t x_t + b·(T − start)."""
        s, op = self.s, stage.op
        weight = self._weight(op)
        number = "i32" if weight.dtype == np.int8 else "f32"
        samples, k = samples_of(op.x), weight.shape[1]
        sums = s.temp(samples * (4 * k))
        none = s.weight("spike.none", np.zeros(k, np.int32))
        kind, source = self._summands(op.x)
        self._launch_sum(stage.sum, kind, number, (source, none, sums), k, shared=True)
        place, start = stage.sum.place, stage.sum.start
        final, initial = self.loop.final[place], self.loop.initial[place]
        begin = alike(initial, s)
        nothing = begin is not None and not begin.any()
        target = s.buffer(final) if nothing else s.temp(s.nbytes(final))
        times = (self.steps - start).maximum(0)
        bias = None if op.bias is None else s.buffer(op.bias)
        launch_rows(s, sums, number, samples, weight, bias, target, times=times)
        if not nothing:
            added = value_of(target, final.type, s)
            held = element_of(final)
            s.alias(final, mapped(s, [initial, added], held, dims_of(final), lambda x: x[0] + x[1]))

    def _summands(self, value: SSAValue) -> tuple[str, SSAValue]:
        """What a sum over time reads: the kind and the buffer of the form that is there."""
        forms = self.forms
        if value in forms.last:
            return forms.last[value].kind, forms.last[value].buffer
        if value in forms.trains:
            return "frames", forms.trains[value]
        return kind_of(element_of(value)), forms.as_stacked(value)

    def _sum(self, summing: Summing) -> None:
        s, forms, x = self.s, self.forms, summing.x
        initial, final = self.loop.initial[summing.place], self.loop.final[summing.place]
        begin = alike(initial, s)
        if x in forms.last:
            # Totals have their channels first.
            kind, source = kind_of(element_of(x)), forms.as_stacked(x)
        else:
            kind, source = self._summands(x)
        start = s.buffer(initial) if begin is None else s.weight("spike.begin", np.ascontiguousarray(begin))
        places = (source, start, s.buffer(final))
        self._launch_sum(summing, kind, kind_of(element_of(final)), places, neurons_of(x), shared=begin is not None)

    def _launch_sum(
        self,
        summing: Summing,
        kind: str,
        number: str,
        places: tuple[SSAValue, SSAValue, SSAValue],
        count: DimLike,
        *,
        shared: bool,
    ) -> None:
        """Sum over time; `places` are x, what sums begin with, and the sums."""
        samples = samples_of(summing.x)
        factors = places[2] if summing.factor is None else self.clocks[summing.factor]
        self.s.launch(
            SpikeSumKernel(kind, number, shared, summing.factor is not None),
            [*places, self.steps, count, summing.start, samples, factors],
            work=samples,
            op=summing.op,
        )

    def _tick(self, op: dense.MapOp) -> None:
        """Numbers of all steps [T], from those of the steps."""
        s = self.s
        if self.loop.step not in self.clocks:
            count = dense.IotaOp(tensor_type(i64, [self.steps]))
            s.lower(count)
            self.clocks[self.loop.step] = s.buffer(count.result)
        operands = [
            value_of(self.clocks[value], tensor_type(element_of(value), [self.steps]), s)
            if value in self.clocks
            else value
            for value in op.inputs
        ]
        clone = dense.MapOp(operands, tensor_type(element_of(op.result), [self.steps]), op.body.clone())
        s.lower(clone)
        self.clocks[op.result] = s.buffer(clone.result)

    def _last_tick(self, place: int, value: SSAValue) -> None:
        """A state that only says what step it is, after the last."""
        s, final = self.s, self.loop.final[place]
        size = s.itemsize(value)
        target = s.buffer(final)
        offset = self.steps - 1
        one = [Dim.of(1)]
        copy_strided(s, self.clocks[value], target, size, one, one, one, source_offset=offset, op=self.loop)

    def _scatter(self, op: spike.ConvOp) -> None:
        s, forms = self.s, self.forms
        weight = s.constant(op.weight)
        assert weight is not None
        x = forms.as_last(op.x)
        channels, height, width = x.image
        top, left, bottom, right = op.pads.get_values()
        down, across = op.dilations.get_values()
        kernel = SpikeConvKernel(
            size=(height, width),
            channels=channels,
            filters=weight.shape[0],
            kernel=(weight.shape[2], weight.shape[3]),
            pads=(top, left, bottom, right),
            dilations=(down, across),
            x=x.kind,
            weights=kind_of_weight(weight),
            bias=op.bias is not None,
        )
        images = self.steps * samples_of(op.x)
        currents = s.temp(images * neurons_of(op.current) * 4)
        packed = s.weight("spike.filters", kernel.pack(weight, s.isa))
        s.launch(
            kernel,
            [x.buffer, packed, currents if op.bias is None else s.buffer(op.bias), currents],
            work=images * kernel.blocks(s.isa),
            scratch=kernel.scratch_bytes(s.isa),
            op=op,
        )
        forms.last[op.current] = Last(currents, kind_of(element_of(op.current)), image_of(op.current))

    def _add_bytes(self, op: spike.SumPoolOp) -> None:
        s, x = self.s, self.forms.as_last(op.x)
        (kh, kw), (sh, sw) = op.kernel.get_values(), op.strides.get_values()
        kernel = SpikePoolKernel((x.image[1], x.image[2]), x.image[0], (kh, kw), (sh, sw))
        images = self.steps * samples_of(op.x)
        pooled = s.temp(images * neurons_of(op.current) * bytes_of("i8"))
        s.launch(kernel, [x.buffer, pooled], work=images * kernel.out[0], op=op)
        self.forms.last[op.current] = Last(pooled, "i8", image_of(op.current))

    def _rename(self, op: dense.ReshapeOp) -> None:
        forms = self.forms
        if op.x in forms.last and len(dims_of(op.result)) == 2:
            forms.last[op.result] = forms.last[op.x]
        elif op.x in forms.trains and op.x not in forms.last:
            forms.trains[op.result] = forms.trains[op.x]
        else:
            forms.stacked[op.result] = forms.as_stacked(op.x)

    def _run_stacked(self, op: Operation) -> None:
        """Lower the operation with T·B samples."""
        s, forms = self.s, self.forms
        operands = [
            value_of(forms.as_stacked(value), forms.type_with_time(value), s) if forms.moves(value) else value
            for value in op.operands
        ]
        result = op.results[0]
        clone = type(op).create(
            operands=operands,
            result_types=[forms.type_with_time(result)],
            properties=dict(op.properties),
            attributes=dict(op.attributes),
            regions=[region.clone() for region in op.regions],
        )
        clone.location = op.location
        s.alias(clone.results[0], forms.room(result))
        s.lower(clone)
        # Some lowerings put the result elsewhere.
        forms.stacked[result] = s.buffer(clone.results[0])
