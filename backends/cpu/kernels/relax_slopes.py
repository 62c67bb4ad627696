"""Slopes of parameters: weighted sums over chains of outer products, one kernel for all learning rules."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import Args

ROWS = 4
"""Rows of a work unit."""


@dataclass(frozen=True)
class SlopesKernel(KernelSpec):
    """out[i, j] = 1/C Σ_k factor_k Σ_c A_k[c, i]·B_k[c, j]; with `vector`, out[j] = 1/C Σ_k factor_k Σ_c B_k[c, j].

    Slots: 0 out f32 [rows, columns], 1 C, 2 rows, 3 columns, then A_k (not with `vector`) and B_k of each k. Work:
    rows in units of `ROWS`.
    """

    factors: tuple[float, ...]
    vector: bool = False

    family = "relax_slopes"
    written = (0,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Blocks of sums in registers; chains are the inner loop."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        out, chains, rows, columns = args.ptr(), args.int(), args.int(), args.int()
        pairs = [(b.scratch if self.vector else args.ptr(), args.ptr()) for _ in self.factors]
        wide = 4 if isa.registers > 16 else 2
        share = 1.0 / b.sitofp(chains, f32)

        def block(first: Val, count: int, column: Val, vectors: int, mask: Val | None) -> None:
            sums = [b.zero(vec(f32, b.lanes))] * (count * vectors)
            for factor, (left, right) in zip(self.factors, pairs):
                with b.loop(0, chains, init=sums) as chain:
                    new = list(chain.carried)
                    base = b.elem(right, chain.i * columns + column, f32)
                    right_vectors = [self._load(b, b.elem(base, k * b.lanes, f32), mask) for k in range(vectors)]
                    for row in range(count):
                        weight = b.splat(share * factor, b.lanes)
                        if not self.vector:
                            a = b.load(b.elem(left, chain.i * rows + (first + row), f32), f32)
                            weight = b.splat(a * (share * factor), b.lanes)
                        for k, value in enumerate(right_vectors):
                            new[row * vectors + k] = b.fma(weight, value, new[row * vectors + k])
                    chain.yield_(new)
                sums = chain.results
            for row in range(count):
                for k in range(vectors):
                    at = b.elem(out, (first + row) * columns + (column + k * b.lanes), f32)
                    total = sums[row * vectors + k]
                    b.store(total, at) if mask is None else b.masked_store(total, at, mask)

        def line(first: Val, count: int) -> None:
            whole = columns - b.urem(columns, b.i64(wide * b.lanes))
            with b.loop(0, whole, wide * b.lanes) as column:
                block(first, count, column.i, wide, None)
            with b.loop(whole, columns, b.lanes) as column:
                block(first, count, column.i, 1, b.mask_below(columns - column.i, b.lanes))

        with b.loop(b.begin, b.end) as unit:
            first = unit.i * ROWS
            full = b.icmp("sle", first + ROWS, rows)
            with b.if_(full) as whole_unit:
                line(first, ROWS)
            with whole_unit.else_():
                with b.loop(first, rows) as row:
                    line(row.i, 1)
        return b.finish()

    @staticmethod
    def _load(b: KernelBuilder, address: Val, mask: Val | None) -> Val:
        type_ = vec(f32, b.lanes)
        return b.load(address, type_) if mask is None else b.masked_load(address, type_, mask)
