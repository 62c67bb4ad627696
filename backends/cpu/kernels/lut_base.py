"""What the look-up kernels share: what sums start from, and sums of activations, for weights with an offset.

Entries are biased so that their bytes fit; the biases that were added up come off again at the start. Weights are
offset + step·Σ factor·digit, so offset·Σ q is added there too, with Σ q read out of the tables: their entry of all
digits 1.
"""

from __future__ import annotations

from abc import abstractmethod

from neuc.backends.cpu.builder import KernelBuilder, Operand, Val, i32, vec
from neuc.backends.cpu.kernels.ternary_tiles import TOKEN_BLOCK, Chunk, TileEmitter, scratch_bytes
from neuc.backends.cpu.packing.lut import TABLE_BYTES, LutLayout


def lut_scratch_bytes(layout: LutLayout, tokens: int = TOKEN_BLOCK) -> int:
    """Bytes of scratch memory for blocks of `tokens`: products, and sums of activations if the code has an offset."""
    return scratch_bytes(layout.tiling, tokens) + (4 * tokens * layout.tiling.segments if layout.code.offset else 0)


class LutEmitter(TileEmitter):
    """Look-ups in one kind of tables.

    Args:
        b: where to write.
        layout: the packed matrix.
        tokens: how many there are in a block.
    """

    bias = 0
    """What tables add to each entry."""

    def __init__(self, b: KernelBuilder, layout: LutLayout, tokens: int = TOKEN_BLOCK) -> None:
        super().__init__(b, layout.tiling)
        self.layout = layout
        self._sums_at = scratch_bytes(layout.tiling, tokens)

    @abstractmethod
    def activation_sum(self, tables: Val, groups: int) -> Val:
        """The i32 sum of the activations of so many tables."""

    def initial(self, token: Val, segment: Val, row_block: Val, row: Val) -> Val:
        """The offset times the sum of activations, less the biases of what will be looked up."""
        b, code, t = self.b, self.layout.code, self.tiling
        biases = self.bias * sum(code.factors) * t.segment_steps * self.layout.step_groups
        start = b.const(-code.step * biases, vec(i32, b.lanes))
        if code.table.mirrored and self.bias:
            line = (row_block * t.segments + segment) * t.padded_block_rows + row
            start = b.load(b.elem(self.at.start, line, i32), vec(i32, b.lanes))
        if code.offset:
            start = start + b.splat(b.load(self._sum(token, segment), i32) * code.offset, b.lanes)
        return start

    def prepare(self, tokens: Val) -> None:
        """Add up the activations of each segment if the code has an offset."""
        b, layout = self.b, self.layout
        if layout.code.offset:
            with b.loop(0, tokens) as token, b.loop(0, self.tiling.segments) as segment:
                group = segment.i * layout.segment_groups
                tables = b.ptr(self.at.activations, token.i * self.at.activation_bytes + group * TABLE_BYTES)
                b.store(self.activation_sum(tables, layout.segment_groups), self._sum(token.i, segment.i))

    def tables_of(self, at: Chunk) -> Val:
        """Address of the tables of a chunk's first step and first token."""
        group = at.segment * self.layout.segment_groups + at.first_step * self.layout.step_groups
        return self.b.ptr(self.at.activations, at.token * self.at.activation_bytes + group * TABLE_BYTES)

    def add_products(self, value: Val, at: Chunk, token: int, row: Operand) -> None:
        """Add i32 lanes of Σ factor·entry to the sums of neighbouring rows."""
        step = self.layout.code.step
        self.add(value * step if step != 1 else value, self.sums_of(at, token, row))

    def _sum(self, token: Val, segment: Val) -> Val:
        index = token * self.tiling.segments + segment
        return self.b.ptr(self.at.scratch, index * 4 + self._sums_at)
