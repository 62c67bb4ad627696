"""Random states: spins and categories drawn from words of the START stream."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, i8, i32, i64
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels import relax_random as random
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import Args
from neuc.dialects.interp.energy_random import GROUP, START


@dataclass(frozen=True)
class InitSitesKernel(KernelSpec):
    """Site i of a chain: a spin, word ≥ 2^31 being +1, or the category ⌊word·K / 2^32⌋, by its levels K (0: a spin).

    Slots: 0 seed i64, 1 levels i32 [n], 2 state i8 [C, n], 3 n. Work: chains. Scratch: `WORD_BYTES`.
    """

    family = "relax_init"
    written = (2,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Words of 64 sites at a time."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        seed, levels, state, sites = args.ptr(), args.ptr(), args.ptr(), args.int()
        philox = random.Philox(b, b.load(seed, i64))
        with b.loop(b.begin, b.end) as chain, b.loop(0, sites, GROUP) as group:
            number = b.udiv(group.i, GROUP)
            philox.store_group(b.scratch, number, b.i64(0), chain.i, START)
            with b.loop(group.i, b.min(group.i + GROUP, sites)) as site:
                word = b.zext(b.load(b.elem(b.scratch, site.i - group.i, i32), i32), i64)
                count = b.sext(b.load(b.elem(levels, site.i, i32), i32), i64)
                spin = b.select(b.icmp("ne", word >> 31, 0), b.i64(1), -1)
                value = b.select(b.icmp("eq", count, 0), spin, (word * count) >> 32)
                b.store(b.trunc(value, i8), b.elem(state, chain.i * sites + site.i, i8))
        return b.finish()
