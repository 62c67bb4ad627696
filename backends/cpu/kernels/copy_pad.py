"""Padding: the copy whose source index leaves the source."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.copy import fill_row, move_row
from neuc.backends.cpu.kernels.strided import BITS, Args, rows, unravel


@dataclass(frozen=True)
class PadKernel(KernelSpec):
    """A contiguous tensor with elements added before and after each axis.

    Slots: source, target, the constant's bits (integer), `rank` target dims, `rank` source dims, `rank` counts of
    elements added before. Work: the target's elements.

    Attributes:
        size: bytes an element.
        rank: dims of both tensors.
        mode: ``constant``; ``edge`` repeats the border; ``reflect`` mirrors at it, as often as needed.
    """

    size: int
    rank: int
    mode: str

    family = "pad"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Row by row: the border on the left, the source's row, the border on the right."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        element = BITS[self.size]
        source, target = args.ptr(), args.ptr()
        value = b.trunc(args.int(), element) if self.size < 8 else args.int()
        dims, sizes, before = args.ints(self.rank), args.ints(self.rank), args.ints(self.rank)
        n, left = sizes[-1], before[-1]
        with rows(b, dims, []) as row:
            there = b.elem(target, row.index * dims[-1], element)
            index, inside = b.i64(0), None
            if self.rank > 1:
                for at, size, added in zip(unravel(b, row.index, dims[:-1]), sizes, before):
                    at = at - added
                    if self.mode == "constant":
                        # Unsigned: what lies before the source is a huge number.
                        fits = b.icmp("ult", at, size)
                        inside = fits if inside is None else inside & fits
                    index = index * size + self._inner_index(b, at, size)
            here = b.elem(source, index * n, element)
            # Columns left … right of the row come from the source; a row that lies outside has none.
            right = left + n if inside is None else b.select(inside, left + n, left)
            lo, hi = b.min(b.max(row.lo, left), right), b.max(b.min(row.hi, right), left)
            if self.mode == "constant":
                fill_row(b, self.size, value, there, row.lo, b.min(row.hi, left))
                fill_row(b, self.size, value, there, b.max(row.lo, right), row.hi)
            else:
                self._border(b, here, there, row.lo, b.min(row.hi, left), left, n)
                self._border(b, here, there, b.max(row.lo, right), row.hi, left, n)
            move_row(b, self.size, b.elem(here, b.i64(0) - left, element), there, lo, hi)
        return b.finish()

    def _border(self, b: KernelBuilder, here: Val, there: Val, lo: Val, hi: Val, left: Val, n: Val) -> None:
        element = BITS[self.size]
        with b.loop(lo, hi) as loop:
            at = self._inner_index(b, loop.i - left, n)
            b.store(b.load(b.elem(here, at, element), element), b.elem(there, loop.i, element))

    def _inner_index(self, b: KernelBuilder, at: Val, size: Val) -> Val:
        """The source index that the (possibly outside) index `at` stands for."""
        if self.mode == "constant":
            return at
        if self.mode == "edge":
            return b.max(b.min(at, size - 1), 0)
        period = b.max((size - 1) * 2, 1)
        at = b.srem(at, period)
        at = b.select(b.icmp("slt", at, 0), at + period, at)
        return b.min(at, period - at) if self.mode == "reflect" else at
