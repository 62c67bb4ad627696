"""Normal random numbers inside kernels: Philox 4x32-10 counters and the Box-Muller transform.

A number depends on its counter and key alone, so it is the same whatever thread draws it, in whatever order. One
counter gives four numbers, which go to four neighbouring rows. The specification is
`dialects/interp/crossbar_random.py`.

Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.
"""

from __future__ import annotations

import math

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i32, i64, vec, with_elem

PER_COUNTER = 4
"""Numbers that one counter gives."""
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_SIN = tuple((-1) ** n * (2 * math.pi) ** (2 * n + 1) / math.factorial(2 * n + 1) for n in range(5))
_COS = tuple((-1) ** n * (2 * math.pi) ** (2 * n) / math.factorial(2 * n) for n in range(5))
"""Series of sine and cosine of turns; within an eighth of a turn the next term is below 3e-8."""


def signed(word: int) -> int:
    """A 32-bit word as the i32 constant with the same bits."""
    return word - 2**32 if word >= 2**31 else word


def philox(b: KernelBuilder, counter: tuple[Val, Val, Val, Val], key: tuple[Val, Val]) -> tuple[Val, Val, Val, Val]:
    """Four words (i32) for each lane's counter; `key` has as many lanes."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for step in range(_ROUNDS):
        if step:
            k0, k1 = k0 + signed(_WEYL[0]), k1 + signed(_WEYL[1])
        high0, low0 = _multiply(b, c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(b, c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
    return c0, c1, c2, c3


def normals(b: KernelBuilder, counter: tuple[Val, Val, Val, Val], key: tuple[Val, Val]) -> tuple[Val, Val, Val, Val]:
    """Four independent standard normals (f32) for each lane's counter."""
    w0, w1, w2, w3 = philox(b, counter, key)
    return (*_box_muller(b, w0, w1), *_box_muller(b, w2, w3))


def columns_from(b: KernelBuilder, first: Val, lanes: int) -> Val:
    """The numbers first, first + 1, … as i32 lanes; `first` is an i64."""
    start = b.splat(b.trunc(first, i32), lanes)
    return start + b.vec_const(range(lanes), i32) if lanes > 1 else start


def _multiply(b: KernelBuilder, x: Val, factor: int) -> tuple[Val, Val]:
    """The high and the low word of x times `factor`."""
    product = b.zext(x, i64) * b.const(factor, with_elem(x.type, i64))
    return b.trunc(product >> 32, i32), b.trunc(product, i32)


def _box_muller(b: KernelBuilder, length: Val, angle: Val) -> tuple[Val, Val]:
    """Two normals from two words: sqrt(-2 ln u) times cosine and sine of an angle."""
    floats = vec(f32, length.lanes)
    # 24 bits and a half, so that u is never 0 and never 1.
    u = (b.sitofp(length >> 8, f32) + b.const(0.5, floats)) * b.const(2.0**-24, floats)
    radius = b.sqrt(vecmath.log(b, u) * b.const(-2.0, floats))
    turns = b.sitofp(angle, f32) * b.const(2.0**-32, floats)
    quarters = vecmath.round_even(b, turns * b.const(4.0, floats))
    rest = turns - quarters * b.const(0.25, floats)
    square = rest * rest
    sine = vecmath.polynomial(b, square, _SIN) * rest
    cosine = vecmath.polynomial(b, square, _COS)
    # A quarter turn swaps them and turns one sign.
    count = b.fptosi(quarters, i32)
    odd = b.icmp("ne", count & 1, 0)
    first, second = b.select(odd, sine, cosine), b.select(odd, cosine, sine)
    return radius * _signed(b, first, count + 1), radius * _signed(b, second, count)


def _signed(b: KernelBuilder, x: Val, count: Val) -> Val:
    """X with its sign turned where bit 1 of `count` is set."""
    return b.bitcast(b.bitcast(x, count.type) ^ ((count & 2) << 30), x.type)
