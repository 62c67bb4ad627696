"""`ternary.accumulate` of the direct encodings: unpack and multiply, exact in int32. Chooses among the emitters."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.direct_base import base_scratch_bytes
from neuc.backends.cpu.kernels.direct_madd import MaddEmitter
from neuc.backends.cpu.kernels.direct_sdot import SdotEmitter
from neuc.backends.cpu.kernels.direct_vnni import VnniEmitter
from neuc.backends.cpu.kernels.direct_words import WordsEmitter, copied_bytes
from neuc.backends.cpu.kernels.ternary_tiles import TOKEN_BLOCK, Chunk, TileEmitter
from neuc.backends.cpu.packing.direct import DirectLayout


@dataclass(frozen=True)
class DirectKernel(KernelSpec):
    """Slots: 0 q (int8 [tokens, columns]), 1 packed weights, 2 sums (out, int32 [tokens, segments, rows]), 3 tokens.

    Work units: row blocks x ceil(tokens / `token_block`). Scratch: `scratch_bytes`.
    """

    layout: DirectLayout

    family = "direct"
    written = (2,)
    token_block = TOKEN_BLOCK

    def scratch_bytes(self, isa: Isa) -> int:
        """Bytes of scratch memory."""
        return direct_scratch_bytes(self.layout, isa)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """The kernel for this instruction set."""
        b = KernelBuilder(self.name, isa)
        direct_emitter(b, self.layout).emit(self.layout.tiling.columns, b.arg_ptr(1))
        return b.finish()


class OneByWords(TileEmitter):
    """One token by words, several by bytes."""

    def __init__(self, one: WordsEmitter, several: VnniEmitter | MaddEmitter) -> None:
        super().__init__(one.b, one.tiling)
        self.one = one
        self.several = several
        self.token_sizes = several.token_sizes

    def chunk(self, at: Chunk, tokens: int) -> None:
        """As the class says."""
        (self.one if tokens == 1 else self.several).chunk(at, tokens)

    def prepare(self, tokens: Val) -> None:
        """For both."""
        self.one.at = self.several.at = self.at
        self.several.prepare(tokens)
        self.one.copy(tokens)

    def initial(self, token: Val, segment: Val, row_block: Val, row: Val) -> Val:
        """The same for both."""
        return self.several.initial(token, segment, row_block, row)


def direct_emitter(
    b: KernelBuilder, layout: DirectLayout, tokens: int = TOKEN_BLOCK, *, padded: bool = False
) -> TileEmitter:
    """What writes products for this instruction set; see `DirectEmitter` for the arguments."""
    kind = VnniEmitter if b.isa.has_vnni else MaddEmitter if b.isa.has_ssse3 else None
    if kind is None:
        plain = SdotEmitter if b.isa.has_dotprod else WordsEmitter
        return plain(b, layout, tokens, padded=padded)
    several = kind(b, layout, tokens, padded=padded)
    if layout.code != "t5_thirds":
        return several
    return OneByWords(WordsEmitter(b, layout, tokens, padded=padded), several)


def direct_scratch_bytes(layout: DirectLayout, isa: Isa, tokens: int = TOKEN_BLOCK, *, padded: bool = False) -> int:
    """Bytes of scratch memory that the emitter needs."""
    words = layout.code == "t5_thirds" or not (isa.has_vnni or isa.has_ssse3 or isa.has_dotprod)
    return base_scratch_bytes(layout, tokens, padded=padded) + (tokens * copied_bytes(layout) if words else 0)
