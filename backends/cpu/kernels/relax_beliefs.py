"""Active inference of small models: fixed-point iteration of beliefs, and what policies are expected to bring.

Sizes are known, so products over joint states are written out and beliefs stay in registers; an agent is a work unit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i32, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import Args

EPSILON = 2.220446049250313e-16
"""What probabilities are at least where their logarithm is taken; as in the interpreter."""


@dataclass(frozen=True)
class BeliefTable:
    """A table whose axes are, in this order, categories that are observed, clamped beliefs, and free beliefs.

    Attributes:
        categories: (variable, K) of the first axes.
        clamped: the same of clamped beliefs.
        free: factors of the last axes, ascending and different.
    """

    categories: tuple[tuple[int, int], ...]
    clamped: tuple[tuple[int, int], ...]
    free: tuple[int, ...]


@dataclass(frozen=True)
class MeanFieldKernel(KernelSpec):
    """q_f ← softmax(Σ tables, expected over the others), all at once, `steps` times.

    Slots: initial beliefs f32 [C, K_f] and last ones of each factor; of each clamped variable its values, categories
    i32 [C] or beliefs f32 [C, K]; of each table its values f32. Work: C.

    Attributes:
        sizes: K_f.
        variables: K of each clamped variable; 0 of categories.
    """

    sizes: tuple[int, ...]
    variables: tuple[int, ...]
    tables: tuple[BeliefTable, ...]
    steps: int

    family = "relax_mean_field"
    written = None

    def products(self) -> int:
        """Multiplications written out."""
        free = [math.prod(self.sizes[f] for f in table.free) for table in self.tables]
        return sum(n * (len(t.free) + math.prod(k for _, k in t.clamped)) for n, t in zip(free, self.tables))

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Observations first, then iterations that carry all beliefs."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        starts, ends = zip(*[(args.ptr(), args.ptr()) for _ in self.sizes])
        given = [args.ptr() for _ in self.variables]
        values = [args.ptr() for _ in self.tables]
        with b.loop(b.begin, b.end) as unit:
            seen = [self.observed(b, t, p, given, unit.i) for t, p in zip(self.tables, values)]
            start = [
                b.load(b.elem(p, unit.i * size + k, f32), f32)
                for p, size in zip(starts, self.sizes)
                for k in range(size)
            ]
            with b.loop(0, self.steps, init=start) as step:
                step.yield_(self.iteration(b, seen, step.carried))
            first = 0
            for end, size in zip(ends, self.sizes):
                for k in range(size):
                    b.store(step.results[first + k], b.elem(end, unit.i * size + k, f32))
                first += size
        return b.finish()

    def observed(
        self, b: KernelBuilder, table: BeliefTable, values: Val, given: Sequence[Val], chain: Val
    ) -> list[Val]:
        """The table over its free axes."""
        joint = math.prod(self.sizes[f] for f in table.free)
        stride = joint * math.prod(k for _, k in table.clamped)
        offset = b.i64(0)
        for variable, count in table.categories:
            category = b.sext(b.load(b.elem(given[variable], chain, i32), i32), i64)
            # A category outside reads the nearest: nothing outside the table is touched.
            offset = offset * count + b.max(b.min(category, count - 1), 0)
        base = b.elem(values, offset * stride, f32)
        total: list[Val] | None = None
        for number, index in enumerate(itertools.product(*(range(k) for _, k in table.clamped))):
            row = [b.load(b.elem(base, number * joint + k, f32), f32) for k in range(joint)]
            if not index:
                return row
            weight = b.f32(1.0)
            for (variable, count), k in zip(table.clamped, index):
                weight = weight * b.load(b.elem(given[variable], chain * count + k, f32), f32)
            row = [weight * value for value in row]
            total = row if total is None else [x + y for x, y in zip(total, row)]
        assert total is not None
        return total

    def iteration(self, b: KernelBuilder, seen: list[list[Val]], flat: Sequence[Val]) -> list[Val]:
        """All beliefs after one iteration, one factor after another."""
        bounds = list(itertools.accumulate(self.sizes, initial=0))
        q = [list(flat[a:z]) for a, z in itertools.pairwise(bounds)]
        logits = [[b.f32(0.0)] * size for size in self.sizes]
        for table, values in zip(self.tables, seen):
            for value, index in zip(values, itertools.product(*(range(self.sizes[f]) for f in table.free))):
                for place, factor in enumerate(table.free):
                    weight = value
                    for other, (f, k) in enumerate(zip(table.free, index)):
                        weight = weight if other == place else weight * q[f][k]
                    logits[factor][index[place]] = logits[factor][index[place]] + weight
        return [value for row in logits for value in _softmax(b, row)]


def _softmax(b: KernelBuilder, row: list[Val]) -> list[Val]:
    top = row[0]
    for value in row[1:]:
        top = b.max(top, value)
    exponentials: list[Val] = []
    for start in range(0, len(row), b.lanes):
        part = row[start : start + b.lanes]
        exponentials += _spread(b, vecmath.exp(b, _together(b, [value - top for value in part])), len(part))
    total = exponentials[0]
    for value in exponentials[1:]:
        total = total + value
    scale = 1.0 / total
    return [value * scale for value in exponentials]


def _together(b: KernelBuilder, values: list[Val]) -> Val:
    vector = b.zero(vec(f32, b.lanes))
    for lane, value in enumerate(values):
        vector = b.insert(vector, value, lane)
    return vector


def _spread(b: KernelBuilder, vector: Val, count: int) -> list[Val]:
    return [b.extract(vector, lane) for lane in range(count)]


@dataclass(frozen=True)
class EfeKernel(KernelSpec):
    """−G of policies, walked as a tree so that what begins alike is computed once.

    Slots: beliefs f32 [C, S_f] of each factor; transitions f32 [U, joint, padded S'] of each factor; of each group of
    modalities with the same factors, columns f32 [joint, padded outcomes + 1], all outcomes and the linear part of the
    value; the tree i32 [nodes, 2 + factors]: depth, policy (-1: none), actions; result f32 [C, P]; nodes; P. Work: C.
    Scratch: `scratch_bytes`.

    Attributes:
        sizes: S_f.
        transitions: factors each next state depends on.
        groups: factors of each group.
        outcomes: of all groups together; the linear part has the place after them.
        gain: whether entropies of outcomes count.
        depth: steps of a policy.
    """

    sizes: tuple[int, ...]
    transitions: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]
    outcomes: int
    gain: bool
    depth: int

    family = "relax_efe"
    written = None

    def padded(self, count: int, isa: Isa) -> int:
        """Whole vectors."""
        return -(-count // isa.f32_lanes) * isa.f32_lanes

    def level(self, isa: Isa) -> int:
        """Floats of one step: all beliefs, each in whole vectors, and the value so far."""
        return sum(self.padded(size, isa) for size in self.sizes) + isa.f32_lanes

    def scratch_bytes(self, isa: Isa) -> int:
        """A level for each step, and the first."""
        return 4 * (self.depth + 1) * self.level(isa)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Agents, nodes of the tree."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        beliefs, moves = [args.ptr() for _ in self.sizes], [args.ptr() for _ in self.sizes]
        columns, tree, result = [args.ptr() for _ in self.groups], args.ptr(), args.ptr()
        nodes, policies = args.ints(2)
        with b.loop(b.begin, b.end) as unit:
            own = [
                [b.load(b.elem(belief, unit.i * size + k, f32), f32) for k in range(size)]
                for size, belief in zip(self.sizes, beliefs)
            ]
            self.walk(b, own, moves, columns, (tree, nodes), b.elem(result, unit.i * policies, f32))
        return b.finish()

    def walk(
        self,
        b: KernelBuilder,
        beliefs: list[list[Val]],
        moves: list[Val],
        columns: list[Val],
        tree: tuple[Val, Val],
        result: Val,
    ) -> None:
        """One agent's −G, written to result f32 [P]; `tree` is the nodes and how many there are."""
        level, width = self.level(b.isa), 2 + len(self.sizes)
        places = list(itertools.accumulate((self.padded(s, b.isa) for s in self.sizes), initial=0))
        for start, belief in zip(places, beliefs):
            for k, value in enumerate(belief):
                b.store(value, b.elem(b.scratch, start + k, f32))
        b.store(b.f32(0.0), b.elem(b.scratch, places[-1], f32))
        with b.loop(0, tree[1]) as node:
            row = [b.sext(b.load(b.elem(tree[0], node.i * width + k, i32), i32), i64) for k in range(width)]
            depth, policy, actions = row[0], row[1], row[2:]
            before = b.elem(b.scratch, depth * level, f32)
            after = b.elem(b.scratch, (depth + 1) * level, f32)
            old = [
                [b.load(b.elem(before, start + k, f32), f32) for k in range(size)]
                for start, size in zip(places, self.sizes)
            ]
            new = [self.move(b, f, old, moves[f], u) for f, u in enumerate(actions)]
            for start, parts in zip(places, new):
                for index, part in enumerate(parts):
                    b.store(part, b.elem(after, start + index * b.lanes, f32))
            states = [
                [b.extract(parts[k // b.lanes], k % b.lanes) for k in range(size)]
                for parts, size in zip(new, self.sizes)
            ]
            value = b.load(b.elem(before, places[-1], f32), f32) + self._value(b, states, columns)
            b.store(value, b.elem(after, places[-1], f32))
            with b.if_(b.icmp("sge", policy, 0)):
                b.store(value, b.elem(result, policy, f32))

    def move(self, b: KernelBuilder, factor: int, q: list[list[Val]], table: Val, action: Val) -> list[Val]:
        """The next belief of a factor, in vectors."""
        width = self.padded(self.sizes[factor], b.isa)
        joint = math.prod(self.sizes[d] for d in self.transitions[factor])
        base = b.elem(table, action * (joint * width), f32)
        return _mixture(b, base, width, self.transitions[factor], q)

    def _value(self, b: KernelBuilder, q: list[list[Val]], columns: list[Val]) -> Val:
        """Entropies of outcomes and the linear part."""
        width = self.padded(self.outcomes + 1, b.isa)
        total: list[Val] | None = None
        for deps, table in zip(self.groups, columns):
            part = _mixture(b, table, width, deps, q)
            total = part if total is None else [x + y for x, y in zip(total, part)]
        assert total is not None
        value = b.extract(total[self.outcomes // b.lanes], self.outcomes % b.lanes)
        if not self.gain:
            return value
        for index, part in enumerate(total):
            count = min(max(self.outcomes - index * b.lanes, 0), b.lanes)
            mask = b.vec_const([1.0 if lane < count else 0.0 for lane in range(b.lanes)], f32)
            logs = vecmath.log(b, b.max(part, b.const(EPSILON, part.type)))
            value = value - b.reduce_add(mask * part * logs)
        return value


def _mixture(b: KernelBuilder, table: Val, width: int, deps: Sequence[int], q: list[list[Val]]) -> list[Val]:
    """Σ over joint states of their probability times a column of `width` floats, in vectors."""
    totals = [b.zero(vec(f32, b.lanes)) for _ in range(width // b.lanes)]
    for number, index in enumerate(itertools.product(*(range(len(q[d])) for d in deps))):
        weight = q[deps[0]][index[0]]
        for d, k in zip(deps[1:], index[1:]):
            weight = weight * q[d][k]
        spread = b.splat(weight, b.lanes)
        for part in range(len(totals)):
            column = b.load(b.elem(table, number * width + part * b.lanes, f32), vec(f32, b.lanes))
            totals[part] = b.fma(spread, column, totals[part])
    return totals
