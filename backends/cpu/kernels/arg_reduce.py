"""Positions of the largest or smallest element along one axis."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, i32, i64, is_float, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.reduce import neutral
from neuc.backends.cpu.kernels.strided import STORAGE, Args, chunks, load_elements, rows, store_elements


@dataclass(frozen=True)
class ArgReduceKernel(KernelSpec):
    """``target[o, i] (i64) = the r at which source[o, r, i] is extreme``; a NaN beats every number, as in numpy.

    The axis has fewer than 2^31 elements; over none the result is 0 or −1, for want of a position.

    Slots: source, target, reduced size, inner size. Work: outer · inner.

    Attributes:
        kind: ``max`` or ``min``.
        dtype: f32, i32 or i64.
        select_last: of equal elements the last counts, else the first.
        last: the inner size is 1: vectors run along the axis instead of across it.
    """

    kind: str
    dtype: str
    select_last: bool
    last: bool

    family = "arg_reduce"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """One result or one vector of results at a time."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        source, target, reduced, inner = args.ptr(), args.ptr(), args.int(), args.int()
        element = STORAGE[self.dtype]
        if self.last:
            with b.loop(b.begin, b.end) as loop:
                index = self._along(b, b.elem(source, loop.i * reduced, element), reduced)
                store_elements(b, b.sext(index, i64), target, loop.i, "i64")
            return b.finish()
        with rows(b, [b.i64(1), inner], [[reduced * inner]]) as row:
            here = b.elem(source, row.offsets[0], element)
            start = row.index * inner

            def column(j: Val, _: list[Val], mask: Val | None, width: int) -> list[Val]:
                best = b.const(neutral(self.kind, self.dtype), vec(element, width))
                with b.loop(0, reduced, 1, [best, b.zero(vec(i32, width))]) as loop:
                    new = load_elements(b, here, loop.i * inner + j, self.dtype, width, mask)
                    take = self._takes(b, new, loop.carried[0])
                    where = b.splat(b.trunc(loop.i, i32), width)
                    loop.yield_([b.select(take, new, loop.carried[0]), b.select(take, where, loop.carried[1])])
                store_elements(b, b.sext(loop.results[1], i64), target, start + j, "i64", mask)
                return []

            chunks(b, row.lo, row.hi, isa.f32_lanes, column)
        return b.finish()

    def _along(self, b: KernelBuilder, here: Val, reduced: Val) -> Val:
        lanes = b.lanes
        best = b.const(neutral(self.kind, self.dtype), vec(STORAGE[self.dtype], lanes))
        # A lane that never takes anything must lose every tie when the lanes meet.
        positions = b.vec_const(range(lanes), i32)
        first = b.const(-1, positions.type) if self.select_last else positions

        def step(j: Val, carried: list[Val], mask: Val | None, width: int) -> list[Val]:
            new = load_elements(b, here, j, self.dtype, width, mask)
            take = self._takes(b, new, carried[0])
            take = take if mask is None else take & mask
            where = b.splat(b.trunc(j, i32), width) + positions
            return [b.select(take, new, carried[0]), b.select(take, where, carried[1])]

        best, where = chunks(b, b.i64(0), reduced, lanes, step, [best, first])
        while best.lanes > 1:
            half = best.lanes // 2
            best, where = self._merge(
                b,
                (b.slice(best, 0, half), b.slice(where, 0, half)),
                (b.slice(best, half, half), b.slice(where, half, half)),
            )
        return where

    def _takes(self, b: KernelBuilder, new: Val, old: Val) -> Val:
        """Whether `new`, which comes later, replaces `old`."""
        order = "g" if self.kind == "max" else "l"
        order += "e" if self.select_last else "t"
        if not is_float(new.type):
            return b.icmp(f"s{order}", new, old)
        # Unordered comparison is true when either is NaN: right unless only the old one is.
        old_is_number = b.fcmp("ord", old, old)
        takes = b.fcmp(f"u{order}", new, old)
        return takes & (old_is_number | b.fcmp("uno", new, new)) if self.select_last else takes & old_is_number

    def _merge(self, b: KernelBuilder, x: tuple[Val, Val], y: tuple[Val, Val]) -> tuple[Val, Val]:
        """The better of two (element, position) pairs, neither of which comes first."""
        if is_float(x[0].type):
            strict = "ogt" if self.kind == "max" else "olt"
            x_nan, y_nan = b.fcmp("uno", x[0], x[0]), b.fcmp("uno", y[0], y[0])
            y_better = b.fcmp(strict, y[0], x[0]) | (b.fcmp("ord", x[0], x[0]) & y_nan)
            tie = b.fcmp("oeq", x[0], y[0]) | (x_nan & y_nan)
        else:
            y_better = b.icmp("sgt" if self.kind == "max" else "slt", y[0], x[0])
            tie = b.icmp("eq", x[0], y[0])
        wins_tie = b.icmp("sgt" if self.select_last else "slt", y[1], x[1])
        take = y_better | (tie & wins_tie)
        return b.select(take, y[0], x[0]), b.select(take, y[1], x[1])
