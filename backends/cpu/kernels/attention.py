"""`dense.attention`: causal attention of new tokens over a cache of keys and values, with online softmax.

A work unit is one cache head, a block of tokens and a chunk of the keys. The heads of q that share the cache head,
times the tokens, are the rows of two matrix products (`attention_products.py`, `attention_amx.py`): scores = q · keys
and output += probabilities · values. They go over `KEYS` keys at a time (Dao et al., FlashAttention, 2022; Milakov and
Gimelshein, online softmax, 2018).

With few tokens the keys are cut into chunks, so that there is work for several threads; `AttentionMergeKernel` joins
their results. How many chunks depends on shapes alone, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i1, i32, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.attention_amx import TileProducts
from neuc.backends.cpu.kernels.attention_merge import LOWEST
from neuc.backends.cpu.kernels.attention_products import (
    KEYS,
    AttentionShape,
    OneToken,
    Places,
    Products,
    Scratch,
    VectorProducts,
)
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.gemm_micro import F32
from neuc.backends.cpu.kernels.strided import Args, pieces, tree
from neuc.dialects.dense_attention import CACHE_LANES

_VECTOR_ROWS = 48
_TILE_ROWS = 128
"""Rows of a unit, as long as one token has no more heads: enough that fetching keys costs little."""
_LOG2_E = 1.4426950408889634
_FAR = 1 << 40
"""Positions beyond count as this, so that sums do not overflow."""


@dataclass(frozen=True)
class AttentionKernel(AttentionShape, KernelSpec):
    """Slots: 0 q (f32 [S, H, D]), 1 k_cache, 2 v_cache, 3 position (i64), 4 out (f32 [S, H, D]), 5 parts (out), 6 S,
    7 C, 8 chunks, 9 scale (f32). Parts are f32 [chunks, S, H, D + 2]: output before division, largest score (a
    logarithm to the base of two), divisor.

    With one chunk `out` is written, else `parts`. Work units: KV · ceil(S / `tokens`) · chunks.

    Attributes:
        tiles: several tokens are multiplied by AMX tiles, where there are some.
    """

    tiles: bool = False

    family = "attention"
    written = (4, 5)

    @staticmethod
    def of(isa: Isa, shape: AttentionShape) -> AttentionKernel:
        """The fastest kernel of an instruction set."""
        tiles = TileProducts.fits(isa, shape)
        return AttentionKernel(shape.heads, shape.groups, shape.width, shape.held, tiles)

    @property
    def tokens(self) -> int:
        """Tokens of one work unit."""
        return max(1, (_TILE_ROWS if self.tiles else _VECTOR_ROWS) // self.share)

    def layout(self, isa: Isa) -> Scratch:
        """Where things are in scratch memory."""
        rows = self.tokens * self.share
        return TileProducts.layout(self, rows) if self.tiles else VectorProducts.layout(isa, self, rows)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Units one after the other."""
        b = KernelBuilder(self.name, isa)
        _Attention(b, self).run()
        return b.finish()


class _Attention:
    """What is around the products; one method a stage."""

    def __init__(self, b: KernelBuilder, spec: AttentionKernel) -> None:
        self.b, self.spec = b, spec
        args = Args(b)
        self.q, self.k_cache, self.v_cache = args.ptr(), args.ptr(), args.ptr()
        self.position, self.out, self.parts = args.ptr(), args.ptr(), args.ptr()
        self.token_count, self.blocks, self.chunk_count = args.ints(3)
        # Scores are logarithms to the base of two from here on.
        self.scale = args.f32() * _LOG2_E
        self.scratch = spec.layout(b.isa)
        query, self.scores, self.output, self.top, self.total, panels = (
            b.ptr(b.scratch, at) for at in self.scratch.offsets()
        )
        places = Places(self.k_cache, self.v_cache, self.blocks, query, self.scores, self.output, panels)
        self.tiles = TileProducts(b, spec, self.scratch, places) if spec.tiles else None
        self.several: Products = self.tiles or VectorProducts(b, spec, self.scratch, places)
        self.one = OneToken(b, spec, self.scratch, places) if OneToken.fits(b.isa, spec) else None

    def run(self) -> None:
        b, spec = self.b, self.spec
        position = b.load(self.position, i64)
        self.start = b.max(b.min(position, b.i64(_FAR)), b.i64(-_FAR))
        self.last_key = self.blocks * CACHE_LANES - 1
        blocks = b.udiv(self.token_count + (spec.tokens - 1), spec.tokens)
        if self.tiles is not None:
            self.tiles.configure()
        with b.loop(b.begin, b.end) as unit:
            group = b.udiv(unit.i, blocks * self.chunk_count)
            rest = unit.i - group * (blocks * self.chunk_count)
            place = b.udiv(rest, self.chunk_count)
            chunk = rest - place * self.chunk_count
            # From both ends in turn: neighbours, which one thread gets, then see as many keys as those of another.
            half = place >> 1
            block = b.select(b.icmp("eq", place & 1, 0), half, blocks - 1 - half)
            first = block * spec.tokens
            tokens = b.min(self.token_count - first, b.i64(spec.tokens))
            rows = tokens * spec.share
            alone = b.icmp("eq", tokens, 1) if self.one is not None else b.const(0, i1)
            self._begin(group, first, rows, alone)
            seen = self._seen(first + tokens - 1)
            span = b.udiv(seen + self.chunk_count * CACHE_LANES - 1, self.chunk_count * CACHE_LANES) * CACHE_LANES
            until = b.min(seen, (chunk + 1) * span)
            with b.loop(chunk * span, until, KEYS) as step:
                key, count = step.i, b.min(until - step.i, b.i64(KEYS))
                self._either(alone, lambda p: p.scores(group, key, count, rows))
                self._softmax(group, first, rows, key, count, alone)
                self._either(alone, lambda p: p.outputs(group, key, count, rows))
            self._end(group, first, rows, chunk)
        if self.tiles is not None:
            self.tiles.release()

    def _either(self, alone: Val, emit: Callable[[Products], None]) -> None:
        """Code for one token, if that goes another way, and for several."""
        if self.one is None:
            emit(self.several)
            return
        with self.b.if_(alone) as branch:
            emit(self.one)
        with branch.else_():
            emit(self.several)

    def _seen(self, token: Val) -> Val:
        """How many keys a token sees."""
        b = self.b
        return b.min(b.max(self.start + token, 0), self.last_key) + 1

    def _row_of(self, group: Val, first: Val, row: Val) -> Val:
        """The number of a unit's row among all [S, H]."""
        share = self.spec.share
        token = self.b.udiv(row, share)
        return (first + token) * self.spec.heads + group * share + (row - token * share)

    def _begin(self, group: Val, first: Val, rows: Val, alone: Val) -> None:
        """Bring the rows of q, times the scale, together; output and divisors are 0."""
        b, width = self.b, self.spec.width
        with b.loop(0, rows) as row:
            source, i = b.elem(self.q, self._row_of(group, first, row.i) * width, f32), row.i

            def keep(products: Products, source: Val = source, i: Val = i) -> None:
                for at, lanes in pieces(width, b.lanes):
                    x = b.load(b.ptr(source, at * F32), vec(f32, lanes)) * b.splat(self.scale, lanes)
                    products.keep_query(i, at, x)

            self._keep(alone, keep)
            output = b.elem(self.output, i * self.scratch.padded, f32)
            for at in range(0, self.scratch.padded, b.lanes):
                b.store(b.zero(b.vtype()), b.ptr(output, at * F32))
            b.store(b.f32(LOWEST), b.elem(self.top, i, f32))
            b.store(b.f32(0.0), b.elem(self.total, i, f32))
        if self.tiles is not None:
            self.tiles.fill_rows(rows)

    def _keep(self, alone: Val, emit: Callable[[Products], None]) -> None:
        """As `_either`; without tiles both ways are the same."""
        if self.tiles is None:
            emit(self.several)
        else:
            self._either(alone, emit)

    def _softmax(self, group: Val, first: Val, rows: Val, key: Val, count: Val, alone: Val) -> None:
        """Scores to probabilities, relative to each row's largest score so far; 0 where a row does not see the key.

        Scales of int8 keys and values come in here: on the scores, and on the probabilities that values are multiplied
        by.
        """
        b, wide = self.b, min(KEYS, 4 * self.b.lanes)
        steps = b.udiv(count + (wide - 1), wide) * wide
        numbers, lowest = b.vec_const(range(wide), i32), b.const(LOWEST, vec(f32, wide))
        with b.loop(0, rows) as row:
            i, token = row.i, first + b.udiv(row.i, self.spec.share)
            seen = b.trunc(b.max(b.min(self._seen(token) - key, count), 0), i32)
            scores, top_at = b.elem(self.scores, i * KEYS, f32), b.elem(self.top, i, f32)
            total_at = b.elem(self.total, i, f32)

            def visible(at: Val, seen: Val = seen) -> Val:
                return b.icmp("slt", numbers, b.splat(seen - b.trunc(at, i32), wide))

            def scores_at(at: Val, scores: Val = scores) -> Val:
                x = b.load(b.elem(scores, at, f32), lowest.type)
                return x * self._scales(self.k_cache, group, key + at, wide) if self.spec.held == "i8" else x

            with b.loop(0, steps, wide, [lowest]) as loop:
                x = scores_at(loop.i)
                loop.yield_([b.max(b.select(visible(loop.i), x, lowest), loop.carried[0])])
            old = b.load(top_at, f32)
            largest = tree(b, loop.results[0], b.max)
            with b.if_(b.fcmp("ogt", largest, old)) as branch:
                self._rescale(i, vecmath.exp2_below(b, old - largest), total_at)
                b.store(largest, top_at)
                branch.yield_([largest])
            with branch.else_():
                branch.yield_([old])
            top = b.splat(branch.results[0], wide)
            with b.loop(0, steps, wide, [b.zero(lowest.type)]) as loop:
                power = vecmath.exp2_below(b, scores_at(loop.i) - top)
                power = kept = b.select(visible(loop.i), power, b.zero(power.type))
                if self.spec.held == "i8":
                    kept = power * self._scales(self.v_cache, group, key + loop.i, wide)
                    kept = b.select(visible(loop.i), kept, b.zero(kept.type))
                self._keep(alone, lambda p, i=i, at=loop.i, kept=kept: p.keep_powers(i, at, kept))
                loop.yield_([loop.carried[0] + power])
            b.store(b.load(total_at, f32) + tree(b, loop.results[0], lambda x, y: x + y), total_at)

    def _scales(self, cache: Val, group: Val, key: Val, count: int) -> Val:
        """The scales of `count` tokens from `key` on; where there are no such tokens, those of others."""
        b, lanes = self.b, min(CACHE_LANES, count)
        capacity = self.blocks * CACHE_LANES
        here = b.ptr(cache, group * self.blocks * self.spec.block_elements + capacity * self.spec.width)
        places = (b.min(key + at, capacity - lanes) for at in range(0, count, lanes))
        found = [b.load(b.elem(here, place, f32), vec(f32, lanes)) for place in places]
        while len(found) > 1:
            found = [b.concat(one, other) for one, other in zip(found[::2], found[1::2], strict=True)]
        return found[0]

    def _rescale(self, row: Val, factor: Val, total_at: Val) -> None:
        b = self.b
        b.store(b.load(total_at, f32) * factor, total_at)
        output = b.elem(self.output, row * self.scratch.padded, f32)
        for at in range(0, self.scratch.padded, b.lanes):
            address = b.ptr(output, at * F32)
            b.store(b.load(address, b.vtype()) * b.splat(factor, b.lanes), address)

    def _end(self, group: Val, first: Val, rows: Val, chunk: Val) -> None:
        """The quotients, or what the merge needs."""
        b, width = self.b, self.spec.width
        whole = b.icmp("eq", self.chunk_count, 1)
        with b.loop(0, rows) as row:
            number = self._row_of(group, first, row.i)
            total = b.load(b.elem(self.total, row.i, f32), f32)
            part = (chunk * self.token_count * self.spec.heads + number) * (width + 2)
            with b.if_(whole) as branch:
                branch.yield_([b.elem(self.out, number * width, f32), 1.0 / total])
            with branch.else_():
                there = b.elem(self.parts, part, f32)
                b.store(b.load(b.elem(self.top, row.i, f32), f32), b.elem(there, width, f32))
                b.store(total, b.elem(there, width + 1, f32))
                branch.yield_([there, b.f32(1.0)])
            target, factor = branch.results
            source = b.elem(self.output, row.i * self.scratch.padded, f32)
            for at, lanes in pieces(width, b.lanes):
                x = b.load(b.ptr(source, at * F32), vec(f32, lanes)) * b.splat(factor, lanes)
                b.store(x, b.ptr(target, at * F32))
