"""`ternary.im2col`: int8 convolution windows as rows, so that a convolution is a matrix product."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, i8
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec

RUN = 64
"""Neighbouring output pixels per work unit."""


@dataclass(frozen=True)
class Im2ColKernel(KernelSpec):
    """Slots: 0 q (int8 [N, all channels, …spatial]), 1 rows (out, int8 [N, P, channels·kernel]), 2 first channel,

    3 all channels, then the spatial sizes of q, then those of the output. Work units: N x the outer output positions
    (all spatial axes but the last) x ceil(last output size / `RUN`). Pads are zero.

    Attributes:
        channels: how many channels go into a row.
        kernel: window size per spatial axis.
        strides: window step.
        pads: zeros before each axis.
        dilations: distance of the window's elements.
    """

    channels: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    family = "im2col"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """For each run of pixels, channel and window element: zeros, a strided copy, zeros."""
        b = KernelBuilder(self.name, isa)
        _Im2ColEmitter(b, self).emit()
        return b.finish()


class _Im2ColEmitter:
    def __init__(self, b: KernelBuilder, spec: Im2ColKernel) -> None:
        self.b = b
        self.spec = spec
        self.rank = len(spec.kernel)
        self.columns = spec.channels * prod(spec.kernel)
        self.sizes = [b.arg_int(4 + axis) for axis in range(self.rank)]
        self.out_sizes = [b.arg_int(4 + self.rank + axis) for axis in range(self.rank)]
        # Set for each run of pixels, then for each channel.
        self.outer: list[Val] = []
        self.first = self.until = b.i64(0)
        self.source = self.target = b.args

    def emit(self) -> None:
        b = self.b
        size = b.i64(1)
        for axis_size in self.sizes:
            size = size * axis_size
        runs = b.udiv(self.out_sizes[-1] + (RUN - 1), RUN)
        with b.loop(b.begin, b.end) as unit:
            line = b.udiv(unit.i, runs)
            self.first = (unit.i - line * runs) * RUN
            self.until = b.min(self.first + RUN, self.out_sizes[-1])
            image = line
            self.outer = []
            for axis_size in reversed(self.out_sizes[:-1]):
                following = b.udiv(image, axis_size)
                self.outer.insert(0, image - following * axis_size)
                image = following
            q = b.ptr(b.arg_ptr(0), (image * b.arg_int(3) + b.arg_int(2)) * size)
            out = b.ptr(b.arg_ptr(1), line * self.out_sizes[-1] * self.columns)
            with b.loop(0, self.spec.channels) as channel:
                self.source = b.ptr(q, channel.i * size)
                self.target = b.ptr(out, channel.i * prod(self.spec.kernel))
                self._taps(0, b.i64(0), b.icmp("eq", b.i64(0), 0), b.i64(0))

    def _taps(self, axis: int, offset: Val, inside: Val, element: Val) -> None:
        """The window's elements along one axis and those after it.

        Args:
            axis: the axis.
            offset: where the window stands in the axes before.
            inside: whether that is inside of the image.
            element: number of the window's element in the axes before.
        """
        b, spec = self.b, self.spec
        with b.loop(0, spec.kernel[axis]) as tap:
            shift = tap.i * spec.dilations[axis] - spec.pads[axis]
            here = element * spec.kernel[axis] + tap.i
            if axis == self.rank - 1:
                self._run(b.ptr(self.source, offset), b.ptr(self.target, here), shift, inside)
            else:
                at = self.outer[axis] * spec.strides[axis] + shift
                # Unsigned, so that one comparison also finds what is before the start.
                valid = b.icmp("ult", at, self.sizes[axis]) & inside
                self._taps(axis + 1, (offset + at) * self.sizes[axis + 1], valid, here)

    def _run(self, source: Val, target: Val, shift: Val, inside: Val) -> None:
        """One element of the window for all pixels of the run."""
        b, stride = self.b, self.spec.strides[-1]
        # Pixels x with 0 <= x·stride + shift < size.
        low = b.sdiv(b.max(b.neg(shift), b.i64(0)) + (stride - 1), stride)
        high = b.sdiv(b.max(self.sizes[-1] - shift + (stride - 1), b.i64(0)), stride)
        low = b.min(b.max(low, self.first), self.until)
        high = b.select(inside, b.max(b.min(high, self.until), low), low)
        for begin, end, real in ((self.first, low, False), (low, high, True), (high, self.until, False)):
            with b.loop(begin, end) as x:
                value = b.load(b.ptr(source, x.i * stride + shift), i8) if real else b.const(0, i8)
                b.store(value, b.ptr(target, x.i * self.columns))
