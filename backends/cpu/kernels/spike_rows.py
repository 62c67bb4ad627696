"""Synapses of numbers: sums of rows of weights times what is not zero, for analog inputs, counts and single steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i8, i32, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.spike_linear import RowBlocks
from neuc.backends.cpu.kernels.spike_lists import compact
from neuc.backends.cpu.kernels.strided import Args

_LINE = 64


@dataclass(frozen=True)
class SpikeRowsKernel(KernelSpec):
    """y[m, n] = bias[n]·times + Σ_k x[m, k]·W[n, k] over the k where x is not 0.

    Slots: x [M, K], W as `RowBlocks.pack` has it, bias [N] (any address if there is none), y [M, N], times. Work:
    M · blocks. Scratch: `scratch_bytes`. With weights in f32, x is f32 or int8 and y f32: each product and sum rounded
    as the machine's multiply-add does, in the order of k, the bias last. With weights in int8, x is int8 or i32 and y
    i32, modulo 2^32.

    Attributes:
        k: inputs.
        n: outputs.
        x: ``f32``, ``i8`` or ``i32``.
        weights: ``f32`` or ``i8``.
        bias: there is a bias, f32 or i32.
    """

    k: int
    n: int
    x: str
    weights: str
    bias: bool
    family: ClassVar[str] = "spike_rows"
    written = (3,)

    def blocks(self, isa: Isa) -> RowBlocks:
        """How outputs are cut."""
        return RowBlocks(self.n, self.weights, isa)

    def scratch_bytes(self, isa: Isa) -> int:
        """The list of what is not zero, and a widened row of int8 inputs."""
        room = self._room(isa) * 4
        return 3 * room

    def _room(self, isa: Isa) -> int:
        return -(-(self.k + isa.f32_lanes) // (_LINE // 4)) * (_LINE // 4)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """For each row: the list, then each block of outputs in registers."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        x, weights, bias, y, times = args.ptr(), args.ptr(), args.ptr(), args.ptr(), args.int()
        cut, room = self.blocks(isa), self._room(isa)
        number = f32 if self.weights == "f32" else i32
        indices, values = b.scratch, b.elem(b.scratch, room, i32)
        widened = b.elem(b.scratch, 2 * room, i32)
        with b.loop(b.udiv(b.begin, cut.blocks), b.udiv(b.end + (cut.blocks - 1), cut.blocks)) as row:
            first = b.max(b.begin - row.i * cut.blocks, 0)
            last = b.min(b.end - row.i * cut.blocks, cut.blocks)
            source = b.elem(x, row.i * self.k, i8 if self.x == "i8" else i32)
            if self.x == "i8":
                self._widen(b, source, widened, number)
                source = widened
            count = compact(b, source, self.k, indices, values, number)
            with b.loop(first, last) as block:
                column = block.i * cut.width
                own = b.elem(weights, column, f32 if self.weights == "f32" else i8)
                totals = self._sum(b, cut, own, indices, values, count)
                self._store(b, cut, totals, bias, times, y, row.i * self.n, column)
        return b.finish()

    def _widen(self, b: KernelBuilder, source: Val, target: Val, number: object) -> None:
        """Int8 to the type of sums."""
        with b.loop(0, self.k) as loop:
            value = b.sext(b.load(b.elem(source, loop.i, i8), i8), i32)
            b.store(b.sitofp(value, f32) if number == f32 else value, b.elem(target, loop.i, i32))

    def _sum(self, b: KernelBuilder, cut: RowBlocks, weights: Val, indices: Val, values: Val, count: Val) -> list[Val]:
        narrow = self.weights == "i8"
        number = i32 if narrow else f32
        wide = vec(number, cut.lanes)
        zeros = [b.zero(wide)] * cut.per_block
        with b.loop(0, count, 1, zeros) as loop:
            place = b.zext(b.load(b.elem(indices, loop.i, i32), i32), i64)
            factor = b.splat(b.load(b.elem(values, loop.i, number), number), cut.lanes)
            row = b.elem(weights, place * cut.stride, i8 if narrow else f32)
            sums: list[Val] = []
            for vector, total in enumerate(loop.carried):
                here = b.elem(row, vector * cut.lanes, i8 if narrow else f32)
                if narrow:
                    sums.append(total + b.sext(b.load(here, vec(i8, cut.lanes)), i32) * factor)
                else:
                    sums.append(b.fma(b.load(here, wide), factor, total))
            loop.yield_(sums)
        return loop.results

    def _store(
        self, b: KernelBuilder, cut: RowBlocks, totals: list[Val], bias: Val, times: Val, y: Val, row: Val, column: Val
    ) -> None:
        """Bias, then the store of whole vectors and of the last ones' first lanes."""
        element = i32 if self.weights == "i8" else f32
        lanes = b.lanes
        factor = b.trunc(times, i32) if element == i32 else b.sitofp(times, f32)
        for vector, total in enumerate(totals):
            for part in range(0, cut.lanes, lanes):
                at = column + (vector * cut.lanes + part)
                value = total if cut.lanes == lanes else b.slice(total, part, lanes)
                mask = b.mask_below(self.n - at, lanes)
                if self.bias:
                    own = b.masked_load(b.elem(bias, at, element), vec(element, lanes), mask)
                    value = value + own * b.splat(factor, lanes)
                b.masked_store(value, b.elem(y, row + at, element), mask)
