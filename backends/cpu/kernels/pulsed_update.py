"""Learning in the array: random pulse trains of a batch, sample by sample, and what each pulse does to its device.

The equations are those of `runtime/analog/pulsed_devices.py` and `pulsed_update.py`, which are the specification;
random numbers come from counters here, so that a seed draws the same ones on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i32, i64
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.crossbar_random import PER_COUNTER, columns_from, normals, philox
from neuc.backends.cpu.kernels.strided import tree

PLANES = ("weights", "step_up", "step_down", "fall_up", "fall_down", "w_min", "w_max")
"""What an array of devices is, in this order, each f32 [inputs][padded outputs]."""
_F32 = 4
_SPREAD = 64
"""Random counters of a sample: 0 and 1 for the lines' pulses, 2 for devices' noise; of a transfer 4 to 6."""


@dataclass(frozen=True)
class PulsedUpdateKernel(KernelSpec):
    """A batch of updates of one layer on pulsed devices.

    Slots: 0 x (f32 [B][padded inputs]), 1 slopes (f32 [B][padded outputs]), 2 planes of the array that learns
    (`PLANES`), 3 planes of the weights' array, 4 reference, 5 buffer (both f32 [inputs][padded outputs]; Tiki-Taka
    alone reads 3 and 4, its second version 5), 6 B, 7 number of samples before these, 8 seed, 9 rate (f32),
    10 1 / step (f32). Sizes are padded to whole vectors, with zeros. Work: 1.

    Attributes:
        inputs: lines in.
        outputs: lines out.
        rule: sgd, tiki-taka or tiki-taka-2.
        length: most slots of a pulse train.
        managed: trains are as long as the largest product needs, and the sides are balanced.
        noise: relative noise of a step.
        multiplicative: noise is relative to the present step.
    """

    inputs: int
    outputs: int
    rule: str
    length: int
    managed: bool
    noise: float
    multiplicative: bool

    family = "pulsed_update"

    def padded(self, isa: Isa) -> tuple[int, int]:
        """Inputs and outputs in whole vectors."""
        inputs, outputs = (-(-size // isa.f32_lanes) * isa.f32_lanes for size in (self.inputs, self.outputs))
        return inputs, outputs

    @property
    def slots(self) -> int:
        """Slots of the longest train, in whole counters."""
        return -(-self.length // PER_COUNTER) * PER_COUNTER

    def scratch_bytes(self, isa: Isa) -> int:
        """Which lines fire in each slot, and one sample of a transfer."""
        return (self.slots + 1) * sum(self.padded(isa)) * _F32

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Sample after sample."""
        return _Emitter(self, isa).emit()


@dataclass(frozen=True)
class _Train:
    """One update of an array: where it is, its lines' numbers, which vectors of inputs take part, which counters."""

    planes: Val
    x: Val
    d: Val
    chunk: Val
    chunks: Val
    number: int


class _Emitter:
    """Writes a `PulsedUpdateKernel`."""

    def __init__(self, spec: PulsedUpdateKernel, isa: Isa) -> None:
        self.spec = spec
        self.b = b = KernelBuilder(spec.name, isa)
        self.inputs, self.outputs = spec.padded(isa)
        self.fires_x, self.fires_d = b.scratch, b.ptr(b.scratch, spec.slots * self.inputs * _F32)
        self.one_x = b.ptr(self.fires_d, spec.slots * self.outputs * _F32)
        self.one_d = b.ptr(self.one_x, self.inputs * _F32)
        self.rate, self.per_step = b.arg_f32(9), b.arg_f32(10)
        self.sample = b.i64(0)

    def emit(self) -> llvm.FuncOp:
        b, spec = self.b, self.spec
        if spec.rule != "sgd":
            self._clear(self.one_x, self.inputs + self.outputs)
        with b.loop(0, b.arg_int(6)) as sample:
            self.sample = b.arg_int(7) + sample.i
            x, d = b.elem(b.arg_ptr(0), sample.i * self.inputs, f32), b.elem(b.arg_ptr(1), sample.i * self.outputs, f32)
            whole = b.i64(self.inputs // b.lanes)
            self._train(_Train(b.arg_ptr(2), x, d, b.i64(0), whole, 0))
            if spec.rule != "sgd":
                self._transfer(b.urem(self.sample, spec.inputs))
        return b.finish()

    # ------------------------------------------------------------------------------------------------ pulses

    def _train(self, t: _Train) -> None:
        """Pulses for the change -rate·d·x."""
        b, spec = self.b, self.spec
        largest_x = self._largest(b.elem(t.x, t.chunk * b.lanes, f32), t.chunks)
        largest_d = self._largest(t.d, b.i64(self.outputs // b.lanes))
        product = self.rate * largest_x * largest_d * self.per_step
        with b.if_(b.fcmp("ogt", product, 0.0)):
            length, balance = b.i64(spec.length), b.f32(1.0)
            if spec.managed:
                cut = b.fptosi_sat(product, i64)
                above = b.fcmp("ogt", product, b.sitofp(cut, f32))
                length = b.min(cut + b.select(above, b.i64(1), b.i64(0)), spec.length)
                balance = b.sqrt(largest_d / largest_x)
            strength = b.sqrt(self.rate * self.per_step / b.sitofp(length, f32))
            whole = b.i64(self.outputs // b.lanes)
            self._fire(t.x, t.chunk, t.chunks, strength * balance, length, self.fires_x, self.inputs, 4 * t.number)
            self._fire(t.d, b.i64(0), whole, strength / balance, length, self.fires_d, self.outputs, 4 * t.number + 1)
            first = t.chunk * b.lanes
            with b.loop(first, b.min(first + t.chunks * b.lanes, spec.inputs)) as row:
                x = b.load(b.elem(t.x, row.i, f32), f32)
                with b.if_(b.fcmp("one", x, 0.0)), b.loop(0, self.outputs, b.lanes) as column:
                    counts = self._coincidences(row.i, column.i, length)
                    d = b.load(b.elem(t.d, column.i, f32), b.vtype())
                    up = b.fcmp("olt", d * b.splat(x, b.lanes), 0.0)
                    self._pulse(t.planes, row.i, column.i, counts, up, 4 * t.number + 2)

    def _largest(self, address: Val, chunks: Val) -> Val:
        b = self.b
        with b.loop(0, chunks, init=[b.zero(b.vtype())]) as loop:
            value = b.abs(b.load(b.elem(address, loop.i * b.lanes, f32), b.vtype()))
            loop.yield_([b.max(loop.carried[0], value)])
        return tree(b, loop.results[0], b.max)

    def _fire(
        self, lines: Val, first: Val, chunks: Val, factor: Val, length: Val, to: Val, width: int, purpose: int
    ) -> None:
        """1 for each line and slot that fires, with probability `factor` times its magnitude, else 0."""
        b = self.b
        counters = b.udiv(length + (PER_COUNTER - 1), PER_COUNTER)
        with b.loop(first, first + chunks) as chunk:
            at = chunk.i * b.lanes
            bound = b.abs(b.load(b.elem(lines, at, f32), b.vtype())) * b.splat(factor, b.lanes)
            with b.loop(0, counters) as group:
                for j, word in enumerate(philox(b, *self._counter(at, group.i, purpose))):
                    # 24 bits: never 1, so that certainty is certainty.
                    drawn = b.sitofp(word >> 8, f32) * b.const(2.0**-24, bound.type)
                    fired = b.select(b.fcmp("olt", drawn, bound), b.const(1.0, bound.type), b.zero(bound.type))
                    b.store(fired, b.elem(to, (group.i * PER_COUNTER + j) * width + at, f32))

    def _counter(self, column: Val, number: Val, purpose: int) -> tuple[tuple[Val, Val, Val, Val], tuple[Val, Val]]:
        """Counter and key of random numbers for lanes from `column` on."""
        b = self.b

        def word(value: Val) -> Val:
            return b.splat(b.trunc(value, i32), b.lanes)

        use = word(self.sample * _SPREAD + purpose)
        counter = (columns_from(b, column, b.lanes), word(number), use, word(self.sample >> 26))
        return counter, (word(b.arg_int(8)), word(b.arg_int(8) >> 32))

    def _coincidences(self, row: Val, column: Val, length: Val) -> Val:
        """In how many slots an input and each of some outputs fire together."""
        b = self.b
        with b.loop(0, length, init=[b.zero(b.vtype())]) as slot:
            fires = b.splat(b.load(b.elem(self.fires_x, slot.i * self.inputs + row, f32), f32), b.lanes)
            columns = b.load(b.elem(self.fires_d, slot.i * self.outputs + column, f32), b.vtype())
            slot.yield_([b.fma(fires, columns, slot.carried[0])])
        return slot.results[0]

    def _pulse(self, planes: Val, row: Val, column: Val, counts: Val, up: Val, purpose: int) -> None:
        """So many pulses to some devices of an input's, one after the other."""
        b, spec = self.b, self.spec
        most = tree(b, counts, b.max)
        with b.if_(b.fcmp("ogt", most, 0.0)):
            size = spec.inputs * self.outputs
            here = [b.elem(planes, row * self.outputs + column + place * size, f32) for place in range(len(PLANES))]
            w, step_up, step_down, fall_up, fall_down, low, high = (b.load(address, b.vtype()) for address in here)
            step, fall = b.select(up, step_up, -step_down), b.select(up, fall_up, fall_down)
            with b.loop(0, b.fptosi(most, i64), PER_COUNTER, init=[w]) as group:
                number = row * spec.length + b.udiv(group.i, PER_COUNTER)
                drawn = normals(b, *self._counter(column, number, purpose))
                value = group.carried[0]
                for j, normal in enumerate(drawn):
                    linear, noise = 1.0 - fall * value, normal * b.const(spec.noise, normal.type)
                    factor = linear * (1.0 + noise) if spec.multiplicative else linear + noise
                    moved = b.max(b.min(value + step * factor, high), low)
                    left = b.fcmp("ogt", counts, b.splat(b.sitofp(group.i + j, f32), b.lanes))
                    value = b.select(left, moved, value)
                group.yield_([value])
            b.store(group.results[0], here[0])

    # ------------------------------------------------------------------------------------------------ transfer

    def _transfer(self, column: Val) -> None:
        """Send an input's devices of the fast array, less their symmetric points, to the weights."""
        b, spec = self.b, self.spec
        with b.loop(0, self.outputs, b.lanes) as at:
            place = column * self.outputs + at.i
            fast, reference = (b.load(b.elem(b.arg_ptr(slot), place, f32), b.vtype()) for slot in (2, 4))
            if spec.rule == "tiki-taka":
                b.store(reference - fast, b.elem(self.one_d, at.i, f32))
            else:
                self._gather(column, at.i, fast - reference)
        if spec.rule == "tiki-taka":
            line = b.elem(self.one_x, column, f32)
            b.store(b.f32(1.0), line)
            chunk = b.udiv(column, b.lanes)
            self._train(_Train(b.arg_ptr(3), self.one_x, self.one_d, chunk, b.i64(1), 1))
            b.store(b.f32(0.0), line)

    def _gather(self, row: Val, column: Val, found: Val) -> None:
        """Add to the buffer; a whole step in it becomes one pulse."""
        b = self.b
        place = b.elem(b.arg_ptr(5), row * self.outputs + column, f32)
        per_step = b.splat(self.per_step, b.lanes)
        steps = (b.load(place, b.vtype()) + b.splat(self.rate, b.lanes) * found) * per_step
        whole = b.max(b.min(b.sitofp(b.fptosi_sat(steps, i32), f32), 1.0), -1.0)
        b.store((steps - whole) / per_step, place)
        self._pulse(b.arg_ptr(3), row, column, b.abs(whole), b.fcmp("ogt", whole, 0.0), 6)

    def _clear(self, address: Val, count: int) -> None:
        b = self.b
        with b.loop(0, count, b.lanes) as at:
            b.store(b.zero(b.vtype()), b.elem(address, at.i, f32))
