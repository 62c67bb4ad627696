"""Sines, cosines and normal numbers in f32: to rounding, those of `dialects/interp/energy_random.py:normals`.

The polynomials are minimax fits of this project, on [0, π/4].
"""

from __future__ import annotations

import math

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i32, with_elem

_SINE = (-0.16666655242443085, 0.008332177996635437, -0.00019517297914717346)
_COSINE = (0.04166664555668831, -0.001388736767694354, 2.443845005473122e-05)
# π/2 in three parts, the first two with so few bits that their products with small integers are exact.
_HALF_PI = (1.5703125, 4.837512969970703e-4, 7.549789948768648e-8)
_ROUNDER = 12582912.0
"""1.5·2^23: adding it rounds to the nearest integer and leaves that integer in the low bits."""


def sine_cosine(b: KernelBuilder, x: Val) -> tuple[Val, Val]:
    """Sine and cosine, within 1e-6 for |x| < 1e4."""
    shifted = x * (2.0 / math.pi) + _ROUNDER
    turns = shifted - _ROUNDER
    r = x
    for part in _HALF_PI:
        r = b.fma(turns, b.const(-part, x.type), r)
    return _of_octant(b, r, b.bitcast(shifted, with_elem(x.type, i32)))


def turned(b: KernelBuilder, word: Val) -> tuple[Val, Val]:
    """Sine and cosine of 2π·word/2^32; the reduction to an octant is exact."""
    quarter = (word + (1 << 29)) >> 30
    rest = word - (quarter << 30)
    return _of_octant(b, b.sitofp(rest, f32) * (2.0 * math.pi / 2.0**32), quarter)


def pair(b: KernelBuilder, first: Val, second: Val) -> tuple[Val, Val]:
    """Two normal numbers from two words (Box and Muller)."""
    # Above one half ln u is taken of 1 - u, whose bits a float near 1 would not hold.
    upper = b.icmp("slt", first, 0)
    v = b.uitofp(b.select(upper, b.binary("xor", first, -1), first), f32)
    v = (v + 0.5) * 2.0**-32
    log = b.select(upper, vecmath.log1p(b, -v), vecmath.log(b, v))
    radius = b.sqrt(log * -2.0)
    sine, cosine = turned(b, second)
    return radius * cosine, radius * sine


def _of_octant(b: KernelBuilder, r: Val, quarter: Val) -> tuple[Val, Val]:
    """Sine and cosine of r + quarter·π/2, |r| ≤ π/4."""
    u = r * r
    sine = b.fma(r * u, vecmath.polynomial(b, u, _SINE), r)
    cosine = b.fma(u * u, vecmath.polynomial(b, u, _COSINE), 1.0 - u * 0.5)
    swapped = b.icmp("ne", quarter & 1, 0)
    one, other = b.select(swapped, cosine, sine), b.select(swapped, sine, cosine)
    return (
        b.select(b.icmp("ne", quarter & 2, 0), -one, one),
        b.select(b.icmp("ne", (quarter + 1) & 2, 0), -other, other),
    )
