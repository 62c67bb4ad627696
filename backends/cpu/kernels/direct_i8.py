"""`ternary.accumulate` of `i8` weights: plain int8 products, row by row. The oracle of the other kernels."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, i8, i32, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec

_LANES = 16


@dataclass(frozen=True)
class DirectI8Kernel(KernelSpec):
    """Slots: 0 q (int8 [tokens, columns]), 1 weights (int8 [rows, columns]), 2 sums (out), 3 tokens.

    Sums are int32 [tokens, segments, rows]. Work units: rows.
    """

    rows: int
    columns: int
    segment: int

    family = "direct_i8"
    written = (2,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Loops over rows, tokens and segments; one lane on the scalar instruction set."""
        b = KernelBuilder(self.name, isa)
        lanes = 1 if isa.name == "scalar" else _LANES
        segments = -(-self.columns // self.segment)
        with b.loop(b.begin, b.end) as row, b.loop(0, b.arg_int(3)) as token, b.loop(0, segments) as segment:
            first = segment.i * self.segment
            count = b.min(self.columns - first, b.i64(self.segment))
            q = b.ptr(b.arg_ptr(0), token.i * self.columns + first)
            weights = b.ptr(b.arg_ptr(1), row.i * self.columns + first)
            whole = count - b.urem(count, lanes)
            with b.loop(0, whole, lanes, init=[b.zero(vec(i32, lanes))]) as column:
                column.yield_([column.carried[0] + _products(b, q, weights, column.i, lanes)])
            with b.loop(whole, count, init=[b.reduce_add(column.results[0])]) as column:
                column.yield_([column.carried[0] + _products(b, q, weights, column.i, 1)])
            place = (token.i * segments + segment.i) * self.rows + row.i
            b.store(column.results[0], b.elem(b.arg_ptr(2), place, i32))
        return b.finish()


def _products(b: KernelBuilder, q: Val, weights: Val, column: Val, lanes: int) -> Val:
    x, w = (b.sext(b.load(b.ptr(base, column), vec(i8, lanes)), i32) for base in (q, weights))
    return x * w
