"""`lut.accumulate`: products with few-level matrices by table look-up, exact in int32. Chooses among the kernels.

Each kind of tables has its own file: `lut_accumulate_quads.py` (AVX-512), `lut_accumulate_bytes.py` (AVX2, SSSE3,
AArch64) and `lut_accumulate_words.py` (any CPU).
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.lut_accumulate_bytes import BytesEmitter
from neuc.backends.cpu.kernels.lut_accumulate_quads import QuadsEmitter
from neuc.backends.cpu.kernels.lut_accumulate_words import WordsEmitter
from neuc.backends.cpu.kernels.lut_base import LutEmitter, lut_scratch_bytes
from neuc.backends.cpu.kernels.ternary_tiles import TOKEN_BLOCK
from neuc.backends.cpu.packing.lut import TABLE_BYTES, LutLayout, TableKind

_SMALL = 4096
"""Bytes of packed weights that are read for each token again: code for several takes longer to make than it saves."""


@dataclass(frozen=True)
class LutAccumulateKernel(KernelSpec):
    """Slots: 0 tables (of `LutBuildKernel`), 1 packed weights, 2 sums (out, int32 [tokens, segments, rows]), 3 tokens,

    4 what sums start from (`pack_lut`; any integer if nothing), 5 tables per token.
    Work units: row blocks x ceil(tokens / `token_block`).

    Attributes:
        tables: kind of the tables.
        layout: the packed matrix.
    """

    tables: TableKind
    layout: LutLayout

    family = "lut_accumulate"
    written = (2,)
    token_block = TOKEN_BLOCK

    @property
    def scratch(self) -> int:
        """Bytes of scratch memory."""
        return lut_scratch_bytes(self.layout)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """The kernel for this kind of tables."""
        b = KernelBuilder(self.name, isa)
        emitter = lut_emitter(b, self.tables, self.layout)
        if self.layout.tiling.nbytes <= _SMALL:
            emitter.token_sizes = (1,)
        emitter.emit(b.arg_int(5) * TABLE_BYTES, b.arg_ptr(4))
        return b.finish()


def lut_emitter(b: KernelBuilder, tables: TableKind, layout: LutLayout, tokens: int = TOKEN_BLOCK) -> LutEmitter:
    """What writes look-ups in this kind of tables, for blocks of so many tokens."""
    emitters = {"quads": QuadsEmitter, "bytes": BytesEmitter, "words": WordsEmitter}
    return emitters[tables](b, layout, tokens)
