"""Neurons over time: from currents to trains, or one step to plain events; all steps of a neuron in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, i8, i32, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.spike_lists import FRAME
from neuc.backends.cpu.kernels.spike_neurons import Neuron
from neuc.backends.cpu.kernels.strided import Args, load_elements, store_elements

NEURONS_PER_UNIT = 256
"""Neurons of one sample in a work unit."""


@dataclass(frozen=True)
class SpikeFireKernel(KernelSpec):
    """Run neurons for T steps.

    Slots: currents, the states before, the states after, the parameters, events (not of neurons without; with `trace`,
    the potentials of all steps, [T, B, N]), T, N (neurons in a sample), the first step's number (with `clock`, the
    numbers of all steps, i64 [T]), B. A parameter is one number or has N; states have [B, N] or, where `shared` says
    so, [N]. Work: B · ⌈N / 256⌉.

    Attributes:
        neuron: the kind.
        currents: ``fixed``: [B, N], the same in each step; ``steps``: [T, B, N].
        events: ``frames``: a train [B, frames, N]; ``plain``: int8 [T, B, N].
        single: the parameters that are one number.
        shared: the states that all samples begin with alike.
        clock: the numbers of the steps are in memory.
        trace: neurons without events write their potential of each step.
    """

    neuron: Neuron
    currents: Literal["fixed", "steps"]
    events: Literal["frames", "plain"]
    single: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()
    clock: bool = False
    trace: bool = False
    family: ClassVar[str] = "spike_fire"

    def writes(self) -> tuple[int, ...]:
        n = self.neuron
        states = tuple(range(1 + n.states, 1 + 2 * n.states))
        return (*states, 1 + 2 * n.states + n.parameters) if n.fires or self.trace else states

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Vectors of neurons, their states in registers over all steps."""
        b = KernelBuilder(self.name, isa)
        args, n = Args(b), self.neuron
        currents = args.ptr()
        before, after = [args.ptr() for _ in range(n.states)], [args.ptr() for _ in range(n.states)]
        parameters = [args.ptr() for _ in range(n.parameters)]
        events = args.ptr() if n.fires or self.trace else currents
        steps, count = args.ints(2)
        first = args.ptr() if self.clock else args.ints(1)[0]
        samples = args.ints(1)[0]
        pieces = b.max(b.udiv(count + (NEURONS_PER_UNIT - 1), NEURONS_PER_UNIT), 1)
        whole, rest = b.udiv(steps, FRAME), b.urem(steps, FRAME)
        frames = b.udiv(steps + (FRAME - 1), FRAME)
        with b.loop(b.begin, b.end) as unit:
            sample = b.udiv(unit.i, pieces)
            lo = (unit.i - sample * pieces) * NEURONS_PER_UNIT
            with b.loop(lo, b.min(lo + NEURONS_PER_UNIT, count), b.lanes) as loop:
                j, at = loop.i, sample * count + loop.i
                mask = b.mask_below(count - j, b.lanes)

                def load(base: Val, index: Val, mask: Val = mask) -> Val:
                    return load_elements(b, base, index, n.number, b.lanes, mask)

                own = [
                    b.splat(b.load(base, n.element), b.lanes) if k in self.single else load(base, j)
                    for k, base in enumerate(parameters)
                ]
                states = [load(base, j if k in self.shared else at) for k, base in enumerate(before)]
                fixed = load(currents, at) if self.currents == "fixed" else None

                def current(t: Val, fixed: Val | None = fixed, sample: Val = sample, j: Val = j) -> Val:
                    return load(currents, (t * samples + sample) * count + j) if fixed is None else fixed

                def place(time: Val, sample: Val = sample, j: Val = j) -> Val:
                    if self.events == "plain":
                        return (time * samples + sample) * count + j
                    return (sample * frames + time) * count + j

                states = self._run(b, (whole, rest, first), current, own, states, events, place, mask)
                for base, state in zip(after, states):
                    store_elements(b, state, base, at, n.number, mask)
        return b.finish()

    def _run(
        self,
        b: KernelBuilder,
        times: tuple[Val, Val, Val],
        current: Callable[[Val], Val],
        parameters: Sequence[Val],
        states: list[Val],
        events: Val,
        place: Callable[[Val], Val],
        mask: Val,
    ) -> list[Val]:
        """Whole frames, then what is left step by step; the states after the last.

        `place` says where the events of a frame, or of a step if they are plain, go.
        """
        whole, rest, first = times
        none = b.zero(vec(i32, b.lanes))

        def step(t: Val, s: int, frame: Val, states: Sequence[Val]) -> tuple[Val, list[Val]]:
            number = b.load(b.elem(first, t, i64), i64) if self.clock else first + t
            fired, after = self.neuron.step(b, current(t), states, parameters, number)
            if fired is None:
                if self.trace:
                    store_elements(b, after[-1], events, place(t), self.neuron.number, mask)
                return frame, after
            if self.events == "plain":
                store_elements(b, b.trunc(fired, i8), events, place(t), "i8", mask)
                return frame, after
            return frame | ((fired & 0xFF) << (8 * s)), after

        with b.loop(0, whole, init=states) as loop:
            frame, now = none, loop.carried
            for s in range(FRAME):
                frame, now = step(loop.i * FRAME + s, s, frame, now)
            if self.neuron.fires and self.events == "frames":
                store_elements(b, frame, events, place(loop.i), "i32", mask)
            loop.yield_(now)
        states = loop.results
        with b.if_(b.icmp("ne", rest, 0)) as some:
            frame, now = none, list(states)
            for s in range(FRAME - 1):
                with b.if_(b.icmp("sgt", rest, s)) as one:
                    made, after = step(whole * FRAME + s, s, frame, now)
                    one.yield_([made, *after])
                with one.else_():
                    one.yield_([frame, *now])
                frame, *now = one.results
            if self.neuron.fires and self.events == "frames":
                store_elements(b, frame, events, place(whole), "i32", mask)
            some.yield_(now)
        with some.else_():
            some.yield_(states)
        return some.results
