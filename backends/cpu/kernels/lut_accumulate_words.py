"""Look-ups in plain IR, for any CPU: one int16 entry at a time."""

from __future__ import annotations

from neuc.backends.cpu.builder import Val, i8, i16, i32, i64
from neuc.backends.cpu.kernels.lut_base import LutEmitter
from neuc.backends.cpu.kernels.ternary_tiles import Chunk
from neuc.backends.cpu.packing.lut import TABLE_BYTES
from neuc.backends.cpu.packing.lut_code import LOOKUPS


class WordsEmitter(LutEmitter):
    """Reads the `bytes` layout of weights row by row."""

    token_sizes = (4, 2, 1)

    def activation_sum(self, tables: Val, groups: int) -> Val:
        """Table by table."""
        b, entry = self.b, self.layout.code.table.all_ones
        with b.loop(0, groups, init=[b.i32(0)]) as group:
            value = b.load(b.ptr(tables, group.i * TABLE_BYTES + 2 * entry), i16)
            group.yield_([group.carried[0] + b.sext(value, i32)])
        return group.results[0]

    def chunk(self, at: Chunk, tokens: int) -> None:
        """For each row, for each step: eight entries per plane."""
        b, layout = self.b, self.layout
        factors, tables = layout.code.factors, self.tables_of(at)
        with b.loop(0, layout.lanes) as lane:
            lane_weights = b.ptr(at.weights, lane.i)
            with b.loop(0, at.steps, init=[b.i32(0)] * (len(factors) * tokens)) as step:
                sums = list(step.carried)
                weights = b.ptr(lane_weights, step.i * layout.tiling.step_bytes)
                here = b.ptr(tables, step.i * (LOOKUPS * TABLE_BYTES))
                rows = [b.ptr(here, token * self.at.activation_bytes) for token in range(tokens)]
                for lookup in range(LOOKUPS):
                    for plane in range(len(factors)):
                        offset = self._index(weights, plane, lookup) * 2 + lookup * TABLE_BYTES
                        minus = self._minus(weights, lookup) if layout.code.table.mirrored else None
                        for token, row in enumerate(rows):
                            entry = b.sext(b.load(b.ptr(row, offset), i16), i32)
                            signed = entry if minus is None else (entry ^ minus) - minus
                            sums[plane * tokens + token] = sums[plane * tokens + token] + signed
                step.yield_(sums)
            row = (lane.i >> 1) + (lane.i & 1) * 16
            for token in range(tokens):
                parts = [sums * factor for sums, factor in zip(step.results[token::tokens], factors, strict=True)]
                self.add_products(sum(parts[1:], parts[0]), at, token, row)

    def _index(self, weights: Val, plane: int, lookup: int) -> Val:
        b, layout = self.b, self.layout
        place = layout.plane_bytes * plane + layout.lanes * (lookup // 2)
        pair = b.zext(b.load(b.ptr(weights, place), i8), i64)
        return pair >> 4 if lookup % 2 else pair & 0x0F

    def _minus(self, weights: Val, lookup: int) -> Val:
        """All ones where the entry is to be negated."""
        b, layout = self.b, self.layout
        signs = b.zext(b.load(b.ptr(weights, layout.plane_bytes * layout.code.planes), i8), i32)
        return b.neg((signs >> lookup) & 1)
