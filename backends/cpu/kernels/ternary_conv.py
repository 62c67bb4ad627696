"""A ternary convolution in one launch: windows, tables, products and outputs of a block of pixels at a time.

Nothing but the outputs leaves the caches. The parts are those of the kernels that do one step for all pixels; sums
are the same integers and outputs the same floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Operand, Val, f32, i8, i32, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.direct import direct_emitter, direct_scratch_bytes
from neuc.backends.cpu.kernels.lut_accumulate import lut_emitter
from neuc.backends.cpu.kernels.lut_base import lut_scratch_bytes
from neuc.backends.cpu.kernels.lut_build import READ_PAST, TableBuilder
from neuc.backends.cpu.kernels.ternary_dequantize import Epilogue, TransposedWriter
from neuc.backends.cpu.kernels.ternary_tiles import Places, TileEmitter
from neuc.backends.cpu.packing.direct import DirectLayout
from neuc.backends.cpu.packing.lut import TABLE_BYTES, LutLayout, table_kind

_ALIGNMENT = 64
_UNROLLED_BYTES = 512
_UNROLLED_RUNS = 9
_WIDEST = 64
_LEAST_TOGETHER = 4
"""Pixels that code for whole groups multiplies at least; divides `together`."""


@dataclass(frozen=True)
class TernaryConvKernel(KernelSpec):
    """Slots: 0 q (of `ChannelsLastKernel`), 1 packed weights, 2 y (out, f32 [N, outputs, pixels]), 3 s (f32 [N]),

    4 what sums start from (`pack_lut`; any integer if nothing), 5 scales (f32 [groups, P, 1, a group's outputs]),
    6 bias (f32 [outputs]; any integer if none), then the padded spatial sizes of q, then those of the output. Weights
    and what sums start from are those of one channel group after the other. Work units: N x ceil(pixels / tokens) x
    groups. Scratch: `scratch_bytes`.

    Columns of the weights are in the order of the bytes: the window's positions, and for each the channels.

    Attributes:
        layout: one group's packed matrix, of one scale a row.
        epilogue: from sums to a group's outputs.
        groups: channel groups.
        channels: channels of a group.
        kernel: window size per spatial axis.
        strides: window step.
        dilations: distance of the window's elements.
        tokens: pixels per work unit, a multiple of 16.
        together: pixels of them that are gathered and multiplied at a time.
        whole: multiply pixels in whole groups, where the last may hold what no pixel needs. A third less code, but a
            waste where there are few pixels.
    """

    layout: DirectLayout | LutLayout
    epilogue: Epilogue
    groups: int
    channels: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    tokens: int
    together: int
    whole: bool = False

    family = "ternary_conv"
    written = (2,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """For each block of pixels: gather, multiply, write."""
        b = KernelBuilder(self.name, isa)
        _ConvEmitter(b, self).emit()
        return b.finish()

    @property
    def table_groups(self) -> int:
        """Tables per pixel; `quads` tables come in fours."""
        return -(-self.layout.table_groups // 4) * 4 if isinstance(self.layout, LutLayout) else 0

    @property
    def row_bytes(self) -> int:
        """Bytes of a gathered row, with those that are read behind the window's."""
        layout = self.layout
        if isinstance(layout, DirectLayout):
            return layout.tiling.padded_columns
        return self.table_groups * layout.g + READ_PAST

    @property
    def regions(self) -> tuple[int, int, int]:
        """Bytes of the gathered rows (one where tables are made of it), of the sums, and of the tables."""
        t = self.layout.tiling
        rows = self.row_bytes if self.table_groups else self.together * self.row_bytes
        sizes = (rows, 4 * self.tokens * t.rows, self.together * self.table_groups * TABLE_BYTES)
        return tuple(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)  # pyright: ignore[reportReturnType]

    def scratch_bytes(self, isa: Isa) -> int:
        """Bytes of scratch memory."""
        if isinstance(self.layout, DirectLayout):
            return sum(self.regions) + direct_scratch_bytes(self.layout, isa, self.together, padded=True)
        return sum(self.regions) + lut_scratch_bytes(self.layout, self.together)


class _ConvEmitter:
    def __init__(self, b: KernelBuilder, spec: TernaryConvKernel) -> None:
        self.b = b
        self.spec = spec
        rank = len(spec.kernel)
        padded = [b.arg_int(7 + axis) for axis in range(rank)]
        self.out_sizes = [b.arg_int(7 + rank + axis) for axis in range(rank)]
        # Bytes from one position to the next, per axis, and of an image.
        steps = [b.i64(spec.groups * spec.channels)]
        for size in reversed(padded):
            steps.insert(0, steps[0] * size)
        self.image_bytes, self.steps = steps[0], steps[1:]
        self.rows = b.scratch
        self.sums = b.ptr(b.scratch, spec.regions[0])
        self.tables = b.ptr(b.scratch, sum(spec.regions[:2]))
        self.rest = b.ptr(b.scratch, sum(spec.regions))
        self.bias = 0

    def emit(self) -> None:
        b, spec, e = self.b, self.spec, self.spec.epilogue
        pixels = b.i64(1)
        for size in self.out_sizes:
            pixels = pixels * size
        blocks = b.udiv(pixels + (spec.tokens - 1), spec.tokens)
        products = self._products()
        with b.loop(b.begin, b.end) as unit:
            number = b.udiv(unit.i, spec.groups)
            group, image = unit.i - number * spec.groups, b.udiv(number, blocks)
            first = (number - image * blocks) * spec.tokens
            count = b.min(pixels - first, b.i64(spec.tokens))
            source = b.ptr(b.arg_ptr(0), image * self.image_bytes + group * spec.channels)
            with b.loop(0, count, spec.together) as part:
                here = b.min(count - part.i, b.i64(spec.together))
                self._gather(source, first + part.i, here)
                products.at = self._places(group, part.i)
                multiplied = here
                if (least := products.token_sizes[-1]) > 1:
                    multiplied = b.udiv(here + (least - 1), least) * least
                products.prepare(multiplied)
                with b.loop(0, spec.layout.tiling.row_blocks) as row_block:
                    products.block(multiplied, row_block.i)
            s = b.splat(b.load(b.elem(b.arg_ptr(3), image, f32), f32), b.lanes)
            scales = b.elem(b.arg_ptr(5), group * (e.planes * e.rows), f32)
            writer = TransposedWriter(b, e, scales, b.elem(b.arg_ptr(6), group * e.rows, f32), s, pixels)
            y = b.elem(b.arg_ptr(2), (image * spec.groups + group) * e.rows * pixels + first, f32)
            with b.loop(0, count, b.lanes) as pixel:
                line = pixel.i * (e.planes * e.rows)
                writer.write(b.elem(self.sums, line, i32), b.elem(y, pixel.i, f32), count - pixel.i)

    def _products(self) -> TileEmitter:
        b, spec = self.b, self.spec
        if isinstance(spec.layout, DirectLayout):
            products = direct_emitter(b, spec.layout, spec.together, padded=True)
        else:
            products = lut_emitter(b, table_kind(b.isa), spec.layout, spec.together)
        if spec.whole:
            least = min(_LEAST_TOGETHER, products.token_sizes[0])
            products.token_sizes = tuple(size for size in products.token_sizes if size >= least)
        return products

    def _places(self, group: Val, pixel: Val) -> Places:
        """The data of the pixels from `pixel` of the unit's."""
        b, spec, e, t = self.b, self.spec, self.spec.epilogue, self.spec.layout.tiling
        direct = isinstance(spec.layout, DirectLayout)
        return Places(
            activations=self.rows if direct else self.tables,
            activation_bytes=t.padded_columns if direct else spec.table_groups * TABLE_BYTES,
            weights=b.ptr(b.arg_ptr(1), group * t.nbytes),
            sums=b.elem(self.sums, pixel * (e.planes * e.rows), i32),
            start=b.elem(b.arg_ptr(4), group * (t.row_blocks * t.segments * t.padded_block_rows), i32),
            scratch=self.rest,
        )

    def _gather(self, source: Val, first: Val, count: Val) -> None:
        """The windows of `count` pixels as rows of activations, or as tables."""
        b, spec = self.b, self.spec
        if isinstance(spec.layout, DirectLayout):
            with b.loop(0, count) as token:
                row = b.ptr(self.rows, token.i * spec.row_bytes)
                self._row(source, first + token.i, row)
                self._pad(row)
            return
        builder = TableBuilder(b, table_kind(b.isa), spec.layout.code.table)
        self.bias = builder.bias
        self._pad(self.rows)
        with b.loop(0, count) as token:
            self._row(source, first + token.i, self.rows)
            target = b.ptr(self.tables, token.i * (spec.table_groups * TABLE_BYTES))
            builder.tables(self.rows, target, spec.table_groups, spec.layout.g)

    def _row(self, source: Val, pixel: Val, row: Val) -> None:
        """The window of one pixel: all its runs, one behind the other."""
        corner = self._corner(source, pixel)
        kernel, channels = self.spec.kernel, self.spec.channels
        # Neighbours on the last axis are one run if nothing lies between them.
        if self.spec.groups == 1 and self.spec.dilations[-1] == 1:
            kernel, channels = kernel[:-1], channels * kernel[-1]
        if prod(kernel) <= _UNROLLED_RUNS:
            self._unrolled(corner, row, kernel, channels)
        else:
            self._looped(corner, row, self.b.i64(0), kernel, channels)

    def _pad(self, row: Val) -> None:
        """Zeros, as biased, behind a window."""
        columns, size = self.spec.layout.tiling.columns, self.spec.row_bytes
        if size > columns:
            with self.b.loop(columns, size) as at:
                self.b.store(self.b.const(self.bias, i8), self.b.ptr(row, at.i))

    def _corner(self, source: Val, pixel: Val) -> Val:
        """Address of the first byte under the window of an output pixel."""
        b, strides = self.b, self.spec.strides
        offset = b.i64(0)
        for axis in range(len(strides) - 1, 0, -1):
            following = b.udiv(pixel, self.out_sizes[axis])
            offset = offset + (pixel - following * self.out_sizes[axis]) * strides[axis] * self.steps[axis]
            pixel = following
        return b.ptr(source, offset + pixel * strides[0] * self.steps[0])

    def _unrolled(self, corner: Val, row: Val, kernel: tuple[int, ...], size: int) -> None:
        for number in range(prod(kernel)):
            address, rest = corner, number
            for axis in range(len(kernel) - 1, -1, -1):
                tap, rest = rest % kernel[axis], rest // kernel[axis]
                address = self.b.ptr(address, self.steps[axis] * (tap * self.spec.dilations[axis]))
            self._run(address, self.b.ptr(row, number * size), size)

    def _looped(self, address: Val, row: Val, number: Val, kernel: tuple[int, ...], size: int, axis: int = 0) -> None:
        if axis == len(kernel):
            self._run(address, self.b.ptr(row, number * size), size)
            return
        with self.b.loop(0, kernel[axis]) as tap:
            here = self.b.ptr(address, tap.i * self.spec.dilations[axis] * self.steps[axis])
            self._looped(here, row, number * kernel[axis] + tap.i, kernel, size, axis + 1)

    def _run(self, source: Val, target: Val, size: int) -> None:
        """Move, and bias, `size` neighbouring bytes, the widest pieces first."""
        done = 0
        if size > _UNROLLED_BYTES:
            done = size // _WIDEST * _WIDEST
            with self.b.loop(0, done, _WIDEST) as piece:
                self._move(source, target, piece.i, _WIDEST)
        while done < size:
            piece = min(_WIDEST, 1 << (size - done).bit_length() - 1)
            self._move(source, target, done, piece)
            done += piece

    def _move(self, source: Val, target: Val, at: Operand, size: int) -> None:
        b = self.b
        moved = b.load(b.ptr(source, at), vec(i8, size))
        b.store(moved ^ self.bias if self.bias else moved, b.ptr(target, at))
