"""`dense.cache_append`: keys and values of new tokens into the caches, which are in place already."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i16, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.map_half import float_to_half
from neuc.backends.cpu.kernels.strided import Args, pieces
from neuc.dialects.dense_attention import CACHE_LANES


@dataclass(frozen=True)
class CacheAppendKernel(KernelSpec):
    """Slots: 0 k, 1 v (f32 [S, KV, D]), 2 position (i64), 3 k_cache ([KV, C, D, 16], in and out), 4 v_cache
    ([KV, C, 16, D], in and out), 5 KV, 6 C. Work units: S · KV. Tokens without a place in the caches are left out.

    Attributes:
        width: D.
        half: caches are f16, not f32.
    """

    width: int
    half: bool

    family = "cache_append"
    written = (3, 4)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """One head of a token a unit."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        k, v, position, k_cache, v_cache, groups, blocks = (*(args.ptr() for _ in range(5)), *args.ints(2))
        start, capacity = b.load(position, i64), blocks * CACHE_LANES
        element = i16 if self.half else f32
        with b.loop(b.begin, b.end) as unit:
            token = b.udiv(unit.i, groups)
            group = unit.i - token * groups
            # Of an extreme position the sum may wrap, to another place outside: token < 2^62.
            place = start + token
            with b.if_(b.icmp("ult", place, capacity)):
                block, lane = place >> 4, place & (CACHE_LANES - 1)
                key = b.elem(k_cache, (group * blocks + block) * (self.width * CACHE_LANES) + lane, element)
                value = b.elem(v_cache, (group * capacity + place) * self.width, element)
                for at, lanes in pieces(self.width, b.lanes):
                    numbers = self._load(b, k, unit.i * self.width + at, lanes)
                    for i in range(lanes):
                        b.store(b.extract(numbers, i), b.elem(key, (at + i) * CACHE_LANES, element))
                    b.store(self._load(b, v, unit.i * self.width + at, lanes), b.elem(value, at, element))
        return b.finish()

    def _load(self, b: KernelBuilder, base: Val, index: Val, lanes: int) -> Val:
        """f32 elements in the caches' type; halves as their bits."""
        x = b.load(b.elem(base, index, f32), vec(f32, lanes))
        return b.bitcast(float_to_half(b, x), vec(i16, lanes)) if self.half else x
