"""A layer of synapses between two trains: currents of four steps from sums over patterns of spikes.

Neurons that fire in the same steps of a frame have their rows of weights added up in registers first, and each sum goes
into the currents of these steps once. So the cost of a layer is one row for each neuron that is active in the frame,
however often it fires, and sixteen patterns bound what the currents themselves cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.dialects import llvm
from xdsl.ir import Attribute

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i8, i16, i32, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.spike_lists import FRAME, PATTERNS, compact, sort_by_pattern
from neuc.backends.cpu.kernels.strided import Args, chunks

_MOST_NARROW = 255
"""Rows of int8 that an int16 holds the sum of."""
_LINE = 64


@dataclass(frozen=True)
class RowBlocks:
    """How rows of `n` outputs are cut: into vectors, and these into what fits into registers.

    Attributes:
        n: outputs.
        weights: ``f32`` or ``i8``.
        isa: the instruction set.
        sums: how many sums of a vector are held at once.
    """

    n: int
    weights: str
    isa: Isa
    sums: int = 1

    @property
    def lanes(self) -> int:
        """Weights in a vector: where a single sum is held, int8 ones add up in int16."""
        narrow = self.weights == "i8" and self.sums == 1 and self.isa.f32_lanes > 1
        return self.isa.f32_lanes * (2 if narrow else 1)

    @property
    def vectors(self) -> int:
        """Vectors in a row."""
        return -(-self.n // self.lanes)

    @property
    def per_block(self) -> int:
        """Vectors in a block: as many as registers hold beside what is loaded."""
        most = max(1, (16 if self.isa.f32_lanes == 1 else self.isa.registers) // (2 * self.sums))
        blocks = -(-self.vectors // most)
        return -(-self.vectors // blocks)

    @property
    def blocks(self) -> int:
        """Blocks in a row."""
        return -(-self.vectors // self.per_block)

    @property
    def width(self) -> int:
        """Outputs in a block."""
        return self.per_block * self.lanes

    @property
    def stride(self) -> int:
        """Weights from row to row."""
        return self.blocks * self.width

    @property
    def memory(self) -> Attribute:
        """The type of a weight."""
        return f32 if self.weights == "f32" else i8

    @property
    def number(self) -> Attribute:
        """The type of a current."""
        return f32 if self.weights == "f32" else i32

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """W[N, K] as rows [K, stride] of one input neuron each, missing outputs zero."""
        packed = np.zeros((weight.shape[1], self.stride), weight.dtype)
        packed[:, : self.n] = weight.T
        return packed


@dataclass(frozen=True)
class SpikeLinearKernel(KernelSpec):
    """Currents[t, b, n] = bias[n] + Σ_k event of k in step t · W[n, k].

    Slots: train [B, frames, K], W as `RowBlocks.pack` has it, bias [N] (any address if there is none), currents [T, B,
    N] (f32, or i32 for int8 weights), T, B. Work: B · blocks. Scratch: `scratch_bytes`.

    Floats add up in an order of their own. Binary: rows of one pattern in the order of neurons, patterns in the order
    of their numbers; others: in the order of neurons, multiplied and added as the machine does. The bias comes last.

    Attributes:
        k: input neurons.
        n: output neurons.
        weights: ``f32`` or ``i8``.
        bias: there is a bias, f32 or i32.
        binary: events are 0 or 1; else any int8.
    """

    k: int
    n: int
    weights: str
    bias: bool
    binary: bool = True
    family: ClassVar[str] = "spike_linear"
    written = (3,)

    def blocks(self, isa: Isa) -> RowBlocks:
        """How outputs are cut."""
        return RowBlocks(self.n, self.weights, isa, 1 if self.binary else FRAME)

    def scratch_bytes(self, isa: Isa) -> int:
        """Lists of active neurons, by place and by pattern, and a block of currents."""
        return Workspace.nbytes(self.k, isa, self.binary) + FRAME * 4 * self.blocks(isa).width

    def build(self, isa: Isa) -> llvm.FuncOp:
        """For each sample: for each frame: lists, then sums for each block of outputs that is this thread's."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        train, weights, bias, currents = (args.ptr() for _ in range(4))
        steps, samples = args.ints(2)
        cut = self.blocks(isa)
        room = Workspace.at(b, b.scratch, self.k, self.binary)
        sums = b.ptr(b.scratch, Workspace.nbytes(self.k, isa, self.binary))
        frames = b.udiv(steps + (FRAME - 1), FRAME)
        with b.loop(b.udiv(b.begin, cut.blocks), b.udiv(b.end + (cut.blocks - 1), cut.blocks)) as sample:
            first = b.max(b.begin - sample.i * cut.blocks, 0)
            last = b.min(b.end - sample.i * cut.blocks, cut.blocks)
            with b.loop(0, frames) as frame:
                active = room.fill(b, b.elem(train, (sample.i * frames + frame.i) * self.k, i32))
                with b.loop(first, last) as block:
                    column = block.i * cut.width
                    own = b.elem(weights, column, cut.memory)
                    if self.binary:
                        add_patterns(b, cut, room, own, sums)
                    else:
                        add_levels(b, cut, room, active, own, sums)
                    for step in range(FRAME):
                        t = frame.i * FRAME + step
                        with b.if_(b.icmp("slt", t, steps)):
                            row = b.elem(currents, (t * samples + sample.i) * self.n, i32)
                            self._finish(b, cut, b.elem(sums, step * cut.width, i32), bias, row, column)
        return b.finish()

    def _finish(self, b: KernelBuilder, cut: RowBlocks, sums: Val, bias: Val, row: Val, column: Val) -> None:
        """Add the bias and store a block of one step's currents."""
        wide = vec(cut.number, b.lanes)
        left = b.min(self.n - column, cut.width)

        def store(at: Val, _: list[Val], mask: Val | None, lanes: int) -> list[Val]:
            value = b.load(b.elem(sums, at, cut.number), wide)
            if self.bias:
                own = b.elem(bias, column + at, cut.number)
                value = value + (b.load(own, wide) if mask is None else b.masked_load(own, wide, mask))
            target = b.elem(row, column + at, cut.number)
            if mask is None:
                b.store(value, target)
            else:
                b.masked_store(value, target, mask)
            return []

        chunks(b, b.i64(0), left, b.lanes, store)


@dataclass(frozen=True)
class Workspace:
    """Where a thread keeps its lists.

    Attributes:
        count: neurons there are at most.
        indices: places of active ones.
        values: their frames.
        lists: places by pattern, of binary events.
        ends: how many there are of each pattern.
    """

    count: int
    indices: Val
    values: Val
    lists: Val
    ends: Val
    binary: bool

    @staticmethod
    def nbytes(count: int, isa: Isa, binary: bool = True) -> int:
        """Bytes it takes, a multiple of a cache line."""
        padded = count + isa.f32_lanes
        return -(-(8 * PATTERNS + 4 * padded * (2 + (PATTERNS if binary else 0))) // _LINE) * _LINE

    @staticmethod
    def at(b: KernelBuilder, address: Val, count: int, binary: bool = True) -> Workspace:
        """The workspace at an address."""
        padded = count + b.isa.f32_lanes
        indices = b.ptr(address, 8 * PATTERNS)
        values = b.elem(indices, padded, i32)
        return Workspace(count, indices, values, b.elem(values, padded, i32), address, binary)

    def fill(self, b: KernelBuilder, frames: Val) -> Val:
        """List the active among the frames at an address, binary ones by pattern, too; how many there are."""
        active = compact(b, frames, self.count, self.indices, self.values, i32)
        if self.binary:
            sort_by_pattern(b, self.indices, self.values, active, self.lists, self.count, self.ends)
        return active


def add_patterns(b: KernelBuilder, cut: RowBlocks, room: Workspace, weights: Val, sums: Val) -> None:
    """Set ``sums[step, column]`` of a block to the weights of all neurons that fire in the step.

    Args:
        b: the builder.
        cut: how rows lie.
        room: lists by pattern.
        weights: the block's first column of row 0.
        sums: [4, cut.width] of f32 or i32.
    """
    element = cut.number
    none = b.zero(vec(element, b.lanes))
    with b.loop(0, FRAME * cut.width, b.lanes) as clear:
        b.store(none, b.elem(sums, clear.i, element))
    with b.loop(1, PATTERNS) as pattern:
        length = b.load(b.elem(room.ends, pattern.i, i64), i64)
        own = b.elem(room.lists, pattern.i * room.count, i32)
        most = length if cut.weights == "f32" else b.i64(_MOST_NARROW)
        with b.if_(b.icmp("sgt", length, 0)), b.loop(0, length, most) as piece:
            total = add_rows(b, cut, own, piece.i, b.min(piece.i + most, length), weights)
            for step in range(FRAME):
                with b.if_(b.icmp("ne", pattern.i & (1 << step), 0)):
                    spread_sum(b, cut, total, b.elem(sums, step * cut.width, element))


def add_rows(b: KernelBuilder, cut: RowBlocks, places: Val, lo: Val, hi: Val, weights: Val) -> list[Val]:
    """The sum of the listed rows of a block, in registers: f32, or int16 of at most 255 rows of int8."""
    narrow = cut.weights == "i8"
    wide = vec(i16 if narrow else f32, cut.lanes)
    zeros = [b.zero(wide)] * cut.per_block
    with b.loop(lo, hi, 1, zeros) as loop:
        place = b.zext(b.load(b.elem(places, loop.i, i32), i32), i64)
        row = b.elem(weights, place * cut.stride, i8 if narrow else f32)
        sums: list[Val] = []
        for vector, sum_ in enumerate(loop.carried):
            here = b.elem(row, vector * cut.lanes, i8 if narrow else f32)
            value = b.sext(b.load(here, vec(i8, cut.lanes)), i16) if narrow else b.load(here, wide)
            sums.append(sum_ + value)
        loop.yield_(sums)
    return loop.results


def spread_sum(b: KernelBuilder, cut: RowBlocks, total: list[Val], target: Val) -> None:
    """Add a block's sum to memory; int16 becomes int32."""
    for vector, value in enumerate(total):
        if cut.weights == "f32":
            address = b.elem(target, vector * cut.lanes, f32)
            b.store(b.load(address, vec(f32, cut.lanes)) + value, address)
        else:
            address = b.elem(target, vector * cut.lanes, i32)
            b.store(b.load(address, vec(i32, cut.lanes)) + b.sext(value, i32), address)


def add_levels(b: KernelBuilder, cut: RowBlocks, room: Workspace, active: Val, weights: Val, sums: Val) -> None:
    """Set ``sums[step, column]`` of a block to the weights of all active neurons times their events.

    As `add_patterns`, for events of any int8: all four steps are held in registers.
    """
    wide = vec(cut.number, cut.lanes)
    zeros = [b.zero(wide)] * (FRAME * cut.per_block)
    with b.loop(0, active, 1, zeros) as loop:
        place = b.zext(b.load(b.elem(room.indices, loop.i, i32), i32), i64)
        frame = b.load(b.elem(room.values, loop.i, i32), i32)
        row = b.elem(weights, place * cut.stride, cut.memory)
        values: list[Val] = []
        for vector in range(cut.per_block):
            value = b.load(b.elem(row, vector * cut.lanes, cut.memory), vec(cut.memory, cut.lanes))
            values.append(value if cut.weights == "f32" else b.sext(value, i32))
        after: list[Val] = []
        for step in range(FRAME):
            event = (frame << (24 - 8 * step)).ashr(24)
            factor = b.splat(b.sitofp(event, f32) if cut.weights == "f32" else event, cut.lanes)
            for vector, value in enumerate(values):
                held = loop.carried[step * cut.per_block + vector]
                after.append(b.fma(value, factor, held) if cut.weights == "f32" else held + value * factor)
        loop.yield_(after)
    for index, total in enumerate(loop.results):
        step, vector = divmod(index, cut.per_block)
        b.store(total, b.elem(sums, step * cut.width + vector * cut.lanes, cut.number))
