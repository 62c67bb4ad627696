"""Direct products on AMX tiles: `tdpbsud` multiplies 16 tokens by 16 rows, 64 columns at a time.

For many tokens. A block of one chunk's columns is unpacked to plain codes first, which then serve all tokens: 64
columns of 16 rows, as quads of columns one after the other, are just what a tile of weights is. Four tiles of sums stay
in registers for two by two tiles of tokens and rows.

Tiles are registers that a kernel configures and lets go of itself. No other unit of the processor is used for products
here; for few tokens there is `direct_vnni.py`.
"""

from __future__ import annotations

from math import gcd

from neuc.backends.cpu.builder import KernelBuilder, Operand, Val, i8, i32, vec
from neuc.backends.cpu.kernels.direct_base import DirectEmitter
from neuc.backends.cpu.kernels.ternary_tiles import Places
from neuc.backends.cpu.packing.direct import QUAD, TILE_BYTES, TILE_ROWS, DirectLayout

TILE_TOKENS = 16
AMX_TOKEN_BLOCK = 128
"""Tokens per work unit: so many share what was unpacked."""
AMX_LEAST_TOKENS = 16
"""Fewer tokens than fill a tile are multiplied as vectors."""
_TILE_COLUMNS = 64
_TILE_NBYTES = TILE_TOKENS * _TILE_COLUMNS
_BLOCK_COLUMNS = 512
"""Columns unpacked at a time, about: four tiles of rows by these fill two thirds of L1."""
_CONFIG_BYTES = 64


class AmxProducts:
    """Writes the products of one chunk of rows for a block of tokens.

    Scratch memory from `place` on: the tile configuration, unpacked codes, then copied activations.

    Args:
        b: where to write.
        layout: the packed matrix.
        place: the first byte of scratch memory to use, a multiple of 64.
        tokens: the most there are in a block, a multiple of 16.
    """

    def __init__(self, b: KernelBuilder, layout: DirectLayout, place: int, tokens: int) -> None:
        self.b = b
        self.layout = layout
        self.tiling = layout.tiling
        self._config = place
        self._codes = place + _CONFIG_BYTES
        self._copies = self._codes + layout.tiles * _block_quads(layout) * TILE_BYTES
        self._stride = _padded_columns(layout)
        self._tokens = tokens

    # ---------------------------------------------------------------- activations

    def prepare(self, at: Places, tokens: Val) -> None:
        """Copy the activations of a block of tokens, filled up to whole tiles, unless they can be read in place."""
        b, columns = self.b, self.tiling.columns
        with b.if_(self._copied(tokens)), b.loop(0, tokens) as token:
            source = b.ptr(at.activations, token.i * at.activation_bytes)
            target = b.ptr(b.scratch, token.i * self._stride + self._copies)
            whole = columns // _TILE_COLUMNS * _TILE_COLUMNS
            with b.loop(0, whole, _TILE_COLUMNS) as column:
                b.store(b.load(b.ptr(source, column.i), vec(i8, _TILE_COLUMNS)), b.ptr(target, column.i))
            if columns > whole:
                mask = b.mask_below(b.i64(columns - whole), _TILE_COLUMNS)
                rest = b.masked_load(b.ptr(source, whole), vec(i8, _TILE_COLUMNS), mask)
                b.store(rest, b.ptr(target, whole))

    def _copied(self, tokens: Val) -> Val:
        b = self.b
        if self._stride != self.tiling.columns:
            return b.icmp("eq", b.i64(0), b.i64(0))
        return b.icmp("ne", b.urem(tokens, TILE_TOKENS), 0)

    # ---------------------------------------------------------------- products

    def sums(self, at: Places, weights: Val, tokens: Val, emitter: DirectEmitter) -> None:
        """Int32 sums of a chunk's rows for all tokens, to scratch memory as the frame of kernels has them.

        Tokens are taken by 16; sums of those that fill up the last tile mean nothing.
        """
        b, t, layout = self.b, self.tiling, self.layout
        tiles, quads = layout.tiles, _block_quads(layout)
        block_steps = quads // layout.planes
        self._configure()
        copied = self._copied(tokens)
        activations = b.select(copied, b.ptr(b.scratch, self._copies), at.activations)
        stride = b.select(copied, b.i64(self._stride), b.as_val(at.activation_bytes, b.i64(0).type))
        groups = b.udiv(tokens + (TILE_TOKENS - 1), TILE_TOKENS)
        pairs = groups - b.urem(groups, 2)
        with b.loop(0, t.segment_steps, block_steps) as block:
            steps = b.min(t.segment_steps - block.i, b.i64(block_steps))
            self._unpack(emitter, b.ptr(weights, block.i * t.step_bytes), steps)
            depth = b.udiv(steps * layout.planes + (TILE_ROWS - 1), TILE_ROWS)
            x = b.ptr(activations, block.i * t.step_columns)
            for first, until, count in ((b.i64(0), pairs, 2), (pairs, groups, 1)):
                with b.loop(first, until, count) as group:
                    rows_of_x = b.ptr(x, group.i * TILE_TOKENS * stride)
                    for row in range(0, tiles, 2):
                        shape = (count, min(2, tiles - row))
                        self._tiles(rows_of_x, stride, group.i, row, shape, depth, block.i)
        b.intrinsic("llvm.x86.tilerelease", None, [])
        self._finish(tokens, emitter)

    def _configure(self) -> None:
        """All eight tiles with 16 rows of 64 bytes."""
        b = self.b
        config = [1, *[0] * 15, *[_TILE_COLUMNS, 0] * 8, *[0] * 16, *[TILE_TOKENS] * 8, *[0] * 8]
        address = b.ptr(b.scratch, self._config)
        b.store(b.const(config, vec(i8, _CONFIG_BYTES)), address)
        b.intrinsic("llvm.x86.ldtilecfg", None, [address])

    def _unpack(self, emitter: DirectEmitter, weights: Val, steps: Val) -> None:
        """Codes of some steps as bytes, quad after quad for each tile of rows; the last 64 columns filled up."""
        b, layout, planes = self.b, self.layout, self.layout.planes
        tiles, quads = layout.tiles, _block_quads(layout)
        window = next(w for w in (8, 4, 2, 1) if not any(emitter.codes.shifts(w)))
        codes = b.ptr(b.scratch, self._codes)
        with b.loop(0, steps) as step:
            for tile in range(tiles):
                source = b.ptr(weights, step.i * self.tiling.step_bytes + tile * TILE_BYTES)
                packed = b.load(source, vec(i8, TILE_BYTES))
                target = b.ptr(codes, step.i * (planes * TILE_BYTES) + tile * quads * TILE_BYTES)
                for plane, values in enumerate(emitter.codes.planes(b, packed, window)):
                    b.store(values, b.ptr(target, plane * TILE_BYTES))
        filled = steps * planes
        with b.loop(filled, b.udiv(filled + (TILE_ROWS - 1), TILE_ROWS) * TILE_ROWS) as quad:
            for tile in range(tiles):
                address = b.ptr(codes, quad.i * TILE_BYTES + tile * quads * TILE_BYTES)
                b.store(b.zero(vec(i8, TILE_BYTES)), address)

    def _tiles(self, x: Val, stride: Val, group: Val, row: int, shape: tuple[int, int], depth: Val, block: Val) -> None:
        """Add the products of one block of columns to `shape` tiles of sums: of tokens, and of rows."""
        b, t, (tokens, rows) = self.b, self.tiling, shape
        line = 4 * t.padded_block_rows
        places = [
            (number, b.ptr(b.scratch, (group + i) * (TILE_TOKENS * line) + (row + j) * 4 * TILE_ROWS))
            for number, (i, j) in enumerate((i, j) for i in range(tokens) for j in range(rows))
        ]
        with b.if_(b.icmp("eq", block, 0)) as branch:
            for number, _ in places:
                b.intrinsic("llvm.x86.tilezero", None, [b.const(number, i8)])
        with branch.else_():
            for number, address in places:
                self._tile("tileloadd64", number, address, line)
        codes = b.ptr(b.scratch, row * _block_quads(self.layout) * TILE_BYTES + self._codes)
        with b.loop(0, depth) as k:
            for i in range(tokens):
                self._tile("tileloadd64", 4 + i, b.ptr(x, k.i * _TILE_COLUMNS + i * TILE_TOKENS * stride), stride)
            for j in range(rows):
                address = b.ptr(codes, k.i * _TILE_NBYTES + j * _block_quads(self.layout) * TILE_BYTES)
                self._tile("tileloadd64", 6 + j, address, TILE_BYTES)
            for i in range(tokens):
                for j in range(rows):
                    numbers = [b.const(number, i8) for number in (i * rows + j, 4 + i, 6 + j)]
                    b.intrinsic("llvm.x86.tdpbsud", None, numbers)
        for number, address in places:
            self._tile("tilestored64", number, address, line)

    def _tile(self, what: str, number: int, address: Val, stride: Operand) -> None:
        b = self.b
        b.intrinsic(f"llvm.x86.{what}", None, [b.const(number, i8), address, b.as_val(stride, b.i64(0).type)])

    def _finish(self, tokens: Val, emitter: DirectEmitter) -> None:
        """Sums of codes to sums of weights: step·sum + low·Σ x."""
        b, t, layout = self.b, self.tiling, self.layout
        if layout.step == 1 and not layout.low:
            return
        lanes = TILE_BYTES // QUAD
        with b.loop(0, tokens) as token:
            low = emitter.low_sums(token.i, 0, lanes)
            for row in range(0, t.padded_block_rows, lanes):
                address = b.elem(b.scratch, token.i * t.padded_block_rows + row, i32)
                b.store(b.load(address, low.type) * layout.step + low, address)


def amx_scratch_bytes(layout: DirectLayout, tokens: int) -> int:
    """Bytes of scratch memory that `AmxProducts` needs for so many tokens at most."""
    return _CONFIG_BYTES + layout.tiles * _block_quads(layout) * TILE_BYTES + tokens * _padded_columns(layout)


def _padded_columns(layout: DirectLayout) -> int:
    """Columns that whole tiles have."""
    quads = layout.tiling.segment_steps * layout.planes
    return -(-quads // TILE_ROWS) * TILE_ROWS * QUAD


def _block_quads(layout: DirectLayout) -> int:
    """Quads of columns unpacked at a time: whole steps and whole tiles."""
    unit = layout.planes * TILE_ROWS // gcd(layout.planes, TILE_ROWS)
    whole = -(-layout.tiling.segment_steps * layout.planes // unit) * unit
    return min(whole, max(1, _BLOCK_COLUMNS // QUAD // unit) * unit)
