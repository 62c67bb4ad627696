"""Convolution as a matrix product: windows are gathered into a panel, then multiplied by all filters.

Depthwise convolution is in `depthwise`; the multiplication itself in `gemm_micro`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, i64
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.conv_window import F32, Window, at_least_one, load_run, multi_index, product_of
from neuc.backends.cpu.kernels.gemm_micro import (
    NO_EPILOGUE,
    Epilogue,
    Operands,
    Tile,
    finish_rows,
    multiply_rows,
)

K_WHOLE = 2048
"""Panel rows that are gathered at once; deeper convolutions go by blocks of channels."""
_TILES_PER_BLOCK = 8
_SLOT = 8


def filter_block(isa: Isa) -> int:
    """Most filters in one work unit."""
    return _TILES_PER_BLOCK * Tile.of(isa).rows[0]


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

    @property
    def _block(self) -> int:
        """Channels gathered at once."""
        return min(self.channels, max(1, K_WHOLE // self.window.count))

    def scratch_bytes(self, isa: Isa) -> int:
        """Scratch memory a thread needs: the panel, room for the last row's overhang, and the table of runs."""
        columns = Tile.of(isa).columns
        return (self._block * self.window.count + 1) * columns * F32 + columns * (2 + self.window.rank) * _SLOT

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
        table = b.ptr(b.scratch, (self._block * self.window.count + 1) * tile.columns * F32)
        with b.loop(b.begin, b.end) as loop:
            slice_, block, panel = multi_index(b, loop.i, [b.i64(0), b.i64(blocks), panels])
            first = panel * tile.columns
            count = b.min(positions - first, b.i64(tile.columns))
            runs = self._runs(b, table, first, count, out)
            group = b.urem(slice_, groups)
            ops = Operands(
                k=self._block * self.window.count,
                a=b.ptr(b.arg_ptr(1), group * (self.filters * self.filter_stride * F32)),
                a_row=self.filter_stride * F32,
                a_step=F32,
                panel=b.scratch,
                panel_step=tile.columns * F32,
                c=b.ptr(b.arg_ptr(2), (slice_ * self.filters * positions + first) * F32),
                c_row=positions * F32,
                columns=count,
                bias=b.ptr(b.arg_ptr(3), group * (self.filters * F32)),
                bias_row=F32,
            )
            image = b.ptr(b.arg_ptr(0), slice_ * self.channels * volume * F32)
            lo = block * rows
            self._unit(b, tile, ops, image, table, runs, sizes, lo, b.min(lo + rows, b.i64(self.filters)))
        return b.finish()

    def _unit(
        self,
        b: KernelBuilder,
        tile: Tile,
        ops: Operands,
        image: Val,
        table: Val,
        runs: Val,
        sizes: list[Val],
        lo: Val,
        hi: Val,
    ) -> None:
        """Gather and multiply, by blocks of channels if there are many."""
        if self._block == self.channels:
            self._gather(b, tile, image, b.i64(self.channels), table, runs, sizes)
            multiply_rows(b, tile, ops, lo, hi, self.epilogue)
            return
        with b.loop(0, self.channels, self._block) as loop:
            channels = b.min(b.i64(self.channels) - loop.i, b.i64(self._block))
            start = b.ptr(image, loop.i * product_of(b, sizes) * F32)
            self._gather(b, tile, start, channels, table, runs, sizes)
            part = Operands(
                k=channels * self.window.count,
                a=b.ptr(ops.a, loop.i * (self.window.count * F32)),
                a_row=ops.a_row,
                a_step=ops.a_step,
                panel=ops.panel,
                panel_step=ops.panel_step,
                c=ops.c,
                c_row=ops.c_row,
                columns=ops.columns,
            )
            multiply_rows(b, tile, part, lo, hi, NO_EPILOGUE, accumulate=b.icmp("sgt", loop.i, 0))
        finish_rows(b, tile, ops, lo, hi, self.epilogue)

    def _runs(self, b: KernelBuilder, table: Val, first: Val, count: Val, out: list[Val]) -> Val:
        """Cut a panel into runs along the innermost axis: a table of column, length and input start on each axis.

        Returns:
            The number of runs.
        """
        width = out[-1]
        row = b.udiv(first, width)
        runs = b.udiv(first + count - 1, width) - row + 1
        with b.loop(0, runs) as loop:
            flat = (row + loop.i) * width
            begin = b.max(first - flat, 0)
            places = [*multi_index(b, row + loop.i, out[:-1]), begin] if len(out) > 1 else [begin]
            entry = self._entry(b, table, loop.i)
            b.store(flat + begin - first, entry)
            b.store(b.min(width, first + count - flat) - begin, b.ptr(entry, _SLOT))
            for axis, place in enumerate(places):
                start = place * self.window.strides[axis] - self.window.pads[axis]
                b.store(start, b.ptr(entry, (2 + axis) * _SLOT))
        return runs

    def _entry(self, b: KernelBuilder, table: Val, run: Val) -> Val:
        return b.ptr(table, run * ((2 + self.window.rank) * _SLOT))

    def _gather(
        self, b: KernelBuilder, tile: Tile, image: Val, channels: Val, table: Val, runs: Val, sizes: list[Val]
    ) -> None:
        """Fill the panel: one row for each channel and tap, in the order of the filters' elements."""
        window, width = self.window, sizes[-1]
        zero = b.zero(b.vtype())
        with b.loop(0, channels * window.count) as k:
            channel, *taps = multi_index(b, k.i, [b.i64(0), *(b.i64(t) for t in window.taps)])
            plane = channel
            target = b.ptr(b.scratch, k.i * (tile.columns * F32))
            with b.loop(0, runs) as run:
                entry = self._entry(b, table, run.i)
                column, length = b.load(entry, i64), b.load(b.ptr(entry, _SLOT), i64)
                starts = [b.load(b.ptr(entry, (2 + axis) * _SLOT), i64) for axis in range(window.rank)]
                places = [start + tap * window.dilations[axis] for axis, (start, tap) in enumerate(zip(starts, taps))]
                # A row in the padding is as good as a row of no width.
                there, flat = width, plane
                for place, size in zip(places[:-1], sizes[:-1]):
                    there = b.select(b.icmp("ult", place, size), there, 0)
                    flat = flat * size + place
                row = b.ptr(image, flat * width * F32)
                to = b.ptr(target, column * F32)
                # Whole vectors: what goes past the run's end is overwritten by the next run or panel row.
                with b.loop(0, length, b.lanes) as step:
                    at = places[-1] + step.i * window.strides[-1]
                    b.store(load_run(b, row, at, there, window.strides[-1], zero), b.ptr(to, step.i * F32))
