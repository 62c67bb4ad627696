"""The two products of attention, on vectors: scores = q · keys, output += probabilities · values.

`VectorProducts` brings keys and values into f32 panels first, which then serve many rows; `OneToken` reads the caches
themselves. `attention_amx.py` has tiles instead. What is between the products is in `attention.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil

from neuc.backends.cpu.builder import KernelBuilder, Val, f16, f32, i1, i8, i16, i32, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.gemm_micro import F32, NO_EPILOGUE, Operands, Tile, multiply_rows
from neuc.backends.cpu.kernels.map_half import half_to_float
from neuc.backends.cpu.kernels.strided import pieces
from neuc.dialects.dense_attention import CACHE_LANES, SCALE_BYTES

KEYS = 64
"""Keys of one step of the online softmax: panels of keys and values stay in the second-level cache."""
_ELEMENTS = {"f16": i16, "f32": f32, "i8": i8}
_BYTES = {"f16": 2, "f32": F32, "i8": 1}


@dataclass(frozen=True)
class AttentionShape:
    """What a kernel is specialised on.

    Attributes:
        heads: H.
        groups: KV, the heads of the caches.
        width: D.
        held: what the caches hold, ``f16``, ``f32`` or ``i8``.
    """

    heads: int
    groups: int
    width: int
    held: str

    @property
    def share(self) -> int:
        """Heads of q for one head of the caches."""
        return self.heads // self.groups

    @property
    def block_elements(self) -> int:
        """Elements of a cache for 16 tokens of a head, their scales included."""
        return CACHE_LANES * (self.width + SCALE_BYTES * (self.held == "i8"))


@dataclass(frozen=True)
class Scratch:
    """Where the arrays of a work unit are in scratch memory.

    Attributes:
        rows: rows there can be.
        width: D.
        padded: f32 of a row of the output.
        panels: bytes of the panels, of keys first, then of values.
    """

    rows: int
    width: int
    padded: int
    panels: int

    def _sizes(self) -> tuple[int, ...]:
        elements = (self.rows * self.width, self.rows * KEYS, self.rows * self.padded, self.rows, self.rows)
        return tuple(-(-size // 64) * 64 for size in (*(n * F32 for n in elements), self.panels))

    def offsets(self) -> tuple[int, ...]:
        """Of scaled q, scores, output, largest scores, divisors and panels."""
        sizes = self._sizes()
        return tuple(sum(sizes[:i]) for i in range(len(sizes)))

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return sum(self._sizes())


@dataclass(frozen=True)
class Places:
    """Addresses and sizes that are the same for all units.

    Attributes:
        k_cache: keys [KV, C, D, 16].
        v_cache: values [KV, C, 16, D].
        blocks: C.
        query: rows of scaled q.
        scores: scores, later probabilities: rows of `KEYS`.
        output: rows of `Scratch.padded`.
        panels: see `Scratch`.
    """

    k_cache: Val
    v_cache: Val
    blocks: Val
    query: Val
    scores: Val
    output: Val
    panels: Val


class Products(ABC):
    """The products of some rows with up to `KEYS` keys and values."""

    def __init__(self, b: KernelBuilder, shape: AttentionShape, scratch: Scratch, at: Places) -> None:
        self.b, self.shape, self.scratch, self.at = b, shape, scratch, at

    def keep_query(self, row: Val, first: int, x: Val) -> None:
        """Store elements of a row of scaled q."""
        self.b.store(x, self.b.elem(self.at.query, row * self.shape.width + first, f32))

    def keep_powers(self, row: Val, first: Val, x: Val) -> None:
        """Store probabilities of a row, from key `first` of the step on."""
        self.b.store(x, self.b.elem(self.at.scores, row * KEYS + first, f32))

    @abstractmethod
    def scores(self, group: Val, key: Val, count: Val, rows: Val) -> None:
        """Scores of `count` keys from `key` on, a multiple of 16; of lanes that fill up a block they mean nothing."""

    @abstractmethod
    def outputs(self, group: Val, key: Val, count: Val, rows: Val) -> None:
        """Add probabilities times values to the output."""

    def key_at(self, group: Val, key: Val) -> Val:
        """The number of the first element of a block of 16 keys in the cache."""
        of_group = group * self.at.blocks * self.shape.block_elements
        return of_group + (key >> 4) * (self.shape.width * CACHE_LANES)

    def value_at(self, group: Val, key: Val) -> Val:
        """The number of a value's first element in the cache."""
        return group * self.at.blocks * self.shape.block_elements + key * self.shape.width

    def element(self, cache: Val, index: Val) -> Val:
        """The address of an element of a cache."""
        return self.b.elem(cache, index, _ELEMENTS[self.shape.held])

    @property
    def element_bytes(self) -> int:
        """Bytes of an element of a cache."""
        return _BYTES[self.shape.held]

    def load(self, base: Val, index: int, lanes: int) -> Val:
        """Elements of a cache from an address on, as f32; int8 without their scales."""
        b, element = self.b, _ELEMENTS[self.shape.held]
        raw = b.load(b.elem(base, index, element), vec(element, lanes))
        match self.shape.held:
            case "f16":
                return half_to_float(b, b.bitcast(raw, vec(f16, lanes)))
            case "i8":
                return b.sitofp(b.sext(raw, i32), f32)
            case _:
                return raw


class VectorProducts(Products):
    """Register-tiled products of many rows with f32 panels."""

    def __init__(self, b: KernelBuilder, shape: AttentionShape, scratch: Scratch, at: Places) -> None:
        super().__init__(b, shape, scratch, at)
        self.tile = rows_of_tokens(b.isa, shape.share)
        self.columns = self.tile.columns
        self.panel_keys = max(self.columns, CACHE_LANES)

    @staticmethod
    def layout(isa: Isa, shape: AttentionShape, rows: int) -> Scratch:
        """Scratch memory for so many rows."""
        columns = Tile.of(isa).columns
        padded = ceil(shape.width / columns) * columns
        return Scratch(rows, shape.width, padded, KEYS * padded * F32)

    def scores(self, group: Val, key: Val, count: Val, rows: Val) -> None:
        b, width, keys = self.b, self.shape.width, self.panel_keys
        self._fetch_keys(self.key_at(group, key), count)
        with b.loop(0, b.udiv(count + (keys - 1), keys) * keys, self.columns) as first:
            panel = b.udiv(first.i, keys)
            column = first.i - panel * keys
            operands = Operands(
                k=width,
                a=self.at.query,
                a_row=width * F32,
                a_step=F32,
                panel=b.elem(self.at.panels, panel * (width * keys) + column, f32),
                panel_step=keys * F32,
                c=b.elem(self.at.scores, first.i, f32),
                c_row=KEYS * F32,
            )
            multiply_rows(b, self.tile, operands, b.i64(0), rows, NO_EPILOGUE)

    def outputs(self, group: Val, key: Val, count: Val, rows: Val) -> None:
        b, columns, padded = self.b, self.columns, self.scratch.padded
        self._fetch_values(self.value_at(group, key), count)
        with b.loop(0, padded // columns) as panel:
            operands = Operands(
                k=count,
                a=self.at.scores,
                a_row=KEYS * F32,
                a_step=F32,
                panel=b.ptr(self.at.panels, panel.i * (KEYS * columns * F32)),
                panel_step=columns * F32,
                c=b.ptr(self.at.output, panel.i * (columns * F32)),
                c_row=padded * F32,
            )
            multiply_rows(b, self.tile, operands, b.i64(0), rows, NO_EPILOGUE, b.const(1, i1))

    def _fetch_keys(self, source: Val, count: Val) -> None:
        """Keys [block, D, 16] to panels [panel, D, panel_keys]."""
        b, width, keys = self.b, self.shape.width, self.panel_keys
        unroll = next(n for n in (8, 4, 2, 1) if width % n == 0)
        with b.loop(0, b.udiv(count + (CACHE_LANES - 1), CACHE_LANES)) as block:
            here = source + block.i * (width * CACHE_LANES)
            first = block.i * CACHE_LANES
            panel = b.udiv(first, keys)
            there = b.elem(self.at.panels, panel * (width * keys) + (first - panel * keys), f32)
            with b.loop(0, width, unroll) as d:
                row, target = self.element(self.at.k_cache, here + d.i * CACHE_LANES), b.elem(there, d.i * keys, f32)
                for step in range(unroll):
                    for at, lanes in pieces(CACHE_LANES, b.lanes):
                        value = self.load(row, step * CACHE_LANES + at, lanes)
                        b.store(value, b.ptr(target, (step * keys + at) * F32))

    def _fetch_values(self, source: Val, count: Val) -> None:
        """Values [key, D] to panels [panel, key, columns]."""
        b, width, columns = self.b, self.shape.width, self.columns
        with b.loop(0, count) as loop:
            here = self.element(self.at.v_cache, source + loop.i * width)
            there = b.elem(self.at.panels, loop.i * columns, f32)
            for at, lanes in pieces(width, b.lanes):
                panel, column = divmod(at, columns)
                b.store(self.load(here, at, lanes), b.ptr(there, (panel * KEYS * columns + column) * F32))


class OneToken(Products):
    """Products of the rows of one token, which read each key once: from the caches, without panels."""

    @staticmethod
    def fits(isa: Isa, shape: AttentionShape) -> bool:
        """Whether the rows of a token fit into registers, and vectors into the caches' rows."""
        return shape.share < isa.registers // 2 and shape.width % isa.f32_lanes == 0

    def _tile(self, vectors: int) -> Tile:
        """All rows, and as many vectors as divide `vectors` and fit into registers."""
        share, registers = self.shape.share, self.b.isa.registers
        fitting = (v for v in (8, 4, 2, 1) if vectors % v == 0 and share * v + v < registers)
        return Tile((share,), next(fitting, 1), self.b.lanes)

    def scores(self, group: Val, key: Val, count: Val, rows: Val) -> None:
        b, width = self.b, self.shape.width
        tile, source = self._tile(CACHE_LANES // b.lanes), self.key_at(group, key)
        with b.loop(0, b.udiv(count + (CACHE_LANES - 1), CACHE_LANES) * CACHE_LANES, tile.columns) as first:
            block = first.i >> 4
            at = source + block * (width * CACHE_LANES) + (first.i - block * CACHE_LANES)
            operands = Operands(
                k=width,
                a=self.at.query,
                a_row=width * F32,
                a_step=F32,
                panel=self.element(self.at.k_cache, at),
                panel_step=CACHE_LANES * self.element_bytes,
                c=b.elem(self.at.scores, first.i, f32),
                c_row=KEYS * F32,
                load=lambda row, v: self.load(row, v * b.lanes, b.lanes),
            )
            multiply_rows(b, tile, operands, b.i64(0), rows, NO_EPILOGUE)

    def outputs(self, group: Val, key: Val, count: Val, rows: Val) -> None:
        b, width = self.b, self.shape.width
        tile, source = self._tile(width // b.lanes), self.value_at(group, key)
        with b.loop(0, width, tile.columns) as first:
            operands = Operands(
                k=count,
                a=self.at.scores,
                a_row=KEYS * F32,
                a_step=F32,
                panel=self.element(self.at.v_cache, source + first.i),
                panel_step=width * self.element_bytes,
                c=b.elem(self.at.output, first.i, f32),
                c_row=self.scratch.padded * F32,
                load=lambda row, v: self.load(row, v * b.lanes, b.lanes),
            )
            multiply_rows(b, tile, operands, b.i64(0), rows, NO_EPILOGUE, b.const(1, i1))


def rows_of_tokens(isa: Isa, share: int) -> Tile:
    """The register tile, without numbers of rows that never come up when `share` rows are a token."""
    tile = Tile.of(isa)
    least = max(r for r in tile.rows if all(n % r == 0 for n in (share, *tile.rows) if n >= r or n == share))
    return Tile(tuple(r for r in tile.rows if r >= least), tile.vectors, tile.lanes)
