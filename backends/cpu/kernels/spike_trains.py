"""Between trains and plain tensors: events of all steps into frames and back, and sums over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i8, i32, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.spike_lists import FRAME
from neuc.backends.cpu.kernels.strided import Args, chunks, load_elements, store_elements


@dataclass(frozen=True)
class SpikeFramesKernel(KernelSpec):
    """Between events int8 [T, B, N] and a train [B, frames, N].

    Slots: source, target, T, B, N. Work: B · frames.

    Attributes:
        way: ``pack`` makes a train, ``unpack`` takes one apart.
    """

    way: Literal["pack", "unpack"]
    family: ClassVar[str] = "spike_frames"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Four steps of one sample at a time."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        source, target, steps, samples, count = args.ptr(), args.ptr(), args.int(), args.int(), args.int()
        frames = b.max(b.udiv(steps + (FRAME - 1), FRAME), 1)
        with b.loop(b.begin, b.end) as unit:
            sample = b.udiv(unit.i, frames)
            first = (unit.i - sample * frames) * FRAME

            def move(j: Val, _: list[Val], mask: Val | None, lanes: int) -> list[Val]:
                at = unit.i * count + j
                frame = b.zero(vec(i32, lanes))
                if self.way == "unpack":
                    frame = load_elements(b, source, at, "i32", lanes, mask)
                for s in range(FRAME):
                    plain = ((first + s) * samples + sample) * count + j
                    if self.way == "unpack":
                        with b.if_(b.icmp("slt", first + s, steps)):
                            store_elements(b, b.trunc(frame >> (8 * s), i8), target, plain, "i8", mask)
                        continue
                    with b.if_(b.icmp("slt", first + s, steps)) as there:
                        events = load_elements(b, source, plain, "i8", lanes, mask)
                        there.yield_([frame | ((b.sext(events, i32) & 0xFF) << (8 * s))])
                    with there.else_():
                        there.yield_([frame])
                    frame = there.results[0]
                if self.way == "pack":
                    store_elements(b, frame, target, at, "i32", mask)
                return []

            chunks(b, b.i64(0), count, b.lanes, move)
        return b.finish()


@dataclass(frozen=True)
class SpikeSumKernel(KernelSpec):
    """y[b, n] = start[b, n] + Σ_t x[b, t, n] for the steps ``first … T-1``, step by step.

    Slots: x, start, y, T, N, first, B, factors (any address if there are none). Work: B.

    Attributes:
        x: ``frames``: a train [B, frames, N]; ``i8``, ``f32`` or ``i32``: events or currents [T, B, N].
        number: ``f32`` or ``i32``: start and y.
        shared: start is [N].
        weighted: x is multiplied by a factor of its step, f32 [T].
    """

    x: str
    number: str
    shared: bool = False
    weighted: bool = False
    family: ClassVar[str] = "spike_sum"
    written = (2,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Vectors of neurons, each over all steps."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        x, start, y = args.ptr(), args.ptr(), args.ptr()
        steps, count, begin, samples = args.ints(4)
        factors = args.ptr()
        frames = b.udiv(steps + (FRAME - 1), FRAME)
        element = f32 if self.number == "f32" else i32
        with b.loop(b.begin, b.end) as sample:
            own = sample.i * count

            def add(j: Val, _: list[Val], mask: Val | None, lanes: int) -> list[Val]:
                total = load_elements(b, start, j if self.shared else own + j, self.number, lanes, mask)
                with b.loop(begin, steps, 1, [total]) as time:
                    if self.x == "frames":
                        frame = b.udiv(time.i, FRAME)
                        packed = load_elements(b, x, (sample.i * frames + frame) * count + j, "i32", lanes, mask)
                        shift = b.splat(b.trunc((3 - (time.i - frame * FRAME)) * 8, i32), lanes)
                        value = (packed << shift).ashr(24)
                    else:
                        row = time.i * samples + sample.i
                        value = load_elements(b, x, row * count + j, self.x, lanes, mask)
                    if self.x == "i8":
                        value = b.sext(value, i32)
                    if self.x != "f32" and element == f32:
                        value = b.sitofp(value, f32)
                    if self.weighted:
                        value = value * b.splat(b.load(b.elem(factors, time.i, f32), f32), lanes)
                    time.yield_([time.carried[0] + value])
                store_elements(b, time.results[0], y, own + j, self.number, mask)
                return []

            chunks(b, b.i64(0), count, b.lanes, add)
        return b.finish()
