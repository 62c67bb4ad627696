"""Sweeps over spins on any graph: one chain a work unit, all sweeps in one call; chains that exchange are one unit.

A chain's spins lie in scratch memory in the order of positions, so that an update writes neighbouring bytes and only
neighbours are gathered. What the graph is comes in arrays that `lowerings/relax_layout.py` makes.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, f64, i8, i32, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels import relax_random as random
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.relax_exchange import Exchange
from neuc.backends.cpu.kernels.strided import Args
from neuc.dialects.dims import Dim
from neuc.dialects.interp.energy_random import GROUP, LANES, SITES

PADDING = 64
"""Bytes after the spins that a gather may read."""


@dataclass(frozen=True)
class SpinSweepsKernel(KernelSpec):
    """Block Gibbs or Metropolis sweeps; P positions (a multiple of 64), R ≥ P spins in scratch, 0 at place R.

    Slots: 0 β f32 [S, 1 or chains], 1 chains a row of β has (0: one for all), 2 seed i64, 3 initial spins i8 [C, n],
    4 last spins i8 [C, n], 5 order i32 [R] (site of a place, -1 none), 6 fields f32 [P], 7 degrees i32 [P/16],
    8 neighbours i32 (16 for each degree of each vector), 9 weights f32 as 8, 10 S, 11 n, 12 P, 13 R, then with `grid`:
    coupling f32, neighbours i32 [P/16, grid, 16]; then, with observables: warmup, thin, and for `sums` i32 [C, n], for
    `pairs` i32 [C, E], their places i32 [E, 2], E; for `histogram` i32 [C, 2^k], k; for `energies` f32 [S', C], C;
    with `exchange`, C and the sweeps from one exchange to the next. Work: chains; one unit with `exchange`. Scratch:
    `scratch_bytes`.
    """

    metropolis: bool = False
    weighted: bool = True
    grid: int = 0
    sums: bool = False
    pairs: bool = False
    histogram: bool = False
    energies: bool = False
    exchange: bool = False

    family = "relax_spins"
    written = None

    @property
    def observes(self) -> bool:
        """Whether anything is accumulated."""
        return self.sums or self.pairs or self.histogram or self.energies

    def scratch_bytes(self, places: int, chains: Dim) -> Dim:
        """For R places: random words, spins, sums; with `exchange` of all chains, their slots and energies."""
        spins = (places + PADDING + 63) // 64 * 64
        chain = spins + (4 * places if self.sums else 0)
        return chains * (chain + 16) + random.WORD_BYTES if self.exchange else Dim.of(random.WORD_BYTES + chain)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Chains, sweeps, groups of 64 positions, vectors of 16."""
        return SpinsBuilder(self, KernelBuilder(self.name, isa)).build()


class SpinsBuilder:
    def __init__(self, spec: SpinSweepsKernel, b: KernelBuilder) -> None:
        self.spec, self.b = spec, b
        args = Args(b)
        self.beta, self.ladder, self.seed = args.ptr(), args.int(), args.ptr()
        self.initial, self.last, self.order, self.fields = (args.ptr() for _ in range(4))
        self.degrees, self.neighbours, self.weights = (args.ptr() for _ in range(3))
        self.sweeps, self.sites, self.positions, self.places = args.ints(4)
        if spec.grid:
            self.coupling, self.near = args.f32(), args.ptr()
        if spec.observes:
            self.warmup, self.thin = args.ints(2)
        if spec.sums:
            self.sums = args.ptr()
        if spec.pairs:
            self.pairs, self.ends, self.edges = args.ptr(), args.ptr(), args.int()
        if spec.histogram:
            self.counts, self.bits = args.ptr(), args.int()
        if spec.energies:
            self.energies, self.chains = args.ptr(), args.int()
        if spec.exchange:
            self.count, self.period = args.int(), args.int()
        self.words = b.scratch
        self.spins = b.ptr(b.scratch, random.WORD_BYTES)

    def build(self) -> llvm.FuncOp:
        b = self.b
        self.philox = random.Philox(b, b.load(self.seed, i64))
        rounded = (self.places + (PADDING + 63)) & -64
        if self.spec.sums:
            self.sum_scratch = b.ptr(self.spins, rounded)
        with b.loop(b.begin, b.end) as unit:
            if self.spec.exchange:
                Exchange(self, rounded).emit()
            else:
                self._one_chain(unit.i)
        return b.finish()

    def _one_chain(self, chain: Val) -> None:
        self.fetch(chain)
        with self.b.loop(0, self.sweeps) as sweep:
            self.sweep(sweep.i, chain, self.beta_of(sweep.i, chain) * 2.0)
            if self.spec.observes:
                self.observe(sweep.i, chain)
        self.write(chain)

    def beta_of(self, sweep: Val, chain: Val) -> Val:
        """β of a chain at a sweep."""
        b = self.b
        row = b.select(b.icmp("eq", self.ladder, 0), sweep, sweep * self.ladder + chain)
        return b.load(b.elem(self.beta, row, f32), f32)

    # ---------------------------------------------------------------- spins in and out

    def _site(self, place: Val) -> Val:
        return self.b.sext(self.b.load(self.b.elem(self.order, place, i32), i32), i64)

    def fetch(self, chain: Val) -> None:
        """Spins into the order of places, and observables to zero."""
        b, first = self.b, chain * self.sites
        with b.loop(0, self.places) as loop:
            site = self._site(loop.i)
            inside = b.icmp("sge", site, 0)
            value = b.load(b.elem(self.initial, first + b.select(inside, site, 0), i8), i8)
            b.store(b.select(inside, value, 0), b.elem(self.spins, loop.i, i8))
            if self.spec.sums:
                b.store(b.i32(0), b.elem(self.sum_scratch, loop.i, i32))
        with b.loop(self.places, self.places + PADDING) as loop:
            b.store(b.const(0, i8), b.elem(self.spins, loop.i, i8))
        if self.spec.pairs:
            with b.loop(0, self.edges) as loop:
                b.store(b.i32(0), b.elem(self.pairs, chain * self.edges + loop.i, i32))
        if self.spec.histogram:
            size = b.i64(1) << self.bits
            with b.loop(0, size) as loop:
                b.store(b.i32(0), b.elem(self.counts, chain * size + loop.i, i32))

    def write(self, chain: Val) -> None:
        """Spins, and sums, to where the launch wants them."""
        b, first = self.b, chain * self.sites
        with b.loop(0, self.places) as loop:
            site = self._site(loop.i)
            with b.if_(b.icmp("sge", site, 0)):
                b.store(b.load(b.elem(self.spins, loop.i, i8), i8), b.elem(self.last, first + site, i8))
                if self.spec.sums:
                    total = b.load(b.elem(self.sum_scratch, loop.i, i32), i32)
                    b.store(total, b.elem(self.sums, first + site, i32))

    # ---------------------------------------------------------------- a sweep

    def sweep(self, sweep: Val, chain: Val, two_beta: Val) -> None:
        """All positions once."""
        b = self.b
        wide = b.splat(two_beta, b.lanes)
        with b.loop(0, b.udiv(self.positions, GROUP), init=[b.i64(0)]) as group:
            self.philox.store_group(self.words, group.i, sweep, chain, SITES)
            offset = group.carried[0]
            for vector in range(GROUP // LANES):
                offset = self._update(group.i * (GROUP // LANES) + vector, vector, offset, wide)
            group.yield_([offset])

    def _update(self, vector: Val, quarter: int, offset: Val, two_beta: Val) -> Val:
        """New spins of 16 positions; returns where the next vector's neighbours begin."""
        b = self.b
        fields, after = self._fields(vector, offset)
        for part, field in enumerate(fields):
            at = vector * LANES + part * b.lanes
            words = b.load(b.elem(self.words, quarter * LANES + part * b.lanes, i32), vec(i32, b.lanes))
            argument = two_beta * field
            address = b.elem(self.spins, at, i8)
            one = b.const(1, vec(i8, b.lanes))
            if self.spec.metropolis:
                old = b.load(address, vec(i8, b.lanes))
                minus = -b.sitofp(b.sext(old, i32), f32)
                flips = b.icmp("ult", words, random.accept_threshold(b, argument * minus))
                new = b.select(flips, -old, old)
            else:
                up = b.icmp("ult", words, random.sigmoid_threshold(b, argument))
                new = b.select(up, one, b.const(-1, vec(i8, b.lanes)))
            b.store(new, address)
        return after

    def _fields(self, vector: Val, offset: Val) -> tuple[list[Val], Val]:
        """The fields of 16 positions: own, stencil, edges in order."""
        b, parts = self.b, range(0, LANES, self.b.lanes)
        fields = [b.load(b.elem(self.fields, vector * LANES + at, f32), vec(f32, b.lanes)) for at in parts]
        if self.spec.grid:
            first = vector * (LANES * self.spec.grid)
            for index, at in enumerate(parts):
                total = b.zero(vec(i32, b.lanes))
                for k in range(self.spec.grid):
                    total = total + self._gathered(self.near, first + (k * LANES + at))
                coupling = b.splat(self.coupling, b.lanes)
                fields[index] = fields[index] + coupling * b.sitofp(total, f32)
        if not self.spec.weighted:
            return fields, offset
        degree = b.sext(b.load(b.elem(self.degrees, vector, i32), i32), i64)
        after = offset + degree * LANES
        with b.loop(offset, after, LANES, fields) as edge:
            sums: list[Val] = []
            for total, at in zip(edge.carried, parts):
                weight = b.load(b.elem(self.weights, edge.i + at, f32), vec(f32, b.lanes))
                spins = b.sitofp(self._gathered(self.neighbours, edge.i + at), f32)
                sums.append(total + weight * spins)
            edge.yield_(sums)
        return edge.results, after

    def _gathered(self, table: Val, at: Val) -> Val:
        b = self.b
        index = b.load(b.elem(table, at, i32), vec(i32, b.lanes))
        return random.gather_bytes(b, self.spins, index)

    # ---------------------------------------------------------------- observables

    def observe(self, sweep: Val, chain: Val) -> None:
        """Add up what is kept of this sweep."""
        b = self.b
        age = sweep - self.warmup + 1
        kept = b.icmp("sgt", age, 0) & b.icmp("eq", b.srem(age, self.thin), 0)
        with b.if_(kept):
            if self.spec.sums:
                lanes = b.lanes
                with b.loop(0, self.places, lanes) as loop:
                    value = b.sext(b.load(b.elem(self.spins, loop.i, i8), vec(i8, lanes)), i32)
                    address = b.elem(self.sum_scratch, loop.i, i32)
                    b.store(b.load(address, value.type) + value, address)
            if self.spec.pairs:
                self._count_pairs(chain)
            if self.spec.histogram:
                self._count_state(chain)
            if self.spec.energies:
                number = b.sdiv(age, self.thin) - 1
                b.store(b.fptrunc(self.energy(), f32), b.elem(self.energies, number * self.chains + chain, f32))

    def _spin_at(self, table: Val, index: Val) -> Val:
        b = self.b
        place = b.sext(b.load(b.elem(table, index, i32), i32), i64)
        return b.sext(b.load(b.elem(self.spins, place, i8), i8), i32)

    def _count_pairs(self, chain: Val) -> None:
        b = self.b
        with b.loop(0, self.edges) as loop:
            product = self._spin_at(self.ends, loop.i * 2) * self._spin_at(self.ends, loop.i * 2 + 1)
            address = b.elem(self.pairs, chain * self.edges + loop.i, i32)
            b.store(b.load(address, i32) + product, address)

    def _count_state(self, chain: Val) -> None:
        b = self.b
        with b.loop(0, self.places, init=[b.i64(0)]) as loop:
            site = self._site(loop.i)
            up = b.icmp("sgt", b.load(b.elem(self.spins, loop.i, i8), i8), 0) & b.icmp("sge", site, 0)
            bit = b.i64(1) << b.max(site, 0)
            loop.yield_([loop.carried[0] | b.select(up, bit, 0)])
        address = b.elem(self.counts, (chain << self.bits) + loop.results[0], i32)
        b.store(b.load(address, i32) + 1, address)

    def energy(self) -> Val:
        """−Σ s (h + field)/2, in f64: each coupling is in the fields of both its ends."""
        b = self.b
        wide = vec(f64, b.lanes)
        with b.loop(0, b.udiv(self.positions, LANES), init=[b.zero(wide), b.i64(0)]) as vector:
            total, offset = vector.carried
            fields, after = self._fields(vector.i, offset)
            for part, field in enumerate(fields):
                at = vector.i * LANES + part * b.lanes
                own = b.load(b.elem(self.fields, at, f32), vec(f32, b.lanes))
                index = b.load(b.elem(self.order, at, i32), vec(i32, b.lanes))
                spin = b.sitofp(b.sext(b.load(b.elem(self.spins, at, i8), vec(i8, b.lanes)), i32), f32)
                product = (own + field) * spin
                total = total + b.fpext(b.select(b.icmp("sge", index, 0), product, 0.0), f64)
            vector.yield_([total, after])
        return b.reduce_add(vector.results[0]) * -0.5
