"""Rows picked by index."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, i32, i64
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.copy import move_row
from neuc.backends.cpu.kernels.strided import BITS, Args


@dataclass(frozen=True)
class GatherKernel(KernelSpec):
    """``target[o, i] = data[o, indices[i]]`` of rows of `inner` elements.

    A negative index counts from the end. An index outside the axis reads the nearest row: memory outside `data` is
    never touched, and there is nobody inside a kernel to report it to. An empty axis leaves the target as it is.

    Slots: data, indices, target, axis size, number of indices, elements a row. Work: the target's rows.

    Attributes:
        size: bytes an element.
        index: the indices' dtype, ``i32`` or ``i64``.
        single: a row is one element.
    """

    size: int
    index: str
    single: bool

    family = "gather"
    written = (2,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """One row a unit."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        data, indices, target = args.ptr(), args.ptr(), args.ptr()
        axis, count, inner = args.ints(3)
        element = BITS[self.size]
        stop = b.select(b.icmp("slt", b.i64(0), axis), b.end, b.begin)
        with b.loop(b.begin, stop) as loop:
            outer = b.udiv(loop.i, count)
            position = loop.i - outer * count
            if self.index == "i32":
                index = b.sext(b.load(b.elem(indices, position, i32), i32), i64)
            else:
                index = b.load(b.elem(indices, position, i64), i64)
            index = b.select(b.icmp("slt", index, 0), index + axis, index)
            index = b.max(b.min(index, axis - 1), 0)
            row = outer * axis + index
            if self.single:
                b.store(b.load(b.elem(data, row, element), element), b.elem(target, loop.i, element))
            else:
                move_row(
                    b,
                    self.size,
                    b.elem(data, row * inner, element),
                    b.elem(target, loop.i * inner, element),
                    b.i64(0),
                    inner,
                )
        return b.finish()
