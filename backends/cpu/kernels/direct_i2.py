"""`ternary.accumulate` of `i2` weights: unpack two-bit codes and multiply, exact in int32. Chooses among the kernels.

Each instruction set's code is in its own file: `direct_i2_vnni.py` (AVX-512), `direct_i2_madd.py` (AVX2) and
`direct_i2_plain.py` (any CPU).
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.direct_i2_base import I2Emitter, i2_scratch_bytes
from neuc.backends.cpu.kernels.direct_i2_madd import MaddEmitter
from neuc.backends.cpu.kernels.direct_i2_plain import PlainEmitter
from neuc.backends.cpu.kernels.direct_i2_vnni import VnniEmitter
from neuc.backends.cpu.kernels.ternary_tiles import TOKEN_BLOCK
from neuc.backends.cpu.packing.i2 import I2Layout


@dataclass(frozen=True)
class DirectI2Kernel(KernelSpec):
    """Slots: 0 q (int8 [tokens, columns]), 1 packed weights, 2 sums (out, int32 [tokens, segments, rows]), 3 tokens.

    Work units: row blocks x ceil(tokens / `token_block`).
    """

    layout: I2Layout

    family = "direct_i2"
    token_block = TOKEN_BLOCK

    @property
    def scratch(self) -> int:
        """Bytes of scratch memory."""
        return i2_scratch_bytes(self.layout)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """The kernel for this instruction set."""
        b = KernelBuilder(self.name, isa)
        i2_emitter(b, self.layout).emit(self.layout.tiling.columns, b.arg_ptr(1))
        return b.finish()


def i2_emitter(b: KernelBuilder, layout: I2Layout, tokens: int = TOKEN_BLOCK, *, padded: bool = False) -> I2Emitter:
    """What writes products for this instruction set; see `I2Emitter` for the arguments."""
    kind = VnniEmitter if b.isa.has_vnni else MaddEmitter if "avx2" in b.isa.features else PlainEmitter
    return kind(b, layout, tokens, padded=padded)
