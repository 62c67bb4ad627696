"""Direct products with `pmaddubsw`, of SSSE3, AVX2 and AVX-512: pairs of products in int16 lanes, widened in time.

Signed weights are multiplied as |x| · (w with the sign of x), exact because a pair is at most 2·128·127.
"""

from __future__ import annotations

from xdsl.dialects.builtin import IntegerType
from xdsl.ir import Attribute

from neuc.backends.cpu.builder import KernelBuilder, Val, i1, i8, i16, i32, vec
from neuc.backends.cpu.kernels.direct_base import DirectEmitter
from neuc.backends.cpu.kernels.ternary_tiles import TOKEN_BLOCK
from neuc.backends.cpu.packing.direct import QUAD, DirectLayout

_LARGEST = 32767
_LARGEST_X = 128
_MADD_BYTES = {16: "ssse3.pmadd.ub.sw.128", 32: "avx2.pmadd.ub.sw", 64: "avx512.pmaddubs.w.512"}
_MADD_WORDS = {16: "sse2.pmadd.wd", 32: "avx2.pmadd.wd", 64: "avx512.pmaddw.d.512"}
_SIGN = {16: "ssse3.psign.b.128", 32: "avx2.psign.b"}


class MaddEmitter(DirectEmitter[tuple[Val, int]]):
    """Vectors of 4, 8 or 16 rows."""

    token_sizes = (8, 4, 1)

    def __init__(
        self, b: KernelBuilder, layout: DirectLayout, tokens: int = TOKEN_BLOCK, *, padded: bool = False
    ) -> None:
        super().__init__(b, layout, tokens, padded=padded)
        if self.codes.signed:
            # There is no `psignb` of 512 bits.
            self.vector_bytes = min(self.vector_bytes, 32)
        if self.codes.signed or self.vector_bytes == 16:
            self.token_sizes = (4, 1)
        self.accumulators = b.isa.registers // 2

    def windows(self, tokens: int) -> tuple[int, ...]:
        """Codes at higher places would fill words the sooner."""
        return (4, 2) if tokens == 1 else (2,)

    def taken(self, step: Val, token: int) -> tuple[Val, int]:
        """Where they are."""
        return step, token

    def multiply(self, total: Val, codes: tuple[Val, ...], x: tuple[Val, int], plane: int) -> Val:
        """A pair of columns in each word; of signed weights four in each lane."""
        b, quad = self.b, self.quad(*x, plane)
        if not self.codes.signed:
            return total + self._intrinsic(_MADD_BYTES, i16, [*codes, quad])
        magnitude = b.intrinsic(f"llvm.abs.v{self.vector_bytes}i8", quad.type, [quad, b.const(0, i1)])
        weights = self._intrinsic(_SIGN, i8, [*codes, quad])
        return total + self._wide(self._intrinsic(_MADD_BYTES, i16, [magnitude, weights]))

    @property
    def partial(self) -> Attribute:
        """Words, or one lane a row."""
        return vec(i32, self.vector_bytes // QUAD) if self.codes.signed else vec(i16, self.vector_bytes // 2)

    def safe_steps(self, window: int) -> int | None:
        """By the largest sum that the planes of one accumulator give in a step."""
        if self.codes.signed:
            return None
        shifts = self.codes.shifts(window)
        most = max(shifts.count(shift) << shift for shift in shifts)
        return _LARGEST // (most * 2 * self.layout.top_code * _LARGEST_X)

    def widened(self, total: Val) -> Val:
        """Pairs of words added up."""
        return total if self.codes.signed else self._wide(total)

    def _wide(self, words: Val) -> Val:
        return self._intrinsic(_MADD_WORDS, i32, [words, self.b.const(1, words.type)])

    def _intrinsic(self, names: dict[int, str], element: IntegerType, args: list[Val]) -> Val:
        lanes = 8 * self.vector_bytes // element.width.data
        return self.b.intrinsic(f"llvm.x86.{names[self.vector_bytes]}", vec(element, lanes), args)
