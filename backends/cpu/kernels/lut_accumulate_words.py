"""Look-ups in plain IR, for any CPU: one int16 entry at a time."""

from __future__ import annotations

from neuc.backends.cpu.builder import KernelBuilder, Val, i8, i16, i32, i64, vec
from neuc.backends.cpu.kernels.ternary_tiles import Chunk, TileEmitter
from neuc.backends.cpu.packing.tl2 import LOOKUPS, TABLE_BYTES, Tl2Layout


class WordsEmitter(TileEmitter):
    """Reads the `bytes` layout of weights row by row."""

    def __init__(self, b: KernelBuilder, layout: Tl2Layout) -> None:
        super().__init__(b, layout.tiling)
        self.layout = layout

    def initial(self, token: Val, segment: Val, row_block: Val, row: Val) -> Val:
        """Nothing: these tables have no bias."""
        return self.b.zero(vec(i32, self.b.lanes))

    def chunk(self, at: Chunk, tokens: int) -> None:
        """For each row, for each step: eight entries with their signs."""
        b, layout = self.b, self.layout
        lanes = layout.lanes
        group = at.segment * layout.segment_groups + at.first_step * layout.step_groups
        tables = b.ptr(self.at.activations, at.token * self.at.activation_bytes + group * TABLE_BYTES)
        with b.loop(0, lanes) as lane:
            lane_weights = b.ptr(at.weights, lane.i)
            with b.loop(0, at.steps, init=[b.i32(0)]) as step:
                weights = b.ptr(lane_weights, step.i * layout.tiling.step_bytes)
                here = b.ptr(tables, step.i * (LOOKUPS * TABLE_BYTES))
                signs = b.zext(b.load(b.ptr(weights, 4 * lanes), i8), i32)
                total = step.carried[0]
                for lookup in range(LOOKUPS):
                    pair = b.zext(b.load(b.ptr(weights, lanes * (lookup // 2)), i8), i64)
                    index = pair >> 4 if lookup % 2 else pair & 0x0F
                    entry = b.sext(b.load(b.elem(b.ptr(here, lookup * TABLE_BYTES), index, i16), i16), i32)
                    minus = b.neg((signs >> lookup) & 1)
                    total = total + ((entry ^ minus) - minus)
                step.yield_([total])
            row = (lane.i >> 1) + (lane.i & 1) * 16
            self.add(step.results[0], self.sums_of(at, 0, row))
