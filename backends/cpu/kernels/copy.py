"""Moving elements without looking at them: strided copies and tiled transposes of 1, 2, 4 and 8-byte elements.

Transposes, slices, broadcasts and concatenations are all one of these; padding is `copy_pad.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import BITS, Args, chunks_wide, rows, unravel


def move_row(b: KernelBuilder, size: int, source: Val, target: Val, lo: Val, hi: Val) -> None:
    """Copy elements ``lo … hi`` of `source` to the same places of `target`."""
    element = BITS[size]
    lanes = max(1, b.isa.vector_bytes // size) if b.lanes > 1 else 1

    def move(j: Val, _: list[Val], mask: Val | None, width: int) -> Sequence[Val]:
        wide = vec(element, width)
        if mask is None:
            b.store(b.load(b.elem(source, j, element), wide), b.elem(target, j, element))
        else:
            b.masked_store(b.masked_load(b.elem(source, j, element), wide, mask), b.elem(target, j, element), mask)
        return []

    if masks_are_cheap(b.isa, size):
        chunks_wide(b, lo, hi, lanes, move)
        return
    with b.loop(lo, hi - (lanes - 1), lanes) as main:
        move(main.i, [], None, lanes)
    with b.loop(lo + b.udiv(b.max(hi - lo, 0), lanes) * lanes, hi) as tail:
        move(tail.i, [], None, 1)


def fill_row(b: KernelBuilder, size: int, value: Val, target: Val, lo: Val, hi: Val) -> None:
    """Set elements ``lo … hi`` of `target` to the scalar `value`."""
    element = BITS[size]
    lanes = max(1, b.isa.vector_bytes // size) if b.lanes > 1 else 1
    wide = b.splat(value, lanes)
    with b.loop(lo, hi - (lanes - 1), lanes) as main:
        b.store(wide, b.elem(target, main.i, element))
    if lanes > 1:
        with b.loop(lo + b.udiv(b.max(hi - lo, 0), lanes) * lanes, hi) as tail:
            b.store(value, b.elem(target, tail.i, element))


def masks_are_cheap(isa: Isa, size: int) -> bool:
    """Whether masked loads and stores of such elements are single instructions."""
    return isa.name == "avx512" or (isa.name == "avx2" and size >= 4)


@dataclass(frozen=True)
class CopyKernel(KernelSpec):
    """``target[Σ i·target strides] = source[Σ i·source strides]`` for every index of a space.

    Slots: source, target, source offset, target offset (elements), `rank` dims, `rank` source strides, `rank` target
    strides (elements). Work: the elements of the space.

    Attributes:
        size: bytes an element.
        rank: dims of the (collapsed) space.
        source: innermost source stride: ``unit``, ``zero`` or ``any``.
        target: innermost target stride: ``unit`` or ``any``.
    """

    size: int
    rank: int
    source: str
    target: str

    family = "copy"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Vectors where both sides are contiguous, else one element at a time."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        source, target = args.ptr(), args.ptr()
        element = BITS[self.size]
        source = b.elem(source, args.int(), element)
        target = b.elem(target, args.int(), element)
        dims, reading, writing = args.ints(self.rank), args.ints(self.rank), args.ints(self.rank)
        with rows(b, dims, [reading[:-1], writing[:-1]]) as row:
            here = b.elem(source, row.offsets[0], element)
            there = b.elem(target, row.offsets[1], element)
            if self.source == "unit" and self.target == "unit":
                move_row(b, self.size, here, there, row.lo, row.hi)
            elif self.source == "zero" and self.target == "unit":
                fill_row(b, self.size, b.load(here, element), there, row.lo, row.hi)
            else:
                with b.loop(row.lo, row.hi) as loop:
                    at = _column(loop.i, self.source, reading[-1])
                    to = _column(loop.i, self.target, writing[-1])
                    b.store(b.load(b.elem(here, at, element), element), b.elem(there, to, element))
        return b.finish()


def _column(index: Val, kind: str, stride: Val) -> Val:
    return index if kind == "unit" else index * stride


@dataclass(frozen=True)
class TransposeKernel(KernelSpec):
    """``target[o, r, c] = source[o, c, r]`` with free strides but for the two innermost contiguous ones.

    Slots: source, target, source offset, target offset (elements), R, C, the target's stride of r, the source's stride
    of c, `outer` outer dims, as many source strides, as many target strides. Work: the tiles, outer dims · ⌈R / T⌉ ·
    ⌈C / T⌉ with T = `tile(isa)`.

    Attributes:
        size: bytes an element.
        outer: how many outer dims there are.
    """

    size: int
    outer: int

    family = "transpose"
    written = (1,)

    def tile(self, isa: Isa) -> int:
        """The side of a tile: one vector, so that whole tiles are transposed in registers."""
        return max(4, min(16, isa.vector_bytes // self.size))

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Whole tiles by shuffles, tiles at the edge element by element."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        element, side = BITS[self.size], self.tile(isa)
        source, target = args.ptr(), args.ptr()
        source = b.elem(source, args.int(), element)
        target = b.elem(target, args.int(), element)
        (size_r, size_c, step_r, step_c) = args.ints(4)
        dims, reading, writing = args.ints(self.outer), args.ints(self.outer), args.ints(self.outer)
        tiles_r = b.max(b.udiv(size_r + side - 1, side), 1)
        tiles_c = b.max(b.udiv(size_c + side - 1, side), 1)
        with b.loop(b.begin, b.end) as loop:
            where = unravel(b, loop.i, [*dims, tiles_r, tiles_c])
            at, to = b.i64(0), b.i64(0)
            for index, read, write in zip(where, reading, writing):
                at, to = at + index * read, to + index * write
            if not dims:
                where = [b.i64(0), *where][-2:]
            r, c = where[-2] * side, where[-1] * side
            here = b.elem(source, at + c * step_c + r, element)
            there = b.elem(target, to + r * step_r + c, element)
            rows_left, columns_left = b.min(size_r - r, side), b.min(size_c - c, side)
            if isa.f32_lanes == 1:
                _transpose_edge(b, self.size, here, there, step_c, step_r, rows_left, columns_left)
            else:
                with b.if_(b.icmp("eq", rows_left + columns_left, 2 * side)) as branch:
                    _transpose_tile(b, self.size, here, there, step_c, step_r, side)
                with branch.else_():
                    _transpose_edge(b, self.size, here, there, step_c, step_r, rows_left, columns_left)
        return b.finish()


def _transpose_tile(b: KernelBuilder, size: int, here: Val, there: Val, step_c: Val, step_r: Val, side: int) -> None:
    element = BITS[size]
    lines = [b.load(b.elem(here, step_c * c, element), vec(element, side)) for c in range(side)]
    half = side // 2
    low = [lane // 2 + side * (lane % 2) for lane in range(side)]
    high = [lane + half for lane in low]
    # Interleaving line i with line i + side/2 rotates the bits of (line, lane) by one; side.bit_length() - 1 such
    # steps swap them, which is the transpose.
    for _ in range(side.bit_length() - 1):
        pairs = list(zip(lines[:half], lines[half:]))
        lines = [b.shuffle(x, y, pick) for x, y in pairs for pick in (low, high)]
    for r, line in enumerate(lines):
        b.store(line, b.elem(there, step_r * r, element))


def _transpose_edge(
    b: KernelBuilder, size: int, here: Val, there: Val, step_c: Val, step_r: Val, size_r: Val, size_c: Val
) -> None:
    element = BITS[size]
    with b.loop(0, size_r) as r, b.loop(0, size_c) as c:
        value = b.load(b.elem(here, c.i * step_c + r.i, element), element)
        b.store(value, b.elem(there, r.i * step_r + c.i, element))
