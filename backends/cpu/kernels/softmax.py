"""Softmax and its logarithm over one axis of a tensor seen as [outer, axis, inner]."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import Args, chunks, load_elements, rows, store_elements, tree

_LOWEST = float("-inf")


@dataclass(frozen=True)
class SoftmaxKernel(KernelSpec):
    """``target[o, :, i] = softmax(source[o, :, i])``, f32.

    Three sweeps: maximum; exponentials and their sum; division. A row with a NaN, or of nothing but −inf, gives NaN.

    Slots: source, target, axis size, inner size. Work: outer · inner.

    Attributes:
        log: the logarithm of softmax.
        last: the inner size is 1: vectors run along the axis instead of across it.
    """

    log: bool
    last: bool

    family = "softmax"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """One row or one vector of columns at a time."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        source, target, size, inner = args.ptr(), args.ptr(), args.int(), args.int()
        if self.last:
            with b.loop(b.begin, b.end) as loop:
                start = loop.i * size
                self._along(b, b.elem(source, start, f32), b.elem(target, start, f32), size)
            return b.finish()
        with rows(b, [b.i64(1), inner], [[size * inner]]) as row:

            def column(j: Val, _: list[Val], mask: Val | None, width: int) -> list[Val]:
                at = row.offsets[0] + j
                self._across(b, b.elem(source, at, f32), b.elem(target, at, f32), size, inner, mask, width)
                return []

            chunks(b, row.lo, row.hi, isa.f32_lanes, column)
        return b.finish()

    def _along(self, b: KernelBuilder, here: Val, there: Val, size: Val) -> None:
        zero, lanes = b.i64(0), b.lanes
        lowest = b.const(_LOWEST, vec(f32, lanes))

        def largest(j: Val, carried: list[Val], mask: Val | None, width: int) -> list[Val]:
            return [b.max(load_elements(b, here, j, "f32", width, mask, lowest), carried[0])]

        (top,) = chunks(b, zero, size, lanes, largest, [lowest])
        top = b.splat(tree(b, top, b.max), lanes)

        def exponentials(j: Val, carried: list[Val], mask: Val | None, width: int) -> list[Val]:
            power = vecmath.exp(b, load_elements(b, here, j, "f32", width, mask) - top)
            if not self.log:
                store_elements(b, power, there, j, "f32", mask)
            return [carried[0] + (power if mask is None else b.select(mask, power, b.zero(power.type)))]

        (total,) = chunks(b, zero, size, lanes, exponentials, [b.zero(lowest.type)])
        total = tree(b, total, lambda x, y: x + y)
        shift = b.splat(vecmath.log(b, total), lanes) if self.log else b.splat(1.0 / total, lanes)

        def finish(j: Val, _: list[Val], mask: Val | None, width: int) -> list[Val]:
            if self.log:
                value = (load_elements(b, here, j, "f32", width, mask) - top) - shift
            else:
                value = load_elements(b, there, j, "f32", width, mask) * shift
            store_elements(b, value, there, j, "f32", mask)
            return []

        chunks(b, zero, size, lanes, finish)

    def _across(
        self, b: KernelBuilder, here: Val, there: Val, size: Val, inner: Val, mask: Val | None, width: int
    ) -> None:
        with b.loop(0, size, 1, [b.const(_LOWEST, vec(f32, width))]) as largest:
            new = load_elements(b, here, largest.i * inner, "f32", width, mask)
            largest.yield_([b.max(new, largest.carried[0])])
        top = largest.results[0]
        with b.loop(0, size, 1, [b.zero(top.type)]) as sums:
            at = sums.i * inner
            power = vecmath.exp(b, load_elements(b, here, at, "f32", width, mask) - top)
            if not self.log:
                store_elements(b, power, there, at, "f32", mask)
            sums.yield_([sums.carried[0] + power])
        total = sums.results[0]
        shift = vecmath.log(b, total) if self.log else 1.0 / total
        with b.loop(0, size) as loop:
            at = loop.i * inner
            if self.log:
                value = (load_elements(b, here, at, "f32", width, mask) - top) - shift
            else:
                value = load_elements(b, there, at, "f32", width, mask) * shift
            store_elements(b, value, there, at, "f32", mask)
