"""Look-ups with AVX-512 VBMI and VNNI: `vpermb` reads 16 rows of 4 tables, `vpdpbusd` applies signs and adds.

Per 64 look-ups of one token: 2 vpermb and 2 vpdpbusd (low and high bytes), and, shared by all tokens of the chunk,
about 1.5 instructions for the index and 1 (GFNI) or 2 for the sign.
"""

from __future__ import annotations

from collections.abc import Sequence

from neuc.backends.cpu.builder import KernelBuilder, Val, i8, i16, i32, i64, vec
from neuc.backends.cpu.kernels.ternary_tiles import Chunk, TileEmitter
from neuc.backends.cpu.packing.tl2 import TABLE_BYTES, Tl2Layout

_BYTES, _WORDS, _DWORDS = vec(i8, 64), vec(i16, 32), vec(i32, 16)
_QUAD_BYTES = 4 * TABLE_BYTES


class QuadsEmitter(TileEmitter):
    """Chunks of T tiles of 16 rows; accumulators are one register for the low and one for the high bytes of a tile."""

    token_sizes = (4, 2, 1)

    def __init__(self, b: KernelBuilder, layout: Tl2Layout) -> None:
        super().__init__(b, layout.tiling)
        self.layout = layout

    def initial(self, token: Val, segment: Val, row_block: Val, row: Val) -> Val:
        """Minus the bias of all tables that will be looked up."""
        line = (row_block * self.tiling.segments + segment) * self.tiling.padded_block_rows + row
        return self.b.load(self.b.elem(self.at.start, line, i32), _DWORDS)

    def chunk(self, at: Chunk, tokens: int) -> None:
        """All tiles at once for one token, pairs of tiles for more: what the registers hold."""
        at_once = self.layout.tiles if tokens == 1 else min(2, self.layout.tiles)
        for first in range(0, self.layout.tiles, at_once):
            self._tiles(at, range(first, first + at_once), tokens)

    def _tiles(self, at: Chunk, tiles: Sequence[int], tokens: int) -> None:
        b, layout = self.b, self.layout
        quads = layout.step_groups // 4
        group = at.segment * layout.segment_groups + at.first_step * layout.step_groups
        tables = b.ptr(self.at.activations, at.token * self.at.activation_bytes + group * TABLE_BYTES)
        zero = b.zero(_DWORDS)
        with b.loop(0, at.steps, init=[zero] * (2 * len(tiles) * tokens)) as step:
            sums = list(step.carried)
            weights = b.ptr(at.weights, step.i * layout.tiling.step_bytes)
            signs = b.load(b.ptr(weights, 4 * 64), _BYTES)
            here = b.ptr(tables, step.i * (quads * _QUAD_BYTES))
            for quad in range(quads):
                # Index and sign of all tiles first, then token by token: few registers beside the accumulators.
                found = [self._lookup(weights, signs, layout.tiles * quad + tile) for tile in tiles]
                for token in range(tokens):
                    table = b.ptr(b.ptr(here, token * self.at.activation_bytes), quad * _QUAD_BYTES)
                    parts = [b.load(b.ptr(table, 64 * part), _BYTES) for part in range(2)]
                    for i, (index, sign) in enumerate(found):
                        for part in range(2):
                            place = 2 * (token * len(tiles) + i) + part
                            sums[place] = self._add_entries(sums[place], parts[part], index, sign)
            step.yield_(sums)
        for token in range(tokens):
            for tile in tiles:
                low, high = step.results[2 * (token * len(tiles) + tile - tiles[0]) :][:2]
                total = low + (high << 8)
                self.add(
                    total.ashr(self._sign_shift) if self._sign_shift else total, self.sums_of(at, token, 16 * tile)
                )

    @property
    def _sign_shift(self) -> int:
        """Signs are ±2 to this power."""
        return 0 if self.b.isa.has_gfni else 6

    def _lookup(self, weights: Val, signs: Val, lookup: int) -> tuple[Val, Val]:
        packed = self.b.load(self.b.ptr(weights, 64 * (lookup // 2)), _BYTES)
        return self._index(packed, lookup % 2), self._sign(signs, lookup)

    def _add_entries(self, total: Val, table: Val, index: Val, sign: Val) -> Val:
        b = self.b
        entries = b.intrinsic("llvm.x86.avx512.permvar.qi.512", _BYTES, [table, index])
        return b.intrinsic("llvm.x86.avx512.vpdpbusd.512", _DWORDS, [total, entries, sign])

    def _index(self, packed: Val, half: int) -> Val:
        """The byte of each lane's entry in the four tables: see `packing/tl2.py` for the bits."""
        b = self.b
        moved = b.bitcast(b.bitcast(packed, _WORDS) >> 2, _BYTES) if half else packed
        return moved & b.const(0x33, _BYTES) | b.vec_const([4 * (lane % 4) for lane in range(64)], i8)

    def _sign(self, signs: Val, lookup: int) -> Val:
        """±1 (or ±64) in each lane from bit `lookup` of the sign bytes."""
        b = self.b
        if b.isa.has_gfni:
            # Result bits 7 … 1 are the sign bit, bit 0 is the constant 1: 0xFF or 0x01.
            matrix = b.const(sum((1 << lookup) << 8 * row for row in range(7)), vec(i64, 8))
            operands = [signs, b.bitcast(matrix, _BYTES), b.const(1, i8)]
            return b.intrinsic("llvm.x86.vgf2p8affineqb.512", _BYTES, operands)
        shifted = b.bitcast(b.bitcast(signs, _WORDS) << (7 - lookup), _BYTES) if lookup < 7 else signs
        return shifted & b.const(0x80, _BYTES) | b.const(0x40, _BYTES)
