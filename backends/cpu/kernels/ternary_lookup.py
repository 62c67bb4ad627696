"""`ternary.lookup`: rows of a weight matrix as floats, from the packed weights of a layer or from plain rows."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f16, f32, i8, i16, i32, i64
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.map_half import half_to_float
from neuc.backends.cpu.kernels.strided import Args, chunks, load_elements, store_elements
from neuc.backends.cpu.packing.direct import QUAD, TILE_BYTES, TILE_ROWS, DirectLayout


@dataclass(frozen=True)
class TernaryLookupKernel(KernelSpec):
    """Slots: 0 ids (i64), 1 weights, 2 scales, 3 out (f32 [ids, K]), 4 N, 5 levels of a byte (int8 [256, columns a byte
    holds], with a layout). Work units: ids. Scratch: `scratch_bytes`.

    Ids below 0 read row 0, those past the end the last row.

    Attributes:
        columns: K.
        segment: columns that share a scale.
        planes: P; 1 with a layout.
        scale_rows: scales are [P, ceil(N / scale_rows), G, scale_rows].
        half: scales are f16, not f32.
        layout: how weights are packed; without one they are int8 [P, N, K].
    """

    columns: int
    segment: int
    planes: int = 1
    scale_rows: int = 1
    half: bool = False
    layout: DirectLayout | None = None

    family = "ternary_lookup"
    written = (3,)

    @property
    def segments(self) -> int:
        """G."""
        return -(-self.columns // self.segment)

    @property
    def scratch_bytes(self) -> int:
        """The levels of one segment of a row, filled up to whole steps."""
        return 0 if self.layout is None else self.layout.tiling.segment_steps * self.layout.tiling.step_columns

    def build(self, isa: Isa) -> llvm.FuncOp:
        """A row a unit, segment by segment."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        ids, weights, scales, out, count = args.ptr(), args.ptr(), args.ptr(), args.ptr(), args.int()
        table = None if self.layout is None else args.ptr()
        last = (self.segments - 1) * self.segment
        with b.loop(b.begin, b.end) as unit:
            row = b.max(b.min(b.load(b.elem(ids, unit.i, i64), i64), count - 1), 0)
            target = b.elem(out, unit.i * self.columns, f32)
            for plane in range(self.planes):
                with b.loop(0, self.segments) as segment:
                    first = segment.i * self.segment
                    width = b.select(b.icmp("eq", first, last), b.i64(self.columns - last), b.i64(self.segment))
                    scale = self._scale(b, scales, count, plane, row, segment.i)
                    if table is None:
                        levels = b.ptr(weights, (count * plane + row) * self.columns + first)
                    else:
                        self._unpack(b, weights, table, row, segment.i)
                        levels = b.scratch
                    self._multiply(b, levels, scale, b.elem(target, first, f32), width, plane > 0)
        return b.finish()

    def _scale(self, b: KernelBuilder, scales: Val, count: Val, plane: int, row: Val, segment: Val) -> Val:
        block = b.udiv(row, self.scale_rows)
        blocks = b.udiv(count + (self.scale_rows - 1), self.scale_rows) * plane
        at = ((blocks + block) * self.segments + segment) * self.scale_rows + (row - block * self.scale_rows)
        if not self.half:
            return b.load(b.elem(scales, at, f32), f32)
        return half_to_float(b, b.bitcast(b.load(b.elem(scales, at, i16), i16), f16))

    def _unpack(self, b: KernelBuilder, weights: Val, table: Val, row: Val, segment: Val) -> None:
        """The levels of one segment of a row to scratch memory."""
        assert self.layout is not None
        planes, tiling = self.layout.planes, self.layout.tiling
        block = b.udiv(row, tiling.block_rows)
        in_block = row - block * tiling.block_rows
        chunk = b.udiv(in_block, tiling.chunk_rows)
        in_chunk = in_block - chunk * tiling.chunk_rows
        tile = b.udiv(in_chunk, TILE_ROWS)
        lane = in_chunk - tile * TILE_ROWS
        start = block * tiling.row_block_bytes + segment * tiling.segment_bytes + tile * TILE_BYTES + lane * QUAD
        with b.loop(0, tiling.segment_steps, tiling.block_steps) as columns:
            steps = b.min(b.i64(tiling.segment_steps) - columns.i, b.i64(tiling.block_steps))
            before = columns.i * tiling.chunks + chunk * steps
            with b.loop(0, steps) as step:
                source = b.ptr(weights, start + (before + step.i) * tiling.step_bytes)
                target = b.ptr(b.scratch, (columns.i + step.i) * tiling.step_columns)
                for column in range(QUAD):
                    code = b.zext(b.load(b.ptr(source, column), i8), i64)
                    levels = b.ptr(table, code * planes)
                    for plane in range(planes):
                        b.store(b.load(b.ptr(levels, plane), i8), b.ptr(target, plane * QUAD + column))

    def _multiply(self, b: KernelBuilder, levels: Val, scale: Val, target: Val, width: Val, add: bool) -> None:
        """Levels times scale, stored or added."""

        def step(j: Val, _: list[Val], mask: Val | None, lanes: int) -> list[Val]:
            level = load_elements(b, levels, j, "i8", lanes, mask)
            y = b.sitofp(b.sext(level, i32), f32) * b.splat(scale, lanes)
            if add:
                y = load_elements(b, target, j, "f32", lanes, mask) + y
            store_elements(b, y, target, j, "f32", mask)
            return []

        chunks(b, b.i64(0), width, b.lanes, step)
