"""Sums, means, products and extremes over one axis of a tensor seen as [outer, reduced, inner]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, is_float, vec
from neuc.backends.cpu.irtypes import bits_of
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import (
    STORAGE,
    Args,
    chunks,
    chunks_wide,
    load_elements,
    narrow,
    rows,
    store_elements,
    tree,
)

BLOCK = 64
"""Vectors (or rows) added up before their sum joins the total: sums of n terms then err by n/64 + 64 roundings at most
in one accumulator, not n."""

Combine = Callable[[Val, Val], Val]


def neutral(kind: str, dtype: str) -> float | int:
    """What combining with changes nothing."""
    if kind in ("sum", "mean"):
        return 0
    if kind == "prod":
        return 1
    memory = STORAGE[dtype]
    if is_float(memory):
        return float("-inf") if kind == "max" else float("inf")
    limit = 1 << (bits_of(memory) - 1)
    return -limit if kind == "max" else limit - 1


def combiner(b: KernelBuilder, kind: str) -> Combine:
    """The function of (new element, accumulated) to accumulated; NaN wins over every number."""

    def extreme(new: Val, old: Val) -> Val:
        if not is_float(new.type):
            return b.max(new, old) if kind == "max" else b.min(new, old)
        # Unordered: a NaN among the new replaces a number; a NaN that is there stays.
        better = b.fcmp("ugt" if kind == "max" else "ult", new, old)
        return b.select(better & b.fcmp("ord", old, old), new, old)

    if kind in ("sum", "mean"):
        return lambda new, old: old + new
    return (lambda new, old: old * new) if kind == "prod" else extreme


@dataclass(frozen=True)
class ReduceKernel(KernelSpec):
    """``target[o, i] = kind over r of source[o, r, i]``.

    Slots: source, target, reduced size, inner size. Work: outer · inner.

    Attributes:
        kind: ``sum``, ``mean`` (floats only), ``max``, ``min``, ``prod``.
        dtype: f32, i32 or i64.
        last: the inner size is 1: vectors run along the reduced axis instead of across it.
    """

    kind: str
    dtype: str
    last: bool

    family = "reduce"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """One result or one vector of results at a time."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        source, target, reduced, inner = args.ptr(), args.ptr(), args.int(), args.int()
        element = STORAGE[self.dtype]
        if self.last:
            with b.loop(b.begin, b.end) as loop:
                total = self._along(b, b.elem(source, loop.i * reduced, element), reduced)
                store_elements(b, self._finish(b, total, reduced), target, loop.i, self.dtype)
            return b.finish()
        with rows(b, [b.i64(1), inner], [[reduced * inner]]) as row:
            here = b.elem(source, row.offsets[0], element)
            start = row.index * inner

            def column(j: Val, _: list[Val], mask: Val | None, width: int) -> list[Val]:
                total = self._across(b, b.elem(here, j, element), reduced, inner, mask, width)
                store_elements(b, self._finish(b, total, reduced), target, start + j, self.dtype, mask)
                return []

            chunks_wide(b, row.lo, row.hi, isa.f32_lanes, column)
        return b.finish()

    def _along(self, b: KernelBuilder, here: Val, reduced: Val) -> Val:
        combine, element = combiner(b, self.kind), STORAGE[self.dtype]
        wide = 4 * b.lanes if b.lanes > 1 else 1
        whole = b.udiv(reduced, wide) * wide
        start = b.const(neutral(self.kind, self.dtype), vec(element, wide))
        with b.loop(0, whole, wide * BLOCK, [start]) as block:
            with b.loop(block.i, b.min(block.i + wide * BLOCK, whole), wide, [start]) as loop:
                new = load_elements(b, here, loop.i, self.dtype, wide)
                loop.yield_([combine(new, loop.carried[0])])
            block.yield_([combine(loop.results[0], block.carried[0])])
        total = narrow(b, block.results[0], b.lanes, combine)
        if b.lanes == 1:
            return total
        fill = b.const(neutral(self.kind, self.dtype), vec(element, b.lanes))

        def rest(j: Val, carried: list[Val], mask: Val | None, width: int) -> list[Val]:
            return [combine(load_elements(b, here, j, self.dtype, width, mask, fill), carried[0])]

        (total,) = chunks(b, whole, reduced, b.lanes, rest, [total])
        return tree(b, total, combine)

    def _across(self, b: KernelBuilder, here: Val, reduced: Val, inner: Val, mask: Val | None, width: int) -> Val:
        combine, element = combiner(b, self.kind), STORAGE[self.dtype]
        start = b.const(neutral(self.kind, self.dtype), vec(element, width))
        with b.loop(0, reduced, BLOCK, [start]) as block:
            with b.loop(block.i, b.min(block.i + BLOCK, reduced), 1, [start]) as loop:
                new = load_elements(b, here, loop.i * inner, self.dtype, width, mask)
                loop.yield_([combine(new, loop.carried[0])])
            block.yield_([combine(loop.results[0], block.carried[0])])
        return block.results[0]

    def _finish(self, b: KernelBuilder, total: Val, reduced: Val) -> Val:
        if self.kind != "mean":
            return total
        return total / b.splat(b.sitofp(reduced, f32), total.lanes)
