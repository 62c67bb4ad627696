"""Convolution by scatter: each event adds its filter rows to the outputs around it, channels last; and sums of windows.

There is no test for the border: outputs are summed up with a rim as wide as the kernel, which is left out in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.dialects import llvm
from xdsl.ir import Attribute

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i8, i32, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.spike_lists import compact
from neuc.backends.cpu.kernels.strided import Args, chunks, chunks_wide, load_elements, store_elements

_SUMS_BYTES = 40 * 1024
"""What a block of outputs of one image should fit into: most of a first-level cache."""
_UNROLLED = 64
"""Vectors of one filter row that are written out; more are a loop over the kernel's lines."""
_LINE = 64


@dataclass(frozen=True)
class SpikeConvKernel(KernelSpec):
    """y[m, p, o] = bias[o] + Σ x[m, p + tap - pad, c]·W[o, c, tap] over the x that are not 0; stride 1.

    Slots: x [M, H, W, C], W as `pack` has it, bias [O] (any address if there is none), y [M, H', W', O]. Work: M ·
    `blocks`. Scratch: `scratch_bytes`. In f32 each product and sum is rounded as the machine's multiply-add does, in
    the order of the inputs, beginning with the bias; weights in int8 give i32, modulo 2^32.

    Attributes:
        size: H, W.
        channels: C.
        filters: O.
        kernel, pads, dilations: along H and W; pads before and after, as ONNX has them.
        x: ``f32`` or ``i8``.
        weights: ``f32`` or ``i8``.
        bias: there is a bias, f32 or i32.
    """

    size: tuple[int, int]
    channels: int
    filters: int
    kernel: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    x: str
    weights: str
    bias: bool
    family: ClassVar[str] = "spike_conv"
    written = (3,)

    @property
    def rim(self) -> tuple[int, int]:
        """Outputs to the left and right of those that can come of an input."""
        return (self.kernel[0] - 1) * self.dilations[0], (self.kernel[1] - 1) * self.dilations[1]

    @property
    def out(self) -> tuple[int, int]:
        """H', W'."""
        top, left, bottom, right = self.pads
        return self.size[0] + top + bottom - self.rim[0], self.size[1] + left + right - self.rim[1]

    @property
    def offset(self) -> tuple[int, int]:
        """Outputs before those of the first input: what padding has beyond the rim."""
        return max(0, self.pads[0] - self.rim[0]), max(0, self.pads[1] - self.rim[1])

    @property
    def area(self) -> tuple[int, int]:
        """Outputs that are summed up, the rim among them."""
        (rows, columns), (_, _, bottom, right) = self.rim, self.pads
        return (
            self.offset[0] + self.size[0] + max(rows, bottom),
            self.offset[1] + self.size[1] + max(columns, right),
        )

    def vectors(self, isa: Isa) -> int:
        """Vectors of filters in a block."""
        most = max(1, _SUMS_BYTES // (self.area[0] * self.area[1] * 4 * isa.f32_lanes))
        whole = -(-self.filters // isa.f32_lanes)
        blocks = -(-whole // most)
        return -(-whole // blocks)

    def blocks(self, isa: Isa) -> int:
        """Blocks of filters."""
        return -(-self.filters // (self.vectors(isa) * isa.f32_lanes))

    def pack(self, weight: np.ndarray, isa: Isa) -> np.ndarray:
        """W[O, C, kh, kw] as [block, C, kh, kw, filters of a block], missing filters zero.

        Taps are turned round: an input's first row goes to the output farthest ahead.
        """
        width, blocks = self.vectors(isa) * isa.f32_lanes, self.blocks(isa)
        padded = np.zeros((blocks * width, *weight.shape[1:]), weight.dtype)
        padded[: self.filters] = weight
        turned = padded[:, :, ::-1, ::-1].reshape(blocks, width, *weight.shape[1:])
        return np.ascontiguousarray(turned.transpose(0, 2, 3, 4, 1))

    def _room(self, isa: Isa) -> int:
        inputs = self.size[0] * self.size[1] * self.channels + isa.f32_lanes
        return -(-inputs // (_LINE // 4)) * (_LINE // 4)

    def scratch_bytes(self, isa: Isa) -> int:
        """The list of events, their values widened, and a block of sums."""
        sums = self.area[0] * self.area[1] * self.vectors(isa) * isa.f32_lanes
        return 4 * (3 * self._room(isa) + sums)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """For each image the list of its events; for each block of filters sums, events, and the way out."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        x, weights, bias, y = (args.ptr() for _ in range(4))
        number: Attribute = f32 if self.weights == "f32" else i32
        blocks, width, room = self.blocks(isa), self.vectors(isa) * b.lanes, self._room(isa)
        inputs, taps = self.size[0] * self.size[1] * self.channels, self.kernel[0] * self.kernel[1]
        indices, values, widened = (b.elem(b.scratch, part * room, i32) for part in range(3))
        sums = b.elem(b.scratch, 3 * room, i32)
        outputs = self.out[0] * self.out[1] * self.filters
        with b.loop(b.udiv(b.begin, blocks), b.udiv(b.end + (blocks - 1), blocks)) as image:
            source = b.elem(x, image.i * inputs, f32 if self.x == "f32" else i8)
            if self.x == "i8":
                _widen(b, source, widened, inputs, number)
                source = widened
            count = compact(b, source, inputs, indices, values, number)
            with b.loop(b.max(b.begin - image.i * blocks, 0), b.min(b.end - image.i * blocks, blocks)) as block:
                own = b.elem(weights, block.i * (self.channels * taps * width), f32 if self.weights == "f32" else i8)
                self._begin(b, sums, bias, block.i * width, width, number)
                self._scatter(b, (indices, values, count), own, sums, width, number)
                self._finish(b, sums, b.elem(y, image.i * outputs, number), block.i * width, width, number)
        return b.finish()

    def _begin(self, b: KernelBuilder, sums: Val, bias: Val, first: Val, width: int, number: Attribute) -> None:
        """Every sum is the bias."""
        for vector in range(width // b.lanes):
            at = first + vector * b.lanes
            own = b.zero(vec(number, b.lanes))
            if self.bias:
                mask = b.mask_below(self.filters - at, b.lanes)
                own = b.masked_load(b.elem(bias, at, number), vec(number, b.lanes), mask)
            with b.loop(0, self.area[0] * self.area[1]) as pixel:
                b.store(own, b.elem(sums, pixel.i * width + vector * b.lanes, number))

    def _scatter(
        self, b: KernelBuilder, events: tuple[Val, Val, Val], weights: Val, sums: Val, width: int, number: Attribute
    ) -> None:
        indices, values, count = events
        (kh, kw), (dh, dw) = self.kernel, self.dilations
        memory = f32 if self.weights == "f32" else i8
        per_input, vectors = kh * kw * width, width // b.lanes
        with b.loop(0, count) as loop:
            place = b.zext(b.load(b.elem(indices, loop.i, i32), i32), i64)
            factor = b.splat(b.load(b.elem(values, loop.i, number), number), b.lanes)
            pixel = b.udiv(place, self.channels)
            line = b.udiv(pixel, self.size[1])
            column = pixel - line * self.size[1]
            down, right = self.offset
            target = b.elem(sums, ((line + down) * self.area[1] + column + right) * width, number)
            row = b.elem(weights, (place - pixel * self.channels) * per_input, memory)

            def add(line: Val | int, tap: int, vector: int, target: Val = target, row: Val = row) -> None:
                goes = b.elem(
                    target, line * (dh * self.area[1] * width) + (tap * dw * width + vector * b.lanes), number
                )
                comes = b.elem(row, line * (kw * width) + (tap * width + vector * b.lanes), memory)
                weight = b.load(comes, vec(memory, b.lanes))
                held = b.load(goes, vec(number, b.lanes))
                if number == f32:
                    b.store(b.fma(weight, factor, held), goes)
                else:
                    b.store(held + b.sext(weight, i32) * factor, goes)

            if kh * kw * vectors <= _UNROLLED:
                for tap in range(kh * kw):
                    for vector in range(vectors):
                        add(tap // kw, tap % kw, vector)
            else:
                with b.loop(0, kh) as lines:
                    for tap in range(kw):
                        for vector in range(vectors):
                            add(lines.i, tap, vector)

    def _finish(self, b: KernelBuilder, sums: Val, y: Val, first: Val, width: int, number: Attribute) -> None:
        """Copy the sums of the real outputs."""
        rows, columns = self.rim
        top, left = max(0, rows - self.pads[0]), max(0, columns - self.pads[1])
        if self.filters == width:
            # Lines of outputs lie side by side, in both places.
            with b.loop(0, self.out[0]) as line:
                source = b.elem(sums, ((line.i + top) * self.area[1] + left) * width, number)
                kind = "f32" if number == f32 else "i32"
                copy_line(b, kind, source, b.elem(y, line.i * (self.out[1] * width), number), self.out[1] * width)
            return
        left_over = b.min(self.filters - first, width)
        with b.loop(0, self.out[0]) as line, b.loop(0, self.out[1]) as column:
            source = b.elem(sums, ((line.i + top) * self.area[1] + column.i + left) * width, number)
            target = b.elem(y, (line.i * self.out[1] + column.i) * self.filters + first, number)

            def move(
                j: Val, _: list[Val], mask: Val | None, lanes: int, source: Val = source, to: Val = target
            ) -> list[Val]:
                value = b.load(b.elem(source, j, number), vec(number, lanes))
                store_elements(b, value, to, j, "f32" if number == f32 else "i32", mask)
                return []

            chunks(b, b.i64(0), left_over, b.lanes, move)


def copy_line(b: KernelBuilder, kind: str, source: Val, target: Val, count: int) -> None:
    """Copy so many numbers of four bytes."""

    def move(j: Val, _: list[Val], mask: Val | None, lanes: int) -> list[Val]:
        store_elements(b, load_elements(b, source, j, kind, lanes, mask), target, j, kind, mask)
        return []

    chunks_wide(b, b.i64(0), b.i64(count), b.lanes, move)


def _widen(b: KernelBuilder, source: Val, target: Val, count: int, number: Attribute) -> None:
    """Int8 to the type of sums."""

    def move(j: Val, _: list[Val], mask: Val | None, lanes: int) -> list[Val]:
        value = b.sext(load_elements(b, source, j, "i8", lanes, mask), i32)
        if number == f32:
            store_elements(b, b.sitofp(value, f32), target, j, "f32", mask)
        else:
            store_elements(b, value, target, j, "i32", mask)
        return []

    chunks(b, b.i64(0), b.i64(count), b.lanes, move)


@dataclass(frozen=True)
class SpikePoolKernel(KernelSpec):
    """y[m, p, c] = Σ of the window of x[m, ., c] at p, int8, channels last; no padding.

    Slots: x [M, H, W, C], y [M, H', W', C]. Work: M · H'. The sums fit into int8.

    Attributes:
        size: H, W.
        channels: C.
        kernel, strides: along H and W.
    """

    size: tuple[int, int]
    channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    family: ClassVar[str] = "spike_pool"
    written = (1,)

    @property
    def out(self) -> tuple[int, int]:
        """H', W'."""
        return (
            (self.size[0] - self.kernel[0]) // self.strides[0] + 1,
            (self.size[1] - self.kernel[1]) // self.strides[1] + 1,
        )

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Vectors of channels."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        x, y = args.ptr(), args.ptr()
        height, width = self.out
        lanes = isa.vector_bytes if isa.f32_lanes > 1 else 1
        while lanes > 1 and lanes // 2 >= self.channels:
            lanes //= 2
        with b.loop(b.begin, b.end) as unit, b.loop(0, width) as column:
            image = b.udiv(unit.i, height)
            line = (unit.i - image * height) * self.strides[0]
            first = ((image * self.size[0] + line) * self.size[1] + column.i * self.strides[1]) * self.channels
            target = (unit.i * width + column.i) * self.channels

            def add(
                j: Val, _: list[Val], mask: Val | None, lanes: int, first: Val = first, target: Val = target
            ) -> list[Val]:
                total = b.zero(vec(i8, lanes))
                for tap in range(self.kernel[0] * self.kernel[1]):
                    down, right = divmod(tap, self.kernel[1])
                    shift = (down * self.size[1] + right) * self.channels
                    total = total + load_elements(b, x, first + j + shift, "i8", lanes, mask)
                store_elements(b, total, y, target + j, "i8", mask)
                return []

            chunks(b, b.i64(0), b.i64(self.channels), lanes, add)
        return b.finish()
