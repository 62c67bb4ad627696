"""Look-ups with AVX2: `vpshufb` reads one table for 32 rows; the two digits of an entry are int8 and add up as bytes.

A table holds v = 28·h + l with |h|, |l| <= 14, so the eight look-ups of a step fit an int8; then `vpmaddubsw` joins
the digits in int16 lanes, even and odd rows apart, and at most 85 groups later those are widened.
"""

from __future__ import annotations

from collections.abc import Sequence

from neuc.backends.cpu.builder import KernelBuilder, Val, i8, i16, i32, vec
from neuc.backends.cpu.kernels.lut_build import BASE
from neuc.backends.cpu.kernels.ternary_tiles import Chunk, TileEmitter
from neuc.backends.cpu.packing.tl2 import ENTRIES, LOOKUPS, TABLE_BYTES, Tl2Layout

_BYTES, _WORDS, _DWORDS = vec(i8, 32), vec(i16, 16), vec(i32, 8)
_STEP_TABLES = LOOKUPS * TABLE_BYTES


class BytesEmitter(TileEmitter):
    """Chunks of 32 rows; one or two tokens at a time, what sixteen registers hold."""

    token_sizes = (2, 1)

    def __init__(self, b: KernelBuilder, layout: Tl2Layout) -> None:
        super().__init__(b, layout.tiling)
        self.layout = layout
        # |entry| is at most 128·g, and an int16 sum of a step's eight is at most eight times that.
        self.safe_steps = 32767 // (LOOKUPS * 128 * layout.g)

    def initial(self, token: Val, segment: Val, row_block: Val, row: Val) -> Val:
        """Nothing: these tables have no bias."""
        return self.b.zero(vec(i32, self.b.lanes))

    def chunk(self, at: Chunk, tokens: int) -> None:
        """As many steps as an int16 stands, then widen, and again."""
        b, layout = self.b, self.layout
        group = at.segment * layout.segment_groups + at.first_step * layout.step_groups
        tables = b.ptr(self.at.activations, at.token * self.at.activation_bytes + group * TABLE_BYTES)
        with b.loop(0, at.steps, self.safe_steps) as run:
            until = b.min(run.i + self.safe_steps, at.steps)
            with b.loop(run.i, until, init=[b.zero(_WORDS)] * (2 * tokens)) as step:
                weights = b.ptr(at.weights, step.i * layout.tiling.step_bytes)
                step.yield_(self._step(weights, b.ptr(tables, step.i * _STEP_TABLES), step.carried))
            for token in range(tokens):
                for odd, words in enumerate(step.results[2 * token : 2 * token + 2]):
                    for half in range(2):
                        dwords = b.sext(b.slice(words, 8 * half, 8), i32)
                        self.add(dwords, self.sums_of(at, token, 16 * odd + 8 * half))

    def _step(self, weights: Val, tables: Val, sums: Sequence[Val]) -> list[Val]:
        b = self.b
        signs = b.load(b.ptr(weights, 4 * 32), _BYTES)
        # vpsignb negates where its second operand is negative and clears where it is zero: bit 0 is set to prevent
        # the latter, after its sign has been used.
        one = b.const(1, _BYTES)
        first_sign = b.bitcast(b.bitcast(signs, _WORDS) << 7, _BYTES) | one
        later_signs = b.bitcast(signs | one, _WORDS)
        digits: list[list[Val]] = []
        for lookup in range(LOOKUPS):
            # Bits that cross into the neighbouring byte stay below its sign.
            sign = b.bitcast(later_signs << (7 - lookup), _BYTES) if lookup else first_sign
            index = self._index(b.load(b.ptr(weights, 32 * (lookup // 2)), _BYTES), lookup % 2)
            for token in range(len(sums) // 2):
                table = b.ptr(b.ptr(tables, token * self.at.activation_bytes), lookup * TABLE_BYTES)
                found = [self._signed_entry(b.ptr(table, ENTRIES * digit), index, sign) for digit in range(2)]
                if len(digits) <= token:
                    digits.append(found)
                else:
                    digits[token] = [total + value for total, value in zip(digits[token], found, strict=True)]
        return [
            self._join(sums[2 * token + odd], digits[token], odd) for token in range(len(digits)) for odd in range(2)
        ]

    def _index(self, packed: Val, half: int) -> Val:
        b = self.b
        moved = b.bitcast(b.bitcast(packed, _WORDS) >> 4, _BYTES) if half else packed
        return moved & b.const(0x0F, _BYTES)

    def _signed_entry(self, table: Val, index: Val, sign: Val) -> Val:
        b = self.b
        entries = b.shuffle(b.load(table, vec(i8, ENTRIES)), None, [*range(ENTRIES)] * 2)
        found = b.intrinsic("llvm.x86.avx2.pshuf.b", _BYTES, [entries, index])
        return b.intrinsic("llvm.x86.avx2.psign.b", _BYTES, [found, sign])

    def _join(self, words: Val, digits: Sequence[Val], odd: int) -> Val:
        b = self.b
        for digit, weight in zip(digits, (1, BASE), strict=True):
            keep = b.vec_const([weight if lane % 2 == odd else 0 for lane in range(32)], i8)
            words = words + b.intrinsic("llvm.x86.avx2.pmadd.ub.sw", _WORDS, [keep, digit])
        return words
