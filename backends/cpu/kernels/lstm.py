"""The recurrent half of an LSTM: all time steps in one launch, each reading the hidden state the last one wrote.

The input's half of the gates comes in ready-made: it needs no order and is a matrix product (`lowerings/recurrent.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects import llvm

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.copy import move_row
from neuc.backends.cpu.kernels.strided import Args, load_elements, store_elements

GATES = 4
"""i, o, f, c in ONNX's order."""


def pack_recurrent(r: np.ndarray, lanes: int) -> np.ndarray:
    """R[D, 4H, H] as [D, ⌈H / lanes⌉, H (input), gate, lanes (output)], missing outputs zero."""
    ways, hidden = r.shape[0], r.shape[2]
    groups = -(-hidden // lanes)
    padded = np.zeros((ways, GATES, groups * lanes, hidden), np.float32)
    padded[:, :, :hidden] = r.reshape(ways, GATES, hidden, hidden)
    return np.ascontiguousarray(padded.reshape(ways, GATES, groups, lanes, hidden).transpose(0, 2, 4, 1, 3))


@dataclass(frozen=True)
class LstmKernel(KernelSpec):
    """Hidden and cell states of all time steps of one batch row and direction a work unit.

    Slots: gates [D, T, B, 4H] (x · Wᵀ), R as `pack_recurrent` lays it out, bias [D, 8H] if there is one, h0 and c0
    [D, B, H] if there are, y [T, D, B, H], h [D, B, H], c [D, B, H], T, B. Work: D · B. Scratch: `scratch_bytes`.

    Attributes:
        hidden: H.
        direction: ``forward``, ``reverse`` or ``bidirectional``.
        bias: there is a bias.
        state: there are h0 and c0; else both are zero.
    """

    hidden: int
    direction: str
    bias: bool
    state: bool

    family = "lstm"

    @property
    def scratch_bytes(self) -> int:
        """Room for one hidden state of zeros."""
        return 4 * self.hidden

    def writes(self) -> tuple[int, ...]:
        first = 2 + self.bias + 2 * self.state
        return (first, first + 1, first + 2)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """For each step and each vector of hidden units: four gates' products, then the cell."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        gates, weights = args.ptr(), args.ptr()
        bias = args.ptr() if self.bias else None
        h0, c0 = (args.ptr(), args.ptr()) if self.state else (b.scratch, b.scratch)
        y, h, c, steps, batch = args.ptr(), args.ptr(), args.ptr(), args.int(), args.int()
        hidden, zero, groups = self.hidden, b.i64(0), -(-self.hidden // b.lanes)
        ways = 2 if self.direction == "bidirectional" else 1
        if not self.state:
            with b.loop(0, hidden) as loop:
                b.store(b.f32(0.0), b.elem(b.scratch, loop.i, f32))
        with b.loop(b.begin, b.end) as unit:
            way = b.udiv(unit.i, batch)
            row = unit.i - way * batch
            state = unit.i * hidden if self.state else zero
            cell, first = b.elem(c, unit.i * hidden, f32), b.elem(h0, state, f32)
            move_row(b, 4, b.elem(c0, state, f32), cell, zero, b.i64(hidden))
            start, turn = self._order(b, way, steps)
            own_weights = b.elem(weights, way * (groups * b.lanes * GATES * hidden), f32)
            own_bias = None if bias is None else b.elem(bias, way * (2 * GATES * hidden), f32)
            with b.loop(0, steps, 1, [first]) as step:
                t = start + step.i * turn
                previous = step.carried[0]
                now = b.elem(y, ((t * ways + way) * batch + row) * hidden, f32)
                own_gates = b.elem(gates, ((way * steps + t) * batch + row) * (GATES * hidden), f32)
                self._step(b, own_gates, own_weights, own_bias, previous, cell, now)
                step.yield_([now])
            move_row(b, 4, step.results[0], b.elem(h, unit.i * hidden, f32), zero, b.i64(hidden))
        return b.finish()

    def _order(self, b: KernelBuilder, way: Val, steps: Val) -> tuple[Val, Val]:
        """The first time index and the step to the next."""
        if self.direction == "forward":
            return b.i64(0), b.i64(1)
        if self.direction == "reverse":
            return steps - 1, b.i64(-1)
        backwards = b.icmp("eq", way, 1)
        return b.select(backwards, steps - 1, b.i64(0)), b.select(backwards, b.i64(-1), b.i64(1))

    def _step(
        self, b: KernelBuilder, gates: Val, weights: Val, bias: Val | None, previous: Val, cell: Val, now: Val
    ) -> None:
        whole = self.hidden // b.lanes
        with b.loop(0, whole) as group:
            self._units(b, group.i * b.lanes, gates, weights, bias, previous, cell, now, None)
        if self.hidden % b.lanes:
            mask = b.mask_below(b.i64(self.hidden % b.lanes), b.lanes)
            self._units(b, b.i64(whole * b.lanes), gates, weights, bias, previous, cell, now, mask)

    def _units(
        self,
        b: KernelBuilder,
        first: Val,
        gates: Val,
        weights: Val,
        bias: Val | None,
        previous: Val,
        cell: Val,
        now: Val,
        mask: Val | None,
    ) -> None:
        """Hidden units ``first … first + lanes``."""
        lanes, hidden = b.lanes, self.hidden
        panel = b.elem(weights, first * (GATES * hidden), f32)
        totals: list[Val] = []
        for gate in range(GATES):
            total = load_elements(b, gates, first + gate * hidden, "f32", lanes, mask)
            if bias is not None:
                of_input = load_elements(b, bias, first + gate * hidden, "f32", lanes, mask)
                of_state = load_elements(b, bias, first + (GATES + gate) * hidden, "f32", lanes, mask)
                total = total + (of_input + of_state)
            totals.append(total)

        def add(accumulated: Sequence[Val], k: Val) -> list[Val]:
            factor = b.splat(b.load(b.elem(previous, k, f32), f32), lanes)
            row = b.elem(panel, k * (GATES * lanes), f32)
            loaded = [b.load(b.elem(row, gate * lanes, f32), vec(f32, lanes)) for gate in range(GATES)]
            return [b.fma(weight, factor, old) for weight, old in zip(loaded, accumulated, strict=True)]

        # Even and odd inputs apart: eight sums in flight keep the multipliers busy.
        zeros = [b.zero(vec(f32, lanes))] * GATES
        with b.loop(0, hidden - hidden % 2, 2, [*totals, *zeros]) as loop:
            even, odd = loop.carried[:GATES], loop.carried[GATES:]
            loop.yield_([*add(even, loop.i), *add(odd, loop.i + 1)])
        sums = [x + y for x, y in zip(loop.results[:GATES], loop.results[GATES:], strict=True)]
        if hidden % 2:
            sums = add(sums, b.i64(hidden - 1))
        into, out, keep = (vecmath.sigmoid(b, total) for total in sums[:3])
        old = load_elements(b, cell, first, "f32", lanes, mask)
        new = b.fma(keep, old, into * vecmath.tanh(b, sums[3]))
        store_elements(b, new, cell, first, "f32", mask)
        store_elements(b, out * vecmath.tanh(b, new), now, first, "f32", mask)
