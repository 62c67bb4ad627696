"""Panels on AMX tiles: `tdpbsud` multiplies 16 tokens by 16 rows, 64 columns at a time.

64 columns of 16 rows, as quads of columns one after the other, are just what a tile of weights is. A group is 16
tokens: one tile of activations, read once for two tiles of rows, whose sums stay in registers.

**Everything else is done between products.** They take a unit of their own, but processors hand out tile registers in
order, so that instructions behind a few products wait for these. So the codes of the next block of columns, or of the
next chunk's first, are unpacked some steps at a time while this one's are multiplied, and outputs of a group are
written a few tokens at a time while the next group's products are under way.

**Four of the eight tiles are used**, and each tile of weights is loaded twice as often as two by two tiles of sums
would need. Where another thread runs on the same core, a Sapphire Rapids core has about ten tiles to rename for each:
with eight in use only two writes are under way at a time, and a product takes 30 ns; with four, six are, and it takes
14. On a core alone both shapes reach the peak, 7.4 ns.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuc.backends.cpu.builder import KernelBuilder, Operand, Val, i8, i64, vec
from neuc.backends.cpu.kernels.direct_base import DirectEmitter
from neuc.backends.cpu.kernels.direct_panel import PanelProducts
from neuc.backends.cpu.kernels.linear_epilogue import LinearPlaces, LinearWriter
from neuc.backends.cpu.kernels.ternary_tiles import CACHE_LINE, Places
from neuc.backends.cpu.packing.direct import TILE_BYTES, DirectLayout

TILE_TOKENS = 16
_TILE_COLUMNS = 64
_TILE_NBYTES = TILE_TOKENS * _TILE_COLUMNS
_CONFIG_BYTES = 64
_X, _CODES = 2, 3
"""Tiles of activations and weights; those of sums come first."""


@dataclass(frozen=True)
class _Block:
    """A panel's number, a block's first step, whether it is the last one, and how many rows the panel has."""

    panel: Val
    first: Val
    last: Val
    rows: Val


@dataclass(frozen=True)
class _Ahead:
    """Packed bytes of a panel's next block, and how many steps it has."""

    weights: Val
    steps: Val


class AmxPanelProducts(PanelProducts):
    """Configures tiles and lets them go itself; no other unit of the processor is used for products here."""

    least_tokens = TILE_TOKENS
    most_tiles = 2
    tile_quads = 16
    panel_columns = 640

    def __init__(
        self, b: KernelBuilder, layout: DirectLayout, emitter: DirectEmitter, writer: LinearWriter, place: int
    ) -> None:
        super().__init__(b, layout, emitter, writer, place)
        self._ready = b.ptr(b.scratch, place + super().nbytes(layout))

    @classmethod
    def nbytes(cls, layout: DirectLayout) -> int:
        """Bytes of scratch memory: at the end, whether codes of the next chunk's first block are there."""
        return super().nbytes(layout) + CACHE_LINE

    def prepare(self, at: Places, tokens: Val) -> None:
        """And nothing is unpacked yet."""
        super().prepare(at, tokens)
        self.b.store(self.b.i64(0), self._ready)

    def write(
        self, at: Places, weights: Val, following: Val, goes_on: Val, ends: LinearPlaces, tokens: Val, rows: Val
    ) -> None:
        """Block after block of columns, for panel after panel of rows."""
        b, steps, all_steps = self.b, self.block_steps, self.tiling.segment_steps
        self._configure()
        with b.if_(b.icmp("eq", b.load(self._ready, i64), 0)):
            self.unpack(weights, 0, min(steps, all_steps))
        with b.loop(0, self.panels) as panel, b.loop(0, all_steps, steps) as block:
            last = b.icmp("sge", block.i + steps, all_steps)
            # What is unpacked next: this panel's next block, the next panel's first, or the next chunk's.
            next_panel, next_block = b.select(last, panel.i + 1, panel.i), b.select(last, 0, block.i + steps)
            ends_chunk = b.icmp("eq", next_panel, self.panels)
            source = b.select(ends_chunk, following, b.ptr(weights, next_panel * (self.tiles * TILE_BYTES)))
            count = b.min(all_steps - next_block, b.i64(steps))
            ahead = _Ahead(
                b.ptr(source, next_block * self.tiling.step_bytes),
                b.select(ends_chunk, b.select(goes_on, count, 0), count),
            )
            own = _Block(panel.i, block.i, last, self.panel_rows(panel.i, rows))
            self._block(at, following, ends, tokens, own, ahead)
        b.store(b.zext(goes_on, i64), self._ready)
        # Tiles cost time whenever threads change.
        b.intrinsic("llvm.x86.tilerelease", None, [])

    def _configure(self) -> None:
        """All eight tiles with 16 rows of 64 bytes; the sums' place holds the configuration until there are sums."""
        b = self.b
        config = [1, *[0] * 15, *[_TILE_COLUMNS, 0] * 8, *[0] * 16, *[TILE_TOKENS] * 8, *[0] * 8]
        address = b.ptr(b.scratch, self.sums)
        b.store(b.const(config, vec(i8, _CONFIG_BYTES)), address)
        b.intrinsic("llvm.x86.ldtilecfg", None, [address])

    def _block(self, at: Places, following: Val, ends: LinearPlaces, tokens: Val, own: _Block, ahead: _Ahead) -> None:
        """Products of a block of columns, while the next one is unpacked; behind the last columns, outputs."""
        b, planes = self.b, self.layout.planes
        quads = self.quads_of(own.first, b.min(self.tiling.segment_steps - own.first, b.i64(self.block_steps)))
        runs = b.udiv(self.fill_up(quads), self.tile_quads)
        # Outputs lag one group behind, so the last columns have a turn more, without products.
        until = b.select(own.last, tokens + TILE_TOKENS, tokens)
        written, share = b.udiv(runs + (TILE_TOKENS - 1), runs), self.share_of(TILE_TOKENS, tokens)
        with b.loop(0, until, TILE_TOKENS) as token:
            multiplies, writes = b.icmp("slt", token.i, tokens), own.last & b.icmp("sgt", token.i, 0)
            final = b.icmp("sle", tokens - token.i, TILE_TOKENS) & multiplies
            first = b.min(token.i, tokens - TILE_TOKENS)
            with b.if_(multiplies):
                place = (own.panel, own.first, own.rows)
                self.fetch(following, ends, (token.i, TILE_TOKENS, share), tokens, place)
                self._take_sums(token.i, own.first)
            with b.loop(0, runs, init=[b.i64(0)]) as run:
                with b.if_(multiplies):
                    self._multiply(at, first, own.first, run.i)
                # Codes that the last group has multiplied make room for the next block's.
                free = b.select(
                    b.icmp("eq", run.i + 1, runs), ahead.steps, b.udiv((run.i + 1) * self.tile_quads, planes)
                )
                unpacked = b.select(final, b.min(free, ahead.steps), 0)
                self.unpack(ahead.weights, run.carried[0], unpacked)
                with b.if_(writes):
                    before = token.i - TILE_TOKENS
                    have = b.min(tokens - before, b.i64(TILE_TOKENS))
                    done = b.min(run.i * written, have)
                    places = self.panel_ends(ends, own.panel, before + done, token.i - have + done)
                    self.writer.write_panel(places, b.min(done + written, have) - done, own.rows, self.tiles)
                run.yield_([unpacked])
            with b.if_(multiplies):
                for tile in range(self.tiles):
                    self._tile("tilestored64", tile, self.sum_place(token.i, tile), self.line)

    def _take_sums(self, token: Val, block: Val) -> None:
        """Tiles of sums begin with zeros, or come from memory."""
        b = self.b
        with b.if_(b.icmp("eq", block, 0)) as first:
            for tile in range(self.tiles):
                b.intrinsic("llvm.x86.tilezero", None, [b.const(tile, i8)])
        with first.else_():
            for tile in range(self.tiles):
                self._tile("tileloadd64", tile, self.sum_place(token, tile), self.line)

    def _multiply(self, at: Places, token: Val, block: Val, run: Val) -> None:
        """64 columns of 16 tokens and of all tiles of rows."""
        b = self.b
        x, stride = self.rows_of(at)
        columns = block * self.tiling.step_columns + run * _TILE_COLUMNS
        self._tile("tileloadd64", _X, b.ptr(x, token * stride + columns), stride)
        for tile in range(self.tiles):
            self._tile("tileloadd64", _CODES, b.ptr(self.code_place(tile), run * _TILE_NBYTES), TILE_BYTES)
            b.intrinsic("llvm.x86.tdpbsud", None, [b.const(number, i8) for number in (tile, _X, _CODES)])

    def _tile(self, what: str, number: int, address: Val, stride: Operand) -> None:
        b = self.b
        b.intrinsic(f"llvm.x86.{what}", None, [b.const(number, i8), address, b.as_val(stride, i64)])
