"""What pieces of the keys gave, as one: the second launch of attention for few tokens."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import Args, chunks, load_elements, store_elements

LOWEST = -1e30
"""Below every score, and finite: its difference from itself is 0."""


@dataclass(frozen=True)
class AttentionMergeKernel(KernelSpec):
    """The results of chunks of keys as one.

    Slots: 0 parts (f32 [chunks, rows, width + 2], as `AttentionKernel` writes them), 1 out (f32 [rows, width]), 2 rows,
    3 chunks. Work units: rows. Scratch: 4 bytes a chunk.
    """

    width: int

    family = "attention_merge"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Each chunk's part in the sum first, then the sum."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        parts, out, count, chunk_count = args.ptr(), args.ptr(), args.int(), args.int()
        step = self.width + 2
        with b.loop(b.begin, b.end) as row:

            def part(chunk: Val, row: Val = row.i) -> Val:
                return b.elem(parts, (chunk * count + row) * step, f32)

            with b.loop(0, chunk_count, init=[b.f32(LOWEST)]) as chunk:
                top = b.load(b.elem(part(chunk.i), self.width, f32), f32)
                chunk.yield_([b.max(top, chunk.carried[0])])
            largest = chunk.results[0]
            with b.loop(0, chunk_count, init=[b.f32(0.0)]) as chunk:
                here = part(chunk.i)
                factor = vecmath.exp2_below(b, b.load(b.elem(here, self.width, f32), f32) - largest)
                b.store(factor, b.elem(b.scratch, chunk.i, f32))
                chunk.yield_([b.fma(factor, b.load(b.elem(here, self.width + 1, f32), f32), chunk.carried[0])])
            quotient = 1.0 / chunk.results[0]

            def column(j: Val, _: list[Val], mask: Val | None, lanes: int, row: Val = row.i) -> list[Val]:
                with b.loop(0, chunk_count, init=[b.zero(vec(f32, lanes))]) as chunk:
                    factor = b.splat(b.load(b.elem(b.scratch, chunk.i, f32), f32), lanes)
                    x = load_elements(b, part(chunk.i), j, "f32", lanes, mask)
                    chunk.yield_([b.fma(factor, x, chunk.carried[0])])
                y = chunk.results[0] * b.splat(quotient, lanes)
                store_elements(b, y, b.elem(out, row * self.width, f32), j, "f32", mask)
                return []

            chunks(b, b.i64(0), b.i64(self.width), b.lanes, column)
        return b.finish()
