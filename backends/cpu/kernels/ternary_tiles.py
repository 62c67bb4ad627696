"""The frame of the ternary product kernels: loops over tokens, row blocks, segments, column blocks and chunks.

`TileEmitter` writes the loops of a `Tiling` and keeps int32 sums in scratch memory; what happens in one chunk of one
column block is its subclasses' business. No encodings here.

A work unit is one row block for up to `TOKEN_BLOCK` tokens; all row blocks of the first token block come first, so that
a thread can keep what it prepared for its tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from neuc.backends.cpu.builder import KernelBuilder, Operand, Val, i8, i32, i64, vec
from neuc.backends.cpu.packing.tiling import Tiling

TOKEN_BLOCK = 32
"""Tokens per work unit: few enough that their activations and sums stay in the second-level cache."""
PREFETCH_AHEAD = 4096
"""How far behind the weights in use, in bytes, those are that `TileEmitter.prefetch` asks for."""
CACHE_LINE = 64


def scratch_bytes(tiling: Tiling, tokens: int = TOKEN_BLOCK) -> int:
    """Bytes the frame needs for the sums of a block of tokens."""
    return 4 * tokens * tiling.padded_block_rows


@dataclass(frozen=True)
class Places:
    """Where a block of tokens has its data.

    Attributes:
        activations: rows of activations, or tables, of the first token.
        activation_bytes: bytes from one token's to the next.
        weights: the packed matrix.
        sums: int32 [tokens, segments, rows], to be written.
        start: what sums start from, if weights come with that (`pack_lut`).
        scratch: memory of `scratch_bytes`, and what a subclass needs beyond.
    """

    activations: Val
    activation_bytes: Val | int
    weights: Val
    sums: Val
    start: Val
    scratch: Val


@dataclass(frozen=True)
class Following:
    """Weights to be fetched while others are used, as many as those.

    They are fetched from several pages at once: a processor looks ahead within a page, and in several pages at a time.

    Attributes:
        weights: address of their first byte.
        done: how many bytes of the weights in use come before the chunk's.
    """

    weights: Val
    done: Val


@dataclass(frozen=True)
class Chunk:
    """Where the code of one chunk stands.

    Attributes:
        weights: address of the chunk's first step.
        steps: how many steps there are (an i64).
        first_step: the first step's number within the segment.
        segment: the segment's number.
        token: the first token, counted from the unit's first.
        sums: address of the first token's int32 sums of the chunk's rows.
        following: what else there is to fetch in the meantime, if not just the bytes that come after these.
    """

    weights: Val
    steps: Val
    first_step: Val
    segment: Val
    token: Val
    sums: Val
    following: Following | None = None


class TileEmitter(ABC):
    """Writes ternary products: of one block of tokens (`block`), or a whole kernel of them (`emit`)."""

    token_sizes: tuple[int, ...] = (1,)
    """Numbers of tokens the chunk code takes together, falling, ending in 1."""

    def __init__(self, b: KernelBuilder, tiling: Tiling) -> None:
        self.b = b
        self.tiling = tiling
        self.token_bytes = 4 * tiling.padded_block_rows
        self.at = Places(b.args, 0, b.args, b.args, b.args, b.scratch)
        """Of the block being written."""

    @abstractmethod
    def chunk(self, at: Chunk, tokens: int) -> None:
        """Add the products of one chunk for `tokens` tokens to its sums."""

    @abstractmethod
    def initial(self, token: Val, segment: Val, row_block: Val, row: Val) -> Val:
        """What the sums of `b.lanes` rows from `row` of the block start from."""

    def prepare(self, tokens: Val) -> None:  # noqa: B027
        """Make ready a block of tokens; comes before any of its chunks."""

    def emit(self, activation_bytes: Val | int, start: Val) -> None:
        """Write a kernel. Argument slots: 0 activations, 1 weights, 2 sums out, 3 tokens.

        Args:
            activation_bytes: of one token.
            start: see `Places`.
        """
        b, t = self.b, self.tiling
        with b.loop(b.begin, b.end, init=[b.i64(-1)]) as unit:
            token_block = b.udiv(unit.i, t.row_blocks)
            row_block = unit.i - token_block * t.row_blocks
            first = token_block * TOKEN_BLOCK
            tokens = b.min(b.arg_int(3) - first, b.i64(TOKEN_BLOCK))
            self.at = Places(
                activations=b.ptr(b.arg_ptr(0), first * activation_bytes),
                activation_bytes=activation_bytes,
                weights=b.arg_ptr(1),
                sums=b.elem(b.arg_ptr(2), first * (t.segments * t.rows), i32),
                start=start,
                scratch=b.scratch,
            )
            with b.if_(b.icmp("ne", token_block, unit.carried[0])):
                self.prepare(tokens)
            self.block(tokens, row_block)
            unit.yield_([token_block])

    def block(self, tokens: Val, row_block: Val) -> None:
        """The products of one block of tokens, at `self.at`, with one block of rows."""
        with self.b.loop(0, self.tiling.segments) as segment:
            self._start(tokens, segment.i, row_block)
            self._column_blocks(tokens, segment.i, row_block)
            self._finish(tokens, segment.i, row_block)

    def add(self, value: Val, address: Val) -> None:
        """Add int32 lanes to sums."""
        b = self.b
        b.store(b.load(address, value.type) + value, address)

    def prefetch(self, weights: Val, count: int) -> None:
        """Ask for `count` bytes of weights ahead of their use; for code that uses them once, for a single token.

        Look-ups of a 6912x2560 matrix in the third-level cache became 14 % faster by it, of one in the second none.
        """
        self.fetch(self.b.ptr(weights, PREFETCH_AHEAD), count)

    def fetch(self, address: Val, count: int) -> None:
        """Ask for `count` bytes, for reading, to be kept in all caches."""
        b = self.b
        for at in range(0, count, CACHE_LINE):
            b.intrinsic("llvm.prefetch.p0", None, [b.ptr(address, at), b.i32(0), b.i32(3), b.i32(1)])

    def sums_of(self, at: Chunk, token: int, row: Operand) -> Val:
        """Address of a row's sum for the chunk's token number `token`."""
        return self.b.ptr(self.b.ptr(at.sums, token * self.token_bytes), self.b.as_val(row, i64) * 4)

    def _start(self, tokens: Val, segment: Val, row_block: Val) -> None:
        b = self.b
        with b.loop(0, tokens) as token, b.loop(0, self.tiling.padded_block_rows, b.lanes) as row:
            address = b.ptr(self.at.scratch, token.i * self.token_bytes + row.i * 4)
            b.store(self.initial(token.i, segment, row_block, row.i), address)

    def _column_blocks(self, tokens: Val, segment: Val, row_block: Val) -> None:
        b, t = self.b, self.tiling
        weights = b.ptr(self.at.weights, row_block * t.row_block_bytes + segment * t.segment_bytes)
        with b.loop(0, t.segment_steps, t.block_steps) as block:
            steps = b.min(t.segment_steps - block.i, b.i64(t.block_steps))
            block_weights = b.ptr(weights, block.i * (t.chunks * t.step_bytes))
            done = b.i64(0)
            for size in self.token_sizes:
                # Whole groups of `size` tokens; the smaller sizes take what is left.
                until = tokens - b.urem(tokens, size) if size > 1 else tokens
                with b.loop(done, until, size) as token, b.loop(0, t.chunks) as chunk:
                    sums = b.ptr(self.at.scratch, token.i * self.token_bytes + chunk.i * (4 * t.chunk_rows))
                    at = b.ptr(block_weights, chunk.i * (steps * t.step_bytes))
                    self.chunk(Chunk(at, steps, block.i, segment, token.i, sums), size)
                done = until

    def _finish(self, tokens: Val, segment: Val, row_block: Val) -> None:
        b, t = self.b, self.tiling
        lanes = vec(i32, b.lanes)
        first_row = row_block * t.block_rows
        rows = b.min(t.rows - first_row, b.i64(t.block_rows))
        with b.loop(0, tokens) as token:
            source = b.ptr(self.at.scratch, token.i * self.token_bytes)
            line = (token.i * t.segments + segment) * t.rows + first_row
            target = b.elem(self.at.sums, line, i32)
            with b.loop(0, rows, b.lanes) as row:
                value = b.load(b.elem(source, row.i, i32), lanes)
                if t.rows % b.lanes == 0:
                    b.store(value, b.elem(target, row.i, i32))
                else:
                    b.masked_store(value, b.elem(target, row.i, i32), b.mask_below(rows - row.i, b.lanes))


def bytes_of(b: KernelBuilder, address: Val, count: int) -> Val:
    """Load `count` neighbouring bytes as a vector."""
    return b.load(address, vec(i8, count))
