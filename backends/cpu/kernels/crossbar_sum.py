"""Partial sums of crossbar tiles, added up digitally, with bias and activation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from xdsl.dialects import llvm

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import chunks, load_elements, store_elements


@dataclass(frozen=True)
class CrossbarSumKernel(KernelSpec):
    """y[m, start + c] = activation(Σ_p factors[p]·parts[p][m, c - offsets[p]] + bias[start + c]), c < columns.

    A part covers columns offsets[p] … offsets[p] + widths[p] - 1 of these. Slots: 0 y (f32 [M, stride]), 1 bias (any
    address without one), 2 stride, 3 start, then the parts (f32 [M, widths[p]]). Work units: samples.

    Attributes:
        columns: columns that are written.
        widths: columns of each part.
        offsets: first column of each part.
        factors: of each part.
        biased: whether there is a bias.
        activation: a kind of the dense dialect.
        alpha: the activation's first parameter.
        beta: its second.
    """

    columns: int
    widths: tuple[int, ...]
    offsets: tuple[int, ...]
    factors: tuple[float, ...]
    biased: bool = False
    activation: str = "none"
    alpha: float = 0.0
    beta: float = 0.0

    family = "crossbar_sum"
    written = (0,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Sample by sample, in vectors; columns are cut where the parts that cover them change."""
        b = KernelBuilder(self.name, isa)
        ends = [o + w for o, w in zip(self.offsets, self.widths)]
        cuts = sorted({0, self.columns, *self.offsets, *ends})
        with b.loop(b.begin, b.end) as sample:
            for lo, hi in pairwise(cuts):
                here = [p for p, (o, e) in enumerate(zip(self.offsets, ends)) if o <= lo and hi <= e]
                self._columns(b, sample.i, here, lo, hi)
        return b.finish()

    def _columns(self, b: KernelBuilder, sample: Val, parts: list[int], lo: int, hi: int) -> None:
        first = b.arg_int(3)
        row = sample * b.arg_int(2) + first

        def add(column: Val, _: list[Val], mask: Val | None, width: int) -> list[Val]:
            total: Val | None = None
            for p in parts:
                at = sample * self.widths[p] + (column - self.offsets[p])
                part = load_elements(b, b.arg_ptr(4 + p), at, "f32", width, mask)
                if self.factors[p] != 1.0:
                    part = part * b.const(self.factors[p], part.type)
                total = part if total is None else total + part
            assert total is not None
            if self.biased:
                total = total + load_elements(b, b.arg_ptr(1), first + column, "f32", width, mask)
            total = vecmath.activate(b, total, self.activation, self.alpha, self.beta)
            store_elements(b, total, b.arg_ptr(0), row + column, "f32", mask)
            return []

        chunks(b, b.i64(lo), b.i64(hi), b.lanes, add)
