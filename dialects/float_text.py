"""Which floats survive a dense attribute's text.

xDSL 0.74 prints a float that six digits or its decimal form cannot hold (large whole numbers, infinities, NaN) as the
hex of its bits, and reads hex inside `dense<…>` as an integer. Whoever makes a dense float attribute asks here first.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

_FORMATS = {16: "<e", 32: "<f", 64: "<d"}
_DIGITS = {32: ".9g", 64: ".17g"}


def dense_reads_back(values: Iterable[float], bits: int) -> bool:
    """Whether every value of a dense float attribute, `bits` wide, is printed as a decimal number."""
    return all(_is_decimal(value, bits) for value in values)


def _is_decimal(value: float, bits: int) -> bool:
    if not math.isfinite(value):
        return False
    form = _FORMATS[bits]
    short = f"{value:.5e}"
    mantissa, exponent = short.split("e")
    if struct.unpack(form, struct.pack(form, float(f"{mantissa}0e{exponent}")))[0] == value:
        return True
    return "." in (f"{value:{_DIGITS[bits]}}" if bits in _DIGITS else repr(value))


def float_bits(value: float, bits: int) -> int:
    """The bits of `value` as a signed integer of the same width."""
    return struct.unpack({16: "<h", 32: "<i", 64: "<q"}[bits], struct.pack(_FORMATS[bits], value))[0]
