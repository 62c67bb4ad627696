"""Elementary functions on f32 values of any number of lanes, written with `KernelBuilder` instructions.

Accurate to a few units in the last place (ULP) with and without fused multiply-add; the bounds in the
docstrings are what the tests check. NaN gives NaN, and no function calls a library. The polynomials are minimax
fits of this project.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i32, mangle, with_elem
from neuc.errors import InternalError

_LOG2_E = 1.4426950408889634
# ln 2 in two parts; the first has so few bits that its product with an exponent is exact.
_LN2_HIGH = 0.693359375
_LN2_LOW = -2.1219444005469057e-4
# Adding and subtracting 1.5·2^23 rounds to the nearest integer (ties to even) below 2^22.
_ROUNDER = 12582912.0
_EXP = (0.499999934, 0.166665195, 0.0416684011, 0.00836885107, 0.00138143205)
_EXP2 = (1.0, 0.693147215, 0.240226528, 0.0555031055, 0.00961769297, 0.00134066439, 0.000155946782)
_LOG = (
    0.333333126,
    -0.250000096,
    0.200021187,
    -0.166679959,
    0.142195524,
    -0.124055889,
    0.118881623,
    -0.116756518,
    0.0674664032,
)
_ERF_NEAR = (
    0.128379167,
    -0.376126332,
    0.112836864,
    -0.0268588512,
    0.00519959991,
    -0.000812580719,
    8.29661272e-05,
)
_ERF_FAR = (
    0.000170550778,
    -1.12949515,
    -0.63338666,
    -0.108236603,
    0.0250914855,
    -0.00416052244,
    0.000432302007,
    -2.09094639e-05,
)
_ERF_SPLIT = 0.92
_GELU = (
    -0.693147056,
    -0.797892062,
    0.181760654,
    -0.0365783615,
    0.00518098584,
    -0.000314581352,
    -3.96927801e-05,
    9.18544081e-06,
    -5.28804402e-07,
)


def polynomial(b: KernelBuilder, x: Val, coefficients: Sequence[float]) -> Val:
    """``c[0] + c[1] x + c[2] x² …`` by Horner's rule."""
    total = b.const(coefficients[-1], x.type)
    for coefficient in reversed(coefficients[:-1]):
        total = b.fma(total, x, b.const(coefficient, x.type))
    return total


def exp(b: KernelBuilder, x: Val) -> Val:
    """e^x, within 2 ULP; subnormal results within one step."""
    # Outside these bounds the result is 0 or infinite anyway; NaN passes through min and max.
    x = b.max(-104.0, b.min(89.0, x))
    power, r = _split_exponent(b, x)
    y = b.fma(r * r, polynomial(b, r, _EXP), r) + 1.0
    # 2^n in two factors, since n reaches from -150 to 128.
    half = power.ashr(1)
    return y * _power_of_two(b, half) * _power_of_two(b, power - half)


def exp2_below(b: KernelBuilder, x: Val) -> Val:
    """2^x of numbers up to 0, within 2 ULP; 2^-126 of all that are below -126."""
    x = b.max(-126.0, x)
    shifted = x + _ROUNDER
    r = x - (shifted - _ROUNDER)
    # The low bits of the shifted number are the exponent; those above fall off.
    exponent = b.bitcast(shifted, with_elem(x.type, i32)) << 23
    return b.bitcast(b.bitcast(polynomial(b, r, _EXP2), exponent.type) + exponent, x.type)


def expm1(b: KernelBuilder, x: Val) -> Val:
    """e^x - 1, within 3 ULP."""
    x = b.max(-20.0, b.min(89.0, x))
    power, r = _split_exponent(b, x)
    q = b.fma(r * r, polynomial(b, r, _EXP), r)
    # 2^n (q + 1) - 1, where 2^n is taken in two steps because 2^128 is infinite.
    scale = _power_of_two(b, power - 1)
    half = b.fma(q, scale, scale - 0.5)
    return half + half


def log(b: KernelBuilder, x: Val) -> Val:
    """Natural logarithm, within 2 ULP; -inf of 0, NaN below."""
    ints = with_elem(x.type, i32)
    tiny = b.fcmp("olt", x, 2.0**-126)
    bits = b.bitcast(b.select(tiny, x * 2.0**23, x), ints)
    # m in [sqrt(1/2), sqrt(2)) and the exponent e with x = m 2^e.
    e = (bits - 0x3F3504F3).ashr(23)
    f = b.bitcast(bits - (e << 23), x.type) - 1.0
    exponent = b.sitofp(e, f32) - b.select(tiny, b.const(23.0, x.type), 0.0)
    square = f * f
    tail = b.fma(polynomial(b, f, _LOG), square * f, exponent * _LN2_LOW)
    y = b.fma(exponent, b.const(_LN2_HIGH, x.type), (tail - square * 0.5) + f)
    y = b.select(
        b.fcmp("ogt", x, 0.0), y, b.select(b.fcmp("oeq", x, 0.0), b.const(-math.inf, x.type), b.const(math.nan, x.type))
    )
    return b.select(b.fcmp("oeq", x, math.inf), x, y)


def log1p(b: KernelBuilder, x: Val) -> Val:
    """log(1 + x), within 3 ULP."""
    u = x + 1.0
    # What rounding took from 1 + x, to first order; there is nothing to mend at infinity and at 0.
    inside = b.fcmp("ogt", u, 0.0) & b.fcmp("olt", u, 1e30)
    y = log(b, u) + b.select(inside, (x - (u - 1.0)) / u, 0.0)
    return b.select(b.fcmp("oeq", u, 1.0), x, y)


def sigmoid(b: KernelBuilder, x: Val) -> Val:
    """1 / (1 + e^-x), within 4 ULP."""
    small = exp(b, -b.abs(x))
    return b.select(b.fcmp("olt", x, 0.0), small, b.const(1.0, x.type)) / (small + 1.0)


def tanh(b: KernelBuilder, x: Val) -> Val:
    """Hyperbolic tangent, within 4 ULP."""
    # tanh(9.02) rounds to 1.
    magnitude = b.min(10.0, b.abs(x))
    grown = expm1(b, magnitude + magnitude)
    return b.copysign(grown / (grown + 2.0), x)


def erf(b: KernelBuilder, x: Val) -> Val:
    """The error function, within 3 ULP."""
    t = b.min(4.0, b.abs(x))
    near = b.fma(t, polynomial(b, t * t, _ERF_NEAR), t)
    far = 1.0 - exp(b, polynomial(b, t, _ERF_FAR))
    return b.copysign(b.select(b.fcmp("olt", t, _ERF_SPLIT), near, far), x)


def gelu(b: KernelBuilder, x: Val) -> Val:
    """X (1 + erf(x / sqrt 2)) / 2, within 4 ULP of max(|result|, 2^-24 |x|) for x > -5 and 1e-7 absolute."""
    # x Phi(x) = max(x, 0) - |x| Phi(-|x|), and log Phi(-t) + t²/2 is smooth: no cancellation in the tail.
    t = b.min(16.0, b.abs(x))
    smooth = polynomial(b, b.min(5.5, t), _GELU)
    tail = exp(b, b.fma(t * t, b.const(-0.5, x.type), smooth))
    return b.max(0.0, x) - t * tail


def gelu_tanh(b: KernelBuilder, x: Val) -> Val:
    """X sigmoid(2 sqrt(2 / pi) (x + 0.044715 x³)), the tanh form of gelu."""
    slope = 2 * math.sqrt(2 / math.pi)
    return x * sigmoid(b, x * b.fma(x * x, b.const(0.044715 * slope, x.type), b.const(slope, x.type)))


def silu(b: KernelBuilder, x: Val) -> Val:
    """X sigmoid(x)."""
    return x * sigmoid(b, x)


def activate(b: KernelBuilder, x: Val, kind: str, alpha: float = 0.0, beta: float = 0.0) -> Val:
    """The activation ``kind`` of the dense dialect with its parameters."""
    match kind:
        case "none":
            return x
        case "relu":
            return b.max(0.0, x)
        case "clip":
            return b.min(beta, b.max(alpha, x))
        case "leaky_relu":
            return b.select(b.fcmp("olt", x, 0.0), x * alpha, x)
        case "hardsigmoid":
            return _unit(b, b.fma(x, b.const(alpha, x.type), b.const(beta, x.type)))
        case "hardswish":
            return x * _unit(b, b.fma(x, b.const(1 / 6, x.type), b.const(0.5, x.type)))
        case _ if kind in _SMOOTH:
            return _SMOOTH[kind](b, x)
        case _:
            raise InternalError(f"no activation {kind}")


def is_cheap(kind: str) -> bool:
    """Whether an activation takes only a few instructions, so that repeating its code costs little."""
    return kind not in _SMOOTH


def round_even(b: KernelBuilder, x: Val) -> Val:
    """To the nearest integer, ties to even."""
    return _round(b, x, "llvm.roundeven", lambda r: r)


def floor(b: KernelBuilder, x: Val) -> Val:
    """Largest integer not above x."""
    return _round(b, x, "llvm.floor", lambda r: b.select(b.fcmp("ogt", r, x), r - 1.0, r))


def ceil(b: KernelBuilder, x: Val) -> Val:
    """Smallest integer not below x."""
    return _round(b, x, "llvm.ceil", lambda r: b.select(b.fcmp("olt", r, x), r + 1.0, r))


def trunc(b: KernelBuilder, x: Val) -> Val:
    """X without its fraction."""
    return b.copysign(floor(b, b.abs(x)), x)


def _round(b: KernelBuilder, x: Val, name: str, fix: Callable[[Val], Val]) -> Val:
    if b.isa.has_round:
        return b.intrinsic(f"{name}.{mangle(x.type)}", x.type, [x])
    # Adding 2^23 leaves no room for a fraction; above it there is none.
    magnitude = b.abs(x)
    rounded = b.copysign((magnitude + 2.0**23) - 2.0**23, x)
    return b.select(b.fcmp("olt", magnitude, 2.0**23), b.copysign(fix(rounded), x), x)


def _split_exponent(b: KernelBuilder, x: Val) -> tuple[Val, Val]:
    """X = n ln 2 + r with |r| <= ln 2 / 2: n as integers, and r."""
    shifted = b.fma(x, b.const(_LOG2_E, x.type), b.const(_ROUNDER, x.type))
    n = shifted - _ROUNDER
    r = b.fma(n, b.const(-_LN2_LOW, x.type), b.fma(n, b.const(-_LN2_HIGH, x.type), x))
    # The low bits of the shifted number are n; NaN gives any n, and r stays NaN.
    ints = with_elem(x.type, i32)
    return b.bitcast(shifted, ints) - b.bitcast(b.const(_ROUNDER, x.type), ints), r


def _power_of_two(b: KernelBuilder, n: Val) -> Val:
    """2^n of integers -126 .. 127."""
    return b.bitcast((n + 127) << 23, with_elem(n.type, f32))


def _unit(b: KernelBuilder, x: Val) -> Val:
    return b.min(1.0, b.max(0.0, x))


_SMOOTH: dict[str, Callable[[KernelBuilder, Val], Val]] = {
    "sigmoid": sigmoid,
    "tanh": tanh,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
}
