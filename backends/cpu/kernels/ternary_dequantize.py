"""`ternary.dequantize`: int32 sums to f32, bit for bit what `dialects/interp/ternary.py` says (before the activation).

y = 0; for each plane p, for each segment g: y += f32(acc[g, p·N + n])·scale[p, g, n]; then y·s, then + bias[n], each
operation rounded once; then the activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import llvm
from xdsl.ir import Attribute

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i32
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec

COLUMN_BLOCK = 512
"""Outputs per work unit of `TernaryDequantizeKernel`."""
UNROLLED_TERMS = 4
"""Planes x segments up to which the sum over them is written out."""


@dataclass(frozen=True)
class Epilogue:
    """What turns the sums of N outputs into their values.

    Attributes:
        rows: N.
        planes: P.
        segments: G.
        bias: whether there is one.
        activation: kind, and its parameters.
        alpha: first parameter.
        beta: second parameter.
    """

    rows: int
    planes: int
    segments: int
    bias: bool
    activation: str = "none"
    alpha: float = 0.0
    beta: float = 0.0

    def scaled(self, b: KernelBuilder, sums: Sequence[Val], scales: Val, n: Val, mask: Val | None) -> list[Val]:
        """Σ f32(acc)·scale of `b.lanes` outputs from n, for each address in `sums`; masked lanes are not read."""
        terms, zero = self.planes * self.segments, b.zero(b.vtype(f32))
        if terms <= UNROLLED_TERMS:
            values = [zero] * len(sums)
            for term in range(terms):
                values = self._add_term(b, values, sums, scales, b.i64(term), n, mask)
            return values
        with b.loop(0, terms, init=[zero] * len(sums)) as term:
            term.yield_(self._add_term(b, term.carried, sums, scales, term.i, n, mask))
        return term.results

    def _add_term(
        self,
        b: KernelBuilder,
        values: Sequence[Val],
        sums: Sequence[Val],
        scales: Val,
        term: Val,
        n: Val,
        mask: Val | None,
    ) -> list[Val]:
        plane = b.udiv(term, self.segments)
        segment = term - plane * self.segments
        offset = n + (segment * self.planes + plane) * self.rows
        scale = _load(b, b.elem(scales, n + term * self.rows, f32), f32, mask)
        return [
            value + b.sitofp(_load(b, b.elem(line, offset, i32), i32, mask), f32) * scale
            for value, line in zip(values, sums, strict=True)
        ]

    def activate(self, b: KernelBuilder, y: Val) -> Val:
        """The activation."""
        return vecmath.activate(b, y, self.activation, self.alpha, self.beta)


@dataclass(frozen=True)
class TernaryDequantizeKernel(KernelSpec):
    """Slots: 0 acc (int32 [tokens, G, P·N]), 1 s (f32), 2 scales (f32 [P, G, N]), 3 bias (any integer if none),

    4 y (out, f32 [tokens, N]), 5 tokens that share one s. Work units: tokens x ceil(N / `COLUMN_BLOCK`).
    """

    epilogue: Epilogue

    family = "ternary_dequantize"
    written = (4,)

    @property
    def units_per_token(self) -> int:
        """Work units per row of outputs."""
        return -(-self.epilogue.rows // COLUMN_BLOCK)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Whole vectors, then one masked."""
        b, e = KernelBuilder(self.name, isa), self.epilogue
        with b.loop(b.begin, b.end) as unit:
            token = b.udiv(unit.i, self.units_per_token)
            first = (unit.i - token * self.units_per_token) * COLUMN_BLOCK
            count = b.min(e.rows - first, b.i64(COLUMN_BLOCK))
            sums = b.elem(b.arg_ptr(0), token * (e.segments * e.planes * e.rows), i32)
            s = b.load(b.elem(b.arg_ptr(1), b.udiv(token, b.arg_int(5)), f32), f32)
            y = b.elem(b.arg_ptr(4), token * e.rows, f32)
            until = first + (count - b.urem(count, b.lanes))
            with b.loop(first, until, b.lanes) as n:
                b.store(self._value(b, sums, s, n.i, None), b.elem(y, n.i, f32))
            if e.rows % b.lanes:
                with b.if_(b.icmp("slt", until, first + count)):
                    mask = b.mask_below(first + count - until, b.lanes)
                    b.masked_store(self._value(b, sums, s, until, mask), b.elem(y, until, f32), mask)
        return b.finish()

    def _value(self, b: KernelBuilder, sums: Val, s: Val, n: Val, mask: Val | None) -> Val:
        y = self.epilogue.scaled(b, [sums], b.arg_ptr(2), n, mask)[0] * b.splat(s, b.lanes)
        if self.epilogue.bias:
            y = y + _load(b, b.elem(b.arg_ptr(3), n, f32), f32, mask)
        return self.epilogue.activate(b, y)


@dataclass(frozen=True)
class DequantizeTransposedKernel(KernelSpec):
    """Slots: 0 acc (int32 [batch, pixels, G, P·rows]), 1 s (f32 [batch]), 2 scales (f32 [P, G, rows]),

    3 bias (f32 [channels]; any integer if none), 4 y (out, f32 [batch, channels, pixels]), 5 pixels, 6 first channel,
    7 channels. Work units: batch x ceil(pixels / `isa.f32_lanes`). For convolutions: `rows` of the channels, from the
    first one on.
    """

    epilogue: Epilogue

    family = "dequantize_transposed"
    written = (4,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Square blocks of as many pixels and channels as a vector has lanes, transposed in registers."""
        b, e = KernelBuilder(self.name, isa), self.epilogue
        pixels = b.arg_int(5)
        bias = b.elem(b.arg_ptr(3), b.arg_int(6), f32)
        blocks = b.udiv(pixels + (b.lanes - 1), b.lanes)
        with b.loop(b.begin, b.end) as unit:
            image = b.udiv(unit.i, blocks)
            pixel = (unit.i - image * blocks) * b.lanes
            s = b.splat(b.load(b.elem(b.arg_ptr(1), image, f32), f32), b.lanes)
            sums = b.elem(b.arg_ptr(0), (image * pixels + pixel) * (e.segments * e.planes * e.rows), i32)
            y = b.elem(b.arg_ptr(4), (image * b.arg_int(7) + b.arg_int(6)) * pixels + pixel, f32)
            TransposedWriter(b, e, b.arg_ptr(2), bias, s, pixels).write(sums, y, pixels - pixel)
        return b.finish()


@dataclass(frozen=True)
class TransposedWriter:
    """Writes the code that makes outputs of sums and stores them channel by channel.

    Attributes:
        b: where to write.
        epilogue: what is computed.
        scales: address of f32 [P, G, rows].
        bias: address of f32 [rows], if the epilogue has one.
        s: the image's scale in every lane.
        pixels: outputs per channel.
    """

    b: KernelBuilder
    epilogue: Epilogue
    scales: Val
    bias: Val
    s: Val
    pixels: Val

    def write(self, sums: Val, y: Val, count: Val) -> None:
        """All rows of up to `b.lanes` pixels.

        Args:
            sums: address of the first pixel's.
            y: address of the first pixel's output in the first channel.
            count: how many pixels there are; those after `b.lanes` are left out.
        """
        b, rows = self.b, self.epilogue.rows
        full = rows // b.lanes * b.lanes
        with b.loop(0, full, b.lanes) as n:
            self._block(sums, y, count, n.i, b.lanes)
        if rows > full:
            self._block(sums, y, count, b.i64(full), rows - full)

    def _block(self, sums: Val, y: Val, count: Val, n: Val, channels: int) -> None:
        b, e = self.b, self.epilogue
        mask = None if channels == b.lanes else b.mask_below(b.i64(channels), b.lanes)
        line = e.segments * e.planes * e.rows
        # Past the last pixel the last one is read again; only real ones are stored.
        lines = [b.elem(sums, b.min(count - 1, b.i64(i)) * line, i32) for i in range(b.lanes)]
        rows = e.scaled(b, lines, self.scales, n, mask)
        whole = b.icmp("sle", b.i64(b.lanes), count)
        inside = b.mask_below(count, b.lanes)
        for i, value in enumerate(transpose(b, rows)[:channels]):
            value = value * self.s
            if e.bias:
                value = value + b.splat(b.load(b.elem(self.bias, n + i, f32), f32), b.lanes)
            value = e.activate(b, value)
            address = b.elem(y, (n + i) * self.pixels, f32)
            with b.if_(whole) as branch:
                b.store(value, address)
            with branch.else_():
                b.masked_store(value, address, inside)


def _load(b: KernelBuilder, address: Val, elem: Attribute, mask: Val | None) -> Val:
    type_ = b.vtype(elem)
    return b.load(address, type_) if mask is None else b.masked_load(address, type_, mask)


def transpose(b: KernelBuilder, rows: list[Val]) -> list[Val]:
    """The columns of a square of lanes."""
    size = len(rows)
    half = size // 2
    while half:
        # Swap the off-diagonal quarters of every square of 2·half.
        swapped = list(rows)
        upper = [i if not i & half else size + (i ^ half) for i in range(size)]
        lower = [(i | half) if not i & half else size + i for i in range(size)]
        for i in range(size):
            if not i & half:
                swapped[i] = b.shuffle(rows[i], rows[i | half], upper)
                swapped[i | half] = b.shuffle(rows[i], rows[i | half], lower)
        rows = swapped
        half //= 2
    return rows
