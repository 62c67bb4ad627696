"""The frame of the multiplying kernels: blocks of activations, and the loop over steps, planes, tokens and vectors.

With a weight = low + step·code, Σ w·x = low·Σ x + step·Σ code·x: sums start from low·Σ x, and codes are multiplied.
Sums may wrap on their way, but not those that are shifted in the end: of i4, with 2^16 columns of codes of 15·2^4 and
activations of 128, they stay just below 2^31.
How instruction sets multiply is said in `direct_vnni.py`, `direct_madd.py`, `direct_sdot.py` and `direct_words.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from xdsl.ir import Attribute

from neuc.backends.cpu.builder import KernelBuilder, Operand, Val, i8, i32, i64, vec
from neuc.backends.cpu.kernels.direct_codes import codes_of
from neuc.backends.cpu.kernels.ternary_tiles import (
    CACHE_LINE,
    TOKEN_BLOCK,
    Chunk,
    Following,
    TileEmitter,
    scratch_bytes,
)
from neuc.backends.cpu.packing.direct import QUAD, TILE_BYTES, DirectLayout

X = TypeVar("X")
_COPIED = 16
"""Bytes copied and added up at a time."""
_PREFETCHED = 8192
"""How far ahead weights are fetched: on a Xeon, 1.2 to 1.4 times as fast where they come from memory or L3."""
_IN_ORDER = 24576
"""The same where weights are asked for line after line (`Isa.fetch_order`).

On Zen 5, one token from memory: 84 to 88 % of a read with eight streams on one thread, 87 to 92 % on two, where eight
pages at a time give 56 to 62 % and 74 to 77 %. A 2B decoder with 8, 16, 24, 32 KB: 0.97, 1, 1.03, 1.03 on one thread,
0.96, 1, 1.01, 0.92 on two.
"""
_PAGE = 4096
_STREAMS = 8
"""In how many pages at a time `Following` weights are fetched otherwise: on a Xeon, 1.5 times as fast as one by one.

A page is begun whenever the one before it is an eighth done: if all were begun together, processors, which look no
further ahead than to a page's end, would look ahead in none of them for a while. That alone is a tenth of the time.
"""


def base_scratch_bytes(layout: DirectLayout, tokens: int, *, padded: bool) -> int:
    """Bytes of scratch memory: int32 products, int32 sums of activations, and padded activations if K needs it."""
    t = layout.tiling
    copied = t.padded_columns if t.padded_columns > t.columns and not padded else 0
    return scratch_bytes(t, tokens) + tokens * (4 * t.segments + copied)


class DirectEmitter(TileEmitter, Generic[X]):
    """Writes the products of a direct layout; `X` is what an instruction set keeps of a token's activations in a step.

    Args:
        b: where to write.
        layout: the packed matrix.
        tokens: how many there are in a block.
        padded: whether the activations come padded with zeros to the columns that kernels read.
    """

    def __init__(
        self, b: KernelBuilder, layout: DirectLayout, tokens: int = TOKEN_BLOCK, *, padded: bool = False
    ) -> None:
        super().__init__(b, layout.tiling)
        self.layout = layout
        self.codes = codes_of(layout)
        self.vector_bytes = max(16, b.isa.vector_bytes)
        self.copies = self.tiling.padded_columns > self.tiling.columns and not padded
        self._sums_at = scratch_bytes(self.tiling, tokens)
        self._copies_at = self._sums_at + 4 * tokens * self.tiling.segments

    # ---------------------------------------------------------------- what instruction sets say

    accumulators: int = 16
    """How many are kept in registers."""

    def windows(self, tokens: int) -> tuple[int, ...]:
        """The windows that codes may stay in (`Codes.planes`), falling."""
        return (8, 4, 2)

    @abstractmethod
    def taken(self, step: Val, token: int) -> X:
        """A token's activations of a step; `step` is the address of the first token's."""

    @abstractmethod
    def multiply(self, total: Val, codes: tuple[Val, ...], x: X, plane: int) -> Val:
        """Add a plane's products to an accumulator of type `partial`."""

    def read(self, packed: Val, window: int) -> Iterator[tuple[Val, ...]]:
        """Of a vector of packed bytes, what `multiply` takes for each plane."""
        for codes in self.codes.planes(self.b, packed, window):
            yield (codes,)

    @property
    @abstractmethod
    def partial(self) -> Attribute:
        """Type of the accumulators."""

    def slots(self, window: int) -> list[tuple[int, int]]:
        """For each plane its accumulator: the power of two to take out in the end, and a number among those."""
        return [(shift, 0) for shift in self.codes.shifts(window)]

    def safe_steps(self, window: int) -> int | None:
        """Steps after which an accumulator must be widened lest it overflow; None if never."""
        return None

    def widened(self, total: Val) -> Val:
        """An accumulator as int32 lanes, one a row."""
        return total

    def advanced(self, step: Val) -> Val:
        """The address of the next step's activations."""
        return self.b.ptr(step, self.step_bytes)

    # ---------------------------------------------------------------- products

    def shape(self, tokens: int) -> tuple[int, int]:
        """For so many tokens at a time: vectors of codes at a time, and the window.

        The widest window, which takes the fewest shifts, for which there are accumulators; then the most vectors.
        """
        windows = self.windows(tokens)
        needed = {window: tokens * len(set(self.slots(window))) for window in windows}
        window = next((window for window in windows if needed[window] <= self.accumulators), windows[-1])
        vectors = max(1, self.accumulators // needed[window])
        most = self.codes.most_vectors
        if tokens == 1:  # in order means all that a step has
            most = self.codes.most_in_order if self._in_order else self.codes.most_alone
        return min(most, self.chunk_vectors, 1 << vectors.bit_length() - 1), window

    @property
    def _in_order(self) -> bool:
        return self.b.isa.fetch_order == "lines"

    @property
    def chunk_vectors(self) -> int:
        """Vectors per step of a chunk; a power of two."""
        return self.layout.tiles * TILE_BYTES // self.vector_bytes

    def chunk(self, at: Chunk, tokens: int) -> None:
        """Some vectors of rows at a time."""
        vectors, window = self.shape(tokens)
        if vectors == self.chunk_vectors:
            self._vectors(at, self.b.i64(0), vectors, tokens, window)
            return
        with self.b.loop(0, self.chunk_vectors, vectors) as first:
            self._vectors(at, first.i, vectors, tokens, window)

    def _vectors(self, at: Chunk, first: Val, vectors: int, tokens: int, window: int) -> None:
        for place, total in enumerate(self.totals(at, first, vectors, tokens, window)):
            row = (first + place % vectors) * (self.vector_bytes // QUAD)
            self.add(total, self.sums_of(at, place // vectors, row))

    def totals(self, at: Chunk, first: Val, vectors: int, tokens: int, window: int) -> list[Val]:
        """Step·Σ code·x over a chunk's steps, in int32 lanes: token by token, `vectors` of its rows from `first`."""
        slots = sorted(set(self.slots(window)))
        sums, step = self._sums(at, first, vectors, tokens, window), self.layout.step
        totals: list[Val] = []
        for place in range(0, len(sums), len(slots)):
            total = sums[place].ashr(slots[0][0])
            for part, (shift, _) in zip(sums[place + 1 :], slots[1:], strict=False):
                total = total + part.ashr(shift)
            totals.append(total * step if step != 1 else total)
        return totals

    def _sums(self, at: Chunk, first: Val, vectors: int, tokens: int, window: int) -> list[Val]:
        """Int32 sums over all steps, for each token, vector and kept shift."""
        b = self.b
        weights = b.ptr(at.weights, first * self.vector_bytes)
        x = self.activations(at)
        count = tokens * vectors * len(set(self.slots(window)))
        none, safe = [b.zero(self.partial)] * count, self.safe_steps(window)

        def products(first: Operand, until: Val) -> list[Val]:
            with b.loop(first, until, init=[*none, b.ptr(x, first * self.step_bytes)]) as step:
                *sums, here = step.carried
                packed = b.ptr(weights, step.i * self.tiling.step_bytes)
                self._prefetch(packed, at.following, step.i, vectors)
                step.yield_([*self._step(packed, here, sums, vectors, tokens, window), self.advanced(here)])
            return [self.widened(total) for total in step.results[:-1]]

        if safe is None:
            return products(0, at.steps)
        with b.loop(0, at.steps, safe, init=[self.widened(total) for total in none]) as run:
            widened = products(run.i, b.min(run.i + safe, at.steps))
            run.yield_([total + more for total, more in zip(run.carried, widened, strict=True)])
        return run.results

    def _step(self, weights: Val, x: Val, sums: Sequence[Val], vectors: int, tokens: int, window: int) -> list[Val]:
        """The sums with one step's products added; each plane's codes serve all tokens."""
        b, result = self.b, list(sums)
        slots = self.slots(window)
        kept = sorted(set(slots))
        taken = [self.taken(x, token) for token in range(tokens)]
        wide = vec(i8, self.vector_bytes)
        packed = [b.load(b.ptr(weights, self.vector_bytes * i), wide) for i in range(vectors)]
        readers = [self.read(vector, window) for vector in packed]
        for plane, slot in enumerate(slots):
            codes = [next(reader) for reader in readers]
            for token in range(tokens):
                for vector, code in enumerate(codes):
                    place = (token * vectors + vector) * len(kept) + kept.index(slot)
                    result[place] = self.multiply(result[place], code, taken[token], plane)
        return result

    def _prefetch(self, packed: Val, following: Following | None, step: Val, vectors: int) -> None:
        """Ask for as many bytes as a step reads; processors themselves look no further ahead than to a page's end."""
        b, nbytes = self.b, vectors * self.vector_bytes
        if b.isa.arch != "x86_64":
            return
        if self._in_order or following is None or nbytes < CACHE_LINE:
            self.fetch(b.ptr(packed, _IN_ORDER if self._in_order else _PREFETCHED), nbytes)
            return
        # Lines are counted as they lie. The lowest bits of a line's number in its page say from how many pages back one
        # is asked for instead: for each page back it is as many lines further on as pages begin apart.
        start, apart = b.number_of(following.weights), _PAGE - _PAGE // _STREAMS
        comes = (start + following.done + step * nbytes) & -nbytes
        line = b.udiv(comes & (_PAGE - 1), CACHE_LINE)
        first = (comes & -_PAGE) - (line & (_STREAMS - 1)) * apart + b.udiv(line, _STREAMS) * CACHE_LINE - start
        for place in range(nbytes // CACHE_LINE):
            self.fetch(b.ptr(following.weights, first - place * apart), CACHE_LINE)

    # ---------------------------------------------------------------- activations

    @property
    def step_bytes(self) -> int:
        """Bytes from one step's activations to the next's."""
        return self.tiling.step_columns

    @property
    def row_bytes(self) -> Val | int:
        """Bytes from one token's activations to the next's."""
        return self.tiling.padded_columns if self.copies else self.at.activation_bytes

    def row(self, token: Val) -> Val:
        """Address of a token's activations; `token` counts from the unit's first."""
        b = self.b
        if self.copies:
            return b.ptr(self.at.scratch, token * self.row_bytes + self._copies_at)
        return b.ptr(self.at.activations, token * self.row_bytes)

    def activations(self, at: Chunk) -> Val:
        """Address of the first activation of a chunk's first token."""
        t = self.tiling
        return self.b.ptr(self.row(at.token), at.segment * t.segment + at.first_step * t.step_columns)

    def quad(self, step: Val, token: int, plane: int) -> Val:
        """The four activations of a plane in every lane of a vector."""
        b, lanes = self.b, self.vector_bytes // QUAD
        address = b.ptr(step, token * self.row_bytes + QUAD * plane)
        return b.bitcast(b.splat(b.load(address, i32), lanes), vec(i8, self.vector_bytes))

    def prepare(self, tokens: Val) -> None:
        """Pad the rows if need be, and add up each segment if `low` is not zero."""
        with self.b.loop(0, tokens) as token:
            if self.copies:
                self._copy(token.i)
            if self.layout.low:
                with self.b.loop(0, self.tiling.segments) as segment:
                    self._add_up(token.i, segment.i)

    def _copy(self, token: Val) -> None:
        b, t = self.b, self.tiling
        source, row = b.ptr(self.at.activations, token * self.at.activation_bytes), self.row(token)
        whole = t.columns // _COPIED * _COPIED
        with b.loop(0, whole, _COPIED) as copy:
            b.store(b.load(b.ptr(source, copy.i), vec(i8, _COPIED)), b.ptr(row, copy.i))
        with b.loop(whole, t.columns) as copy:
            b.store(b.load(b.ptr(source, copy.i), i8), b.ptr(row, copy.i))
        with b.loop(t.columns, t.padded_columns) as copy:
            b.store(b.const(0, i8), b.ptr(row, copy.i))

    def _add_up(self, token: Val, segment: Val) -> None:
        """Σ x of a segment's own columns; those past K are zeros."""
        b, t = self.b, self.tiling
        first = b.ptr(self.row(token), segment * t.segment)
        whole = t.segment // _COPIED * _COPIED
        with b.loop(0, whole, _COPIED, init=[b.zero(vec(i32, _COPIED))]) as column:
            x = b.load(b.ptr(first, column.i), vec(i8, _COPIED))
            column.yield_([column.carried[0] + b.sext(x, i32)])
        with b.loop(whole, t.segment, init=[b.reduce_add(column.results[0])]) as column:
            column.yield_([column.carried[0] + b.sext(b.load(b.ptr(first, column.i), i8), i32)])
        b.store(column.results[0], self._sum(token, segment))

    def initial(self, token: Val, segment: Val, row_block: Val, row: Val) -> Val:
        """low·Σ x."""
        return self.low_sums(token, segment, self.b.lanes)

    def low_sums(self, token: Operand, segment: Operand, lanes: int) -> Val:
        """low·Σ x of a segment of a prepared token, counted from the block's first, in every lane."""
        b = self.b
        if not self.layout.low:
            return b.zero(vec(i32, lanes))
        return b.splat(b.load(self._sum(b.as_val(token, i64), segment), i32) * self.layout.low, lanes)

    def _sum(self, token: Val, segment: Operand) -> Val:
        b = self.b
        return b.ptr(self.at.scratch, (token * self.tiling.segments + segment) * 4 + self._sums_at)
