"""Sweeps over a periodic grid of one coupling for many chains at once: a bit a spin, 64 chains a word.

A site is one vector of words. Which neighbours are up is counted in bits, and a random number below its threshold is
found bit plane by bit plane, from the highest, until every chain is decided: for 512 chains after about ten planes, not
32. Numbers are those of `energy_random.plane_words`; planes nobody needs are never drawn, since Philox counts. Chains
that share their numbers need one comparison a site and count of neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i8, i32, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels import relax_random as random
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import Args
from neuc.dialects.interp.energy_random import GROUP, PLANES, SITES

WORD_CHAINS = 64
BLOCKS = 16
"""Philox blocks of two planes for a number of 32 bits."""
_SURE = 5
"""Blocks that nearly always are needed, drawn without asking."""
_BITS, _COUNTS = 32, 5
_SITES = 8
"""Sites that are packed and unpacked together."""


def chains_per_unit(isa: Isa) -> int:
    """How many chains a work unit holds."""
    return WORD_CHAINS * max(1, isa.f32_lanes // 2)


@dataclass(frozen=True)
class PackedSweepsKernel(KernelSpec):
    """Gibbs sweeps of H x W spins, H and W even, H·W a multiple of 32; `shared`: one number for all chains.

    Slots: 0 β f32 [S], 1 seed i64, 2 initial spins i8 [C, H, W], 3 last spins, 4 coupling f32, 5 field f32, 6 S, 7 C.
    Work: ⌈C / `chains_per_unit`⌉. Scratch: `scratch_bytes`.
    """

    rows: int
    columns: int
    shared: bool = False

    family = "relax_packed"
    written = (3,)

    def scratch_bytes(self, isa: Isa) -> int:
        """Thresholds' bits, words, random numbers of a row."""
        words = self.rows * self.columns * 8 * max(1, isa.f32_lanes // 2)
        return 8 * _BITS * _COUNTS + words + 4 * (self.columns // 2 + 2 * GROUP)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Units, sweeps, colours, rows, sites."""
        return _Builder(self, KernelBuilder(self.name, isa)).build()


class _Builder:
    def __init__(self, spec: PackedSweepsKernel, b: KernelBuilder) -> None:
        self.spec, self.b = spec, b
        args = Args(b)
        self.beta, self.seed, self.initial, self.last = (args.ptr() for _ in range(4))
        self.coupling, self.field = args.f32(), args.f32()
        self.sweeps, self.chains = args.ints(2)
        self.lanes = max(1, b.lanes // 2)
        self.words = vec(i64, self.lanes)
        self.masks, self.spins = b.scratch, b.ptr(b.scratch, 8 * _BITS * _COUNTS)
        self.numbers = b.ptr(self.spins, spec.rows * spec.columns * 8 * self.lanes)

    def build(self) -> llvm.FuncOp:
        b = self.b
        self.philox = random.Philox(b, b.load(self.seed, i64))
        with b.loop(b.begin, b.end) as unit:
            self.first_group = unit.i * self.lanes
            self._convert(self._pack)
            with b.loop(0, self.sweeps) as sweep:
                self._spread_thresholds(b.load(b.elem(self.beta, sweep.i, f32), f32) * 2.0)
                with b.loop(0, 2) as color, b.loop(0, self.spec.rows) as row:
                    self._row(sweep.i, color.i, row.i)
            self._convert(self._unpack)
        return b.finish()

    # ---------------------------------------------------------------- words and bytes

    def _convert(self, visit: object) -> None:
        """Visit every eight sites of every word that has chains."""
        b, sites = self.b, self.spec.rows * self.spec.columns
        assert callable(visit)
        with b.loop(0, self.lanes) as lane:
            first = (self.first_group + lane.i) * WORD_CHAINS
            count = b.min(self.chains - first, WORD_CHAINS)
            with b.loop(0, sites, _SITES) as site:
                visit(lane.i, first, count, site.i)

    def _word(self, site: Val, lane: Val) -> Val:
        return self.b.elem(self.spins, site * self.lanes + lane, i64)

    def _bytes(self, base: Val, chain: Val, site: Val) -> Val:
        return self.b.elem(base, chain * (self.spec.rows * self.spec.columns) + site, i8)

    def _pack(self, lane: Val, first: Val, count: Val, site: Val) -> None:
        b, wide = self.b, vec(i64, _SITES)
        with b.loop(0, count, init=[b.zero(wide)]) as chain:
            spins = b.load(self._bytes(self.initial, first + chain.i, site), vec(i8, _SITES))
            bit = b.splat(b.i64(1) << chain.i, _SITES)
            up = b.select(b.icmp("sgt", spins, 0), bit, b.zero(wide))
            chain.yield_([chain.carried[0] | up])
        for k in range(_SITES):
            b.store(b.extract(chain.results[0], k), self._word(site + k, lane))

    def _unpack(self, lane: Val, first: Val, count: Val, site: Val) -> None:
        b, wide = self.b, vec(i64, _SITES)
        words = b.undef(wide)
        for k in range(_SITES):
            words = b.insert(words, b.load(self._word(site + k, lane), i64), k)
        one = b.const(1, vec(i8, _SITES))
        with b.loop(0, count) as chain:
            bit = b.splat(b.i64(1) << chain.i, _SITES)
            spins = b.select(b.icmp("ne", words & bit, 0), one, -one)
            b.store(spins, self._bytes(self.last, first + chain.i, site))

    # ---------------------------------------------------------------- a sweep

    def _spread_thresholds(self, two_beta: Val) -> None:
        """Each bit of the thresholds as a word of zeros or ones: masks[bit from the highest][neighbours up]."""
        b = self.b
        for up in range(_COUNTS):
            argument = two_beta * (self.field + self.coupling * float(2 * up - 4))
            threshold = b.zext(random.sigmoid_threshold(b, argument), i64)
            if self.spec.shared:
                b.store(threshold, b.elem(self.masks, up, i64))
                continue
            with b.loop(0, _BITS) as bit:
                one = (threshold >> (b.i64(_BITS - 1) - bit.i)) & 1
                b.store(-one, b.elem(self.masks, bit.i * _COUNTS + up, i64))

    def _row(self, sweep: Val, color: Val, row: Val) -> None:
        b, spec = self.b, self.spec
        odd = (row + color) & 1
        above = b.select(b.icmp("eq", row, 0), b.i64(spec.rows - 1), row - 1)
        below = b.select(b.icmp("eq", row, spec.rows - 1), b.i64(0), row + 1)
        first = (color * spec.rows + row) * (spec.columns // 2)
        if spec.shared:
            self._number_row(first, sweep)
        with b.loop(0, spec.columns // 2) as place:
            column = place.i * 2 + odd
            left = b.select(b.icmp("eq", column, 0), b.i64(spec.columns - 1), column - 1)
            right = b.select(b.icmp("eq", column, spec.columns - 1), b.i64(0), column + 1)
            near = [(above, column), (below, column), (row, left), (row, right)]
            spins = [b.load(self._site(r, c), self.words) for r, c in near]
            counts = self._counts(spins)
            if spec.shared:
                b.store(self._draw_shared(counts, (first & (GROUP - 1)) + place.i), self._site(row, column))
            else:
                b.store(self._draw(counts, first + place.i, sweep), self._site(row, column))

    def _site(self, row: Val, column: Val) -> Val:
        return self.b.elem(self.spins, (row * self.spec.columns + column) * self.lanes, i64)

    def _counts(self, spins: list[Val]) -> list[Val]:
        """Where 0, 1, 2, 3 or 4 of the neighbours are up."""
        ones = self.b.const(-1, self.words)
        x, y, z, w = spins
        low, carry, high, carried = x ^ y, x & y, z ^ w, z & w
        odd, both = low ^ high, low & high
        four = carry & carried
        pairs = carry ^ carried ^ both
        return [((odd | pairs | four) ^ ones), odd & (pairs ^ ones), pairs & (odd ^ ones), odd & pairs, four]

    def _number_row(self, first: Val, sweep: Val) -> None:
        """The numbers of a row's positions, from the last multiple of 64 before them on."""
        b = self.b
        begin = b.udiv(first, GROUP)
        with b.loop(begin, b.udiv(first + (self.spec.columns // 2 + GROUP - 1), GROUP)) as group:
            target = b.elem(self.numbers, (group.i - begin) * GROUP, i32)
            self.philox.store_group(target, group.i, sweep, b.i64(0), SITES)

    def _draw_shared(self, counts: list[Val], place: Val) -> Val:
        """Where the one number is below the threshold of a chain's count."""
        b = self.b
        number = b.zext(b.load(b.elem(self.numbers, place, i32), i32), i64)
        chosen = b.zero(self.words)
        for k, count in enumerate(counts):
            below = b.icmp("ult", number, b.load(b.elem(self.masks, k, i64), i64))
            chosen = chosen | (count & b.splat(b.select(below, b.i64(-1), 0), self.lanes))
        return chosen

    def _draw(self, counts: list[Val], position: Val, sweep: Val) -> Val:
        """Which numbers are below their thresholds."""
        b = self.b
        below, open_ = b.zero(self.words), b.const(-1, self.words)
        for block in range(_SURE):
            below, open_ = self._planes(counts, position, sweep, b.i64(block), below, open_)
        with b.loop(_SURE, BLOCKS, init=[below, open_]) as block:
            below, open_ = block.carried
            with b.if_(b.icmp("ne", self._any(open_), 0)) as undecided:
                undecided.yield_(self._planes(counts, position, sweep, block.i, below, open_))
            with undecided.else_():
                undecided.yield_([below, open_])
            block.yield_(undecided.results)
        return block.results[0]

    def _any(self, words: Val) -> Val:
        if self.lanes == 1:
            return words
        return self.b.intrinsic(f"llvm.vector.reduce.or.v{self.lanes}i64", i64, [words])

    def _planes(
        self, counts: list[Val], position: Val, sweep: Val, block: Val, below: Val, open_: Val
    ) -> tuple[Val, Val]:
        """Compare two bits of all chains: below where ours is 0 and the threshold's 1, open where they are alike."""
        b = self.b
        ramp = b.vec_const(list(range(self.lanes)), i64)
        groups = b.splat(self.first_group, self.lanes) + ramp
        counter = [b.splat(position, self.lanes), b.splat(sweep, self.lanes), groups]
        words = self.philox.block([*counter, b.splat(block + PLANES, self.lanes)])
        low = b.const(0xFFFFFFFF, self.words)
        for half in range(2):
            plane = (words[2 * half] & low) | (words[2 * half + 1] << 32)
            first = (block * 2 + half) * _COUNTS
            masks = [b.splat(b.load(b.elem(self.masks, first + k, i64), i64), self.lanes) for k in range(_COUNTS)]
            chosen = counts[0] & masks[0]
            for count, mask in zip(counts[1:], masks[1:]):
                chosen = chosen | (count & mask)
            differs = plane ^ chosen
            below = below | (open_ & differs & chosen)
            open_ = open_ & (differs ^ b.const(-1, self.words))
        return below, open_
