"""Panels with AVX-512 VNNI: products are loads and `vpdpbusd` alone, of as many tokens as registers have room for."""

from __future__ import annotations

from collections.abc import Iterator

from neuc.backends.cpu.builder import Operand, Val, i8, i32, vec
from neuc.backends.cpu.kernels.direct_panel import PanelProducts
from neuc.backends.cpu.kernels.linear_epilogue import LinearPlaces
from neuc.backends.cpu.kernels.ternary_tiles import Places
from neuc.backends.cpu.packing.direct import QUAD, TILE_BYTES, TILE_ROWS

_ACCUMULATORS = 24


class VnniPanelProducts(PanelProducts):
    """A group's sums stay in registers while it goes through a block of columns.

    Panels of 64 rows by 384 columns leave room in the 32 KB that some processors have; 512 are no faster in 48 KB.
    """

    least_tokens = 24
    most_tiles = 4
    tile_quads = 2
    panel_columns = 384

    @property
    def sizes(self) -> tuple[int, ...]:
        """So many tokens that sums fill the registers, and for the rest fewer."""
        most = min(12, _ACCUMULATORS // self.tiles)
        return (most, *(size for size in (2, 1) if size < most))

    def write(
        self, at: Places, weights: Val, following: Val, goes_on: Val, ends: LinearPlaces, tokens: Val, rows: Val
    ) -> None:
        """Each block of columns is unpacked, then multiplied; outputs follow a group's last products."""
        b, t = self.b, self.tiling
        x, stride = self.rows_of(at)
        with b.loop(0, self.panels) as panel, b.loop(0, t.segment_steps, self.block_steps) as block:
            count = b.min(t.segment_steps - block.i, b.i64(self.block_steps))
            source = b.ptr(weights, block.i * t.step_bytes + panel.i * (self.tiles * TILE_BYTES))
            self.unpack(source, 0, count)
            quads, here = self.quads_of(block.i, count), self.panel_rows(panel.i, rows)
            quads = self.fill_up(quads)
            last = b.icmp("sge", block.i + self.block_steps, t.segment_steps)
            columns = b.ptr(x, block.i * t.step_columns)
            for token, size, share in self._groups(tokens):
                self.fetch(following, ends, (token, size, share), tokens, (panel.i, block.i, here))
                self._group(b.ptr(columns, token * stride), stride, token, size, quads, block.i)
                with b.if_(last):
                    self.writer.write_panel(self.panel_ends(ends, panel.i, token, token), b.i64(size), here, self.tiles)

    def _groups(self, tokens: Val) -> Iterator[tuple[Val, int, Val]]:
        """Loops over groups of each size: a group's first token, how many it has, and its share of what is fetched."""
        b, done = self.b, self.b.i64(0)
        for size in self.sizes:
            until, share = tokens - b.urem(tokens - done, size) if size > 1 else tokens, self.share_of(size, tokens)
            with b.loop(done, until, size) as token:
                yield token.i, size, share
            done = until

    def _group(self, x: Val, stride: Operand, token: Val, tokens: int, quads: Val, block: Val) -> None:
        """Each quad of activations, in every lane, serves all tiles of rows."""
        b, wide, lanes = self.b, vec(i8, TILE_BYTES), vec(i32, TILE_ROWS)
        name = f"llvm.x86.avx512.vpdpbusd.{8 * TILE_BYTES}"
        codes = [self.code_place(tile) for tile in range(self.tiles)]
        with b.loop(0, quads, self.tile_quads, init=[b.zero(lanes)] * (tokens * self.tiles)) as quad:
            totals, columns = list(quad.carried), b.ptr(x, quad.i * QUAD)
            for turn in range(self.tile_quads):
                rows = [b.load(b.ptr(place, quad.i * TILE_BYTES + turn * TILE_BYTES), wide) for place in codes]
                for number in range(tokens):
                    address = b.ptr(columns, b.as_val(stride, quad.i.type) * number + turn * QUAD)
                    four = b.bitcast(b.splat(b.load(address, i32), TILE_ROWS), wide)
                    for place, code in enumerate(rows, start=number * self.tiles):
                        totals[place] = b.intrinsic(name, lanes, [totals[place], code, four])
            quad.yield_(totals)
        places = [self.sum_place(token + number, tile) for number in range(tokens) for tile in range(self.tiles)]
        with b.if_(b.icmp("eq", block, 0)) as first:
            for total, place in zip(quad.results, places, strict=True):
                b.store(total, place)
        with first.else_():
            for total, place in zip(quad.results, places, strict=True):
                b.store(b.load(place, lanes) + total, place)
