"""Max and average pooling, along the innermost axis a vector at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.conv_window import (
    F32,
    Window,
    at_least_one,
    count_inside,
    load_run,
    multi_index,
    product_of,
    store_run,
    visit_rows,
)

_UNROLLED = 4
"""Taps along the innermost axis that are written out; longer ones are a loop."""


@dataclass(frozen=True)
class PoolKernel(KernelSpec):
    """y[n, c, p] = max or mean of x[n, c, window of p].

    Work units are rows of y along its innermost axis. Arguments: 0. x; 1. y; 2. and on: the sizes of x's spatial
    axes, then those of y's. NaN wins a max.

    Attributes:
        window: kernel, strides, padding, dilations.
        kind: ``max`` or ``avg``.
        pads_after: padding after each axis, which counts in an average if it is given.
    """

    window: Window
    kind: str
    pads_after: tuple[int, ...] | None = None
    family: ClassVar[str] = "pool"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        b = KernelBuilder(self.name, isa)
        rank = self.window.rank
        sizes = [b.arg_int(2 + axis) for axis in range(rank)]
        out = at_least_one(b, [b.arg_int(2 + rank + axis) for axis in range(rank)])
        volume = product_of(b, sizes)
        with b.loop(b.begin, b.end) as loop:
            plane, *outer = multi_index(b, loop.i, [b.i64(0), *out[:-1]])
            image = b.ptr(b.arg_ptr(0), plane * volume * F32)
            target = b.ptr(b.arg_ptr(1), loop.i * out[-1] * F32)
            outer_count = self._outer_count(b, outer, sizes)
            with b.loop(0, out[-1], b.lanes) as step:
                value = self._reduce(b, image, outer, sizes, step.i)
                if self.kind == "avg":
                    value = value / self._count(b, outer_count, step.i, sizes[-1])
                store_run(b, value, b.ptr(target, step.i * F32), out[-1] - step.i)
        return b.finish()

    def _reduce(self, b: KernelBuilder, image: Val, outer: list[Val], sizes: list[Val], column: Val) -> Val:
        window = self.window
        first = column * window.strides[-1] - window.pads[-1]
        nothing = b.const(float("-inf") if self.kind == "max" else 0.0, b.vtype())

        def join(total: Val, address: Val, tap: Val | int) -> Val:
            x = load_run(b, address, first + tap * window.dilations[-1], sizes[-1], window.strides[-1], nothing)
            if self.kind == "avg":
                return total + x
            # A NaN in x wins by max's choice, one in the total by the test; llvm.maximum orders zeros, too.
            return b.select(b.fcmp("uno", total, total), total, b.max(total, x))

        def row(_: Val, address: Val, sums: list[Val]) -> list[Val]:
            (total,) = sums
            if window.taps[-1] <= _UNROLLED:
                for tap in range(window.taps[-1]):
                    total = join(total, address, tap)
                return [total]
            with b.loop(0, window.taps[-1], init=sums) as loop:
                loop.yield_([join(loop.carried[0], address, loop.i)])
            return loop.results

        return visit_rows(b, window, image, outer, sizes, row, [nothing])[0]

    def _bounds(self, axis: int) -> tuple[int, int]:
        """How far outside an axis elements count: before and after."""
        return (0, 0) if self.pads_after is None else (self.window.pads[axis], self.pads_after[axis])

    def _outer_count(self, b: KernelBuilder, outer: list[Val], sizes: list[Val]) -> Val:
        """Rows of the window that count."""
        total = b.f32(1.0)
        if self.kind == "max":
            return total
        for axis, place in enumerate(outer):
            before, after = self._bounds(axis)
            total = total * count_inside(b, self.window, axis, place, -before, sizes[axis] + after, 1)
        return total

    def _count(self, b: KernelBuilder, outer_count: Val, column: Val, size: Val) -> Val:
        """Elements of each lane's window that count."""
        before, after = self._bounds(self.window.rank - 1)
        inner = count_inside(b, self.window, self.window.rank - 1, column, -before, size + after, b.lanes)
        return inner * b.splat(outer_count, b.lanes)
