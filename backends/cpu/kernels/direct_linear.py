"""A linear layer of a direct encoding in one launch: products, scales, bias, activation and what follows element-wise.

A work unit is one chunk of rows for a block of tokens. Its int32 sums stay in registers, or in scratch memory where a
scale group's sum is over; nothing but outputs is written to memory. How it ends is said in `linear_epilogue.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i1, i32, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.direct import OneByWords, direct_emitter, direct_scratch_bytes
from neuc.backends.cpu.kernels.direct_base import DirectEmitter
from neuc.backends.cpu.kernels.direct_panel import PANEL_TOKEN_BLOCK, PanelProducts
from neuc.backends.cpu.kernels.direct_panel_amx import AmxPanelProducts
from neuc.backends.cpu.kernels.direct_panel_vnni import VnniPanelProducts
from neuc.backends.cpu.kernels.linear_epilogue import LinearPlaces, LinearWriter, Tail
from neuc.backends.cpu.kernels.ternary_dequantize import Epilogue
from neuc.backends.cpu.kernels.ternary_tiles import TOKEN_BLOCK, Chunk, Following, Places
from neuc.backends.cpu.packing.direct import QUAD, TILE_BYTES, DirectLayout
from neuc.errors import InternalError

_F16_LARGEST = 65504.0


@dataclass(frozen=True)
class DirectLinearKernel(KernelSpec):
    """Slots: 0 q (int8 [tokens, K]), 1 packed weights, 2 y (out, f32 [tokens, N]), 3 tokens, 4 s (f32),

    5 scales (`pack_scales`), 6 bias (f32 [N]; any integer if none), 7 tokens that share one s, from 8 on the operands
    of the tail that are not y. Packed weights are those of one plane after the other, each in `layout`.
    Work units: `units`. Scratch: `scratch_bytes`.

    Attributes:
        layout: one plane's packed matrix; a block of rows is one chunk, of as many steps as a scale group has.
        epilogue: from sums to outputs.
        half: whether scales are f16.
        tail: what follows.
        panels: whether many tokens are multiplied from unpacked panels of weights (`panel_products` says where they can
            be), which takes one scale a row.
    """

    layout: DirectLayout
    epilogue: Epilogue
    half: bool = False
    tail: Tail | None = None
    panels: bool = False

    family = "direct_linear"
    written = (2,)

    @property
    def token_block(self) -> int:
        """Tokens per work unit."""
        return PANEL_TOKEN_BLOCK if self.panels else TOKEN_BLOCK

    @property
    def name(self) -> str:
        """What it computes for the reader, and a hash of everything."""
        t, e = self.layout.tiling, self.epilogue
        said = [self.layout.code, f"{t.rows}x{t.columns}"]
        said += [f"group{t.segment}"] if t.segments > 1 else []
        said += [e.activation] if e.activation != "none" else []
        said += [instr.op.partition(".")[2] for instr in self.tail.body[:3]] if self.tail is not None else []
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:12]
        return "_".join([self.family, *said, digest])

    def units(self, tokens: int) -> int:
        """Work units of so many tokens."""
        return -(-tokens // self.token_block) * self.layout.tiling.row_blocks

    def scratch_bytes(self, isa: Isa) -> int:
        """Bytes of scratch memory."""
        kind = panel_products(isa) if self.panels else None
        return _panels_at(self, isa) + (0 if kind is None else kind.nbytes(self.layout))

    def build(self, isa: Isa) -> llvm.FuncOp:
        """The kernel for this instruction set."""
        b = KernelBuilder(self.name, isa)
        _LinearEmitter(b, self).emit()
        return b.finish()


def panel_products(isa: Isa) -> type[PanelProducts] | None:
    """What multiplies many tokens from unpacked panels, if an instruction set has that."""
    if isa.has_amx:
        return AmxPanelProducts
    return VnniPanelProducts if isa.has_vnni and isa.vector_bytes == TILE_BYTES else None


def _whole_lines(nbytes: int) -> int:
    return -(-nbytes // TILE_BYTES) * TILE_BYTES


def _token_scales_at(kernel: DirectLinearKernel, isa: Isa) -> int:
    """Where in scratch memory the activation scales of a block of tokens are: behind sums and the like."""
    return _whole_lines(direct_scratch_bytes(kernel.layout, isa, kernel.token_block))


def _panels_at(kernel: DirectLinearKernel, isa: Isa) -> int:
    """Where in scratch memory panels have their place."""
    return _token_scales_at(kernel, isa) + _whole_lines(4 * kernel.token_block)


def linear_layout(layout: DirectLayout) -> DirectLayout:
    """The layout of a fused layer: the same chunks, but one block each, and no blocks of columns."""
    t = layout.tiling
    return replace(layout, tiling=replace(t, block_rows=t.chunk_rows, block_steps=t.segment_steps))


def pack_scales(scales: np.ndarray, layout: DirectLayout) -> np.ndarray:
    """Scales f32 [P, N, G] as kernels read them: [chunk, P, G, row], f16 if that holds every one of them exactly."""
    planes, rows, groups = scales.shape
    t = layout.tiling
    padded = np.zeros((planes, t.row_blocks * t.block_rows, groups), np.float32)
    padded[:, :rows] = scales
    return half_if_exact(padded.reshape(planes, t.row_blocks, t.block_rows, groups).transpose(1, 0, 3, 2))


def half_if_exact(scales: np.ndarray) -> np.ndarray:
    """Scales f32 in C order, as f16 if that holds every one of them exactly."""
    ordered = np.ascontiguousarray(scales)
    if np.abs(ordered).max(initial=0) <= _F16_LARGEST:
        half = ordered.astype(np.float16)
        if np.array_equal(half.astype(np.float32).view(np.int32), ordered.view(np.int32)):
            return half
    return ordered


class _LinearEmitter:
    def __init__(self, b: KernelBuilder, spec: DirectLinearKernel) -> None:
        self.b = b
        self.spec = spec
        self.tiling = spec.layout.tiling
        if self.tiling.chunks != 1 or self.tiling.block_steps < self.tiling.segment_steps:
            raise InternalError("a fused linear layer needs the layout of `linear_layout`")
        self.products = direct_emitter(b, spec.layout, spec.token_block)
        self.writer = LinearWriter(b, spec.epilogue, spec.half, spec.tail)
        self.scale_bytes = 2 if spec.half else 4
        self.next_block, self.goes_on = b.i64(0), b.const(0, i1)
        self.panels = self._panels() if spec.panels else None

    def _panels(self) -> PanelProducts:
        b, spec, kind = self.b, self.spec, panel_products(self.b.isa)
        if kind is None or not self.writer.one_term:
            raise InternalError("panels need AMX or AVX-512 VNNI, and one scale a row")
        return kind(b, spec.layout, self._emitter(kind.least_tokens), self.writer, _panels_at(spec, b.isa))

    def emit(self) -> None:
        """Units; a thread keeps what it prepared for a block of tokens."""
        b, t, spec = self.b, self.tiling, self.spec
        s = b.ptr(b.scratch, _token_scales_at(spec, b.isa))
        with b.loop(b.begin, b.end, init=[b.i64(-1)]) as unit:
            token_block = b.udiv(unit.i, t.row_blocks)
            row_block = unit.i - token_block * t.row_blocks
            first = token_block * spec.token_block
            tokens = b.min(b.arg_int(3) - first, b.i64(spec.token_block))
            q = b.ptr(b.arg_ptr(0), first * t.columns)
            # At the end of a thread's range there is nothing to fetch but what is in cache.
            goes_on = b.icmp("slt", unit.i + 1, b.end) & b.icmp("slt", row_block + 1, t.row_blocks)
            self.next_block, self.goes_on = b.select(goes_on, row_block + 1, row_block), goes_on
            if self.writer.one_term:
                self.products.fetch(self._scales(row_block), t.block_rows * self.scale_bytes)
            self.products.at = Places(q, t.columns, b.arg_ptr(1), b.scratch, b.scratch, b.scratch)
            with b.if_(b.icmp("ne", token_block, unit.carried[0])):
                self.writer.prepare(first, tokens, s)
                at = self.products.at
                self._by_tokens(tokens, lambda panels: panels.prepare(at, tokens), self.products.prepare)
            first_row = row_block * t.block_rows
            rows = b.min(t.rows - first_row, b.i64(t.block_rows))
            ends = LinearPlaces(b.scratch, self._scales(row_block), first, first_row, t.padded_block_rows, s)
            self._by_tokens(
                tokens,
                lambda panels: self._write_panels(panels, row_block, ends, tokens, rows),
                lambda few: self._write_vectors(few, row_block, ends, rows),
            )
            unit.yield_([token_block])
        if self.panels is not None:
            self.writer.finish_panels()

    def _by_tokens(self, tokens: Val, many: Callable[[PanelProducts], None], few: Callable[[Val], None]) -> None:
        """One way for as many tokens as panels are for, another for fewer."""
        if self.panels is None:
            few(tokens)
            return
        with self.b.if_(self.b.icmp("sge", tokens, self.panels.least_tokens)) as branch:
            many(self.panels)
        with branch.else_():
            few(tokens)

    def _write_panels(self, panels: PanelProducts, row_block: Val, ends: LinearPlaces, tokens: Val, rows: Val) -> None:
        b, nbytes = self.b, self.tiling.row_block_bytes
        # Behind a piece of a thread's range comes its next one, as a rule.
        further = b.min(row_block + 1, b.i64(self.tiling.row_blocks - 1))
        weights, following = (b.ptr(b.arg_ptr(1), block * nbytes) for block in (row_block, further))
        panels.write(self.products.at, weights, following, self.goes_on, ends, tokens, rows)

    def _write_vectors(self, tokens: Val, row_block: Val, ends: LinearPlaces, rows: Val) -> None:
        self._vectors(tokens, row_block)
        self.writer.write(ends, tokens, rows)

    def _scales(self, row_block: Val) -> Val:
        e, t = self.spec.epilogue, self.tiling
        size = e.planes * e.segments * t.block_rows * self.scale_bytes
        return self.b.ptr(self.b.arg_ptr(5), row_block * size)

    def _vectors(self, tokens: Val, row_block: Val) -> None:
        """Sums of one chunk for all tokens, in scratch memory."""
        b, products = self.b, self.products
        done, sizes = b.i64(0), products.token_sizes
        if self.panels is not None:
            sizes = [size for size in sizes if size < self.panels.least_tokens]
        for size in sizes:
            # Whole groups of `size` tokens; the smaller sizes take what is left.
            until = tokens - b.urem(tokens, size) if size > 1 else tokens
            emitter = self._emitter(size)
            emitter.at = products.at
            vectors, window = emitter.shape(size)
            with b.loop(done, until, size) as token, b.loop(0, emitter.chunk_vectors, vectors) as first:
                self._tile(emitter, row_block, token.i, first.i, (size, vectors, window))
            done = until

    def _emitter(self, tokens: int) -> DirectEmitter:
        if isinstance(self.products, OneByWords):
            return self.products.one if tokens == 1 else self.products.several
        assert isinstance(self.products, DirectEmitter)
        return self.products

    def _tile(
        self, emitter: DirectEmitter, row_block: Val, token: Val, first: Val, shape: tuple[int, int, int]
    ) -> None:
        """Some vectors of rows for some tokens: sums over all planes and scale groups."""
        b, t = self.b, self.tiling
        tokens, vectors, _ = shape
        if self.writer.one_term:
            values = self._sums(emitter, row_block, token, first, b.i64(0), b.i64(0), shape)
        else:
            zero = b.zero(vec(f32, emitter.vector_bytes // QUAD))
            e = self.spec.epilogue
            with b.loop(0, e.planes, init=[zero] * (tokens * vectors)) as plane:
                with b.loop(0, t.segments, init=plane.carried) as segment:
                    term = plane.i * t.segments + segment.i
                    sums = self._sums(emitter, row_block, token, first, plane.i, segment.i, shape)
                    scales = self._row_scales(emitter, row_block, first, term, vectors)
                    segment.yield_(
                        self.writer.add_term(y, total, scales[place % vectors])
                        for place, (y, total) in enumerate(zip(segment.carried, sums, strict=True))
                    )
                plane.yield_(segment.results)
            values = plane.results
        for place, value in enumerate(values):
            row = (first + place % vectors) * (emitter.vector_bytes // QUAD)
            line = (token + place // vectors) * t.padded_block_rows
            b.store(value, b.elem(b.scratch, line + row, i32))

    def _row_scales(self, emitter: DirectEmitter, row_block: Val, first: Val, term: Val, vectors: int) -> list[Val]:
        b, lanes = self.b, emitter.vector_bytes // QUAD
        place, nbytes = term * (self.tiling.block_rows * self.scale_bytes), vectors * lanes * self.scale_bytes
        self.products.fetch(b.ptr(self._scales(self.next_block), place + first * (lanes * self.scale_bytes)), nbytes)
        scales = b.ptr(self._scales(row_block), place)
        return [self.writer.scales(scales, (first + vector) * lanes, lanes) for vector in range(vectors)]

    def _sums(
        self,
        emitter: DirectEmitter,
        row_block: Val,
        token: Val,
        first: Val,
        plane: Val,
        segment: Val,
        shape: tuple[int, int, int],
    ) -> list[Val]:
        """Int32 sums of one scale group."""
        b, t = self.b, self.tiling
        tokens, vectors, window = shape
        own, following = (
            b.ptr(b.arg_ptr(1), plane * t.nbytes + block * t.row_block_bytes) for block in (row_block, self.next_block)
        )
        steps, vector_bytes = t.segment_steps, emitter.vector_bytes
        done = first * (t.segments * steps * vector_bytes) + segment * (steps * vectors * vector_bytes)
        at = Chunk(
            weights=b.ptr(own, segment * t.segment_bytes),
            steps=b.i64(steps),
            first_step=b.i64(0),
            segment=segment,
            token=token,
            sums=b.scratch,
            following=Following(following, done),
        )
        totals = emitter.totals(at, first, vectors, tokens, window)
        if not self.spec.layout.low:
            return totals
        lanes = emitter.vector_bytes // QUAD
        low = [emitter.low_sums(token + i, segment, lanes) for i in range(tokens)]
        return [total + low[place // vectors] for place, total in enumerate(totals)]
