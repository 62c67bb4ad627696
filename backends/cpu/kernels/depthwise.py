"""Depthwise convolution: one input channel a filter, computed directly along the innermost axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.dialects import llvm

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.conv_window import (
    F32,
    Window,
    at_least_one,
    load_run,
    multi_index,
    product_of,
    store_run,
    visit_rows,
)
from neuc.backends.cpu.kernels.gemm_micro import NO_EPILOGUE, Epilogue

_UNROLLED = 16
"""Taps along the innermost axis that are written out; longer ones are a loop."""


@dataclass(frozen=True)
class DepthwiseKernel(KernelSpec):
    """y[n, c·filters + f, p] = activation(sum over taps of x[n, c, window of p] · w[c·filters + f, taps] + bias).

    Work units are rows of y along its innermost axis. Arguments: 0. x; 1. w, contiguous; 2. y; 3. bias; 4. number of
    input channels; 5. and on: the sizes of x's spatial axes, then those of y's.

    Attributes:
        window: kernel, strides, padding, dilations.
        filters: filters of each channel.
        epilogue: bias ``scalar`` or ``none``, and the activation.
    """

    window: Window
    filters: int = 1
    epilogue: Epilogue = NO_EPILOGUE
    family: ClassVar[str] = "depthwise"
    written = (2,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        b = KernelBuilder(self.name, isa)
        window, rank = self.window, self.window.rank
        outputs = b.max(b.arg_int(4), 1) * self.filters
        sizes = [b.arg_int(5 + axis) for axis in range(rank)]
        out = at_least_one(b, [b.arg_int(5 + rank + axis) for axis in range(rank)])
        volume = product_of(b, sizes)
        with b.loop(b.begin, b.end) as loop:
            plane, *outer = multi_index(b, loop.i, [b.i64(0), *out[:-1]])
            output = b.urem(plane, outputs)
            weights = b.ptr(b.arg_ptr(1), output * (window.count * F32))
            image = b.ptr(b.arg_ptr(0), b.udiv(plane, self.filters) * volume * F32)
            target = b.ptr(b.arg_ptr(2), loop.i * out[-1] * F32)
            start = b.zero(b.vtype())
            if self.epilogue.bias != "none":
                start = b.splat(b.load(b.elem(b.arg_ptr(3), output, f32), f32), b.lanes)
            with b.loop(0, out[-1], b.lanes) as step:
                first = step.i * window.strides[-1] - window.pads[-1]
                total = self._sum(b, image, weights, outer, sizes, first, start)
                done = vecmath.activate(b, total, self.epilogue.activation, self.epilogue.alpha, self.epilogue.beta)
                store_run(b, done, b.ptr(target, step.i * F32), out[-1] - step.i)
        return b.finish()

    def _sum(
        self, b: KernelBuilder, image: Val, weights: Val, outer: list[Val], sizes: list[Val], first: Val, start: Val
    ) -> Val:
        window, zero = self.window, b.zero(b.vtype())
        taps, dilation = window.taps[-1], window.dilations[-1]

        def row(flat_tap: Val, address: Val, sums: list[Val]) -> list[Val]:
            near = b.ptr(weights, flat_tap * (taps * F32))

            def tap(total: Val, index: Val | int) -> Val:
                x = load_run(b, address, first + index * dilation, sizes[-1], window.strides[-1], zero)
                return b.fma(b.splat(b.load(b.elem(near, index, f32), f32), b.lanes), x, total)

            (total,) = sums
            if taps <= _UNROLLED:
                for index in range(taps):
                    total = tap(total, index)
                return [total]
            with b.loop(0, taps, init=[total]) as loop:
                loop.yield_([tap(loop.carried[0], loop.i)])
            return loop.results

        return visit_rows(b, window, image, outer, sizes, row, [start])[0]
