"""`i2` products in plain vector IR, for any CPU: int16 multiplies of 4 rows at a time."""

from __future__ import annotations

from neuc.backends.cpu.builder import Val, i8, i16, i32, vec
from neuc.backends.cpu.kernels.direct_i2_base import I2Emitter
from neuc.backends.cpu.kernels.ternary_tiles import Chunk
from neuc.backends.cpu.packing.i2 import STEP_COLUMNS, TILE_BYTES

_BYTES, _WORDS = vec(i8, 16), vec(i16, 16)
_QUARTER_ROWS = 4


class PlainEmitter(I2Emitter):
    """Sixteen bytes of a tile are 4 columns of 4 rows."""

    def chunk(self, at: Chunk, tokens: int) -> None:
        """Quarter after quarter of each tile; int16 lanes are widened before they overflow."""
        b = self.b
        x = self.activations(at)
        safe_steps = 32767 // (4 * self.layout.top_code * 128)
        with b.loop(0, 4 * self.layout.tiles) as quarter:
            start = b.ptr(at.weights, quarter.i * 16)
            with b.loop(0, at.steps, safe_steps, init=[b.zero(vec(i32, _QUARTER_ROWS))]) as run:
                until = b.min(run.i + safe_steps, at.steps)
                with b.loop(run.i, until, init=[b.zero(_WORDS)]) as step:
                    packed = b.load(b.ptr(start, step.i * (TILE_BYTES * self.layout.tiles)), _BYTES)
                    here = b.ptr(x, step.i * STEP_COLUMNS)
                    total = step.carried[0]
                    for plane in range(4):
                        codes = b.zext(self._plane(packed, plane), i16)
                        quad = b.bitcast(self.quad(here, 0, plane, 4), _BYTES)
                        total = total + codes * b.sext(quad, i16)
                    step.yield_([total])
                run.yield_([run.carried[0] + self._row_sums(step.results[0])])
            self.add(run.results[0], self.sums_of(at, 0, quarter.i * _QUARTER_ROWS))

    def _plane(self, packed: Val, plane: int) -> Val:
        b = self.b
        moved = b.bitcast(b.bitcast(packed, vec(i16, 8)) >> 2 * plane, _BYTES) if plane else packed
        return moved & b.const(3, _BYTES)

    def _row_sums(self, words: Val) -> Val:
        """Int32 sums of each 4 neighbouring lanes."""
        b = self.b
        wide = b.sext(words, i32)
        columns = [b.shuffle(wide, None, [4 * row + column for row in range(_QUARTER_ROWS)]) for column in range(4)]
        return columns[0] + columns[1] + (columns[2] + columns[3])
