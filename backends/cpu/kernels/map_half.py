"""f16 in memory, f32 in registers: conversions that need no help from a run-time library.

CPUs with F16C convert in one instruction; for the others LLVM would call a library function, so bits are moved here.
"""

from __future__ import annotations

from xdsl.ir import Attribute

from neuc.backends.cpu.builder import KernelBuilder, Val, f16, f32, i16, i32, with_elem

_HALF_TOO_LARGE = 0x47800000
"""The bits of 65536.0f: everything from here on becomes infinity (or stays NaN)."""
_HALF_NORMAL = 113 << 23
"""The bits of 2^-14, the smallest normal half."""
_SUBNORMAL_MAGIC = 126 << 23
"""The bits of 0.5f: adding it leaves a subnormal half's mantissa, rounded, in the low bits."""


def converts_halves(b: KernelBuilder) -> bool:
    """Whether the machine converts f16 itself."""
    return "f16c" in b.isa.features or b.isa.arch == "aarch64"


def half_to_float(b: KernelBuilder, x: Val, to: Attribute = f32) -> Val:
    """f16 to f32, exactly."""
    if converts_halves(b):
        return b.fpext(x, to)
    bits = b.zext(b.bitcast(x, with_elem(x.type, i16)), i32)
    sign = (bits & 0x8000) << 16
    magnitude = (bits & 0x7FFF) << 13
    floats = with_elem(bits.type, f32)
    normal = magnitude + (112 << 23)  # from half's bias to float's
    # As a mantissa of 2^-14 first: read as floats, bits of subnormal halves are subnormal, and those may count as 0.
    subnormal = b.bitcast(b.bitcast(magnitude + _HALF_NORMAL, floats) - float(2.0**-14), bits.type)
    finite = b.select(b.icmp("ult", magnitude, 1 << 23), subnormal, normal)
    special = magnitude | 0x7F800000
    found = b.select(b.icmp("uge", magnitude, 0x7C00 << 13), special, finite)
    return b.bitcast(found | sign, floats)


def float_to_half(b: KernelBuilder, x: Val) -> Val:
    """f32 to f16, to the nearest, ties to even."""
    if converts_halves(b):
        return b.fptrunc(x, f16)
    ints = with_elem(x.type, i32)
    bits = b.bitcast(x, ints)
    sign = (bits & 0x80000000) >> 16
    magnitude = bits & 0x7FFFFFFF
    special = b.select(b.icmp("ugt", magnitude, 0x7F800000), b.const(0x7E00, ints), b.const(0x7C00, ints))
    magic = b.bitcast(b.const(_SUBNORMAL_MAGIC, ints), x.type)
    subnormal = b.bitcast(b.bitcast(magnitude, x.type) + magic, ints) - _SUBNORMAL_MAGIC
    odd = (magnitude >> 13) & 1
    normal = (magnitude - ((127 - 15) << 23) + 0xFFF + odd) >> 13
    small = b.select(b.icmp("ult", magnitude, _HALF_NORMAL), subnormal, normal)
    found = b.select(b.icmp("uge", magnitude, _HALF_TOO_LARGE), special, small) | sign
    return b.bitcast(b.trunc(found, i16), with_elem(x.type, f16))
