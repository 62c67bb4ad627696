"""Synapses of numbers: sums of rows of weights times what is not zero, for analog inputs, counts and single steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.dialects import llvm
from xdsl.ir import Attribute

from neuc.backends.cpu.builder import KernelBuilder, Val, elem_of, f32, i8, i32, i64, ptr, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.spike_lists import list_columns
from neuc.backends.cpu.kernels.strided import Args, chunks
from neuc.dialects.dims import Dim, DimLike

_LINE = 64
_OFFSET = 128
"""What makes int8 weights unsigned, as `vpdpbusd` wants them; sums are too large by it times the sum of x."""


@dataclass(frozen=True)
class Slabs:
    """How weights lie: slabs [K, width] of neighbouring outputs, as many as a tile of rows holds the sums of.

    A slab is small enough for a first-level TLB, and read from its beginning to its end.

    Attributes:
        n: outputs.
        weights: ``f32`` or ``i8``.
        isa: the instruction set.
        inputs: neighbouring inputs whose weights of an output lie side by side; 4 of int8 as unsigned bytes, w + 128.
    """

    n: int
    weights: str
    isa: Isa
    inputs: int = 1

    @property
    def _registers(self) -> int:
        """Vectors of sums that are held at once."""
        return (16 if self.isa.f32_lanes == 1 else self.isa.registers) // 2

    @property
    def tile(self) -> int:
        """Rows of x that share the loading of a weight: the more, the less often weights come from the second-level
        cache, and the fewer inputs are zero in all of them.
        """
        return 8 if self.isa.registers == 32 else 4

    @property
    def vectors(self) -> int:
        """Vectors in a row of a slab."""
        return min(max(1, self._registers // self.tile), -(-self.n // self.isa.f32_lanes))

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
        """W[N, K] as [slab, ⌈K / inputs⌉, width, inputs], missing outputs and inputs zero."""
        slabs, columns = self.blocks * self.per_block, -(-weight.shape[1] // self.inputs)
        padded = np.zeros((slabs * self.width, columns * self.inputs), weight.dtype)
        padded[: self.n, : weight.shape[1]] = weight
        if self.inputs > 1:
            padded = (padded.astype(np.int16) + _OFFSET).astype(np.uint8)
        split = padded.reshape(slabs, self.width, columns, self.inputs)
        return np.ascontiguousarray(split.swapaxes(1, 2))


@dataclass(frozen=True)
class SpikeRowsKernel(KernelSpec):
    """y[m, n] = bias[n]·times + Σ_k x[m, k]·W[n, k] over the k where x is not 0.

    Slots: x [M, K], W as `Slabs.pack` has it, bias [N] (any address if there is none), y [M, N], times, M. Work:
    ⌈M / tile⌉ · blocks. Scratch: `scratch_bytes`. With weights in f32, x is f32 or int8 and y f32: each product and sum
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
        return Slabs(self.n, self.weights, isa, 4 if self._in_fours(isa) else 1)

    def _in_fours(self, isa: Isa) -> bool:
        """Whether one instruction multiplies and adds four neighbouring inputs."""
        return self.x == "i8" and self.weights == "i8" and isa.has_vnni

    def _columns(self, isa: Isa) -> int:
        """Columns of x of 32 bits: numbers, or four of int8."""
        return -(-self.k // self.slabs(isa).inputs)

    def work(self, rows: DimLike, isa: Isa) -> Dim:
        """Work units for so many rows."""
        cut = self.slabs(isa)
        return Dim.of(rows).ceildiv(cut.tile) * cut.blocks

    def scratch_bytes(self, isa: Isa) -> int:
        """The list of columns that are not zero in some row of a tile, and the tile in such columns if x is int8."""
        lines = self.slabs(isa).tile if self.x == "i8" else 0
        return self._room(isa) * 4 * (1 + lines)

    def _room(self, isa: Isa) -> int:
        return -(-(self._columns(isa) + isa.f32_lanes) // (_LINE // 4)) * (_LINE // 4)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Tiles of rows together; fewer rows than a tile has one by one."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        where = _Places(*(args.ptr() for _ in range(4)), *args.ints(2))
        cut = self.slabs(isa)
        with b.loop(b.udiv(b.begin, cut.blocks), b.udiv(b.end + (cut.blocks - 1), cut.blocks)) as tile:
            first = b.max(b.begin - tile.i * cut.blocks, 0)
            last = b.min(b.end - tile.i * cut.blocks, cut.blocks)
            with b.if_(b.icmp("sge", where.rows, cut.tile)) as whole:
                # The last tile ends with the last row: rows it shares with the one before get the same sums again.
                row = b.min(tile.i * cut.tile, where.rows - cut.tile)
                self._rows(b, cut, where, row, cut.tile, first, last)
            with whole.else_(), b.loop(0, where.rows) as one:
                self._rows(b, cut, where, one.i, 1, first, last)
        return b.finish()

    def _rows(self, b: KernelBuilder, cut: Slabs, where: _Places, row: Val, count: int, first: Val, last: Val) -> None:
        """`count` rows, in blocks first … last-1."""
        source = b.elem(where.x, row * self.k, i8 if self.x == "i8" else i32)
        columns, places, extra = self._columns(b.isa), b.scratch, list[Val]()
        if self.x == "i8":
            target = b.elem(b.scratch, self._room(b.isa), i32)
            if cut.inputs == 1:
                self._widen(b, cut, source, target, count)
            else:
                extra = [self._pad(b, source, target, line) * _OFFSET for line in range(count)]
            source = target
        active = list_columns(b, source, count, columns, places)
        together = cut.per_block if count == 1 else 1
        with b.loop(first, last) as block:
            for start in range(0, cut.per_block, together):
                slab = block.i * cut.per_block + start
                own = b.elem(where.weights, slab * (columns * cut.width * cut.inputs), cut.memory)
                sums = self._sum(b, cut, own, source, places, active, count, together)
                for index, total in enumerate(sums):
                    line, vector = divmod(index, together * cut.vectors)
                    exact = total - b.splat(extra[line], b.lanes) if extra else total
                    self._store(b, exact, where, row + line, slab * cut.width + vector * b.lanes)

    def _widen(self, b: KernelBuilder, cut: Slabs, source: Val, target: Val, count: int) -> None:
        """Write `count` rows of int8 as numbers of the sums' type."""

        def step(at: Val, _: list[Val], mask: Val | None, lanes: int) -> list[Val]:
            narrow, address = vec(i8, lanes), b.elem(source, at, i8)
            value = b.sext(b.load(address, narrow) if mask is None else b.masked_load(address, narrow, mask), i32)
            made = b.sitofp(value, f32) if cut.number == f32 else value
            if mask is None:
                b.store(made, b.elem(target, at, i32))
            else:
                b.masked_store(made, b.elem(target, at, i32), mask)
            return []

        chunks(b, b.i64(0), b.i64(count * self.k), b.lanes, step)

    def _pad(self, b: KernelBuilder, source: Val, target: Val, line: int) -> Val:
        """Copy a row of int8 so that it ends with a whole four; the sum of the row."""
        here, there = b.elem(source, line * self.k, i8), b.elem(target, line * self._columns(b.isa), i32)
        wide, ones = vec(i32, b.lanes), b.const(1, vec(i8, 4 * b.lanes))

        def step(at: Val, total: list[Val], mask: Val | None, lanes: int) -> list[Val]:
            narrow, address = vec(i8, lanes), b.elem(here, at, i8)
            value = b.load(address, narrow) if mask is None else b.masked_load(address, narrow, mask)
            if mask is None:
                b.store(value, b.elem(there, at, i8))
            else:
                fours = b.mask_below(b.udiv(self.k - at + 3, 4), b.lanes)
                b.masked_store(b.bitcast(value, wide), b.elem(there, at, i8), fours)
            return [_dot(b, total[0], ones, value)]

        (sums,) = chunks(b, b.i64(0), b.i64(self.k), 4 * b.lanes, step, [b.zero(wide)])
        return b.intrinsic(f"llvm.vector.reduce.add.v{b.lanes}i32", i32, [sums])

    def _sum(
        self, b: KernelBuilder, cut: Slabs, weights: Val, x: Val, places: Val, active: Val, count: int, slabs: int
    ) -> list[Val]:
        """The sums of `count` rows in `slabs` neighbouring slabs, row by row."""
        number, vectors, columns = cut.number, slabs * cut.vectors, self._columns(b.isa)
        zeros = [b.zero(vec(number, b.lanes))] * (count * vectors)
        taken = b.lanes * cut.inputs
        with b.loop(0, active, 1, zeros) as loop:
            place = b.zext(b.load(b.elem(places, loop.i, i32), i32), i64)
            row = b.elem(weights, place * (cut.width * cut.inputs), cut.memory)
            loaded: list[Val] = []
            for vector in range(vectors):
                slab, inner = divmod(vector, cut.vectors)
                address = b.elem(row, (slab * columns * cut.vectors + inner) * taken, cut.memory)
                value = b.load(address, vec(cut.memory, taken))
                loaded.append(value if cut.inputs > 1 or number == f32 else b.sext(value, i32))
            # One register for all rows' addresses: an operand with an index would take two slots.
            column = b.intrinsic("llvm.launder.invariant.group.p0", ptr, [b.elem(x, place, number)])
            after: list[Val] = []
            for line in range(count):
                factor = b.splat(b.load(b.elem(column, line * columns, number), number), b.lanes)
                for vector, value in enumerate(loaded):
                    held = loop.carried[line * vectors + vector]
                    if cut.inputs > 1:
                        after.append(_dot(b, held, value, b.bitcast(factor, vec(i8, taken))))
                    else:
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


def _dot(b: KernelBuilder, total: Val, unsigned: Val, signed: Val) -> Val:
    """Products of bytes, four neighbouring ones added to each lane."""
    return b.intrinsic(f"llvm.x86.avx512.vpdpbusd.{32 * b.lanes}", vec(i32, b.lanes), [total, unsigned, signed])


@dataclass(frozen=True)
class _Places:
    """The arguments."""

    x: Val
    weights: Val
    bias: Val
    y: Val
    times: Val
    rows: Val
