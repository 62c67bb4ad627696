"""The two products of attention on AMX tiles of bf16, as exact as f32 is in practice.

A number is the sum of two bf16: itself rounded to eight bits, and what that is off, rounded likewise. f16 needs no more
than that, f32 is off by 2^-17 of itself at most. Of products of such halves, high · high, low · high and high · low are
added up, in f32; low · low, which is left out, is 2^-16 of the product at most.

Rows of f32 and of two times as many bf16 have the same size, so q and probabilities stay where they are: the high
halves of a row, then the low ones. Panels of keys and values hold pairs: two neighbouring columns of the sum in 32
bits.
"""

from __future__ import annotations

from neuc.backends.cpu.builder import Val, f32, i8, i16, i32, vec, with_elem
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.attention_products import KEYS, AttentionShape, Products, Scratch
from neuc.backends.cpu.kernels.gemm_micro import F32
from neuc.dialects.dense_attention import CACHE_LANES

TILE_ROWS = 16
_TILE_BYTES = 1024
_LINE = 64
_DEPTH = 32
"""Columns of the sum in one tile."""
_BF16 = 2
_HIGH = 0xFFFF0000
_HALF_A_STEP = 0x8000
"""Added to the bits of an f32, this rounds its first 16."""


class TileProducts(Products):
    """Two by two tiles of sums at a time."""

    @staticmethod
    def fits(isa: Isa, shape: AttentionShape) -> bool:
        """Whether tiles are there, and D is whole tiles."""
        return isa.has_amx_bf16 and shape.width % _DEPTH == 0

    @staticmethod
    def layout(shape: AttentionShape, rows: int) -> Scratch:
        """Scratch memory for so many rows."""
        padded = -(-rows // TILE_ROWS) * TILE_ROWS
        return Scratch(padded, shape.width, shape.width, KEYS * shape.width * F32 + _LINE)

    def configure(self) -> None:
        """All eight tiles with 16 rows of 64 bytes; the configuration is kept behind the panels."""
        b = self.b
        config = [1, *[0] * 15, *[_LINE, 0] * 8, *[0] * 16, *[TILE_ROWS] * 8, *[0] * 8]
        address = b.ptr(self.at.panels, KEYS * self.shape.width * F32)
        b.store(b.const(config, vec(i8, _LINE)), address)
        b.intrinsic("llvm.x86.ldtilecfg", None, [address])

    def release(self) -> None:
        """Let go of the tiles."""
        self.b.intrinsic("llvm.x86.tilerelease", None, [])

    def fill_rows(self, rows: Val) -> None:
        """Zeros for the rows of q that fill up the last tile."""
        b, size = self.b, self.shape.width * F32
        with b.loop(rows, b.udiv(rows + (TILE_ROWS - 1), TILE_ROWS) * TILE_ROWS) as row:
            for at in range(0, size, _LINE):
                b.store(b.zero(vec(f32, _LINE // F32)), b.ptr(self.at.query, row.i * size + at))

    # ---------------------------------------------------------------- halves

    def _halves(self, x: Val, exact: bool = False) -> tuple[Val, Val]:
        """The bits of x rounded to 16, and those of the rest, whose first 16 are rounded, too, unless all (`exact`)."""
        b = self.b
        high = (b.bitcast(x, with_elem(x.type, i32)) + _HALF_A_STEP) & _HIGH
        rest = b.bitcast(x - b.bitcast(high, x.type), high.type)
        return high, rest if exact else rest + _HALF_A_STEP

    def _keep(self, x: Val, row: Val, first: int, columns: int) -> None:
        """Store f32 as halves into a row of so many columns."""
        b = self.b
        for part, bits in enumerate(self._halves(x)):
            b.store(b.trunc(bits >> 16, i16), b.ptr(row, (first + part * columns) * _BF16))

    def keep_query(self, row: Val, first: int, x: Val) -> None:
        width = self.shape.width
        self._keep(x, self.b.elem(self.at.query, row * width, f32), first, width)

    def keep_powers(self, row: Val, first: Val, x: Val) -> None:
        # The softmax has a whole row in registers: nothing is written over that is still to be read.
        self._keep(x, self.b.elem(self.at.scores, row * KEYS, f32), 0, KEYS)

    def _keep_pair(self, even: Val, odd: Val, high: Val, low: Val) -> None:
        """Store two vectors, neighbours in the sum, as pairs."""
        b = self.b
        split = [self._halves(x, exact=self.shape.held != "f32") for x in (even, odd)]
        for (first, second), target in zip(zip(*split, strict=True), (high, low), strict=True):
            b.store((first >> 16) | (second & _HIGH), target)

    # ---------------------------------------------------------------- products

    def scores(self, group: Val, key: Val, count: Val, rows: Val) -> None:
        b, width = self.b, self.shape.width
        self._fetch_keys(self.key_at(group, key), count)
        tile = width // 2 * _LINE
        # An odd last block of 16 keys goes with what is behind it, whose scores are for nobody.
        with b.loop(0, b.udiv(count + (2 * CACHE_LANES - 1), 2 * CACHE_LANES)) as pair:
            panels = b.ptr(self.at.panels, pair.i * (4 * tile))
            scores = b.ptr(self.at.scores, pair.i * (2 * _LINE))
            self._row_tiles(self.at.query, width, panels, tile, scores, KEYS * F32, b.i64(width // _DEPTH), rows, False)

    def outputs(self, group: Val, key: Val, count: Val, rows: Val) -> None:
        b, width = self.b, self.shape.width
        depth = b.udiv(count + (_DEPTH - 1), _DEPTH)
        self._fetch_values(self.value_at(group, key), count, depth)
        tile = KEYS // 2 * _LINE
        with b.loop(0, width // (2 * TILE_ROWS)) as pair:
            panels = b.ptr(self.at.panels, pair.i * (4 * tile))
            output = b.ptr(self.at.output, pair.i * (2 * _LINE))
            self._row_tiles(self.at.scores, KEYS, panels, tile, output, width * F32, depth, rows, True)

    def _row_tiles(
        self, a: Val, columns: int, panels: Val, panel: int, c: Val, c_row: int, depth: Val, rows: Val, add: bool
    ) -> None:
        """All rows times two panels: by two tiles of rows, then the last one alone."""
        b = self.b
        tiles = b.udiv(rows + (TILE_ROWS - 1), TILE_ROWS)
        pairs = tiles - b.urem(tiles, 2)
        for first, until, count in ((b.i64(0), pairs, 2), (pairs, tiles, 1)):
            with b.loop(first, until, count) as tile:
                here = b.ptr(a, tile.i * (TILE_ROWS * columns * F32))
                there = b.ptr(c, tile.i * (TILE_ROWS * c_row))
                self._tiles(here, columns, panels, panel, there, c_row, depth, count, add)

    def _tiles(
        self, a: Val, columns: int, panels: Val, panel: int, c: Val, c_row: int, depth: Val, count: int, add: bool
    ) -> None:
        """`count` tiles of rows times two panels; a panel's low halves follow its high ones."""
        b, a_row = self.b, columns * F32
        places = [(2 * i + j, b.ptr(c, i * TILE_ROWS * c_row + j * _LINE)) for i in range(count) for j in range(2)]
        for number, address in places:
            if add:
                self._tile("tileloadd64", number, address, c_row)
            else:
                b.intrinsic("llvm.x86.tilezero", None, [b.const(number, i8)])
        with b.loop(0, depth) as step:
            here, panel_at = b.ptr(a, step.i * (_DEPTH * _BF16)), b.ptr(panels, step.i * _TILE_BYTES)

            def rows_of_a(low: int) -> None:
                for i in range(count):
                    self._tile("tileloadd64", 4 + i, b.ptr(here, i * TILE_ROWS * a_row + low * columns * _BF16), a_row)

            def panels_of_b(low: int) -> None:
                for j in range(2):
                    self._tile("tileloadd64", 6 + j, b.ptr(panel_at, (2 * j + low) * panel), _LINE)

            def multiply() -> None:
                for i in range(count):
                    for j in range(2):
                        numbers = [b.const(number, i8) for number in (2 * i + j, 4 + i, 6 + j)]
                        b.intrinsic("llvm.x86.tdpbf16ps", None, numbers)

            rows_of_a(0)
            panels_of_b(1)
            multiply()
            panels_of_b(0)
            multiply()
            rows_of_a(1)
            multiply()
        for number, address in places:
            self._tile("tilestored64", number, address, c_row)

    def _tile(self, what: str, number: int, address: Val, stride: int) -> None:
        b = self.b
        b.intrinsic(f"llvm.x86.{what}", None, [b.const(number, i8), address, b.i64(stride)])

    # ---------------------------------------------------------------- panels

    def _fetch_keys(self, source: Val, count: Val) -> None:
        """Keys [block, D, 16] to panels [block, half, D/2, 16, 2]."""
        b, width = self.b, self.shape.width
        tile, unroll = width // 2 * _LINE, 8
        with b.loop(0, b.udiv(count + (CACHE_LANES - 1), CACHE_LANES)) as block:
            with b.loop(0, width, unroll) as d:
                here = source + block.i * (width * CACHE_LANES) + d.i * CACHE_LANES
                row = self.element(self.at.k_cache, here)
                high = b.ptr(self.at.panels, block.i * (2 * tile) + (d.i >> 1) * _LINE)
                for step in range(0, unroll, 2):
                    even, odd = (self.load(row, (step + i) * CACHE_LANES, CACHE_LANES) for i in range(2))
                    at = step // 2 * _LINE
                    self._keep_pair(even, odd, b.ptr(high, at), b.ptr(high, at + tile))

    def _fetch_values(self, source: Val, count: Val, depth: Val) -> None:
        """Values [key, D] to panels [16 columns, half, key/2, 16, 2], zeros where there are no keys."""
        b, width, tile = self.b, self.shape.width, KEYS // 2 * _LINE
        pairs = b.udiv(count + 1, 2)
        with b.loop(0, pairs) as pair:
            here = self.element(self.at.v_cache, source + pair.i * (2 * width))
            both = b.icmp("slt", pair.i * 2 + 1, count)
            for at in range(0, width, TILE_ROWS):
                even, odd = (self.load(here, i * width + at, TILE_ROWS) for i in range(2))
                odd = b.select(both, odd, b.zero(odd.type))
                high = b.ptr(self.at.panels, pair.i * _LINE + at // TILE_ROWS * (2 * tile))
                self._keep_pair(even, odd, high, b.ptr(high, tile))
        with b.loop(pairs, depth * (_DEPTH // 2)) as pair:
            for at in range(0, width // TILE_ROWS * 2):
                b.store(b.zero(vec(i32, TILE_ROWS)), b.ptr(self.at.panels, pair.i * _LINE + at * tile))
