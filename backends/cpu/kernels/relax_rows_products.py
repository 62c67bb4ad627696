"""What instructions of `RelaxRowsKernel` stand on: rows in scratch memory, and products that add up over other rows.

What follows a sum, and the other instructions, are in `relax_rows_code.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i32, i64, vec
from neuc.backends.cpu.kernels.relax_random import Philox

UNROLLED = 4
"""Edges that are added up side by side."""
MOST_ACCUMULATORS = 16
"""Sums of a block at most; rows 0 to 15 of scratch memory are theirs between their products and what follows."""


@dataclass
class Frame:
    """What instructions see: the builder, addresses of parameters, and where time and chains stand."""

    b: KernelBuilder
    parameters: Sequence[Val]
    first_chain: Val = field(init=False)
    step: Val = field(init=False)
    steps: Val = field(init=False)
    beta: Val = field(init=False)
    philox: Philox = field(init=False)

    def seeded(self, seed: Val) -> None:
        """Make the generator."""
        self.philox = Philox(self.b, seed)

    def row(self, index: Val | int) -> Val:
        """The address of a row."""
        b = self.b
        return b.elem(b.scratch, index * b.lanes, f32)

    def load(self, index: Val | int) -> Val:
        """A row."""
        return self.b.load(self.row(index), vec(f32, self.b.lanes), align=4 * self.b.lanes)

    def store(self, value: Val, index: Val | int) -> None:
        """Write a row."""
        self.b.store(value, self.row(index), align=4 * self.b.lanes)

    def number(self, parameter: int, index: Val | int) -> Val:
        """A number of a parameter in every lane."""
        b = self.b
        return b.splat(b.load(b.elem(self.parameters[parameter], index, f32), f32), b.lanes)

    def integer(self, parameter: int, index: Val | int) -> Val:
        """An i32 of a parameter, as i64."""
        b = self.b
        return b.sext(b.load(b.elem(self.parameters[parameter], index, i32), i32), i64)

    def constant(self, value: float) -> Val:
        """A number in every lane."""
        return self.b.const(value, vec(f32, self.b.lanes))


class Product(ABC):
    """Something that adds up over other rows, from `source` on."""

    source: int

    @abstractmethod
    def add(self, f: Frame, sums: list[Val], first: Val | int) -> list[Val]:
        """The sums of rows `first` and on, with this product added."""


@dataclass(frozen=True)
class Dense(Product):
    """sum[i] += scale · Σ_k W[i·row_step + k·step] · row[source + k], k < count."""

    weights: int
    source: int
    count: int
    row_step: int
    step: int
    scale: float = 1.0

    def add(self, f: Frame, sums: list[Val], first: Val | int) -> list[Val]:
        """A vector of chains is read once for all sums; weights are broadcast from memory."""
        b = f.b
        base = b.elem(f.parameters[self.weights], first * self.row_step, f32)
        with b.loop(0, self.count, init=sums) as k:
            x = f.load(k.i + self.source)
            if self.scale != 1.0:
                x = x * self.scale
            at = b.elem(base, k.i * self.step, f32)
            new: list[Val] = []
            for number, total in enumerate(k.carried):
                w = b.load(b.elem(at, number * self.row_step, f32), f32)
                new.append(b.fma(b.splat(w, b.lanes), x, total))
            k.yield_(new)
        return k.results


@dataclass(frozen=True)
class Mixed(Product):
    """sum[i] += Σ_k row[left + i·row_step + k] · row[source + k], k < count."""

    left: int
    source: int
    count: int
    row_step: int

    def add(self, f: Frame, sums: list[Val], first: Val | int) -> list[Val]:
        """Both sides differ from chain to chain."""
        base = f.b.as_val(first, i64) * self.row_step + self.left
        with f.b.loop(0, self.count, init=sums) as k:
            x = f.load(k.i + self.source)
            rows = [base + k.i + number * self.row_step for number in range(len(sums))]
            k.yield_([f.b.fma(f.load(row), x, total) for row, total in zip(rows, k.carried)])
        return k.results


@dataclass(frozen=True)
class Sparse(Product):
    """sum[i] += scale · Σ w[k[e]] · row[source + near[e]], start[i] ≤ e < start[i + 1]; integers are i32.

    Every row has a multiple of `UNROLLED` edges; those that fill up read a row of zeros.

    Attributes:
        shared: slot of k; None where each edge has a weight of its own, in order.
    """

    start: int
    near: int
    weights: int
    source: int
    scale: float = 1.0
    shared: int | None = None

    def add(self, f: Frame, sums: list[Val], first: Val | int) -> list[Val]:
        """Row by row, with several partial sums."""
        b = f.b
        for number, total in enumerate(sums):
            f.store(total, number)
        with b.loop(0, len(sums)) as row:
            at = b.as_val(first, i64) + row.i
            ends = [f.integer(self.start, at + k) for k in range(2)]
            with b.loop(ends[0], ends[1], UNROLLED, [f.constant(0.0)] * UNROLLED) as edge:
                parts: list[Val] = []
                for k, part in enumerate(edge.carried):
                    other = f.integer(self.near, edge.i + k) + self.source
                    index = edge.i + k if self.shared is None else f.integer(self.shared, edge.i + k)
                    parts.append(b.fma(f.number(self.weights, index), f.load(other), part))
                edge.yield_(parts)
            f.store(b.fma(f.constant(self.scale), tree(edge.results), f.load(row.i)), row.i)
        return [f.load(number) for number in range(len(sums))]


def tree(parts: list[Val]) -> Val:
    """Partial sums, a power of two of them, added up."""
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2])]
    return parts[0]
