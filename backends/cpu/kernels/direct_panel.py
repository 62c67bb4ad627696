"""Direct products of many tokens: codes of a panel of rows are unpacked once, then multiplied as bytes.

Taking bytes apart needs the units that multiply, so for many tokens it is done once: codes of some rows by some
columns, a panel that fits into the first-level cache, serve every token of a work unit. Groups of tokens are multiplied
with it one after the other; behind the last columns a group's outputs are written, while its sums are in cache.
How a group is multiplied, and when codes are unpacked and outputs written, is said in `direct_panel_amx.py` and
`direct_panel_vnni.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
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
        self._copies = self.codes + self.tiles * self.tile_bytes

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
        at_once = next(n for n in (4, 2, 1) if whole % (n * _WIDE) == 0)  # one sum alone waits for itself
        with b.loop(0, whole, at_once * _WIDE, init=[b.zero(lanes)] * at_once) as column:
            loads = [b.load(b.ptr(source, column.i + number * _WIDE), wide) for number in range(at_once)]
            column.yield_(
                [b.intrinsic(name, lanes, [sums, ones, x]) for sums, x in zip(column.carried, loads, strict=True)]
            )
        total = column.results[0]
        for sums in column.results[1:]:
            total = total + sums
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

    @abstractmethod
    def write(
        self, at: Places, weights: Val, following: Val, goes_on: Val, ends: LinearPlaces, tokens: Val, rows: Val
    ) -> None:
        """The outputs of a chunk of rows for all tokens.

        Args:
            at: where the activations are.
            weights: the chunk's packed bytes.
            following: those that may come next, to be fetched in the meantime.
            goes_on: whether they do, for the same tokens.
            ends: as for the whole chunk; sums are elsewhere.
            tokens: how many there are, `least_tokens` or more.
            rows: how many of the chunk's rows there are.
        """

    @property
    def block_steps(self) -> int:
        """Steps of a block of columns."""
        return self.block_quads(self.layout) // self.layout.planes

    @property
    def blocks(self) -> int:
        """Blocks of columns."""
        return -(-self.tiling.segment_steps // self.block_steps)

    @property
    def panels(self) -> int:
        """Panels of a chunk."""
        return self.layout.tiles // self.tiles

    def rows_of(self, at: Places) -> tuple[Val, Operand]:
        """Where rows of activations are that products may read to the end of a tile, and how far apart."""
        if self.row_bytes(self.layout) != self.tiling.columns:
            return self.b.ptr(self.b.scratch, self._copies), self.row_bytes(self.layout)
        return at.activations, at.activation_bytes

    def quads_of(self, block: Val, count: Val) -> Val:
        """Quads of a block of columns of so many steps, but for those that fill up the last step."""
        planes = self.layout.planes
        return self.b.min(count * planes, self.row_bytes(self.layout) // QUAD - block * planes)

    def fill_up(self, quads: Val) -> Val:
        """Write zeros behind a block's last codes, to the end of a tile; how many quads there are then."""
        b = self.b
        until = b.udiv(quads + (self.tile_quads - 1), self.tile_quads) * self.tile_quads
        with b.loop(quads, until) as quad:
            for tile in range(self.tiles):
                b.store(b.zero(vec(i8, TILE_BYTES)), b.ptr(self.code_place(tile), quad.i * TILE_BYTES))
        return until

    def panel_rows(self, panel: Val, rows: Val) -> Val:
        """How many of a chunk's rows a panel has."""
        b = self.b
        return b.max(b.min(rows - panel * self.rows, b.i64(self.rows)), b.i64(0))

    def panel_ends(self, ends: LinearPlaces, panel: Val, token: Val, group: Val) -> LinearPlaces:
        """Where the outputs of a panel's rows from a token on come from.

        Args:
            ends: as for the whole chunk.
            panel: its number in the chunk.
            token: the first one's number in the block of tokens.
            group: the number its sums have.
        """
        b, first = self.b, panel * self.rows
        return replace(
            ends,
            sums=self.sum_place(group, 0),
            scales=self.writer.scales_from(ends.scales, first),
            first_token=ends.first_token + token,
            first_row=ends.first_row + first,
            stride=b.i64(self.rows),
            s=b.ptr(ends.s, token * 4),
            low=b.ptr(b.scratch, token * 4 + self._low) if self.layout.low else None,
            step=self.layout.step,
        )

    def sum_place(self, token: Operand, tile: int) -> Val:
        """Where a token's sums of a tile of rows are."""
        b = self.b
        return b.ptr(b.scratch, b.as_val(token, b.i64(0).type) * self.line + (self.sums + tile * 4 * TILE_ROWS))

    def code_place(self, tile: int) -> Val:
        """Where the first quad of a tile of rows is; the next ones follow."""
        return self.b.ptr(self.b.scratch, self.codes + tile * self.tile_bytes)

    @property
    def tile_bytes(self) -> int:
        """Bytes of codes of a tile of rows by a block of columns."""
        return self.block_quads(self.layout) * TILE_BYTES

    @property
    def fetched(self) -> int:
        """Lines of the next chunk's packed bytes that are asked for beside a block of columns."""
        return -(-self.tiling.row_block_bytes // (self.panels * self.blocks * CACHE_LINE))

    def share_of(self, size: int, tokens: Val) -> Val:
        """How many of the `fetched` lines are the share of a group of `size` tokens: a division, so not in a loop."""
        return self.b.udiv(tokens + (self.fetched * size - 1), tokens)

    def fetch(
        self, following: Val, ends: LinearPlaces, group: tuple[Val, int, Val], tokens: Val, where: tuple[Val, Val, Val]
    ) -> None:
        """Ask for a group's share of the next chunk's packed bytes, and of its outputs' memory.

        All at once is more than memory gives.

        Args:
            following: the next chunk's packed bytes.
            ends: as for the whole chunk.
            group: its first token, how many tokens it has, if there are so many, and its share, as `share_of` says.
            tokens: how many there are.
            where: the panel's number, the block's first step, and how many rows the panel has.
        """
        b, (token, size, share), (panel, block, rows) = self.b, group, where
        part = b.udiv(block, self.block_steps)
        lines = b.ptr(following, (panel * self.blocks + part) * (self.fetched * CACHE_LINE))
        first = b.udiv(token, size) * share
        with b.loop(first, b.min(first + share, b.i64(self.fetched))) as line:
            address = b.ptr(lines, line.i * CACHE_LINE)
            b.intrinsic("llvm.prefetch.p0", None, [address, b.i32(0), b.i32(2), b.i32(1)])
        own = b.min(tokens - token, b.i64(size))
        asked, until = (b.udiv(own * turns, self.blocks) for turns in (part, part + 1))
        self.writer.fetch(self.panel_ends(ends, panel, token + asked, token), until - asked, rows, self.tiles)

    def unpack(self, weights: Val, first: Operand, until: Operand) -> None:
        """Codes of some of a block's steps as bytes, quad after quad for each tile of rows."""
        b, planes, reader = self.b, self.layout.planes, self.emitter.codes
        window = next(w for w in (8, 4, 2, 1) if not any(reader.shifts(w)))
        with b.loop(first, until) as step:
            for tile in range(self.tiles):
                source = b.ptr(weights, step.i * self.tiling.step_bytes + tile * TILE_BYTES)
                target = b.ptr(self.code_place(tile), step.i * (planes * TILE_BYTES))
                for plane, values in enumerate(reader.planes(b, b.load(source, vec(i8, TILE_BYTES)), window)):
                    b.store(values, b.ptr(target, plane * TILE_BYTES))
