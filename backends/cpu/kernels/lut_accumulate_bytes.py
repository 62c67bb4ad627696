"""Look-ups by byte shuffle: one table for up to 32 rows; the two digits of an entry are int8 and add up as bytes.

As many look-ups as an int8 stands (`ByteSplit`), eight or four, then the digits are joined in int16 lanes; before an
int16 overflows, those are widened.
"""

from __future__ import annotations

from collections.abc import Sequence

from neuc.backends.cpu.builder import KernelBuilder, Val, i8, i32
from neuc.backends.cpu.kernels.lut_base import LutEmitter
from neuc.backends.cpu.kernels.lut_bytes_ops import Words, byte_ops
from neuc.backends.cpu.kernels.ternary_tiles import TOKEN_BLOCK, Chunk
from neuc.backends.cpu.packing.lut import TABLE_BYTES, LutLayout
from neuc.backends.cpu.packing.lut_code import ENTRIES, LOOKUPS

_STEP_TABLES = LOOKUPS * TABLE_BYTES


class BytesEmitter(LutEmitter):
    """Chunks of 32 rows, in one vector or two."""

    def __init__(self, b: KernelBuilder, layout: LutLayout, tokens: int = TOKEN_BLOCK) -> None:
        super().__init__(b, layout, tokens)
        self.ops = byte_ops(b)
        self.split = layout.code.table.byte_split()
        self.bias = self.split.bias
        self.safe_steps = 32767 // (LOOKUPS * self.split.most)
        self.vectors = min(self.ops.at_once, layout.lanes // self.ops.lanes)
        self.token_sizes = (2, 1) if self.ops.at_once // self.vectors >= 2 else (1,)

    def activation_sum(self, tables: Val, groups: int) -> Val:
        """Table by table."""
        b, entry = self.b, self.layout.code.table.all_ones
        with b.loop(0, groups, init=[b.i32(0)]) as group:
            at = b.ptr(tables, group.i * TABLE_BYTES + entry)
            low, high = (b.sext(b.load(b.ptr(at, ENTRIES * digit), i8), i32) for digit in range(2))
            group.yield_([group.carried[0] + low + high * self.split.base])
        return group.results[0] - self.bias * groups

    def chunk(self, at: Chunk, tokens: int) -> None:
        """Some vectors at a time."""
        for first in range(0, self.layout.lanes, self.ops.lanes * self.vectors):
            self._vectors(at, [first + self.ops.lanes * i for i in range(self.vectors)], tokens)

    def _vectors(self, at: Chunk, first_lanes: Sequence[int], tokens: int) -> None:
        """As many steps as an int16 stands, then widen, and again."""
        b, layout = self.b, self.layout
        tables, count = self.tables_of(at), len(first_lanes) * tokens
        with b.loop(0, at.steps, self.safe_steps) as run:
            until = b.min(run.i + self.safe_steps, at.steps)
            planes = [
                self._plane(plane, at.weights, tables, run.i, until, first_lanes, tokens)
                for plane in range(layout.code.planes)
            ]
            for number in range(count):
                token, lane = number // len(first_lanes), first_lanes[number % len(first_lanes)]
                ordered = [self.ops.in_order(plane[number]) for plane in planes]
                for odd in range(2):
                    parts = [b.sext(p[odd], i32) * f for p, f in zip(ordered, layout.code.factors, strict=True)]
                    self.add_products(sum(parts[1:], parts[0]), at, token, 16 * odd + lane // 2)

    def _plane(
        self, plane: int, weights: Val, tables: Val, first: Val, until: Val, first_lanes: Sequence[int], tokens: int
    ) -> list[Words]:
        """Sums of one plane over some steps, for each token (outer) and vector (inner).

        Planes have loops of their own: those of one step would share the tables, but not in so few registers.
        """
        b, step_bytes = self.b, self.layout.tiling.step_bytes
        count = len(first_lanes) * tokens
        with b.loop(first, until, init=[b.zero(self.ops.words)] * (2 * count)) as step:
            here = b.ptr(weights, step.i * step_bytes + plane * self.layout.plane_bytes)
            signs = b.ptr(weights, step.i * step_bytes + self.layout.code.planes * self.layout.plane_bytes)
            pairs = list(zip(step.carried[0::2], step.carried[1::2], strict=True))
            found = self._step(here, signs, b.ptr(tables, step.i * _STEP_TABLES), first_lanes, pairs)
            step.yield_([word for pair in found for word in pair])
        return list(zip(step.results[0::2], step.results[1::2], strict=True))

    def _step(
        self, weights: Val, signs: Val, tables: Val, first_lanes: Sequence[int], words: Sequence[Words]
    ) -> list[Words]:
        """Eight look-ups for each of `words`."""
        b, mirrored = self.b, self.layout.code.table.mirrored
        result, digits = list(words), list[list[Val]]()
        for lookup in range(LOOKUPS):
            if lookup % self.split.adds == 0:
                digits = [[] for _ in words]
            indices = [self._index(b.ptr(weights, lane), lookup) for lane in first_lanes]
            minus = [self._sign(b.ptr(signs, lane), lookup) if mirrored else None for lane in first_lanes]
            for number, totals in enumerate(digits):
                token, vector = divmod(number, len(first_lanes))
                address = b.ptr(b.ptr(tables, token * self.at.activation_bytes), lookup * TABLE_BYTES)
                parts = [self.ops.table(b.ptr(address, ENTRIES * part)) for part in range(2)]
                found = [self.ops.look_up(part, indices[vector]) for part in parts]
                sums = zip(totals or (None, None), found, strict=True)
                digits[number] = [self.ops.add(total, value, minus[vector]) for total, value in sums]
            if (lookup + 1) % self.split.adds == 0:
                joined = zip(result, digits, strict=True)
                result = [self.ops.join(words, low, high, self.split.base) for words, (low, high) in joined]
        return result

    def _index(self, weights: Val, lookup: int) -> Val:
        packed = self.b.load(self.b.ptr(weights, self.layout.lanes * (lookup // 2)), self.ops.bytes)
        return packed >> 4 if lookup % 2 else packed & 0x0F

    def _sign(self, signs: Val, lookup: int) -> Val:
        return self.ops.sign(self.b.load(signs, self.ops.bytes), lookup)
