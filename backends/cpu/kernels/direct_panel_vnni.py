"""Panels with AVX-512 VNNI: products are loads and `vpdpbusd` alone, of as many tokens as registers have room for."""

from __future__ import annotations

from neuc.backends.cpu.builder import Operand, Val, i8, i32, vec
from neuc.backends.cpu.kernels.direct_panel import PanelProducts
from neuc.backends.cpu.packing.direct import QUAD, TILE_BYTES, TILE_ROWS

_ACCUMULATORS = 24


class VnniPanelProducts(PanelProducts):
    """A group's sums stay in registers while it goes through a block of columns.

    Panels of 64 rows by 384 columns leave room in the 32 KB that some processors have; 512 are no faster in 48 KB.
    """

    least_tokens = 24
    most_tiles = 4
    tile_quads = 1
    panel_columns = 384

    @property
    def sizes(self) -> tuple[int, ...]:
        """So many that sums fill the registers, and for the rest fewer."""
        most = min(12, _ACCUMULATORS // self.tiles)
        return (most, *(size for size in (4, 2, 1) if size < most))

    def begin(self) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""

    def group(self, x: Val, stride: Operand, token: Val, tokens: int, quads: Val, block: Val) -> None:
        """Each quad of activations, in every lane, serves all tiles of rows."""
        b, wide, lanes = self.b, vec(i8, TILE_BYTES), vec(i32, TILE_ROWS)
        name = f"llvm.x86.avx512.vpdpbusd.{8 * TILE_BYTES}"
        codes = [self.code_place(tile) for tile in range(self.tiles)]
        with b.loop(0, quads, init=[b.zero(lanes)] * (tokens * self.tiles)) as quad:
            rows = [b.load(b.ptr(place, quad.i * TILE_BYTES), wide) for place in codes]
            columns, totals = b.ptr(x, quad.i * QUAD), list[Val]()
            for number in range(tokens):
                address = b.ptr(columns, b.as_val(stride, quad.i.type) * number)
                four = b.bitcast(b.splat(b.load(address, i32), TILE_ROWS), wide)
                for tile, code in enumerate(rows):
                    total = quad.carried[number * self.tiles + tile]
                    totals.append(b.intrinsic(name, lanes, [total, code, four]))
            quad.yield_(totals)
        places = [self.sum_place(token + number, tile) for number in range(tokens) for tile in range(self.tiles)]
        with b.if_(b.icmp("eq", block, 0)) as first:
            for total, place in zip(quad.results, places, strict=True):
                b.store(total, place)
        with first.else_():
            for total, place in zip(quad.results, places, strict=True):
                b.store(b.load(place, lanes) + total, place)
