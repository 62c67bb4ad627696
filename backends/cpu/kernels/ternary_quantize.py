"""`ternary.quantize`: f32 rows to int8 codes and one scale, bit for bit what `dialects/interp/ternary.py` says.

a = 127 / max(max|x|, 1e-5) or (1 / max) · 127, q = round-half-even(x·a), s = 1 / a, each operation rounded once.
Clipping to ±127 needs no instruction: |x| <= max|x|, so |x·a| exceeds 127 by three roundings at most. A row with an
infinity or NaN gets codes 0 (and s infinite or NaN), because a is 0 or NaN.

Short rows are a work unit each (`TernaryQuantizeKernel`). Long ones, images, are cut into parts: `AbsMaxPartsKernel`
finds the maximum of each part, `QuantizePartsKernel` codes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i8, i32, vec, with_elem
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec

PART = 4096
"""Elements per part of a long row."""
_SMALLEST_MAXIMUM = 1e-5
MAGNITUDE = 0x7FFFFFFF
_INFINITY = 0x7F800000
_ROUNDER = 1.5 * 2.0**23
"""Added to |v| < 2^22, this leaves v rounded half to even in the low bits of the sum."""


@dataclass(frozen=True)
class TernaryQuantizeKernel(KernelSpec):
    """Slots: 0 x (f32 [rows, length]), 1 q (out, int8), 2 s (out, f32 [rows]), 3 length. Work units: rows.

    Attributes:
        reciprocal: a is (1 / max) · 127.
    """

    reciprocal: bool = False

    family = "ternary_quantize"
    written = (1, 2)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Two passes over each row."""
        b = KernelBuilder(self.name, isa)
        length = b.arg_int(3)
        with b.loop(b.begin, b.end) as row:
            first = row.i * length
            x = b.elem(b.arg_ptr(0), first, f32)
            largest = largest_bits(b, x, length)
            a = code_scale(b, largest, self.reciprocal)
            b.store(b.f32(1.0) / a, b.elem(b.arg_ptr(2), row.i, f32))
            write_codes(b, x, b.ptr(b.arg_ptr(1), first), length, largest, a)
        return b.finish()


@dataclass(frozen=True)
class AbsMaxPartsKernel(KernelSpec):
    """Slots: 0 x (f32 [rows, length]), 1 maxima (out, int32 [rows, parts]: f32 bits of max|x|), 2 length, 3 parts.

    Work units: rows x parts, where parts = ceil(length / `PART`).
    """

    family = "abs_max_parts"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """One pass over each part."""
        b = KernelBuilder(self.name, isa)
        with b.loop(b.begin, b.end) as unit:
            row, first, count = _part(b, unit.i, b.arg_int(2), b.arg_int(3))
            x = b.elem(b.arg_ptr(0), row * b.arg_int(2) + first, f32)
            b.store(largest_bits(b, x, count), b.elem(b.arg_ptr(1), unit.i, i32))
        return b.finish()


@dataclass(frozen=True)
class QuantizePartsKernel(KernelSpec):
    """Slots: 0 x, 1 maxima (of `AbsMaxPartsKernel`), 2 length, 3 parts, 4 q (out, int8), 5 s (out, f32 [rows]).

    Work units: rows x parts.

    Attributes:
        reciprocal: a is (1 / max) · 127.
    """

    reciprocal: bool = False

    family = "quantize_parts"
    written = (4, 5)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """The row's maximum from its parts', then one pass."""
        b = KernelBuilder(self.name, isa)
        length, parts = b.arg_int(2), b.arg_int(3)
        with b.loop(b.begin, b.end) as unit:
            row, first, count = _part(b, unit.i, length, parts)
            maxima = b.elem(b.arg_ptr(1), row * parts, i32)
            with b.loop(0, parts, init=[b.i32(0)]) as part:
                part.yield_([b.max(part.carried[0], b.load(b.elem(maxima, part.i, i32), i32))])
            largest = part.results[0]
            a = code_scale(b, largest, self.reciprocal)
            with b.if_(b.icmp("eq", first, 0)):
                b.store(b.f32(1.0) / a, b.elem(b.arg_ptr(5), row, f32))
            start = row * length + first
            write_codes(b, b.elem(b.arg_ptr(0), start, f32), b.ptr(b.arg_ptr(4), start), count, largest, a)
        return b.finish()


def _part(b: KernelBuilder, unit: Val, length: Val, parts: Val) -> tuple[Val, Val, Val]:
    """Row, first element and number of elements of a part."""
    row = b.udiv(unit, parts)
    first = (unit - row * parts) * PART
    return row, first, b.min(length - first, b.i64(PART))


def largest_bits(b: KernelBuilder, x: Val, count: Val) -> Val:
    """The bits of max|x|. Magnitudes order like their bits, and those of NaN are above infinity's."""
    whole = count - b.urem(count, b.lanes)
    with b.loop(0, whole, b.lanes, init=[b.zero(b.vtype(i32))]) as i:
        bits = b.load(b.elem(x, i.i, i32), b.vtype(i32)) & MAGNITUDE
        i.yield_([b.max(i.carried[0], bits)])
    with b.loop(whole, count, init=[b.reduce_max(i.results[0])]) as i:
        i.yield_([b.max(i.carried[0], b.load(b.elem(x, i.i, i32), i32) & MAGNITUDE)])
    return i.results[0]


def code_scale(b: KernelBuilder, largest: Val, reciprocal: bool) -> Val:
    """127 / max(largest, 1e-5), or its reciprocal form; `largest` is an f32's bits."""
    maximum = b.bitcast(largest, f32)
    # Of this shape NaN stays NaN.
    floored = b.select(b.fcmp("olt", maximum, _SMALLEST_MAXIMUM), b.f32(_SMALLEST_MAXIMUM), maximum)
    return b.f32(1.0) / floored * b.f32(127.0) if reciprocal else b.f32(127.0) / floored


def write_codes(b: KernelBuilder, x: Val, q: Val, count: Val, largest: Val, a: Val) -> None:
    """`count` codes of x times a; zeros if the largest magnitude (its bits) is no number."""
    whole = count - b.urem(count, b.lanes)
    with b.if_(b.icmp("slt", largest, _INFINITY)):
        for lanes, first, until in ((b.lanes, b.i64(0), whole), (1, whole, count)):
            with b.loop(first, until, lanes) as i:
                scaled = b.load(b.elem(x, i.i, f32), vec(f32, lanes)) * b.splat(a, lanes)
                bits = b.bitcast(scaled + _ROUNDER, with_elem(scaled.type, i32))
                b.store(b.trunc(bits, i8), b.ptr(q, i.i))
    with b.if_(b.icmp("sge", largest, _INFINITY)), b.loop(0, count) as i:
        b.store(b.const(0, i8), b.ptr(q, i.i))
