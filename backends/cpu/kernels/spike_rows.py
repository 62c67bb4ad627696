"""Synapses of numbers: sums of rows of weights times what is not zero, for analog inputs, counts and single steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.dialects import llvm
from xdsl.ir import Attribute

from neuc.backends.cpu.builder import KernelBuilder, Val, elem_of, f32, i8, i32, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.spike_lists import compact
from neuc.backends.cpu.kernels.strided import Args
from neuc.dialects.dims import Dim, DimLike

_LINE = 64


TILE = 4
"""Rows of x that share the loading of a weight."""


@dataclass(frozen=True)
class Slabs:
    """How weights lie: slabs [K, width] of neighbouring outputs, as many as a tile of rows holds the sums of.

    A slab is small enough for a first-level TLB, and read from its beginning to its end.

    Attributes:
        n: outputs.
        weights: ``f32`` or ``i8``.
        isa: the instruction set.
    """

    n: int
    weights: str
    isa: Isa

    @property
    def _registers(self) -> int:
        """Vectors of sums that are held at once."""
        return (16 if self.isa.f32_lanes == 1 else self.isa.registers) // 2

    @property
    def vectors(self) -> int:
        """Vectors in a row of a slab."""
        return min(max(1, self._registers // TILE), -(-self.n // self.isa.f32_lanes))

    @property
    def width(self) -> int:
        """Outputs in a slab."""
        return self.vectors * self.isa.f32_lanes

    @property
    def per_block(self) -> int:
        """Slabs in a work unit: as many as one row holds the sums of."""
        slabs = -(-self.n // self.width)
        blocks = -(-slabs // max(1, self._registers // self.vectors))
        return -(-slabs // blocks)

    @property
    def blocks(self) -> int:
        """Work units that a tile of rows is cut into."""
        return -(-self.n // (self.width * self.per_block))

    @property
    def number(self) -> Attribute:
        """The type of a sum."""
        return f32 if self.weights == "f32" else i32

    @property
    def memory(self) -> Attribute:
        """The type of a weight."""
        return f32 if self.weights == "f32" else i8

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """W[N, K] as [slab, K, width], missing outputs zero."""
        slabs = self.blocks * self.per_block
        padded = np.zeros((slabs * self.width, weight.shape[1]), weight.dtype)
        padded[: self.n] = weight
        return np.ascontiguousarray(padded.reshape(slabs, self.width, -1).swapaxes(1, 2))


@dataclass(frozen=True)
class SpikeRowsKernel(KernelSpec):
    """y[m, n] = bias[n]·times + Σ_k x[m, k]·W[n, k] over the k where x is not 0.

    Slots: x [M, K], W as `Slabs.pack` has it, bias [N] (any address if there is none), y [M, N], times, M. Work:
    ⌈M / TILE⌉ · blocks. Scratch: `scratch_bytes`. With weights in f32, x is f32 or int8 and y f32: each product and sum
    rounded as the machine's multiply-add does, in the order of k, the bias last. With weights in int8, x is int8 or i32
    and y i32, modulo 2^32.

    Attributes:
        k: inputs.
        n: outputs.
        x: ``f32``, ``i8`` or ``i32``.
        weights: ``f32`` or ``i8``.
        bias: there is a bias, f32 or i32.
    """

    k: int
    n: int
    x: str
    weights: str
    bias: bool
    family: ClassVar[str] = "spike_rows"
    written = (3,)

    def slabs(self, isa: Isa) -> Slabs:
        """How weights lie."""
        return Slabs(self.n, self.weights, isa)

    def work(self, rows: DimLike, isa: Isa) -> Dim:
        """Work units for so many rows."""
        return Dim.of(rows).ceildiv(TILE) * self.slabs(isa).blocks

    def scratch_bytes(self, isa: Isa) -> int:
        """The list of what is not zero, for a tile of rows, and the tile with its rows side by side."""
        return self._room(isa) * 4 * (1 + 2 * TILE)

    def _room(self, isa: Isa) -> int:
        return -(-(self.k + isa.f32_lanes) // (_LINE // 4)) * (_LINE // 4)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Whole tiles of rows together, the last rows one by one."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        where = _Places(*(args.ptr() for _ in range(4)), *args.ints(2))
        cut, room = self.slabs(isa), self._room(isa)
        lists = _Lists(b.scratch, b.elem(b.scratch, room, i32), b.elem(b.scratch, (1 + TILE) * room, i32))
        with b.loop(b.udiv(b.begin, cut.blocks), b.udiv(b.end + (cut.blocks - 1), cut.blocks)) as tile:
            first = b.max(b.begin - tile.i * cut.blocks, 0)
            last = b.min(b.end - tile.i * cut.blocks, cut.blocks)
            row = tile.i * TILE
            with b.if_(b.icmp("sle", row + TILE, where.rows)) as whole:
                self._rows(b, cut, where, lists, row, TILE, first, last)
            with whole.else_(), b.loop(row, where.rows) as one:
                self._rows(b, cut, where, lists, one.i, 1, first, last)
        return b.finish()

    def _rows(
        self,
        b: KernelBuilder,
        cut: Slabs,
        where: _Places,
        lists: _Lists,
        row: Val,
        count: int,
        first: Val,
        last: Val,
    ) -> None:
        """`count` rows, in blocks first … last-1."""
        active = self._list(b, cut, where, lists, row, count)
        together = cut.per_block if count == 1 else 1
        with b.loop(first, last) as block:
            for start in range(0, cut.per_block, together):
                slab = block.i * cut.per_block + start
                own = b.elem(where.weights, slab * (self.k * cut.width), cut.memory)
                sums = self._sum(b, cut, own, lists, active, count, together)
                for index, total in enumerate(sums):
                    line, vector = divmod(index, together * cut.vectors)
                    self._store(b, total, where, row + line, slab * cut.width + vector * b.lanes)

    def _list(self, b: KernelBuilder, cut: Slabs, where: _Places, lists: _Lists, row: Val, count: int) -> Val:
        """List the inputs that are not 0 in some row, and all rows' values of them side by side; how many."""
        source = b.elem(where.x, row * self.k, i8 if self.x == "i8" else i32)
        number = cut.number
        if count == 1 and self.x != "i8":
            return compact(b, source, self.k, lists.indices, lists.values, number)
        spread = lists.spread
        with b.loop(0, self.k) as loop:
            for line in range(count):
                value = self._number(b, b.elem(source, loop.i + line * self.k, i8 if self.x == "i8" else i32), number)
                b.store(value, b.elem(spread, loop.i * count + line, number))
        if count == 1:
            return compact(b, spread, self.k, lists.indices, lists.values, number)
        wide = vec(i32, count)
        with b.loop(0, self.k, init=[b.i64(0)]) as loop:
            found = loop.carried[0]
            bits = b.load(b.elem(spread, loop.i * count, i32), wide)
            b.store(b.trunc(loop.i, i32), b.elem(lists.indices, found, i32))
            b.store(bits, b.elem(lists.values, found * count, i32))
            # -0.0 has a bit: it is listed, and adds nothing.
            some = b.intrinsic(f"llvm.vector.reduce.or.v{count}i32", i32, [bits])
            loop.yield_([found + b.zext(b.icmp("ne", some, 0), i64)])
        return loop.results[0]

    def _number(self, b: KernelBuilder, address: Val, number: Attribute) -> Val:
        if self.x != "i8":
            return b.load(address, number)
        value = b.sext(b.load(address, i8), i32)
        return b.sitofp(value, f32) if number == f32 else value

    def _sum(
        self, b: KernelBuilder, cut: Slabs, weights: Val, lists: _Lists, active: Val, count: int, slabs: int
    ) -> list[Val]:
        """The sums of `count` rows in `slabs` neighbouring slabs, row by row."""
        number, vectors = cut.number, slabs * cut.vectors
        zeros = [b.zero(vec(number, b.lanes))] * (count * vectors)
        with b.loop(0, active, 1, zeros) as loop:
            place = b.zext(b.load(b.elem(lists.indices, loop.i, i32), i32), i64)
            row = b.elem(weights, place * cut.width, cut.memory)
            loaded: list[Val] = []
            for vector in range(vectors):
                slab, inner = divmod(vector, cut.vectors)
                address = b.elem(row, slab * self.k * cut.width + inner * b.lanes, cut.memory)
                value = b.load(address, vec(cut.memory, b.lanes))
                loaded.append(value if number == f32 else b.sext(value, i32))
            after: list[Val] = []
            for line in range(count):
                factor = b.splat(b.load(b.elem(lists.values, loop.i * count + line, number), number), b.lanes)
                for vector, value in enumerate(loaded):
                    held = loop.carried[line * vectors + vector]
                    after.append(b.fma(value, factor, held) if number == f32 else held + value * factor)
            loop.yield_(after)
        return loop.results

    def _store(self, b: KernelBuilder, total: Val, where: _Places, row: Val, column: Val) -> None:
        """Bias, then the store of a vector or of its first lanes."""
        number = elem_of(total.type)
        mask = b.mask_below(self.n - column, b.lanes)
        if self.bias:
            own = b.masked_load(b.elem(where.bias, column, number), total.type, mask)
            times = b.trunc(where.times, i32) if number == i32 else b.sitofp(where.times, f32)
            total = total + own * b.splat(times, b.lanes)
        b.masked_store(total, b.elem(where.y, row * self.n + column, number), mask)


@dataclass(frozen=True)
class _Places:
    """The arguments."""

    x: Val
    weights: Val
    bias: Val
    y: Val
    times: Val
    rows: Val


@dataclass(frozen=True)
class _Lists:
    """A thread's lists: places, their values, and rows of x side by side."""

    indices: Val
    values: Val
    spread: Val
