"""Convolution as a matrix product: windows are gathered into a panel, then multiplied by all filters.

Depthwise convolution is in `depthwise`; the multiplication itself in `gemm_micro`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, i1
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.conv_window import (
    F32,
    Window,
    at_least_one,
    load_run,
    multi_index,
    product_of,
    run_mask,
    store_run,
)
from neuc.backends.cpu.kernels.gemm_micro import (
    NO_EPILOGUE,
    Epilogue,
    Operands,
    Size,
    Tile,
    finish_rows,
    multiply_rows,
)

K_WHOLE = 2048
"""Panel rows that are gathered at once; deeper convolutions go by blocks of channels."""
_TILES_PER_BLOCK = 8
_LINE = 64
"""Bytes of a cache line."""
_MANY_CHANNELS = 8
"""More streams than processors look ahead along."""
_NEAR = 4
"""Strides up to this one use something of each cache line."""
_UNROLLED = 8
"""Taps along the innermost axis that are written out; longer ones are a loop."""


def filter_block(isa: Isa) -> int:
    """Most filters in one work unit."""
    return _TILES_PER_BLOCK * Tile.of(isa).rows[0]


@dataclass(frozen=True)
class _Panel:
    """Output positions ``first .. first + count - 1`` of one image, and the spatial sizes of x and y."""

    first: Val
    count: Val
    sizes: list[Val]
    out: list[Val]


@dataclass(frozen=True)
class ConvKernel(KernelSpec):
    """y[n, g, m, p] = activation(sum over c, taps of x[n, g, c, window of p] · w[g, m, c, taps] + bias[g, m]).

    Work units are (image and group, block of filters, panel of output positions):
    `images · groups · ceil(filters / filter_block) · ceil(positions / columns)`. Arguments:

    0. x; 1. w: [groups · filters] rows `filter_stride` floats apart; 2. y; 3. bias (any address if there is none)
    4. groups
    5. and on: the sizes of x's spatial axes, then those of y's

    Attributes:
        window: kernel, strides, padding, dilations.
        channels: input channels of a group.
        filters: output channels of a group.
        filter_stride: floats from one filter to the next.
        epilogue: bias ``scalar`` or ``none``, and the activation.
    """

    window: Window
    channels: int
    filters: int
    filter_stride: int
    epilogue: Epilogue = NO_EPILOGUE
    family: ClassVar[str] = "conv"
    written = (2,)

    @property
    def _block(self) -> int:
        """Channels gathered at once."""
        return min(self.channels, max(1, K_WHOLE // self.window.count))

    def scratch_bytes(self, isa: Isa) -> int:
        """Scratch memory a thread needs: the panel, and the results of one that lacks columns."""
        return (self._block * self.window.count + min(self.filters, filter_block(isa))) * Tile.of(isa).columns * F32

    def build(self, isa: Isa) -> llvm.FuncOp:
        b = KernelBuilder(self.name, isa)
        tile = Tile.of(isa)
        rank = self.window.rank
        groups = b.arg_int(4)
        sizes = [b.arg_int(5 + axis) for axis in range(rank)]
        out = at_least_one(b, [b.arg_int(5 + rank + axis) for axis in range(rank)])
        positions, volume = product_of(b, out), product_of(b, sizes)
        blocks = -(-self.filters // filter_block(isa))
        # Equal blocks of whole register tiles.
        rows = -(-self.filters // (blocks * tile.rows[0])) * tile.rows[0]
        tile = tile.for_rows(self.filters)
        panels = b.udiv(positions + (tile.columns - 1), tile.columns)
        with b.loop(b.begin, b.end) as loop:
            slice_, block, at = multi_index(b, loop.i, [b.i64(0), b.i64(blocks), panels])
            first = at * tile.columns
            panel = _Panel(first, b.min(positions - first, b.i64(tile.columns)), sizes, out)
            group = b.urem(slice_, groups)
            image = b.ptr(b.arg_ptr(0), slice_ * self.channels * volume * F32)
            lo = block * rows
            hi = b.min(lo + rows, b.i64(self.filters))
            whole = b.icmp("eq", panel.count, tile.columns)
            result, apart = b.ptr(b.arg_ptr(2), (slice_ * self.filters * positions + first) * F32), positions * F32
            aside = b.ptr(b.scratch, self._block * self.window.count * tile.columns * F32)
            ops = Operands(
                k=self._block * self.window.count,
                a=b.ptr(b.arg_ptr(1), group * (self.filters * self.filter_stride * F32)),
                a_row=self.filter_stride * F32,
                a_step=F32,
                panel=b.scratch,
                panel_step=tile.columns * F32,
                c=b.select(whole, result, b.ptr(aside, b.neg(lo * (tile.columns * F32)))),
                c_row=b.select(whole, apart, tile.columns * F32),
                bias=b.ptr(b.arg_ptr(3), group * (self.filters * F32)),
                bias_row=F32,
            )
            self._unit(b, tile, ops, panel, image, lo, hi)
            self._put_back(b, tile, aside, b.ptr(result, lo * apart), apart, b.select(whole, 0, hi - lo), panel.count)
        return b.finish()

    def _put_back(
        self, b: KernelBuilder, tile: Tile, aside: Val, result: Val, apart: Val, rows: Val, left: Val
    ) -> None:
        """Copy the columns that exist from where a panel's results are whole.

        Masked stores cost up to three times what others do, so that just this loop has them.
        """
        with b.loop(0, rows) as row:
            for v in range(tile.vectors):
                value = b.load(b.ptr(aside, row.i * (tile.columns * F32) + v * tile.lanes * F32), b.vtype())
                target = b.ptr(result, row.i * apart + v * tile.lanes * F32)
                store_run(b, value, target, left - v * tile.lanes)

    def _unit(self, b: KernelBuilder, tile: Tile, ops: Operands, panel: _Panel, image: Val, lo: Val, hi: Val) -> None:
        """Gather and multiply, by blocks of channels if there are many."""
        if self._block == self.channels:
            self._gather(b, tile, panel, image, self.channels)
            multiply_rows(b, tile, ops, lo, hi, self.epilogue)
            return
        with b.loop(0, self.channels, self._block) as loop:
            channels = b.min(b.i64(self.channels) - loop.i, b.i64(self._block))
            self._gather(b, tile, panel, b.ptr(image, loop.i * product_of(b, panel.sizes) * F32), channels)
            part = replace(ops, k=channels * self.window.count, a=b.ptr(ops.a, loop.i * (self.window.count * F32)))
            multiply_rows(b, tile, part, lo, hi, NO_EPILOGUE, accumulate=b.icmp("sgt", loop.i, 0))
        finish_rows(b, tile, ops, lo, hi, self.epilogue)

    def _gather(self, b: KernelBuilder, tile: Tile, panel: _Panel, image: Val, channels: Size) -> None:
        """Fill the panel: one row for each channel and tap, in the order of the filters' elements.

        A panel's positions are cut into runs along the innermost axis: within one, input elements lie evenly.
        """
        if self.channels >= _MANY_CHANNELS and self.window.strides[-1] <= _NEAR:
            self._ask_ahead(b, tile, panel, image, channels)
        width = panel.out[-1]
        row = b.udiv(panel.first, width)
        with b.loop(row, b.udiv(panel.first + panel.count - 1, width) + 1) as run:
            flat = run.i * width
            begin = b.max(panel.first - flat, 0)
            column, length = flat + begin - panel.first, b.min(width, panel.first + panel.count - flat) - begin
            outer = multi_index(b, run.i, panel.out[:-1]) if self.window.rank > 1 else []
            positions = [*outer, begin]
            starts = [
                position * self.window.strides[axis] - self.window.pads[axis] for axis, position in enumerate(positions)
            ]
            target = b.ptr(b.scratch, column * F32)
            with b.if_(b.icmp("eq", length, tile.columns)) as branch:
                self._gather_run(b, tile, panel.sizes, image, channels, starts, target, None)
            with branch.else_():
                self._gather_run(b, tile, panel.sizes, image, channels, starts, target, length)

    def _ask_ahead(self, b: KernelBuilder, tile: Tile, panel: _Panel, image: Val, channels: Size) -> None:
        """Ask for what the next panel's windows have and this one's have not.

        Each channel's rows lie in a page of their own, and a panel takes a line or two of each: processors that look
        ahead along few streams within a page see nothing of this, and every first touch would wait for memory.
        """
        window, width = self.window, panel.sizes[-1]
        step, rows = tile.columns * window.strides[-1], window.count // window.taps[-1]
        new = min(rows, window.strides[-2]) if window.rank > 1 else rows
        column = b.urem(panel.first, panel.out[-1]) * window.strides[-1] + step
        at = b.udiv(panel.first, panel.out[-1])
        outer = multi_index(b, at, panel.out[:-1]) if window.rank > 1 else []
        flat = b.i64(0)
        for axis, position in enumerate(outer):
            last = (
                position * window.strides[axis] - window.pads[axis] + (window.taps[axis] - 1) * window.dilations[axis]
            )
            flat = flat * panel.sizes[axis] + last
        source = b.ptr(image, ((flat - (new - 1)) * width + column) * F32)
        with b.loop(0, channels) as channel:
            row = b.ptr(source, channel.i * product_of(b, panel.sizes) * F32)
            for line in range(new):
                address = b.ptr(row, width * (line * F32))
                for shift in range(0, step * F32, _LINE):
                    b.intrinsic("llvm.prefetch.p0", None, [b.ptr(address, shift), b.i32(0), b.i32(3), b.i32(1)])

    def _gather_run(
        self,
        b: KernelBuilder,
        tile: Tile,
        sizes: list[Val],
        image: Val,
        channels: Size,
        starts: list[Val],
        target: Val,
        length: Val | None,
    ) -> None:
        """The part of every panel row that one run of positions has; `starts` is where their windows begin.

        Without `length` the run is all of the panel.
        """
        window, width = self.window, sizes[-1]
        rows, taps = window.count // window.taps[-1], window.taps[-1]
        zero, stride = b.zero(b.vtype()), window.strides[-1]

        def first(tap: Size, v: int) -> Val:
            return starts[-1] + (tap * window.dilations[-1] + v * tile.lanes * stride)

        unrolled = [(tap, v) for tap in range(taps) for v in range(tile.vectors)] if taps <= _UNROLLED else []
        masks = [run_mask(b, first(tap, v), width, stride) for tap, v in unrolled]
        with b.loop(0, channels) as channel, b.loop(0, rows) as line:
            outer = multi_index(b, line.i, [b.i64(t) for t in window.taps[:-1]]) if window.rank > 1 else []
            there, flat = b.const(1, i1), channel.i
            for axis, tap in enumerate(outer):
                place = starts[axis] + tap * window.dilations[axis]
                there = there & b.icmp("ult", place, sizes[axis])
                flat = flat * sizes[axis] + place
            source = b.ptr(image, flat * width * F32)
            to = b.ptr(target, (channel.i * rows + line.i) * (taps * tile.columns * F32))

            def store(run: Val, tap: Size, v: int) -> None:
                address = b.ptr(to, (tap * tile.columns + v * tile.lanes) * F32)
                if length is None:
                    b.store(run, address)
                else:
                    store_run(b, run, address, length - v * tile.lanes)

            if unrolled:
                with b.if_(there) as branch:
                    for (tap, v), mask in zip(unrolled, masks):
                        store(load_run(b, source, first(tap, v), width, stride, zero, mask), tap, v)
                with branch.else_():
                    for tap, v in unrolled:
                        store(zero, tap, v)
            else:
                # A row in the padding is as good as a row of no width.
                with b.loop(0, taps) as inner:
                    for v in range(tile.vectors):
                        wide = b.select(there, width, 0)
                        store(load_run(b, source, first(inner.i, v), wide, stride, zero), inner.i, v)
