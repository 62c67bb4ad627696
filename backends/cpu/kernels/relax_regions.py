"""Instructions of `RelaxRowsKernel` for the functions of predictions: scalar bodies, moves, windows' largest.

Products and what follows them are in `relax_rows_code.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuc.backends.cpu.kernels.map_body import Instr, emit_body
from neuc.backends.cpu.kernels.relax_rows_code import Code
from neuc.backends.cpu.kernels.relax_rows_products import Frame


@dataclass(frozen=True)
class MapRows(Code):
    """row[target + i] = body(row[source + i·stride] of each source), i < size.

    Attributes:
        sources: first row and stride, 1 or 0, of each operand of the body.
    """

    target: int
    size: int
    sources: tuple[tuple[int, int], ...]
    body: tuple[Instr, ...]
    result: int

    def emit(self, f: Frame) -> None:
        """One row after another."""
        b = f.b
        with b.loop(0, self.size) as row:
            operands = [f.load(row.i * stride + source) for source, stride in self.sources]
            f.store(emit_body(b, self.body, self.result, operands, b.lanes), row.i + self.target)


@dataclass(frozen=True)
class Pick(Code):
    """row[target + i] = row[source + near[i]], i < size; near is a parameter of i32."""

    target: int
    size: int
    source: int
    near: int

    def emit(self, f: Frame) -> None:
        """One row after another."""
        with f.b.loop(0, self.size) as row:
            f.store(f.load(f.integer(self.near, row.i) + self.source), row.i + self.target)


@dataclass(frozen=True)
class Largest(Code):
    """row[target + i] = max of row[source + near[i·count + k]], k < count; near is a parameter of i32."""

    target: int
    size: int
    source: int
    near: int
    count: int

    def emit(self, f: Frame) -> None:
        """One window after another."""
        b = f.b
        with b.loop(0, self.size) as row:
            first = row.i * self.count
            with b.loop(1, self.count, init=[f.load(f.integer(self.near, first) + self.source)]) as k:
                k.yield_([b.max(f.load(f.integer(self.near, first + k.i) + self.source), k.carried[0])])
            f.store(k.results[0], row.i + self.target)


@dataclass(frozen=True)
class ToLargest(Code):
    """row[target + near[i·count + k]] += row[g + i] for the first k where `Largest` found row[best + i]."""

    target: int
    size: int
    source: int
    near: int
    count: int
    best: int
    g: int

    def emit(self, f: Frame) -> None:
        """One window after another, since windows may overlap."""
        b = f.b
        with b.loop(0, self.size) as row:
            best = f.load(row.i + self.best)
            with b.loop(0, self.count, init=[f.load(row.i + self.g)]) as k:
                left = k.carried[0]
                place = f.integer(self.near, row.i * self.count + k.i)
                here = b.fcmp("oeq", f.load(place + self.source), best)
                zero = f.constant(0.0)
                f.store(f.load(place + self.target) + b.select(here, left, zero), place + self.target)
                k.yield_([b.select(here, zero, left)])
