"""The rarer elementary functions of f32, computed in f64 and rounded once.

Series in f64 need no fitting and no care at the edges: their error of some 1e-11 vanishes in the rounding to f32. The
functions models live on (exp, log, tanh, erf …) have faster f32 versions in `neuc.backends.cpu.vecmath`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, f64, i32, i64, with_elem

_ROUNDER = 1.5 * 2.0**52
"""Adding it to a number below 2^51 leaves the nearest integer in the low mantissa bits."""
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
# pi/2 in three parts; products of the first two with integers below 2^20 are exact.
_HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)


def pow(b: KernelBuilder, x: Val, y: Val) -> Val:
    """x^y with C's rules for zeros, infinities, NaN and negative bases."""
    wide_y = b.fpext(y, f64)
    power = _narrow(b, _exp(b, wide_y * _log(b, b.fpext(b.abs(x), f64))))
    negative = b.icmp("slt", b.bitcast(x, with_elem(x.type, i32)), 0)
    # Both tests are exact: halving is, and floats of 2^24 and more are even integers.
    whole, half = _is_integer(b, wide_y), _is_integer(b, wide_y * 0.5)
    signed = b.select(negative & whole & (half ^ 1), -power, power)
    undefined = b.fcmp("olt", x, 0.0) & (whole ^ 1) & b.fcmp("one", b.abs(x), math.inf)
    signed = b.select(undefined, b.const(math.nan, x.type), signed)
    # What the logarithm would make 0 times infinity.
    unit = b.fcmp("oeq", x, 1.0) | (b.fcmp("oeq", x, -1.0) & b.fcmp("oeq", b.abs(y), math.inf))
    return b.select(b.fcmp("oeq", y, 0.0) | unit, b.const(1.0, x.type), signed)


def exp2(b: KernelBuilder, x: Val) -> Val:
    """2^x."""
    return _narrow(b, _exp(b, b.fpext(x, f64) * math.log(2)))


def log2(b: KernelBuilder, x: Val) -> Val:
    """Logarithm to base 2."""
    return _narrow(b, _log(b, b.fpext(x, f64)) * (1 / math.log(2)))


def log10(b: KernelBuilder, x: Val) -> Val:
    """Logarithm to base 10."""
    return _narrow(b, _log(b, b.fpext(x, f64)) * (1 / math.log(10)))


def sinh(b: KernelBuilder, x: Val) -> Val:
    """Hyperbolic sine."""
    wide = b.fpext(x, f64)
    grown = _exp(b, wide)
    # Below 1/4 the difference of exponentials would cancel; the series there errs by 1e-13.
    near = wide * _series(b, wide * wide, [1 / math.factorial(2 * k + 1) for k in range(5)])
    small = b.fcmp("olt", b.abs(wide), 0.25)
    return _narrow(b, b.select(small, near, (grown - 1.0 / grown) * 0.5))


def cosh(b: KernelBuilder, x: Val) -> Val:
    """Hyperbolic cosine."""
    grown = _exp(b, b.fpext(x, f64))
    return _narrow(b, (grown + 1.0 / grown) * 0.5)


def sin(b: KernelBuilder, x: Val) -> Val:
    """Sine; beyond 10^6 the argument itself is reduced with an error of 1e-16 |x|."""
    sine, cosine, quadrant = _turn(b, b.fpext(x, f64))
    value = b.select(b.icmp("ne", quadrant & 1, 0), cosine, sine)
    return _narrow(b, b.select(b.icmp("ne", quadrant & 2, 0), -value, value))


def cos(b: KernelBuilder, x: Val) -> Val:
    """Cosine, with the same limit as `sin`."""
    sine, cosine, quadrant = _turn(b, b.fpext(x, f64))
    value = b.select(b.icmp("ne", quadrant & 1, 0), sine, cosine)
    return _narrow(b, b.select(b.icmp("ne", (quadrant + 1) & 2, 0), -value, value))


def tan(b: KernelBuilder, x: Val) -> Val:
    """Tangent, with the same limit as `sin`."""
    sine, cosine, quadrant = _turn(b, b.fpext(x, f64))
    return _narrow(b, b.select(b.icmp("ne", quadrant & 1, 0), -cosine / sine, sine / cosine))


def asin(b: KernelBuilder, x: Val) -> Val:
    """Inverse sine; NaN outside [-1, 1]."""
    return _narrow(b, _asin(b, b.fpext(x, f64)))


def acos(b: KernelBuilder, x: Val) -> Val:
    """Inverse cosine; NaN outside [-1, 1]."""
    return _narrow(b, math.pi / 2 - _asin(b, b.fpext(x, f64)))


def atan(b: KernelBuilder, x: Val) -> Val:
    """Inverse tangent."""
    return _narrow(b, _atan(b, b.fpext(x, f64)))


def asinh(b: KernelBuilder, x: Val) -> Val:
    """Inverse hyperbolic sine."""
    wide = b.fpext(x, f64)
    t = b.abs(wide)
    far = b.copysign(_log(b, t + b.sqrt(b.fma(t, t, b.const(1.0, t.type)))), wide)
    return _narrow(b, _near_zero(b, wide, far, [1.0, -1 / 6]))


def acosh(b: KernelBuilder, x: Val) -> Val:
    """Inverse hyperbolic cosine; NaN below 1."""
    wide = b.fpext(x, f64)
    # The product of differences is exact enough close to 1, where x² - 1 would cancel.
    return _narrow(b, _log(b, wide + b.sqrt((wide - 1.0) * (wide + 1.0))))


def atanh(b: KernelBuilder, x: Val) -> Val:
    """Inverse hyperbolic tangent; NaN outside [-1, 1]."""
    wide = b.fpext(x, f64)
    far = _log(b, (1.0 + wide) / (1.0 - wide)) * 0.5
    return _narrow(b, _near_zero(b, wide, far, [1.0, 1 / 3]))


def _near_zero(b: KernelBuilder, x: Val, far: Val, coefficients: Sequence[float]) -> Val:
    """`far`, but the odd series of `coefficients` where a logarithm of nearly 1 has too few digits."""
    return b.select(b.fcmp("olt", b.abs(x), 1e-3), x * _series(b, x * x, coefficients), far)


def _asin(b: KernelBuilder, x: Val) -> Val:
    return _atan(b, x / b.sqrt((1.0 - x) * (1.0 + x)))


def _atan(b: KernelBuilder, x: Val) -> Val:
    t = b.abs(x)
    # Fold to [0, 1] by the reciprocal, then to |t| <= tan(pi/8) by turning an eighth.
    steep = b.fcmp("ogt", t, 1.0)
    t = b.select(steep, 1.0 / t, t)
    turned = b.fcmp("ogt", t, math.tan(math.pi / 8))
    t = b.select(turned, (t - 1.0) / (t + 1.0), t)
    # The first term left out is below 2e-12.
    value = t * _series(b, t * t, [(-1) ** k / (2 * k + 1) for k in range(13)])
    value = b.select(turned, value + math.pi / 4, value)
    return b.copysign(b.select(steep, math.pi / 2 - value, value), x)


def _narrow(b: KernelBuilder, x: Val) -> Val:
    return b.fptrunc(x, f32)


def _series(b: KernelBuilder, x: Val, coefficients: Sequence[float]) -> Val:
    total = b.const(coefficients[-1], x.type)
    for coefficient in reversed(coefficients[:-1]):
        total = b.fma(total, x, b.const(coefficient, x.type))
    return total


def _nearest(b: KernelBuilder, x: Val) -> tuple[Val, Val]:
    """The nearest integer as f64, and as i64 modulo 2^51."""
    moved = x + _ROUNDER
    return moved - _ROUNDER, b.bitcast(moved, with_elem(x.type, i64)) - b.bitcast(
        b.const(_ROUNDER, x.type), with_elem(x.type, i64)
    )


def _exp(b: KernelBuilder, x: Val) -> Val:
    """e^x for what an f32 can hold: bounded by e^±200 outside. NaN passes."""
    x = b.max(-200.0, b.min(200.0, x))
    n, integer = _nearest(b, x * (1 / math.log(2)))
    r = b.fma(n, b.const(-math.log(2), x.type), x)
    # |r| <= ln2 / 2: the first term left out is below 1e-12.
    value = _series(b, r, [1 / math.factorial(k) for k in range(11)])
    return value * b.bitcast((integer + 1023) << 52, x.type)


def _log(b: KernelBuilder, x: Val) -> Val:
    """Ln x for an x that was an f32."""
    bits = b.bitcast(x, with_elem(x.type, i64))
    # m in [sqrt(1/2), sqrt(2)), e with x = m 2^e; an f32 is a normal f64 unless it is zero.
    e = (bits - _SQRT_HALF_BITS).ashr(52)
    m = b.bitcast(bits - (e << 52), x.type)
    s = (m - 1.0) / (m + 1.0)
    # 2 artanh(s), |s| < 0.172: the first term left out is below 1e-12.
    series = _series(b, s * s, [2 / (2 * k + 1) for k in range(7)])
    exponent = b.sitofp(b.trunc(e, i32), f64)
    value = b.fma(exponent, b.const(math.log(2), x.type), s * series)
    value = b.select(b.fcmp("oeq", x, 0.0), b.const(-math.inf, x.type), value)
    value = b.select(b.fcmp("oeq", x, math.inf), x, value)
    return b.select(b.fcmp("oge", x, 0.0), value, b.const(math.nan, x.type))


def _turn(b: KernelBuilder, x: Val) -> tuple[Val, Val, Val]:
    """Sine and cosine of x less its nearest multiple of pi/2, and the number of that multiple."""
    n, quadrant = _nearest(b, x * (2 / math.pi))
    r = x
    for part in _HALF_PI:
        r = b.fma(n, b.const(-part, x.type), r)
    # |r| <= pi/4: the first terms left out are below 1e-13.
    square = r * r
    sine = r * _series(b, square, [(-1) ** k / math.factorial(2 * k + 1) for k in range(7)])
    cosine = _series(b, square, [(-1) ** k / math.factorial(2 * k) for k in range(8)])
    return sine, cosine, quadrant


def _is_integer(b: KernelBuilder, x: Val) -> Val:
    """Where x has no fraction; infinities have none, NaN has."""
    # From 2^51 on every f64 that was an f32 is an integer, and the rounding trick would overflow.
    large = b.fcmp("oge", b.abs(x), 2.0**50)
    rounded, _ = _nearest(b, b.select(large, b.zero(x.type), x))
    return large | b.fcmp("oeq", rounded, x)
