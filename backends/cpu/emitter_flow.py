"""Loops and conditionals of kernels, made of the `Emitter`'s blocks and branches.

Kernels open them with ``b.loop(...)`` and ``b.if_(...)`` of their builder. No instruction but branches is chosen here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

from xdsl.ir import Block

from neuc.backends.cpu.emitter import Emitter, Operand, Val
from neuc.backends.cpu.irtypes import i1, i64
from neuc.errors import InternalError


class Loop:
    """A counted loop: ``i`` from ``lo`` while ``i < hi`` (signed), and values carried round it.

    Inside the body use `i` and `carried`, and call `yield_` with the next values if there are any.
    `results` holds the last values afterwards (the initial ones when the loop ran zero times).
    """

    def __init__(self, b: Emitter, lo: Operand, hi: Operand, step: Operand, init: Sequence[Val]) -> None:
        self._b = b
        self._step = b.as_val(step, i64)
        self._hi = b.as_val(hi, i64)
        first = b.as_val(lo, i64)
        types = [v.type for v in init]
        self._body = Block(arg_types=[i64, *types])
        self._exit = Block(arg_types=types)
        # Guard in front, test at the end: the shape LLVM's loop rotation would arrive at.
        runs_once = isinstance(lo, int) and isinstance(hi, int) and lo < hi
        start = [first.ssa, *(v.ssa for v in init)]
        if runs_once:
            b.branch(self._body, start)
        else:
            b.cond_branch(b.icmp("slt", first, self._hi), self._body, start, self._exit, [v.ssa for v in init])
        b.enter(self._body)
        args = self._body.args
        self.i = Val(b, args[0], i64)
        self.carried = [Val(b, arg, arg.type) for arg in args[1:]]
        self.results: list[Val] = []
        self._next: list[Val] | None = None if init else []

    def yield_(self, values: Iterable[Val]) -> None:
        """Set what the next round (or `results`) gets."""
        self._next = list(values)
        if [v.type for v in self._next] != [v.type for v in self.carried]:
            raise InternalError("a loop must yield the types it carries")

    def close(self) -> None:
        """End the body; the builder goes on after the loop."""
        if self._next is None:
            raise InternalError("a loop that carries values must call yield_")
        b = self._b
        following = b.add_nsw(self.i, self._step)
        values = [v.ssa for v in self._next]
        again = b.icmp("slt", following, self._hi)
        b.cond_branch(again, self._body, [following.ssa, *values], self._exit, values)
        b.enter(self._exit)
        self.results = [Val(b, arg, arg.type) for arg in self._exit.args]


class If:
    """A conditional: the body of ``with b.if_(c) as f``, then optionally ``with f.else_():``.

    Each side may `yield_` values; they come out as `results`, and then both sides are needed.
    """

    def __init__(self, b: Emitter, cond: Val) -> None:
        if cond.type != i1:
            raise InternalError(f"if_ takes an i1, not {cond.type}")
        self._b = b
        self._cond = cond
        self._before = b.block
        self._then = Block()
        self._merge = Block()
        self._yielded: list[Val] = []
        self._needs_else = False
        b.enter(self._then)

    def yield_(self, values: Iterable[Val]) -> None:
        """Set what this side contributes to `results`."""
        self._yielded = list(values)

    def close(self) -> None:
        """End the first side; the builder goes on after the conditional."""
        b = self._b
        b.branch(self._merge, [v.ssa for v in self._yielded])
        for value in self._yielded:
            self._merge.insert_arg(value.type, len(self._merge.args))
        self._needs_else = bool(self._yielded)
        if not self._needs_else:
            b.cond_branch_at(self._before, self._cond, self._then, self._merge)
        b.enter(self._merge)

    @contextmanager
    def else_(self) -> Generator[None]:
        """The other side; must directly follow the first one."""
        b = self._b
        if b.block is not self._merge or not self._merge.is_empty:
            raise InternalError("else_ must directly follow its if_")
        if not self._needs_else:
            branch = self._before.last_op
            if branch is None:
                raise InternalError("else_ was used twice")
            branch.detach()
            branch.erase()
        first = [v.type for v in self._yielded]
        self._yielded = []
        side = Block()
        b.cond_branch_at(self._before, self._cond, self._then, side)
        b.leave()
        b.enter(side)
        yield
        if [v.type for v in self._yielded] != first:
            raise InternalError("both sides of an if_ must yield the same types")
        b.branch(self._merge, [v.ssa for v in self._yielded])
        b.enter(self._merge)

    @property
    def results(self) -> list[Val]:
        """What the side that ran has yielded."""
        return [Val(self._b, arg, arg.type) for arg in self._merge.args]
