"""`dense.attention`: causal attention of new tokens over a cache of keys and values, with online softmax.

A work unit is one cache head, a block of tokens and a chunk of the keys. The heads of q that share the cache head,
times the tokens, are the rows of two matrix products (`gemm_micro`): scores = q · keys and output += probabilities ·
values. They go over `KEYS` keys at a time, which are brought into f32 panels in scratch memory first, so that all rows
share the conversion (Dao et al., FlashAttention, 2022; Milakov and Gimelshein, online softmax, 2018). A single token
reads the caches themselves.

With few tokens the keys are cut into chunks, so that there is work for several threads; `AttentionMergeKernel` joins
their results. How many chunks depends on shapes alone, so results do not depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from xdsl.dialects import llvm

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f16, f32, i1, i16, i32, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.gemm_micro import F32, NO_EPILOGUE, Operands, Tile, multiply_rows
from neuc.backends.cpu.kernels.map_half import half_to_float
from neuc.backends.cpu.kernels.strided import Args, chunks, load_elements, pieces, store_elements, tree
from neuc.dialects.dense_attention import CACHE_LANES

KEYS = 64
"""Keys of one step of the online softmax: panels of keys and values stay in the second-level cache."""
_ROWS = 48
"""Rows of a unit, as long as one token has no more heads: enough that fetching keys costs little."""
_LOWEST = -1e30
"""Below every score, and finite: its difference from itself is 0."""
_LOG2_E = 1.4426950408889634
_FAR = 1 << 40
"""Positions beyond count as this, so that sums do not overflow."""


@dataclass(frozen=True)
class AttentionKernel(KernelSpec):
    """Slots: 0 q (f32 [S, H, D]), 1 k_cache, 2 v_cache, 3 position (i64), 4 out (f32 [S, H, D]), 5 parts (out), 6 S,
    7 C, 8 chunks, 9 scale (f32). Parts are f32 [chunks, S, H, D + 2]: output before division, largest score (a
    logarithm to the base of two), divisor.

    With one chunk `out` is written, else `parts`. Work units: KV · ceil(S / `tokens`) · chunks.

    Attributes:
        heads: H.
        groups: KV, the heads of the caches.
        width: D.
        half: caches are f16, not f32.
    """

    heads: int
    groups: int
    width: int
    half: bool

    family = "attention"
    written = (4, 5)

    @property
    def share(self) -> int:
        """Heads of q for one head of the caches."""
        return self.heads // self.groups

    @property
    def tokens(self) -> int:
        """Tokens of one work unit."""
        return max(1, _ROWS // self.share)

    def tile(self, isa: Isa) -> Tile:
        """The register tile, without numbers of rows that never come up: rows are whole tokens."""
        tile = Tile.of(isa)
        least = max(
            r for r in tile.rows if all(n % r == 0 for n in (self.share, *tile.rows) if n >= r or n == self.share)
        )
        return Tile(tuple(r for r in tile.rows if r >= least), tile.vectors, tile.lanes)

    def layout(self, isa: Isa) -> _Scratch:
        """Where things are in scratch memory."""
        return _Scratch(self.tokens * self.share, self.width, self.tile(isa).columns)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Units one after the other."""
        b = KernelBuilder(self.name, isa)
        _Attention(b, self).run()
        return b.finish()


@dataclass(frozen=True)
class _Scratch:
    """Byte offsets of a unit's arrays.

    Attributes:
        rows: rows there can be.
        width: D.
        columns: columns of a panel.
    """

    rows: int
    width: int
    columns: int

    @property
    def panel_keys(self) -> int:
        """Keys of a panel: whole blocks of the cache."""
        return max(self.columns, CACHE_LANES)

    @property
    def padded(self) -> int:
        """D filled up to whole panels."""
        return ceil(self.width / self.columns) * self.columns

    def _sizes(self) -> tuple[int, ...]:
        q, scores, output = self.rows * self.width, self.rows * KEYS, self.rows * self.padded
        panels = KEYS * self.padded
        return tuple(-(-size // 16) * 16 * F32 for size in (q, scores, output, self.rows, self.rows, panels))

    def offsets(self) -> tuple[int, ...]:
        """Of scaled q, scores, output, largest scores, divisors, and the panels of keys, later of values."""
        sizes = self._sizes()
        return tuple(sum(sizes[:i]) for i in range(len(sizes)))

    @property
    def nbytes(self) -> int:
        return sum(self._sizes())


class _Attention:
    """The kernel's code; one method a stage."""

    def __init__(self, b: KernelBuilder, spec: AttentionKernel) -> None:
        self.b, self.spec = b, spec
        args = Args(b)
        self.q, self.k_cache, self.v_cache = args.ptr(), args.ptr(), args.ptr()
        self.position, self.out, self.parts = args.ptr(), args.ptr(), args.ptr()
        self.token_count, self.blocks, self.chunk_count = args.ints(3)
        # Scores are logarithms to the base of two from here on.
        self.scale = args.f32() * _LOG2_E
        self.tile, self.scratch = spec.tile(b.isa), spec.layout(b.isa)
        self.element_bytes = 2 if spec.half else F32
        names = [b.ptr(b.scratch, at) for at in self.scratch.offsets()]
        self.rows_q, self.scores, self.output, self.top, self.total, self.panels = names

        # One token reads a key once: without panels, if the rows of all its heads fit into registers.
        self.direct = spec.share < b.isa.registers // 2 and spec.width % b.lanes == 0

    def run(self) -> None:
        b, spec = self.b, self.spec
        capacity = self.blocks * CACHE_LANES
        position = b.load(self.position, i64)
        self.start = b.max(b.min(position, b.i64(_FAR)), b.i64(-_FAR))
        self.last_key = capacity - 1
        blocks = b.udiv(self.token_count + (spec.tokens - 1), spec.tokens)
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
            self._begin(group, first, tokens, rows)
            seen = self._seen(first + tokens - 1)
            span = b.udiv(seen + self.chunk_count * CACHE_LANES - 1, self.chunk_count * CACHE_LANES) * CACHE_LANES
            until = b.min(seen, (chunk + 1) * span)
            with b.loop(chunk * span, until, KEYS) as step:
                count = b.min(until - step.i, b.i64(KEYS))
                alone = b.icmp("eq", tokens, 1) if self.direct else b.const(0, i1)
                with b.if_(alone) as branch:
                    self._multiply_keys_in_place(group, step.i, count)
                with branch.else_():
                    self._fetch_keys(group, step.i, count)
                    self._multiply_keys(rows, count)
                self._softmax(first, rows, step.i, count)
                with b.if_(alone) as branch:
                    self._multiply_values_in_place(group, step.i, count)
                with branch.else_():
                    self._fetch_values(group, step.i, count)
                    self._multiply_values(rows, count)
            self._end(group, first, rows, chunk)

    def _seen(self, token: Val) -> Val:
        """How many keys a token sees."""
        b = self.b
        return b.min(b.max(self.start + token, 0), self.last_key) + 1

    def _row_of(self, group: Val, first: Val, row: Val) -> Val:
        """The number of a unit's row among all [S, H]."""
        share = self.spec.share
        token = self.b.udiv(row, share)
        return (first + token) * self.spec.heads + group * share + (row - token * share)

    def _begin(self, group: Val, first: Val, tokens: Val, rows: Val) -> None:
        """Bring the rows of q, times the scale, together; output and divisors are 0."""
        b, width = self.b, self.spec.width
        with b.loop(0, rows) as row:
            source = b.elem(self.q, self._row_of(group, first, row.i) * width, f32)
            target = b.elem(self.rows_q, row.i * width, f32)
            for at, lanes in pieces(width, b.lanes):
                x = b.load(b.ptr(source, at * F32), vec(f32, lanes))
                b.store(x * b.splat(self.scale, lanes), b.ptr(target, at * F32))
            output = b.elem(self.output, row.i * self.scratch.padded, f32)
            for at in range(0, self.scratch.padded, b.lanes):
                b.store(b.zero(b.vtype()), b.ptr(output, at * F32))
            b.store(b.f32(_LOWEST), b.elem(self.top, row.i, f32))
            b.store(b.f32(0.0), b.elem(self.total, row.i, f32))

    def _at(self, cache: Val, index: Val) -> Val:
        """The address of an element of a cache."""
        return self.b.elem(cache, index, i16 if self.spec.half else f32)

    def _load(self, base: Val, index: int, lanes: int) -> Val:
        """Elements of a cache from an address on, as f32."""
        b = self.b
        if not self.spec.half:
            return b.load(b.elem(base, index, f32), vec(f32, lanes))
        raw = b.load(b.elem(base, index, i16), vec(i16, lanes))
        return half_to_float(b, b.bitcast(raw, vec(f16, lanes)))

    def _fetch_keys(self, group: Val, key: Val, count: Val) -> None:
        """Keys [16-key block, D, 16] to panels [panel, D, panel_keys]."""
        b, width, keys = self.b, self.spec.width, self.scratch.panel_keys
        source = (group * self.blocks + (key >> 4)) * (width * CACHE_LANES)
        with b.loop(0, b.udiv(count + (CACHE_LANES - 1), CACHE_LANES)) as block:
            here = source + block.i * (width * CACHE_LANES)
            first = block.i * CACHE_LANES
            panel = b.udiv(first, keys)
            there = b.ptr(self.panels, (panel * (width * keys) + (first - panel * keys)) * F32)
            unroll = next(n for n in (8, 4, 2, 1) if width % n == 0)
            with b.loop(0, width, unroll) as d:
                source, target = self._at(self.k_cache, here + d.i * CACHE_LANES), b.elem(there, d.i * keys, f32)
                for step in range(unroll):
                    for at, lanes in pieces(CACHE_LANES, b.lanes):
                        value = self._load(source, step * CACHE_LANES + at, lanes)
                        b.store(value, b.ptr(target, (step * keys + at) * F32))

    def _fetch_values(self, group: Val, key: Val, count: Val) -> None:
        """Values [key, D] to panels [panel, key, columns]."""
        b, width, columns = self.b, self.spec.width, self.scratch.columns
        source = (group * (self.blocks * CACHE_LANES) + key) * width
        with b.loop(0, count) as loop:
            here = self._at(self.v_cache, source + loop.i * width)
            there = b.elem(self.panels, loop.i * columns, f32)
            for at, lanes in pieces(width, b.lanes):
                panel, column = divmod(at, columns)
                b.store(self._load(here, at, lanes), b.ptr(there, (panel * KEYS * columns + column) * F32))

    def _multiply_keys(self, rows: Val, count: Val) -> None:
        """Scores of all rows."""
        b, width, keys, columns = self.b, self.spec.width, self.scratch.panel_keys, self.scratch.columns
        with b.loop(0, b.udiv(count + (keys - 1), keys) * keys, columns) as first:
            panel = b.udiv(first.i, keys)
            column = first.i - panel * keys
            operands = Operands(
                k=width,
                a=self.rows_q,
                a_row=width * F32,
                a_step=F32,
                panel=b.ptr(self.panels, (panel * (width * keys) + column) * F32),
                panel_step=keys * F32,
                c=b.elem(self.scores, first.i, f32),
                c_row=KEYS * F32,
            )
            multiply_rows(b, self.tile, operands, b.i64(0), rows, NO_EPILOGUE)

    def _multiply_values(self, rows: Val, count: Val) -> None:
        """Output += probabilities · values."""
        b, padded, columns = self.b, self.scratch.padded, self.scratch.columns
        with b.loop(0, padded // columns) as panel:
            operands = Operands(
                k=count,
                a=self.scores,
                a_row=KEYS * F32,
                a_step=F32,
                panel=b.ptr(self.panels, panel.i * (KEYS * columns * F32)),
                panel_step=columns * F32,
                c=b.ptr(self.output, panel.i * (columns * F32)),
                c_row=padded * F32,
            )
            multiply_rows(b, self.tile, operands, b.i64(0), rows, NO_EPILOGUE, b.const(1, i1))

    def _few_rows(self, vectors: int) -> Tile:
        """The tile for one token: all its rows, and as many vectors as divide `vectors` and fit into registers."""
        share, registers = self.spec.share, self.b.isa.registers
        fitting = (v for v in (8, 4, 2, 1) if vectors % v == 0 and share * v + v < registers)
        return Tile((share,), next(fitting, 1), self.b.lanes)

    def _multiply_keys_in_place(self, group: Val, key: Val, count: Val) -> None:
        """Scores of one token, from the cache itself."""
        b, width, share = self.b, self.spec.width, self.spec.share
        tile = self._few_rows(CACHE_LANES // b.lanes)
        source = (group * self.blocks + (key >> 4)) * (width * CACHE_LANES)
        with b.loop(0, b.udiv(count + (CACHE_LANES - 1), CACHE_LANES) * CACHE_LANES, tile.columns) as first:
            block = first.i >> 4
            at = source + block * (width * CACHE_LANES) + (first.i - block * CACHE_LANES)
            operands = Operands(
                k=width,
                a=self.rows_q,
                a_row=width * F32,
                a_step=F32,
                panel=self._at(self.k_cache, at),
                panel_step=CACHE_LANES * self.element_bytes,
                c=b.elem(self.scores, first.i, f32),
                c_row=KEYS * F32,
                load=lambda row, v: self._load(row, v * b.lanes, b.lanes),
            )
            multiply_rows(b, tile, operands, b.i64(0), b.i64(share), NO_EPILOGUE)

    def _multiply_values_in_place(self, group: Val, key: Val, count: Val) -> None:
        """Output of one token, from the cache itself."""
        b, width, share = self.b, self.spec.width, self.spec.share
        tile = self._few_rows(width // b.lanes)
        source = (group * (self.blocks * CACHE_LANES) + key) * width
        with b.loop(0, width, tile.columns) as first:
            operands = Operands(
                k=count,
                a=self.scores,
                a_row=KEYS * F32,
                a_step=F32,
                panel=self._at(self.v_cache, source + first.i),
                panel_step=width * self.element_bytes,
                c=b.elem(self.output, first.i, f32),
                c_row=self.scratch.padded * F32,
                load=lambda row, v: self._load(row, v * b.lanes, b.lanes),
            )
            multiply_rows(b, tile, operands, b.i64(0), b.i64(share), NO_EPILOGUE, b.const(1, i1))

    def _softmax(self, first: Val, rows: Val, key: Val, count: Val) -> None:
        """Scores to probabilities, relative to each row's largest score so far; 0 where a row does not see the key."""
        b, wide = self.b, min(KEYS, 4 * self.b.lanes)
        steps = b.udiv(count + (wide - 1), wide) * wide
        numbers = b.vec_const(range(wide), i32)
        with b.loop(0, rows) as row:
            token = first + b.udiv(row.i, self.spec.share)
            seen = b.trunc(b.max(b.min(self._seen(token) - key, count), 0), i32)
            scores, top_at = b.elem(self.scores, row.i * KEYS, f32), b.elem(self.top, row.i, f32)
            total_at = b.elem(self.total, row.i, f32)

            def visible(at: Val, seen: Val = seen) -> Val:
                return b.icmp("slt", numbers, b.splat(seen - b.trunc(at, i32), wide))

            lowest = b.const(_LOWEST, vec(f32, wide))
            with b.loop(0, steps, wide, [lowest]) as loop:
                x = b.load(b.elem(scores, loop.i, f32), lowest.type)
                loop.yield_([b.max(b.select(visible(loop.i), x, lowest), loop.carried[0])])
            old = b.load(top_at, f32)
            largest = tree(b, loop.results[0], b.max)
            with b.if_(b.fcmp("ogt", largest, old)) as branch:
                self._rescale(row.i, vecmath.exp2_below(b, old - largest), total_at)
                b.store(largest, top_at)
                branch.yield_([largest])
            with branch.else_():
                branch.yield_([old])
            top = b.splat(branch.results[0], wide)
            with b.loop(0, steps, wide, [b.zero(lowest.type)]) as loop:
                address = b.elem(scores, loop.i, f32)
                power = vecmath.exp2_below(b, b.load(address, lowest.type) - top)
                power = b.select(visible(loop.i), power, b.zero(power.type))
                b.store(power, address)
                loop.yield_([loop.carried[0] + power])
            b.store(b.load(total_at, f32) + tree(b, loop.results[0], lambda x, y: x + y), total_at)

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


@dataclass(frozen=True)
class AttentionMergeKernel(KernelSpec):
    """The results of chunks of keys as one.

    Slots: 0 parts (f32 [chunks, rows, width + 2], as `AttentionKernel` writes them), 1 out (f32 [rows, width]), 2 rows,
    3 chunks. Work units: rows. Scratch: 4 bytes a chunk.
    """

    width: int

    family = "attention_merge"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Each chunk's part in the sum first, then the sum."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        parts, out, count, chunk_count = args.ptr(), args.ptr(), args.int(), args.int()
        step = self.width + 2
        with b.loop(b.begin, b.end) as row:

            def part(chunk: Val, row: Val = row.i) -> Val:
                return b.elem(parts, (chunk * count + row) * step, f32)

            with b.loop(0, chunk_count, init=[b.f32(_LOWEST)]) as chunk:
                top = b.load(b.elem(part(chunk.i), self.width, f32), f32)
                chunk.yield_([b.max(top, chunk.carried[0])])
            largest = chunk.results[0]
            with b.loop(0, chunk_count, init=[b.f32(0.0)]) as chunk:
                here = part(chunk.i)
                factor = vecmath.exp2_below(b, b.load(b.elem(here, self.width, f32), f32) - largest)
                b.store(factor, b.elem(b.scratch, chunk.i, f32))
                chunk.yield_([b.fma(factor, b.load(b.elem(here, self.width + 1, f32), f32), chunk.carried[0])])
            quotient = 1.0 / chunk.results[0]

            def column(j: Val, _: list[Val], mask: Val | None, lanes: int, row: Val = row.i) -> list[Val]:
                with b.loop(0, chunk_count, init=[b.zero(vec(f32, lanes))]) as chunk:
                    factor = b.splat(b.load(b.elem(b.scratch, chunk.i, f32), f32), lanes)
                    x = load_elements(b, part(chunk.i), j, "f32", lanes, mask)
                    chunk.yield_([b.fma(factor, x, chunk.carried[0])])
                y = chunk.results[0] * b.splat(quotient, lanes)
                store_elements(b, y, b.elem(out, row * self.width, f32), j, "f32", mask)
                return []

            chunks(b, b.i64(0), b.i64(self.width), b.lanes, column)
        return b.finish()
