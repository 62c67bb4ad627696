"""Direct products with VNNI: `vpdpbusd` multiplies unsigned codes and signed activations, four a lane, into int32.

For few tokens, codes stay at their place in the byte: a plane costs one `vpand`, has an accumulator of its own, and an
exact shift at the end takes its factor out. For many, the shifted planes are shared.
"""

from __future__ import annotations

from xdsl.ir import Attribute

from neuc.backends.cpu.builder import KernelBuilder, Val, i32, ptr, vec
from neuc.backends.cpu.kernels.direct_base import DirectEmitter
from neuc.backends.cpu.kernels.ternary_tiles import TOKEN_BLOCK
from neuc.backends.cpu.packing.direct import QUAD, DirectLayout


class VnniEmitter(DirectEmitter[tuple[Val, int]]):
    """Vectors of 16 rows, or of 8."""

    def __init__(
        self, b: KernelBuilder, layout: DirectLayout, tokens: int = TOKEN_BLOCK, *, padded: bool = False
    ) -> None:
        super().__init__(b, layout, tokens, padded=padded)
        self.accumulators = b.isa.registers // 2
        self.token_sizes = (16, 8, 4, 2, 1) if self.accumulators >= 16 else (8, 4, 2, 1)

    def taken(self, step: Val, token: int) -> tuple[Val, int]:
        """Where they are: each plane's activations are an operand in memory."""
        return step, token

    def advanced(self, step: Val) -> Val:
        """A register of its own: an operand with an index takes two slots, which halves the rate of broadcasts."""
        return self.b.intrinsic("llvm.launder.invariant.group.p0", ptr, [super().advanced(step)])

    def multiply(self, total: Val, codes: tuple[Val, ...], x: tuple[Val, int], plane: int) -> Val:
        """One instruction."""
        quad = self.quad(*x, plane)
        name = f"llvm.x86.avx512.vpdpbusd.{8 * self.vector_bytes}"
        return self.b.intrinsic(name, self.partial, [total, *codes, quad])

    @property
    def partial(self) -> Attribute:
        """One lane a row."""
        return vec(i32, self.vector_bytes // QUAD)
