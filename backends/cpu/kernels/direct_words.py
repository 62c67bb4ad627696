"""Direct products of 16-bit words: for any CPU, and for `t5` bytes of the *thirds* code and one token.

A vector of packed bytes is taken as words, and these apart into even and odd bytes; two columns of a plane are then
one lane of a `pmaddwd`. Activations are copied as words in that order.

Of a *thirds* byte, `Codes.halves` gives the leading digits f_0 = d_0, f_1 = 3·d_0 + d_1 and so on, one multiplication
each, rather than the digits d_s = f_s - 3·f_{s-1}. As Σ d_s·x_s = Σ f_s·(x_s - 3·x_{s+1}), the copied activations are
x_s - 3·x_{s+1}.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from xdsl.ir import Attribute

from neuc.backends.cpu.builder import KernelBuilder, Val, i8, i16, i32, vec
from neuc.backends.cpu.kernels.direct_base import DirectEmitter, base_scratch_bytes
from neuc.backends.cpu.kernels.direct_codes import BYTE
from neuc.backends.cpu.kernels.ternary_tiles import TOKEN_BLOCK, Chunk
from neuc.backends.cpu.packing.direct import QUAD, DirectLayout

_QUAD_BYTES = 2 * QUAD
_MADD = {16: "sse2.pmadd.wd", 32: "avx2.pmadd.wd", 64: "avx512.pmaddw.d.512"}


def copied_bytes(layout: DirectLayout) -> int:
    """Bytes of a token's activations as words: for each segment, its steps."""
    t = layout.tiling
    return t.segments * t.segment_steps * layout.planes * _QUAD_BYTES


class WordsEmitter(DirectEmitter[Val]):
    """Vectors of a quarter as many rows as bytes."""

    token_sizes = (4, 1)

    def __init__(
        self, b: KernelBuilder, layout: DirectLayout, tokens: int = TOKEN_BLOCK, *, padded: bool = False
    ) -> None:
        super().__init__(b, layout, tokens, padded=padded)
        self.accumulators = b.isa.registers // 2
        self.copy_bytes = copied_bytes(layout)
        self._words_at = base_scratch_bytes(layout, tokens, padded=padded)

    def windows(self, tokens: int) -> tuple[int, ...]:
        """Words have room for codes where they are; several tokens share shifts."""
        return (8,) if tokens == 1 else (2,)

    def slots(self, window: int) -> list[tuple[int, int]]:
        """Two where one would have to wait for itself: `vpdpwssd` takes five cycles."""
        chains = 2 if self.b.isa.has_vnni else 1
        return [(shift, plane % chains) for plane, shift in enumerate(self.codes.shifts(window))]

    def read(self, packed: Val, window: int) -> Iterator[tuple[Val, ...]]:
        """Even and odd bytes."""
        b = self.b
        words = b.bitcast(packed, vec(i16, packed.lanes // 2))
        halves = (words & b.const(0xFF, words.type), words >> BYTE)
        yield from zip(*(self.codes.halves(b, half, window) for half in halves), strict=True)

    def taken(self, step: Val, token: int) -> Val:
        """Where they are."""
        return self.b.ptr(step, token * self.copy_bytes)

    def multiply(self, total: Val, codes: tuple[Val, ...], x: Val, plane: int) -> Val:
        """Even bytes, then odd ones."""
        b = self.b
        for half, words in enumerate(codes):
            pair = b.splat(b.load(b.ptr(x, _QUAD_BYTES * plane + QUAD * half), i32), words.lanes // 2)
            total = self._products(total, words, b.bitcast(pair, words.type))
        return total

    def _products(self, total: Val, words: Val, x: Val) -> Val:
        b = self.b
        if b.isa.has_vnni:
            name = f"llvm.x86.avx512.vpdpwssd.{8 * self.vector_bytes}"
            return b.intrinsic(name, self.partial, [total, words, x])
        if b.isa.arch == "x86_64":
            return total + b.intrinsic(f"llvm.x86.{_MADD[self.vector_bytes]}", self.partial, [words, x])
        return total + b.sext(words, i32) * b.sext(x, i32)

    @property
    def partial(self) -> Attribute:
        """One lane a row; a lane for each of the two columns where pairs are not added."""
        return vec(i32, self.vector_bytes // (QUAD if self.b.isa.arch == "x86_64" else 2))

    def widened(self, total: Val) -> Val:
        """Add pairs if that is still to be done."""
        b, lanes = self.b, self.vector_bytes // QUAD
        if total.lanes == lanes:
            return total
        even, odd = (b.shuffle(total, None, range(first, 2 * lanes, 2)) for first in (0, 1))
        return even + odd

    # ---------------------------------------------------------------- activations

    @property
    def step_bytes(self) -> int:
        """Bytes from one step's activations to the next's."""
        return self.layout.planes * _QUAD_BYTES

    def activations(self, at: Chunk) -> Val:
        """Address of the first word of a chunk's first token."""
        step = at.segment * self.tiling.segment_steps + at.first_step
        return self.b.ptr(self._words(at.token), step * self.step_bytes)

    def prepare(self, tokens: Val) -> None:
        """Copy as words, too."""
        super().prepare(tokens)
        self.copy(tokens)

    def copy(self, tokens: Val) -> None:
        """Words of what `prepare` of any direct emitter has left at `row`."""
        b, t = self.b, self.tiling
        with b.loop(0, tokens) as token, b.loop(0, t.segments) as segment, b.loop(0, t.segment_steps) as step:
            source = b.ptr(self.row(token.i), segment.i * t.segment + step.i * t.step_columns)
            target = b.ptr(self._words(token.i), (segment.i * t.segment_steps + step.i) * self.step_bytes)
            quads = [
                b.sext(b.load(b.ptr(source, QUAD * plane), vec(i8, QUAD)), i16) for plane in range(self.layout.planes)
            ]
            if self.layout.code == "t5_thirds":
                quads = [x - following * 3 for x, following in pairwise(quads)] + quads[-1:]
            for plane, quad in enumerate(quads):
                b.store(b.shuffle(quad, None, (0, 2, 1, 3)), b.ptr(target, _QUAD_BYTES * plane))

    def _words(self, token: Val) -> Val:
        return self.b.ptr(self.at.scratch, token * self.copy_bytes + self._words_at)
