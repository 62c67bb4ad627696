"""`i2` products with AVX-512 VNNI: one `vpand` and one `vpdpbusd` per plane of 64 weights.

For one token planes are not shifted down: the codes stay in their two bits, each plane has its own accumulator, and an
exact shift at the end takes the factor 1, 4, 16 or 64 out. For several tokens the shifted planes are shared.
"""

from __future__ import annotations

from neuc.backends.cpu.builder import Val, i8, i16, i32, vec
from neuc.backends.cpu.kernels.direct_i2_base import I2Emitter
from neuc.backends.cpu.kernels.ternary_tiles import Chunk
from neuc.backends.cpu.packing.i2 import STEP_COLUMNS, TILE_BYTES, TILE_ROWS

_BYTES, _WORDS, _DWORDS = vec(i8, 64), vec(i16, 32), vec(i32, 16)
_PLANES = 4


class VnniEmitter(I2Emitter):
    """One token: all T tiles at once. More: pairs of tiles for four or eight tokens; two gain nothing."""

    token_sizes = (8, 4, 1)

    def chunk(self, at: Chunk, tokens: int) -> None:
        """As the class says."""
        tiles = self.layout.tiles
        if tokens == 1:
            self._one_token(at)
            return
        pair = min(2, tiles)
        with self.b.loop(0, tiles, pair) as first:
            self._tokens(at, first.i, pair, tokens)

    def _one_token(self, at: Chunk) -> None:
        b, tiles = self.b, self.layout.tiles
        x = self.activations(at)
        with b.loop(0, at.steps, init=[b.zero(_DWORDS)] * (_PLANES * tiles)) as step:
            sums = list(step.carried)
            weights = b.ptr(at.weights, step.i * (TILE_BYTES * tiles))
            here = b.ptr(x, step.i * STEP_COLUMNS)
            packed = [b.load(b.ptr(weights, TILE_BYTES * tile), _BYTES) for tile in range(tiles)]
            for plane in range(_PLANES):
                quad = self._quad(here, 0, plane)
                for tile in range(tiles):
                    codes = packed[tile] & b.const(3 << 2 * plane, _BYTES)
                    place = _PLANES * tile + plane
                    sums[place] = self._multiply(sums[place], codes, quad)
            step.yield_(sums)
        for tile in range(tiles):
            planes = step.results[_PLANES * tile : _PLANES * (tile + 1)]
            low, high = planes[0] + planes[1].ashr(2), planes[2].ashr(4) + planes[3].ashr(6)
            self.add(low + high, self.sums_of(at, 0, TILE_ROWS * tile))

    def _tokens(self, at: Chunk, first: Val, tiles: int, tokens: int) -> None:
        b = self.b
        x = self.activations(at)
        start = b.ptr(at.weights, first * TILE_BYTES)
        with b.loop(0, at.steps, init=[b.zero(_DWORDS)] * (tiles * tokens)) as step:
            sums = list(step.carried)
            weights = b.ptr(start, step.i * (TILE_BYTES * self.layout.tiles))
            here = b.ptr(x, step.i * STEP_COLUMNS)
            packed = [b.load(b.ptr(weights, TILE_BYTES * tile), _BYTES) for tile in range(tiles)]
            for plane in range(_PLANES):
                codes = [self._plane(vector, plane) for vector in packed]
                for token in range(tokens):
                    quad = self._quad(here, token, plane)
                    for i, code in enumerate(codes):
                        place = token * tiles + i
                        sums[place] = self._multiply(sums[place], code, quad)
            step.yield_(sums)
        for token in range(tokens):
            for i in range(tiles):
                self.add(step.results[token * tiles + i], self.sums_of(at, token, (first + i) * TILE_ROWS))

    def _plane(self, packed: Val, plane: int) -> Val:
        b = self.b
        moved = b.bitcast(b.bitcast(packed, _WORDS) >> 2 * plane, _BYTES) if plane else packed
        return moved & b.const(3, _BYTES)

    def _quad(self, step: Val, token: int, plane: int) -> Val:
        return self.b.bitcast(self.quad(step, token, plane, 16), _BYTES)

    def _multiply(self, total: Val, codes: Val, x: Val) -> Val:
        return self.b.intrinsic("llvm.x86.avx512.vpdpbusd.512", _DWORDS, [total, codes, x])
