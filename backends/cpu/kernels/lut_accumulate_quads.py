"""Look-ups with AVX-512 VBMI and VNNI: `vpermb` reads 16 rows of 4 tables, `vpdpbusd` applies factors and adds.

Per 64 look-ups of one token: 2 vpermb and 2 vpdpbusd (low and high bytes), and, shared by all tokens of the chunk,
about 1.5 instructions for the index and, for mirrored tables, 1 (GFNI) or 2 for the sign.
"""

from __future__ import annotations

from collections.abc import Sequence

from neuc.backends.cpu.builder import KernelBuilder, Val, i8, i16, i32, i64, vec
from neuc.backends.cpu.kernels.lut_base import LutEmitter
from neuc.backends.cpu.kernels.ternary_tiles import TOKEN_BLOCK, Chunk
from neuc.backends.cpu.packing.lut import TABLE_BYTES, LutLayout

_BYTES, _WORDS, _DWORDS = vec(i8, 64), vec(i16, 32), vec(i32, 16)
_QUAD_BYTES = 4 * TABLE_BYTES


class QuadsEmitter(LutEmitter):
    """Chunks of T tiles of 16 rows; accumulators are one register for the low and one for the high bytes of a tile."""

    def __init__(self, b: KernelBuilder, layout: LutLayout, tokens: int = TOKEN_BLOCK) -> None:
        super().__init__(b, layout, tokens)
        self.bias = layout.code.table.quads_bias
        self.token_sizes = (4, 2, 1) if layout.code.planes <= 2 else (2, 1)

    def activation_sum(self, tables: Val, groups: int) -> Val:
        """Four tables at a time; those that fill up the last four are of zero activations."""
        b, entry, zero = self.b, self.layout.code.table.all_ones, self.b.zero(_DWORDS)
        chosen = b.vec_const([lane // 16 * 4 + lane % 4 == entry for lane in range(64)], i8)
        quads = -(-groups // 4)
        with b.loop(0, quads, init=[zero, zero]) as quad:
            at = b.ptr(tables, quad.i * _QUAD_BYTES)
            parts = [b.load(b.ptr(at, 64 * part), _BYTES) for part in range(2)]
            quad.yield_([self._dot(s, part, chosen) for s, part in zip(quad.carried, parts, strict=True)])
        low, high = quad.results
        return b.reduce_add(low + (high << 8)) - 4 * quads * self.bias

    def chunk(self, at: Chunk, tokens: int) -> None:
        """All tiles at once for one token, pairs of tiles for more: what the registers hold."""
        at_once = self.layout.tiles if tokens == 1 else min(2, self.layout.tiles)
        for first in range(0, self.layout.tiles, at_once):
            self._tiles(at, range(first, first + at_once), tokens)

    def _tiles(self, at: Chunk, tiles: Sequence[int], tokens: int) -> None:
        b, layout = self.b, self.layout
        quads, planes = layout.step_groups // 4, layout.code.planes
        tables = self.tables_of(at)
        # Index and sign first, then token by token: few registers beside the accumulators.
        together = [[plane] for plane in range(planes)] if tokens == 1 else [range(planes)]
        zero = b.zero(_DWORDS)
        with b.loop(0, at.steps, init=[zero] * (2 * len(tiles) * tokens)) as step:
            sums = list(step.carried)
            weights = b.ptr(at.weights, step.i * layout.tiling.step_bytes)
            here = b.ptr(tables, step.i * (quads * _QUAD_BYTES))
            if tokens == 1:
                self.prefetch(weights, layout.tiling.step_bytes)
            for quad in range(quads):
                for some in together:
                    found = [[self._lookup(weights, p, layout.tiles * quad + tile) for tile in tiles] for p in some]
                    for token in range(tokens):
                        table = b.ptr(b.ptr(here, token * self.at.activation_bytes), quad * _QUAD_BYTES)
                        parts = [b.load(b.ptr(table, 64 * part), _BYTES) for part in range(2)]
                        for i, (index, factor) in ((i, f) for plane in found for i, f in enumerate(plane)):
                            for part in range(2):
                                place = 2 * (token * len(tiles) + i) + part
                                sums[place] = self._dot(sums[place], self._entries(parts[part], index), factor)
            step.yield_(sums)
        for token in range(tokens):
            for i, tile in enumerate(tiles):
                low, high = step.results[2 * (token * len(tiles) + i) :][:2]
                total = low + (high << 8)
                total = total.ashr(self._sign_shift) if self._sign_shift else total
                self.add_products(total, at, token, 16 * tile)

    @property
    def _sign_shift(self) -> int:
        """Signs are ±2 to this power."""
        return 6 if self.layout.code.table.mirrored and not self.b.isa.has_gfni else 0

    def _lookup(self, weights: Val, plane: int, lookup: int) -> tuple[Val, Val]:
        """Index, and what entries are multiplied by."""
        b, code = self.b, self.layout.code
        packed = b.load(b.ptr(weights, self.layout.plane_bytes * plane + 64 * (lookup // 2)), _BYTES)
        if not code.table.mirrored:
            return self._index(packed, lookup % 2), b.const(code.factors[plane], _BYTES)
        signs = b.load(b.ptr(weights, self.layout.plane_bytes * code.planes), _BYTES)
        return self._index(packed, lookup % 2), self._sign(signs, lookup)

    def _index(self, packed: Val, half: int) -> Val:
        """The byte of each lane's entry in the four tables: see `packing/lut.py` for the bits."""
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

    def _entries(self, table: Val, index: Val) -> Val:
        return self.b.intrinsic("llvm.x86.avx512.permvar.qi.512", _BYTES, [table, index])

    def _dot(self, total: Val, entries: Val, factors: Val) -> Val:
        return self.b.intrinsic("llvm.x86.avx512.vpdpbusd.512", _DWORDS, [total, entries, factors])
