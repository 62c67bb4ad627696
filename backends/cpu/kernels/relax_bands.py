"""Sweeps of a few large grids on all threads: a launch is one colour of one sweep, its work the rows.

Rows of a colour read rows of the other alone, so they are updated in any order, by any thread, to the same spins. Spins
lie in memory as `relax_grid.py` keeps them in scratch memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, f32, i8, i64
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels import relax_random as random
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.relax_grid import HALO, Lines
from neuc.backends.cpu.kernels.strided import Args


@dataclass(frozen=True)
class LinesKernel(KernelSpec):
    """Spins i8 [C, H, W] as lines of one colour with halos, i8 [C, 2, H, stride]; or, with `back`, lines as spins.

    Slots: spins, lines. Work: lines.
    """

    rows: int
    half: int
    back: bool = False

    family = "relax_lines"

    def writes(self) -> tuple[int, ...]:
        return (0,) if self.back else (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Line by line, byte by byte."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        spins, memory = args.ptr(), args.ptr()
        stride = self.half + 2 * HALO
        lines = Lines(b, self.rows, self.half, stride, metropolis=False)
        with b.loop(b.begin, b.end) as unit:
            chain, rest = b.sdiv(unit.i, 2 * self.rows), b.srem(unit.i, 2 * self.rows)
            color, row = b.sdiv(rest, self.rows), b.srem(rest, self.rows)
            line = b.ptr(memory, unit.i * stride + HALO)
            site = b.ptr(spins, (chain * self.rows + row) * (2 * self.half) + ((row + color) & 1))
            with b.loop(0, self.half) as column:
                there, here = b.ptr(site, column.i * 2), b.ptr(line, column.i)
                if self.back:
                    b.store(b.load(here, i8), there)
                else:
                    b.store(b.load(there, i8), here)
            if not self.back:
                lines.close(line)
        return b.finish()


@dataclass(frozen=True)
class ColorKernel(KernelSpec):
    """One colour of sweep t of each chain, the bits of `GridSweepsKernel`.

    Slots: β f32 [S], seed i64, lines i8 [C, 2, H, stride], coupling f32, field f32, t. Work: rows of all chains.

    Attributes:
        rows: H.
        half: W / 2, a multiple of 64.
        color: 0 or 1.
        metropolis: flips instead of heat bath.
    """

    rows: int
    half: int
    color: int
    metropolis: bool = False

    family = "relax_color"

    def writes(self) -> tuple[int, ...]:
        return (2,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Thresholds once, then rows."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        beta, seed, memory = args.ptr(), args.ptr(), args.ptr()
        coupling, field, sweep = args.f32(), args.f32(), args.int()
        stride = self.half + 2 * HALO
        lines = Lines(b, self.rows, self.half, stride, metropolis=self.metropolis)
        philox = random.Philox(b, b.load(seed, i64))
        thresholds = lines.thresholds(b.load(b.elem(beta, sweep, f32), f32) * 2.0, coupling, field)
        with b.loop(b.begin, b.end) as unit:
            chain, row = b.sdiv(unit.i, self.rows), b.srem(unit.i, self.rows)
            lines.spins = b.ptr(memory, chain * (2 * self.rows * stride))
            lines.update_row(philox, self.color, row, sweep, chain, thresholds)
        return b.finish()
