"""What the `i2` kernels share: activations padded to whole steps, and their sums, which undo the codes' offset.

A code is the weight minus the lowest level, so Σ w·x = Σ code·x + low·Σ x, over the same padded columns.
"""

from __future__ import annotations

from neuc.backends.cpu.builder import KernelBuilder, Operand, Val, i8, i32, vec
from neuc.backends.cpu.kernels.ternary_tiles import TOKEN_BLOCK, Chunk, TileEmitter, scratch_bytes
from neuc.backends.cpu.packing.i2 import STEP_COLUMNS, I2Layout


def i2_scratch_bytes(layout: I2Layout, tokens: int = TOKEN_BLOCK, *, padded: bool = False) -> int:
    """Bytes of scratch memory: int32 products, int32 sums of activations, and padded activations if K needs it.

    Args:
        layout: the packed matrix.
        tokens: how many there are in a block.
        padded: whether the activations come padded.
    """
    t = layout.tiling
    copied = t.padded_columns if t.padded_columns > t.columns and not padded else 0
    return scratch_bytes(t, tokens) + tokens * (4 * t.segments + copied)


class I2Emitter(TileEmitter):
    """Prepares a block of tokens: `activations` gives the address a chunk multiplies.

    Args:
        b: where to write.
        layout: the packed matrix.
        tokens: how many there are in a block.
        padded: whether the activations come padded with zeros to the columns that kernels read.
    """

    def __init__(self, b: KernelBuilder, layout: I2Layout, tokens: int = TOKEN_BLOCK, *, padded: bool = False) -> None:
        super().__init__(b, layout.tiling)
        self.layout = layout
        self.copies = self.tiling.padded_columns > self.tiling.columns and not padded
        self._sums_at = scratch_bytes(self.tiling, tokens)
        self._copies_at = self._sums_at + 4 * tokens * self.tiling.segments

    @property
    def row_bytes(self) -> Val | int:
        """Bytes from one token's activations to the next."""
        return self.tiling.padded_columns if self.copies else self.at.activation_bytes

    def row(self, token: Val) -> Val:
        """Address of a token's activations; `token` counts from the unit's first."""
        b = self.b
        if self.copies:
            return b.ptr(self.at.scratch, token * self.row_bytes + self._copies_at)
        return b.ptr(self.at.activations, token * self.row_bytes)

    def activations(self, at: Chunk) -> Val:
        """Address of the first activation of a chunk's first token."""
        return self.b.ptr(self.row(at.token), at.segment * self.tiling.segment + at.first_step * STEP_COLUMNS)

    def quad(self, step: Val, token: int, plane: int, lanes: int) -> Val:
        """The 4 activations of a plane repeated in `lanes` lanes; `step` is the step's first activation."""
        b = self.b
        return b.splat(b.load(b.ptr(b.ptr(step, token * self.row_bytes), 4 * plane), i32), lanes)

    def prepare(self, tokens: Val) -> None:
        """Pad the rows if need be and add up each segment."""
        b, t = self.b, self.tiling
        sixteen = vec(i8, 16)
        with b.loop(0, tokens) as token:
            if self.copies:
                source = b.ptr(self.at.activations, token.i * t.columns)
                row = self.row(token.i)
                whole = t.columns // 16 * 16
                with b.loop(0, whole, 16) as copy:
                    b.store(b.load(b.ptr(source, copy.i), sixteen), b.ptr(row, copy.i))
                with b.loop(whole, t.columns) as copy:
                    b.store(b.load(b.ptr(source, copy.i), i8), b.ptr(row, copy.i))
                with b.loop(t.columns, t.padded_columns) as copy:
                    b.store(b.const(0, i8), b.ptr(row, copy.i))
            row = self.row(token.i)
            with b.loop(0, t.segments) as segment:
                first = b.ptr(row, segment.i * t.segment)
                with b.loop(0, t.segment_steps, init=[b.zero(vec(i32, 16))]) as step:
                    x = b.load(b.ptr(first, step.i * STEP_COLUMNS), sixteen)
                    step.yield_([step.carried[0] + b.sext(x, i32)])
                b.store(b.reduce_add(step.results[0]), self._sum(token.i, segment.i))

    def initial(self, token: Val, segment: Val, row_block: Val, row: Val) -> Val:
        """Low times the sum of the activations."""
        b = self.b
        return b.splat(b.load(self._sum(token, segment), i32) * self.layout.low, b.lanes)

    def _sum(self, token: Val, segment: Operand) -> Val:
        b = self.b
        index = token * self.tiling.segments + segment
        return b.ptr(self.at.scratch, index * 4 + self._sums_at)
