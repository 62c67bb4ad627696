"""`i2` products with AVX2: `vpmaddubsw` multiplies codes and activations into int16 lanes, widened in time.

For one token, planes 1 and 3 keep their factor 4 in lanes of their own. For several, the shifted planes are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from neuc.backends.cpu.builder import Val, i8, i16, i32, vec
from neuc.backends.cpu.kernels.direct_i2_base import I2Emitter
from neuc.backends.cpu.kernels.ternary_tiles import Chunk
from neuc.backends.cpu.packing.i2 import STEP_COLUMNS, TILE_BYTES, TILE_ROWS

_BYTES, _WORDS, _DWORDS = vec(i8, 32), vec(i16, 16), vec(i32, 8)
_HALF_BYTES = TILE_BYTES // 2
_HALF_ROWS = TILE_ROWS // 2


class MaddEmitter(I2Emitter):
    """Vectors of 8 rows: both halves of a tile for one token, one half for four."""

    token_sizes = (4, 1)

    def chunk(self, at: Chunk, tokens: int) -> None:
        """Tile after tile."""
        with self.b.loop(0, 2 * self.layout.tiles, 2 if tokens == 1 else 1) as half:
            if tokens == 1:
                self._one_token(at, half.i)
            else:
                self._tokens(at, half.i, tokens)

    def _one_token(self, at: Chunk, half: Val) -> None:
        b = self.b

        def products(weights: Val, x: Val, sums: Sequence[Val]) -> list[Val]:
            quads = [self._quad(x, 0, plane) for plane in range(4)]
            result: list[Val] = []
            for i in range(2):
                packed = b.load(b.ptr(weights, _HALF_BYTES * i), _BYTES)
                upper = b.bitcast(b.bitcast(packed, _WORDS) >> 4, _BYTES)
                for scale in range(2):
                    mask = b.const(3 << 2 * scale, _BYTES)
                    first = self._multiply(packed & mask, quads[scale])
                    second = self._multiply(upper & mask, quads[2 + scale])
                    result.append(sums[2 * i + scale] + first + second)
            return result

        # Lanes with factor 4 take two pairs of products a step.
        sums = self._widened(at, half, 4, 32767 // (2 * 2 * 4 * self.layout.top_code * 128), products)
        for i in range(2):
            total = sums[2 * i] + sums[2 * i + 1].ashr(2)
            self.add(total, self.sums_of(at, 0, (half + i) * _HALF_ROWS))

    def _tokens(self, at: Chunk, half: Val, tokens: int) -> None:
        b = self.b

        def products(weights: Val, x: Val, sums: Sequence[Val]) -> list[Val]:
            packed = b.load(weights, _BYTES)
            result = list(sums)
            for plane in range(4):
                moved = b.bitcast(b.bitcast(packed, _WORDS) >> 2 * plane, _BYTES) if plane else packed
                codes = moved & b.const(3, _BYTES)
                for token in range(tokens):
                    result[token] = result[token] + self._multiply(codes, self._quad(x, token, plane))
            return result

        sums = self._widened(at, half, tokens, 32767 // (4 * 2 * self.layout.top_code * 128), products)
        for token in range(tokens):
            self.add(sums[token], self.sums_of(at, token, half * _HALF_ROWS))

    def _widened(
        self,
        at: Chunk,
        half: Val,
        count: int,
        safe_steps: int,
        products: Callable[[Val, Val, Sequence[Val]], list[Val]],
    ) -> list[Val]:
        """Int32 lanes of `count` accumulators, of which `products` adds a step's products in int16."""
        b = self.b
        x = self.activations(at)
        start = b.ptr(at.weights, half * _HALF_BYTES)
        with b.loop(0, at.steps, safe_steps, init=[b.zero(_DWORDS)] * count) as run:
            until = b.min(run.i + safe_steps, at.steps)
            with b.loop(run.i, until, init=[b.zero(_WORDS)] * count) as step:
                weights = b.ptr(start, step.i * (TILE_BYTES * self.layout.tiles))
                step.yield_(products(weights, b.ptr(x, step.i * STEP_COLUMNS), step.carried))
            ones = b.const(1, _WORDS)
            pairs = [b.intrinsic("llvm.x86.avx2.pmadd.wd", _DWORDS, [words, ones]) for words in step.results]
            run.yield_([wide + pair for wide, pair in zip(run.carried, pairs, strict=True)])
        return run.results

    def _quad(self, step: Val, token: int, plane: int) -> Val:
        return self.b.bitcast(self.quad(step, token, plane, 8), _BYTES)

    def _multiply(self, codes: Val, x: Val) -> Val:
        return self.b.intrinsic("llvm.x86.avx2.pmadd.ub.sw", _WORDS, [codes, x])
