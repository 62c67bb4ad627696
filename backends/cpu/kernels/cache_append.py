"""`dense.cache_append`: keys and values of new tokens into the caches, which are in place already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i8, i16, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.map_half import float_to_half
from neuc.backends.cpu.kernels.strided import Args, pieces
from neuc.backends.cpu.kernels.ternary_quantize import code_scale, largest_bits, write_codes
from neuc.dialects.dense_attention import CACHE_LANES, SCALE_BYTES


@dataclass(frozen=True)
class CacheAppendKernel(KernelSpec):
    """Slots: 0 k, 1 v (f32 [S, KV, D]), 2 position (i64), 3 k_cache ([KV, C, D, 16], in and out), 4 v_cache
    ([KV, C, 16, D], in and out), 5 KV, 6 C. Work units: S · KV. Tokens without a place in the caches are left out.
    Scratch, for int8: D bytes.

    Attributes:
        width: D.
        held: what the caches hold, ``f16``, ``f32`` or ``i8``.
    """

    width: int
    held: str

    family = "cache_append"
    written = (3, 4)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """One head of a token a unit."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        k, v, position, k_cache, v_cache, groups, blocks = (*(args.ptr() for _ in range(5)), *args.ints(2))
        start, capacity = b.load(position, i64), blocks * CACHE_LANES
        append = self._append_codes if self.held == "i8" else self._append
        with b.loop(b.begin, b.end) as unit:
            token = b.udiv(unit.i, groups)
            group = unit.i - token * groups
            # Of an extreme position the sum may wrap, to another place outside: token < 2^62.
            place = start + token
            with b.if_(b.icmp("ult", place, capacity)):
                heads = [b.elem(x, unit.i * self.width, f32) for x in (k, v)]
                append(b, heads, [k_cache, v_cache], group * capacity, capacity, place)
        return b.finish()

    def _append(
        self, b: KernelBuilder, heads: Sequence[Val], caches: Sequence[Val], before: Val, capacity: Val, place: Val
    ) -> None:
        """One head of a token, converted; `before` places in the caches belong to earlier heads."""
        element = i16 if self.held == "f16" else f32
        (k, v), (k_cache, v_cache) = heads, caches
        key = b.elem(k_cache, self._key(before + place), element)
        value = b.elem(v_cache, (before + place) * self.width, element)
        for at, lanes in pieces(self.width, b.lanes):
            numbers = self._load(b, k, at, lanes)
            for i in range(lanes):
                b.store(b.extract(numbers, i), b.elem(key, (at + i) * CACHE_LANES, element))
            b.store(self._load(b, v, at, lanes), b.elem(value, at, element))

    def _append_codes(
        self, b: KernelBuilder, heads: Sequence[Val], caches: Sequence[Val], before: Val, capacity: Val, place: Val
    ) -> None:
        """One head of a token as int8: keys through scratch memory, since their codes lie apart."""
        k_group, v_group = (b.ptr(cache, before * (self.width + SCALE_BYTES)) for cache in caches)
        key = b.ptr(k_group, self._key(place))
        self._code(b, heads[0], b.scratch, k_group, capacity, place)
        with b.loop(0, self.width) as d:
            b.store(b.load(b.ptr(b.scratch, d.i), i8), b.ptr(key, d.i * CACHE_LANES))
        self._code(b, heads[1], b.ptr(v_group, place * self.width), v_group, capacity, place)

    def _code(self, b: KernelBuilder, x: Val, codes: Val, group: Val, capacity: Val, place: Val) -> None:
        """The codes of a head, and its scale behind all codes of the group."""
        width = b.i64(self.width)
        largest = largest_bits(b, x, width)
        a = code_scale(b, largest, reciprocal=False)
        write_codes(b, x, codes, width, largest, a)
        b.store(b.f32(1.0) / a, b.elem(b.ptr(group, capacity * self.width), place, f32))

    def _key(self, place: Val) -> Val:
        """The number of a key's first element: 16 keys side by side are a block."""
        return (place >> 4) * (self.width * CACHE_LANES) + (place & (CACHE_LANES - 1))

    def _load(self, b: KernelBuilder, base: Val, index: int, lanes: int) -> Val:
        """f32 elements in the caches' type; halves as their bits."""
        x = b.load(b.elem(base, index, f32), vec(f32, lanes))
        return b.bitcast(float_to_half(b, x), vec(i16, lanes)) if self.held == "f16" else x
