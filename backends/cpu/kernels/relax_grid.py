"""Sweeps over spins on a periodic grid with one coupling: checkerboard rows of bytes, five thresholds a sweep.

A chain lies in scratch memory colour by colour, a row being its W/2 sites of that colour between halos that close
the ring, so that all four neighbours of 64 sites are 64 neighbouring bytes each.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Operand, Val, f32, i8, i32, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels import relax_random as random
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import Args
from neuc.dialects.interp.energy_random import GROUP, LANES, SITES

HALO = 64
"""Bytes before and after a row: one of each is read."""
_SUMS = (-4, -2, 0, 2, 4)
"""What four spins add up to."""


@dataclass(frozen=True)
class GridSweepsKernel(KernelSpec):
    """Gibbs or Metropolis sweeps of H x W spins, H even, W/2 a multiple of 64; bits as `SpinSweepsKernel` gives them.

    Slots: 0 β f32 [S, 1 or chains], 1 chains a row of β has (0: one for all), 2 seed i64, 3 initial spins i8 [C, H, W],
    4 last spins, 5 coupling f32, 6 field f32, 7 S; with observables: 8 warmup, 9 thin, and for `sums` i32 [C, H, W],
    for `energies` f32 [S', C], C. Work: chains. Scratch: `scratch_bytes`.

    Attributes:
        rows: H.
        columns: W.
        metropolis: flips instead of heat bath; the field is 0 then.
    """

    rows: int
    columns: int
    metropolis: bool = False
    sums: bool = False
    energies: bool = False

    family = "relax_grid"
    written = None

    @property
    def half(self) -> int:
        """Sites of one colour in a row."""
        return self.columns // 2

    @property
    def stride(self) -> int:
        """Bytes of a row with its halos."""
        return self.half + 2 * HALO

    @property
    def scratch_bytes(self) -> int:
        """Spins with halos, and sums without."""
        return 2 * self.rows * self.stride + (4 * self.rows * self.columns if self.sums else 0)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Chains, sweeps, colours, rows, groups of 64 sites."""
        return _Builder(self, KernelBuilder(self.name, isa)).build()


class Lines:
    """Rows of bytes, colour by colour, from `spins` on: how they are updated."""

    def __init__(self, b: KernelBuilder, rows: int, half: int, stride: int, *, metropolis: bool) -> None:
        self.b, self.rows, self.half, self.stride, self.metropolis = b, rows, half, stride, metropolis
        self.spins: Val = b.scratch

    def close(self, row: Val) -> None:
        """The ring: the last byte before the first, the first after the last."""
        b, half = self.b, self.half
        b.store(b.load(b.ptr(row, half - 1), i8), b.ptr(row, -1))
        b.store(b.load(row, i8), b.ptr(row, half))

    def thresholds(self, two_beta: Val, coupling: Val, field: Val) -> list[Val]:
        """Of spin up, or of a flip, by what the neighbours (times the spin) add up to; splat."""
        b = self.b
        if self.metropolis:
            arguments = [two_beta * (coupling * float(k)) * -1.0 for k in _SUMS]
            found = [random.accept_threshold(b, x) for x in arguments]
        else:
            arguments = [two_beta * (field + coupling * float(k)) for k in _SUMS]
            found = [random.sigmoid_threshold(b, x) for x in arguments]
        return [b.splat(t, b.lanes) for t in found]

    def update_row(
        self, philox: random.Philox, color: Operand, row: Val, sweep: Val, chain: Val, thresholds: list[Val]
    ) -> None:
        """New spins of one row of a colour."""
        b = self.b
        groups = self.half // GROUP
        own, near = self.around(color, row)
        first = (b.as_val(color, i64) * self.rows + row) * groups
        with b.loop(0, groups) as group:
            words = philox.group(first + group.i, sweep, chain, SITES)
            for k, parts in enumerate(words):
                for index, part in enumerate(parts):
                    at = group.i * GROUP + (k * LANES + index * b.lanes)
                    self._update(own, self.neighbours(near, at), at, part, thresholds)
        self.close(own)

    def around(self, color: Operand, row: Val) -> tuple[Val, list[Val]]:
        """The address of a row, and of the four rows of bytes its neighbours are in."""
        b = self.b
        color = b.as_val(color, i64)
        other = (b.i64(1) - color) * self.rows
        above = b.select(b.icmp("eq", row, 0), b.i64(self.rows - 1), row - 1)
        below = b.select(b.icmp("eq", row, self.rows - 1), b.i64(0), row + 1)
        own = b.ptr(self.spins, (color * self.rows + row) * self.stride + HALO)
        lines = [b.ptr(self.spins, (other + r) * self.stride + HALO) for r in (above, below, row)]
        # Of the two sites beside one, one is in the same place of the other colour, one is a place before or after.
        beside = b.ptr(lines[2], ((row + color) & 1) * 2 - 1)
        return own, [*lines, beside]

    def neighbours(self, near: list[Val], at: Val) -> Val:
        """What the four neighbours of a vector of sites add up to."""
        b = self.b
        spins = [b.load(b.ptr(line, at), vec(i8, b.lanes)) for line in near]
        return (spins[0] + spins[1]) + (spins[2] + spins[3])

    def _update(self, own: Val, total: Val, at: Val, words: Val, thresholds: list[Val]) -> None:
        b = self.b
        address, bytes_ = b.ptr(own, at), vec(i8, b.lanes)
        old = b.load(address, bytes_) if self.metropolis else None
        index = total if old is None else b.select(b.icmp("sgt", old, 0), total, -total)
        chosen = thresholds[0]
        for k, threshold in zip(_SUMS[1:], thresholds[1:]):
            chosen = b.select(b.icmp("sge", index, k), threshold, chosen)
        below = b.icmp("ult", words, chosen)
        if old is None:
            b.store(b.select(below, b.const(1, bytes_), b.const(-1, bytes_)), address)
        else:
            b.store(b.select(below, -old, old), address)


class _Builder:
    def __init__(self, spec: GridSweepsKernel, b: KernelBuilder) -> None:
        self.spec, self.b = spec, b
        self.lines = Lines(b, spec.rows, spec.half, spec.stride, metropolis=spec.metropolis)
        args = Args(b)
        self.beta, self.ladder, self.seed = args.ptr(), args.int(), args.ptr()
        self.initial, self.last = args.ptr(), args.ptr()
        self.coupling, self.field, self.sweeps = args.f32(), args.f32(), args.int()
        if spec.sums or spec.energies:
            self.warmup, self.thin = args.ints(2)
        if spec.sums:
            self.sums = args.ptr()
            self.sum_scratch = b.ptr(b.scratch, 2 * spec.rows * spec.stride)
        if spec.energies:
            self.energies, self.chains = args.ptr(), args.int()

    def build(self) -> llvm.FuncOp:
        b = self.b
        self.philox = random.Philox(b, b.load(self.seed, i64))
        with b.loop(b.begin, b.end) as unit:
            chain = unit.i
            self._sites(chain, self._fetch)
            with b.loop(0, 2 * self.spec.rows) as row:
                self.lines.close(b.ptr(b.scratch, row.i * self.spec.stride + HALO))
            with b.loop(0, self.sweeps) as sweep:
                at = b.select(b.icmp("eq", self.ladder, 0), sweep.i, sweep.i * self.ladder + chain)
                beta = b.load(b.elem(self.beta, at, f32), f32)
                thresholds = self.lines.thresholds(beta * 2.0, self.coupling, self.field)
                with b.loop(0, 2) as color, b.loop(0, self.spec.rows) as row:
                    self.lines.update_row(self.philox, color.i, row.i, sweep.i, chain, thresholds)
                if self.spec.sums or self.spec.energies:
                    self._observe(sweep.i, chain)
            self._sites(chain, self._write)
        return b.finish()

    # ---------------------------------------------------------------- spins in and out

    def _sites(self, chain: Val, visit: object) -> None:
        """Visit every site: its element in a tensor, its byte among the rows, its number among the sums."""
        b, spec = self.b, self.spec
        assert callable(visit)
        with b.loop(0, 2) as color, b.loop(0, spec.rows) as row, b.loop(0, spec.half) as column:
            odd = (row.i + color.i) & 1
            site = (chain * spec.rows + row.i) * spec.columns + column.i * 2 + odd
            line = color.i * spec.rows + row.i
            visit(site, line * spec.stride + HALO + column.i, line * spec.half + column.i)

    def _fetch(self, site: Val, byte: Val, number: Val) -> None:
        b = self.b
        b.store(b.load(b.elem(self.initial, site, i8), i8), b.ptr(b.scratch, byte))
        if self.spec.sums:
            b.store(b.i32(0), b.elem(self.sum_scratch, number, i32))

    def _write(self, site: Val, byte: Val, number: Val) -> None:
        b = self.b
        b.store(b.load(b.ptr(b.scratch, byte), i8), b.elem(self.last, site, i8))
        if self.spec.sums:
            b.store(b.load(b.elem(self.sum_scratch, number, i32), i32), b.elem(self.sums, site, i32))

    # ---------------------------------------------------------------- observables

    def _observe(self, sweep: Val, chain: Val) -> None:
        b, spec = self.b, self.spec
        age = sweep - self.warmup + 1
        with b.if_(b.icmp("sgt", age, 0) & b.icmp("eq", b.srem(age, self.thin), 0)):
            if spec.sums:
                with b.loop(0, 2 * spec.rows) as line, b.loop(0, spec.half, b.lanes) as column:
                    address = b.ptr(b.scratch, line.i * spec.stride + HALO + column.i)
                    value = b.sext(b.load(address, vec(i8, b.lanes)), i32)
                    target = b.elem(self.sum_scratch, line.i * spec.half + column.i, i32)
                    b.store(b.load(target, value.type) + value, target)
            if spec.energies:
                number = b.sdiv(age, self.thin) - 1
                b.store(self._energy(), b.elem(self.energies, number * self.chains + chain, f32))

    def _energy(self) -> Val:
        """−J times the pairs, each seen from its site of colour 0, − h times the spins."""
        b, spec = self.b, self.spec
        zero = b.zero(vec(i32, b.lanes))
        with b.loop(0, spec.rows, init=[zero, zero]) as row:
            own, near = self.lines.around(0, row.i)
            other = b.ptr(own, spec.rows * spec.stride)
            with b.loop(0, spec.half, b.lanes, row.carried) as column:
                pairs, spins = column.carried
                mine, theirs = (b.load(b.ptr(p, column.i), vec(i8, b.lanes)) for p in (own, other))
                pairs = pairs + b.sext(mine * self.lines.neighbours(near, column.i), i32)
                column.yield_([pairs, spins + b.sext(mine + theirs, i32)])
            row.yield_(column.results)
        pairs, spins = (b.sitofp(b.reduce_add(total), f32) for total in row.results)
        return -(self.coupling * pairs + self.field * spins)
