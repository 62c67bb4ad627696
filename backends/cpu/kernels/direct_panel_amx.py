"""Panels on AMX tiles: `tdpbsud` multiplies 16 tokens by 16 rows, 64 columns at a time.

64 columns of 16 rows, as quads of columns one after the other, are just what a tile of weights is. A group is 16
tokens: one tile of activations, read once for two tiles of rows, whose sums stay in registers.

**Four of the eight tiles are used**, and each tile of weights is loaded twice as often as two by two tiles of sums
would need. Where another thread runs on the same core, a Sapphire Rapids core has about ten tiles to rename for each:
with eight in use only two writes are under way at a time, and a product takes 30 ns; with four, six are, and it takes
14. On a core alone both shapes reach the peak, 7.4 ns.
"""

from __future__ import annotations

from neuc.backends.cpu.builder import Operand, Val, i8, vec
from neuc.backends.cpu.kernels.direct_panel import PanelProducts
from neuc.backends.cpu.packing.direct import TILE_BYTES, TILE_ROWS

TILE_TOKENS = 16
_TILE_COLUMNS = 64
_TILE_NBYTES = TILE_TOKENS * _TILE_COLUMNS
_CONFIG_BYTES = 64
_X, _CODES = 2, 3
"""Tiles of activations and weights; those of sums come first."""


class AmxPanelProducts(PanelProducts):
    """Configures tiles and lets them go itself; no other unit of the processor is used for products here."""

    least_tokens = TILE_TOKENS
    most_tiles = 2
    tile_quads = 16
    panel_columns = 640

    @property
    def sizes(self) -> tuple[int, ...]:
        """Whole tiles."""
        return (TILE_TOKENS,)

    def begin(self) -> None:
        """All eight tiles with 16 rows of 64 bytes; the sums' place holds the configuration until there are sums."""
        b = self.b
        config = [1, *[0] * 15, *[_TILE_COLUMNS, 0] * 8, *[0] * 16, *[TILE_TOKENS] * 8, *[0] * 8]
        address = b.ptr(b.scratch, self.sums)
        b.store(b.const(config, vec(i8, _CONFIG_BYTES)), address)
        b.intrinsic("llvm.x86.ldtilecfg", None, [address])

    def end(self) -> None:
        """Tiles cost time whenever threads change."""
        self.b.intrinsic("llvm.x86.tilerelease", None, [])

    def group(self, x: Val, stride: Operand, token: Val, tokens: int, quads: Val, block: Val) -> None:
        """Tiles of sums come from memory and go there."""
        b, sums = self.b, range(self.tiles)
        with b.if_(b.icmp("eq", block, 0)) as first:
            for tile in sums:
                b.intrinsic("llvm.x86.tilezero", None, [b.const(tile, i8)])
        with first.else_():
            for tile in sums:
                self._tile("tileloadd64", tile, self.sum_place(token, tile), self.line)
        with b.loop(0, b.udiv(quads + (TILE_ROWS - 1), TILE_ROWS)) as k:
            self._tile("tileloadd64", _X, b.ptr(x, k.i * _TILE_COLUMNS), stride)
            for tile in sums:
                self._tile("tileloadd64", _CODES, b.ptr(self.code_place(tile), k.i * _TILE_NBYTES), TILE_BYTES)
                b.intrinsic("llvm.x86.tdpbsud", None, [b.const(number, i8) for number in (tile, _X, _CODES)])
        for tile in sums:
            self._tile("tilestored64", tile, self.sum_place(token, tile), self.line)

    def _tile(self, what: str, number: int, address: Val, stride: Operand) -> None:
        b = self.b
        b.intrinsic(f"llvm.x86.{what}", None, [b.const(number, i8), address, b.as_val(stride, b.i64(0).type)])
