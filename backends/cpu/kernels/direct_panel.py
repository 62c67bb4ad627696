"""Direct products of many tokens: codes of a panel of rows are unpacked once, then multiplied as bytes.

Taking bytes apart needs the units that multiply, so for many tokens it is done once: codes of some rows by some
columns, a panel that fits into the first-level cache, serve every token of a work unit. Groups of tokens are multiplied
with it one after the other; behind the last columns a group's outputs are written at once, while its sums are in cache.
How a group is multiplied is said in `direct_panel_amx.py` and `direct_panel_vnni.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from math import gcd

from neuc.backends.cpu.builder import KernelBuilder, Operand, Val, i8, i32, vec
from neuc.backends.cpu.kernels.direct_base import DirectEmitter
from neuc.backends.cpu.kernels.linear_epilogue import LinearPlaces, LinearWriter
from neuc.backends.cpu.kernels.ternary_tiles import CACHE_LINE, Places
from neuc.backends.cpu.packing.direct import QUAD, TILE_BYTES, TILE_ROWS, DirectLayout

PANEL_TOKEN_BLOCK = 128
"""Tokens per work unit: so many share what was unpacked."""
_WIDE = 64


class PanelProducts(ABC):
    """Writes products and outputs of one chunk of rows for a block of tokens.

    Args:
        b: where to write.
        layout: the packed matrix, of one scale a row.
        emitter: whose codes these are.
        writer: what becomes of sums.
        place: the first byte of scratch memory to use, a multiple of 64; see `nbytes`.
    """

    least_tokens: int
    """For fewer tokens, unpacking costs more than it saves."""
    most_tiles: int
    """Tiles of rows in a panel, at most."""
    tile_quads: int
    """Quads of columns that are multiplied at a time."""
    panel_columns: int
    """About so many columns are unpacked at a time."""

    def __init__(
        self, b: KernelBuilder, layout: DirectLayout, emitter: DirectEmitter, writer: LinearWriter, place: int
    ) -> None:
        self.b = b
        self.layout = layout
        self.tiling = layout.tiling
        self.emitter = emitter
        self.writer = writer
        self.tiles = self.tiles_of(layout)
        self.rows = self.tiles * TILE_ROWS
        self.line = 4 * self.rows
        self._low = place
        self.sums = place + 4 * PANEL_TOKEN_BLOCK
        self.codes = self.sums + PANEL_TOKEN_BLOCK * self.line
        self._copies = self.codes + self.tiles * self.block_quads(layout) * TILE_BYTES

    # ---------------------------------------------------------------- sizes

    @classmethod
    def tiles_of(cls, layout: DirectLayout) -> int:
        """Tiles of rows in a panel."""
        return min(cls.most_tiles, layout.tiles)

    @classmethod
    def block_quads(cls, layout: DirectLayout) -> int:
        """Quads of columns unpacked at a time: whole steps, whole tiles, and all blocks about the same."""
        unit = layout.planes * cls.tile_quads // gcd(layout.planes, cls.tile_quads)
        units = -(-layout.tiling.segment_steps * layout.planes // unit)
        blocks = -(-units * unit * QUAD // cls.panel_columns)
        return -(-units // blocks) * unit

    @classmethod
    def row_bytes(cls, layout: DirectLayout) -> int:
        """Bytes of a token's activations that products read."""
        unit = cls.tile_quads * QUAD
        return -(-layout.tiling.columns // unit) * unit

    @classmethod
    def nbytes(cls, layout: DirectLayout) -> int:
        """Bytes of scratch memory: Σ x, sums, codes, and activations if rows of them must be filled up."""
        tiles, read = cls.tiles_of(layout), cls.row_bytes(layout)
        copied = read if read != layout.tiling.columns else 0
        of_token = 4 + 4 * tiles * TILE_ROWS + copied
        return PANEL_TOKEN_BLOCK * of_token + tiles * cls.block_quads(layout) * TILE_BYTES

    # ---------------------------------------------------------------- activations

    def prepare(self, at: Places, tokens: Val) -> None:
        """Add up the activations of a block of tokens, and copy them if rows of them must be filled up."""
        if self.layout.low:
            with self.b.loop(0, tokens) as token:
                self._add_up(self.b.ptr(at.activations, token.i * at.activation_bytes), token.i)
        if self.row_bytes(self.layout) != self.tiling.columns:
            with self.b.loop(0, tokens) as token:
                self._copy(self.b.ptr(at.activations, token.i * at.activation_bytes), token.i)

    def _add_up(self, source: Val, token: Val) -> None:
        """low·Σ x."""
        b, wide, lanes = self.b, vec(i8, _WIDE), vec(i32, _WIDE // QUAD)
        columns, name = self.tiling.columns, "llvm.x86.avx512.vpdpbusd.512"
        whole, ones = columns // _WIDE * _WIDE, b.const(1, wide)
        with b.loop(0, whole, _WIDE, init=[b.zero(lanes)]) as column:
            x = b.load(b.ptr(source, column.i), wide)
            column.yield_([b.intrinsic(name, lanes, [column.carried[0], ones, x])])
        total = column.results[0]
        if columns > whole:
            mask = b.mask_below(b.i64(columns - whole), _WIDE)
            rest = b.masked_load(b.ptr(source, whole), wide, mask)
            total = b.intrinsic(name, lanes, [total, ones, rest])
        b.store(b.reduce_add(total) * self.layout.low, b.elem(b.ptr(b.scratch, self._low), token, i32))

    def _copy(self, source: Val, token: Val) -> None:
        """A row filled up with zeros."""
        b, columns, read = self.b, self.tiling.columns, self.row_bytes(self.layout)
        target = b.ptr(b.scratch, token * read + self._copies)
        whole = columns // _WIDE * _WIDE
        with b.loop(0, whole, _WIDE) as column:
            b.store(b.load(b.ptr(source, column.i), vec(i8, _WIDE)), b.ptr(target, column.i))
        mask = b.mask_below(b.i64(columns - whole), _WIDE)
        rest = b.masked_load(b.ptr(source, whole), vec(i8, _WIDE), mask)
        b.masked_store(rest, b.ptr(target, whole), b.mask_below(b.i64(read - whole), _WIDE))

    # ---------------------------------------------------------------- products and outputs

    def write(self, at: Places, weights: Val, following: Val, ends: LinearPlaces, tokens: Val, rows: Val) -> None:
        """The outputs of a chunk of rows for all tokens.

        Args:
            at: where the activations are.
            weights: the chunk's packed bytes.
            following: those that come next, to be fetched in the meantime.
            ends: as for the whole chunk; sums are elsewhere.
            tokens: how many there are, `least_tokens` or more.
            rows: how many of the chunk's rows there are.
        """
        b, t, layout = self.b, self.tiling, self.layout
        copied = self.row_bytes(layout) != t.columns
        activations = b.ptr(b.scratch, self._copies) if copied else at.activations
        stride = self.row_bytes(layout) if copied else at.activation_bytes
        steps = self.block_quads(layout) // layout.planes
        panels, blocks = layout.tiles // self.tiles, -(-t.segment_steps // steps)
        self.begin()
        with b.loop(0, panels) as panel, b.loop(0, t.segment_steps, steps) as block:
            count = b.min(t.segment_steps - block.i, b.i64(steps))
            self._unpack(b.ptr(weights, block.i * t.step_bytes + panel.i * (self.tiles * TILE_BYTES)), count)
            # What fills up the last step has no activations, and tiles that have none are left out.
            first = block.i * layout.planes
            quads = b.min(count * layout.planes, self.row_bytes(layout) // QUAD - first)
            last = b.icmp("sge", block.i + steps, t.segment_steps)
            part = b.udiv(block.i, steps)
            turn = panel.i * blocks + part
            fetched = -(-t.row_block_bytes // (panels * blocks * CACHE_LINE))
            here = b.max(b.min(rows - panel.i * self.rows, b.i64(self.rows)), b.i64(0))
            for token, size in self._groups(tokens):
                self._fetch(b.ptr(following, turn * (fetched * CACHE_LINE)), fetched, token, tokens, size)
                own = b.min(tokens - token, b.i64(size))
                skipped = size - own
                places = replace(
                    ends,
                    sums=b.ptr(b.scratch, (token + skipped) * self.line + self.sums),
                    scales=self.writer.scales_from(ends.scales, panel.i * self.rows),
                    first_token=ends.first_token + token,
                    first_row=ends.first_row + panel.i * self.rows,
                    stride=self.rows,
                    s=b.ptr(ends.s, token * 4),
                    low=b.ptr(b.scratch, token * 4 + self._low) if layout.low else None,
                    step=layout.step,
                )
                # Some of its outputs' memory in each block of columns: all at once is more than memory gives.
                asked, until = (b.udiv(own * turns, blocks) for turns in (part, part + 1))
                self.writer.fetch(replace(places, first_token=places.first_token + asked), until - asked, here)
                x = b.ptr(activations, (token - skipped) * stride + first * QUAD)
                self.group(x, stride, token, size, quads, block.i)
                with b.if_(last):
                    self.writer.write(places, own, here)
        self.end()

    @abstractmethod
    def begin(self) -> None:
        """Before any group of a chunk."""

    @abstractmethod
    def end(self) -> None:
        """After the last one."""

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """How many tokens a group has, falling. If the smallest is not 1, the last group goes back to fill up."""

    @abstractmethod
    def group(self, x: Val, stride: Operand, token: Val, tokens: int, quads: Val, block: Val) -> None:
        """Add Σ code·x to a group's sums, which begin with the first block.

        Args:
            x: the first token's activations of this block of columns.
            stride: bytes from one token's to the next's.
            token: the number that the group's sums have.
            tokens: how many there are.
            quads: of columns.
            block: the block's first step; 0 is the first block.
        """

    def sum_place(self, token: Operand, tile: int) -> Val:
        """Where a token's sums of a tile of rows are."""
        b = self.b
        return b.ptr(b.scratch, b.as_val(token, b.i64(0).type) * self.line + (self.sums + tile * 4 * TILE_ROWS))

    def code_place(self, tile: int) -> Val:
        """Where the first quad of a tile of rows is; the next ones follow."""
        return self.b.ptr(self.b.scratch, self.codes + tile * self.block_quads(self.layout) * TILE_BYTES)

    def _groups(self, tokens: Val) -> Iterator[tuple[Val, int]]:
        b, done = self.b, self.b.i64(0)
        for size in self.sizes:
            until = tokens - b.urem(tokens - done, size) if size > self.sizes[-1] else tokens
            with b.loop(done, until, size) as token:
                yield token.i, size
            done = until

    def _fetch(self, weights: Val, lines: int, token: Val, tokens: Val, size: int) -> None:
        """A group's share of lines, into the second-level cache."""
        b = self.b
        first = b.udiv(token * lines, tokens)
        until = b.min(b.udiv((token + size) * lines, tokens), b.i64(lines))
        with b.loop(first, until) as line:
            b.intrinsic("llvm.prefetch.p0", None, [b.ptr(weights, line.i * CACHE_LINE), b.i32(0), b.i32(2), b.i32(1)])

    def _unpack(self, weights: Val, steps: Val) -> None:
        """Codes of some steps as bytes, quad after quad for each tile of rows; the last tile of quads filled up."""
        b, planes, codes = self.b, self.layout.planes, self.emitter.codes
        window = next(w for w in (8, 4, 2, 1) if not any(codes.shifts(w)))
        with b.loop(0, steps) as step:
            for tile in range(self.tiles):
                source = b.ptr(weights, step.i * self.tiling.step_bytes + tile * TILE_BYTES)
                target = b.ptr(self.code_place(tile), step.i * (planes * TILE_BYTES))
                for plane, values in enumerate(codes.planes(b, b.load(source, vec(i8, TILE_BYTES)), window)):
                    b.store(values, b.ptr(target, plane * TILE_BYTES))
        if self.tile_quads == 1:
            return
        filled = steps * planes
        with b.loop(filled, b.udiv(filled + (self.tile_quads - 1), self.tile_quads) * self.tile_quads) as quad:
            for tile in range(self.tiles):
                b.store(b.zero(vec(i8, TILE_BYTES)), b.ptr(self.code_place(tile), quad.i * TILE_BYTES))
