"""Gibbs sweeps over spins and categories with factors of any order: one chain a work unit, site by site.

What the factors are comes in lists that `lowerings/relax_tables.py` makes; their order is the interpreter's, and so are
the bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i8, i32, i64
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels import relax_random as random
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import Args
from neuc.dialects.energy_types import MAX_CATEGORIES
from neuc.dialects.interp.energy_random import GROUP, SITES


@dataclass(frozen=True)
class TableSweepsKernel(KernelSpec):
    """Sweeps over P positions of n sites.

    Slots: 0 β f32 [S, 1 or chains], 1 chains a row of β has (0: one for all), 2 seed i64, 3 initial values i8 [C, n],
    4 last values, 5 order i32 [P], 6 levels i32 [n] (0: a spin), 7 fields f32 [n], 8 edges begin i32 [n + 1],
    9 neighbours i32, 10 weights f32, 11 uses begin i32 [n + 1], 12 uses i32 [*, 4]: first reader, readers, place in the
    values, own stride, 13 readers i32 [*, 2]: site, stride of its category or -1 for a spin, 14 values f32, 15 S, 16 n,
    17 P; with `sums`: warmup, thin, counts i32 [C, T], first count of a site i32 [n], T. Work: chains. Scratch:
    `scratch_bytes`.
    """

    sums: bool = False

    family = "relax_tables"
    written = None

    def scratch_bytes(self, sites: int) -> int:
        """Words, weights of categories, values."""
        return random.WORD_BYTES + 4 * MAX_CATEGORIES + 4 * sites

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Chains, sweeps, groups of 64 positions, sites."""
        return _Builder(self, KernelBuilder(self.name, isa)).build()


class _Builder:
    def __init__(self, spec: TableSweepsKernel, b: KernelBuilder) -> None:
        self.spec, self.b = spec, b
        args = Args(b)
        self.beta, self.ladder, self.seed = args.ptr(), args.int(), args.ptr()
        self.initial, self.last, self.order, self.levels, self.fields = (args.ptr() for _ in range(5))
        self.edges, self.near, self.weights = (args.ptr() for _ in range(3))
        self.starts, self.uses, self.readers, self.values = (args.ptr() for _ in range(4))
        self.sweeps, self.sites, self.positions = args.ints(3)
        if spec.sums:
            self.warmup, self.thin = args.ints(2)
            self.counts, self.firsts, self.total = args.ptr(), args.ptr(), args.int()
        self.words, self.scores = b.scratch, b.ptr(b.scratch, random.WORD_BYTES)
        self.state = b.ptr(b.scratch, random.WORD_BYTES + 4 * MAX_CATEGORIES)

    def build(self) -> llvm.FuncOp:
        b = self.b
        philox = random.Philox(b, b.load(self.seed, i64))
        with b.loop(b.begin, b.end) as unit:
            chain, first = unit.i, unit.i * self.sites
            with b.loop(0, self.sites) as site:
                value = b.load(b.elem(self.initial, first + site.i, i8), i8)
                spin = b.icmp("eq", self._int(self.levels, site.i), 0)
                b.store(b.select(spin, b.sext(value, i32), b.zext(value, i32)), b.elem(self.state, site.i, i32))
            if self.spec.sums:
                with b.loop(0, self.total) as count:
                    b.store(b.i32(0), b.elem(self.counts, chain * self.total + count.i, i32))
            with b.loop(0, self.sweeps) as sweep:
                row = b.select(b.icmp("eq", self.ladder, 0), sweep.i, sweep.i * self.ladder + chain)
                beta = b.load(b.elem(self.beta, row, f32), f32)
                with b.loop(0, self.positions, GROUP) as group:
                    philox.store_group(self.words, b.udiv(group.i, GROUP), sweep.i, chain, SITES)
                    with b.loop(group.i, b.min(group.i + GROUP, self.positions)) as position:
                        word = b.load(b.elem(self.words, position.i - group.i, i32), i32)
                        self._visit(position.i, word, beta)
                if self.spec.sums:
                    self._count(sweep.i, chain)
            with b.loop(0, self.sites) as site:
                value = b.load(b.elem(self.state, site.i, i32), i32)
                b.store(b.trunc(value, i8), b.elem(self.last, first + site.i, i8))
        return b.finish()

    def _int(self, table: Val, index: Val) -> Val:
        return self.b.sext(self.b.load(self.b.elem(table, index, i32), i32), i64)

    def _float(self, table: Val, index: Val) -> Val:
        return self.b.load(self.b.elem(table, index, f32), f32)

    def _visit(self, position: Val, word: Val, beta: Val) -> None:
        b = self.b
        site = self._int(self.order, position)
        with b.if_(b.icmp("sge", site, 0)):
            levels = self._int(self.levels, site)
            with b.if_(b.icmp("eq", levels, 0)) as kind:
                kind.yield_([self._spin(site, word, beta)])
            with kind.else_():
                kind.yield_([self._category(site, levels, word, beta)])
            b.store(kind.results[0], b.elem(self.state, site, i32))

    def _spin(self, site: Val, word: Val, beta: Val) -> Val:
        b = self.b
        start, end = self._int(self.edges, site), self._int(self.edges, site + 1)
        with b.loop(start, end, init=[self._float(self.fields, site)]) as edge:
            spin = self._int(self.state, self._int(self.near, edge.i))
            edge.yield_([edge.carried[0] + self._float(self.weights, edge.i) * b.sitofp(spin, f32)])
        start, end = self._int(self.starts, site), self._int(self.starts, site + 1)
        with b.loop(start, end, init=edge.results) as use:
            sign, place, _ = self._factor(use.i)
            use.yield_([use.carried[0] + sign * self._float(self.values, place)])
        below = b.icmp("ult", word, random.sigmoid_threshold(b, (beta * 2.0) * use.results[0]))
        return b.select(below, b.i32(1), -1)

    def _factor(self, use: Val) -> tuple[Val, Val, Val]:
        """The product of the other spins, where the values of this factor begin, and the stride of the site itself."""
        b = self.b
        first, count, place, stride = (self._int(self.uses, use * 4 + k) for k in range(4))
        with b.loop(first, first + count, init=[b.f32(1.0), place]) as reader:
            sign, at = reader.carried
            value = self._int(self.state, self._int(self.readers, reader.i * 2))
            step = self._int(self.readers, reader.i * 2 + 1)
            spin = b.icmp("slt", step, 0)
            signed = sign * b.select(spin, b.sitofp(value, f32), 1.0)
            reader.yield_([signed, b.select(spin, at, at + value * step)])
        sign, at = reader.results
        return sign, at, stride

    def _category(self, site: Val, levels: Val, word: Val, beta: Val) -> Val:
        """By inversion of the cumulated weights."""
        b = self.b
        with b.loop(0, levels) as k:
            b.store(b.f32(0.0), b.elem(self.scores, k.i, f32))
        with b.loop(self._int(self.starts, site), self._int(self.starts, site + 1)) as use:
            sign, place, stride = self._factor(use.i)
            with b.loop(0, levels) as k:
                address = b.elem(self.scores, k.i, f32)
                b.store(b.load(address, f32) + sign * self._float(self.values, place + k.i * stride), address)
        with b.loop(0, levels, init=[b.f32(-3.4e38)]) as k:
            logit = beta * self._float(self.scores, k.i)
            b.store(logit, b.elem(self.scores, k.i, f32))
            k.yield_([b.max(logit, k.carried[0])])
        top = k.results[0]
        with b.loop(0, levels, init=[b.f32(0.0)]) as k:
            total = k.carried[0] + random.exp(b, self._float(self.scores, k.i) - top)
            b.store(total, b.elem(self.scores, k.i, f32))
            k.yield_([total])
        share = b.sitofp(word >> 8, f32) * 2.0**-24 * k.results[0]
        with b.loop(0, levels - 1, init=[b.i64(0)]) as k:
            beyond = b.fcmp("oge", share, self._float(self.scores, k.i))
            k.yield_([k.carried[0] + b.select(beyond, b.i64(1), 0)])
        return b.trunc(k.results[0], i32)

    def _count(self, sweep: Val, chain: Val) -> None:
        b = self.b
        age = sweep - self.warmup + 1
        with (
            b.if_(b.icmp("sgt", age, 0) & b.icmp("eq", b.srem(age, self.thin), 0)),
            b.loop(0, self.sites) as site,
        ):
            value, spin = self._int(self.state, site.i), b.icmp("eq", self._int(self.levels, site.i), 0)
            place = chain * self.total + self._int(self.firsts, site.i) + b.select(spin, 0, value)
            address = b.elem(self.counts, place, i32)
            b.store(b.load(address, i32) + b.trunc(b.select(spin, value, 1), i32), address)


@dataclass(frozen=True)
class ConvertSitesKernel(KernelSpec):
    """Values of one variable from i32 to i8, or back: target[c, first' + k] = source[c, first + k], k < n.

    Slots: 0 source, 1 target, 2 n, 3 first, 4 elements of a source's chain, 5 first', 6 those of a target's. Work: C.
    """

    narrow: bool

    family = "relax_convert"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Element by element."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        source, target = args.ptr(), args.ptr()
        count, start, stride, start_there, stride_there = args.ints(5)
        with b.loop(b.begin, b.end) as chain, b.loop(0, count) as k:
            here, there = chain.i * stride + start + k.i, chain.i * stride_there + start_there + k.i
            if self.narrow:
                b.store(b.trunc(b.load(b.elem(source, here, i32), i32), i8), b.elem(target, there, i8))
            else:
                b.store(b.zext(b.load(b.elem(source, here, i8), i8), i32), b.elem(target, there, i32))
        return b.finish()
