"""Random words and thresholds inside the relaxation kernels, the bits of `dialects/interp/energy_random.py`.

Philox runs on 64-bit lanes whose upper halves may hold rubbish: products read lower halves alone, so a round is two
products, two shifts and two exclusive ors.
"""

from __future__ import annotations

from collections.abc import Sequence

from neuc.backends.cpu.builder import KernelBuilder, Operand, Val, i1, i8, i32, i64, vec, with_elem
from neuc.dialects.interp.energy_random import (
    EXP,
    GROUP,
    LANES,
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    LOWEST,
    MULTIPLIERS,
    ROUNDS,
    TOP,
    WEYL,
    WORDS,
)

_LOW = 0xFFFFFFFF
_ROUNDER = 12582912.0
"""1.5·2^23: adding it rounds to the nearest integer, ties to even, and leaves that integer in the low bits."""
WORD_BYTES = 4 * GROUP


class Philox:
    """The generator under one seed; round keys are made where it is."""

    def __init__(self, b: KernelBuilder, seed: Val) -> None:
        self.b = b
        self.lanes = max(1, b.lanes // 2)
        wide = vec(i64, self.lanes)
        self._low = b.const(_LOW, wide)
        self._multipliers = [b.const(m, wide) for m in MULTIPLIERS]
        keys = [seed & _LOW, seed >> 32]
        self._keys: list[list[Val]] = []
        for _ in range(ROUNDS):
            self._keys.append([b.splat(key, self.lanes) for key in keys])
            keys = [(key + weyl) & _LOW for key, weyl in zip(keys, WEYL)]

    def block(self, counter: Sequence[Val]) -> list[Val]:
        """The four words of each lane's counter, i64 lanes with rubbish above the low 32 bits."""
        c = list(counter)
        for first_key, second_key in self._keys:
            first = (c[0] & self._low) * self._multipliers[0]
            second = (c[2] & self._low) * self._multipliers[1]
            c = [(second >> 32) ^ c[1] ^ first_key, second, (first >> 32) ^ c[3] ^ second_key, first]
        return c

    def group(self, number: Operand, sweep: Val, chain: Val, purpose: int) -> list[list[Val]]:
        """The words of positions 64·number … + 63: for each of four sixteens, vectors of the f32 width in order."""
        b = self.b
        first = b.as_val(number, i64) * LANES
        rest = [b.splat(v, self.lanes) for v in (sweep, chain, b.i64(purpose))]
        words: list[list[Val]] = [[] for _ in range(WORDS)]
        for start in range(0, LANES, self.lanes):
            ramp = b.vec_const([start + lane for lane in range(self.lanes)], i64)
            drawn = self.block([b.splat(first, self.lanes) + ramp, *rest])
            for k, word in enumerate(drawn):
                words[k].append(word)
        return [self.narrow(parts) for parts in words]

    def narrow(self, parts: list[Val]) -> list[Val]:
        """Low halves of 64-bit lanes, two vectors in one."""
        b = self.b
        if self.lanes == 1:
            return [b.trunc(part, i32) for part in parts]
        lanes = 2 * self.lanes
        halves = [b.bitcast(part, vec(i32, lanes)) for part in parts]
        return [b.shuffle(x, y, range(0, 2 * lanes, 2)) for x, y in zip(halves[::2], halves[1::2])]

    def store_group(self, target: Val, number: Operand, sweep: Val, chain: Val, purpose: int) -> None:
        """Write the 64 words of a group, in the order of positions."""
        b = self.b
        for k, parts in enumerate(self.group(number, sweep, chain, purpose)):
            for index, part in enumerate(parts):
                b.store(part, b.elem(target, k * LANES + index * b.lanes, i32))


def exp(b: KernelBuilder, x: Val) -> Val:
    """e^x of f32 x ≤ 0, every operation rounded by itself."""
    x = b.max(x, b.const(float(LOWEST), x.type))
    shifted = x * float(LOG2_E) + _ROUNDER
    n = shifted - _ROUNDER
    r = (x - n * float(LN2_HIGH)) - n * float(LN2_LOW)
    y = b.const(float(EXP[-1]), x.type)
    for coefficient in reversed(EXP[:-1]):
        y = y * r + float(coefficient)
    power = (b.bitcast(shifted, with_elem(x.type, i32)) + 127) << 23
    return y * b.bitcast(power, x.type)


def threshold(b: KernelBuilder, probability: Val) -> Val:
    """What a word is below with this probability; u32 in i32 lanes."""
    scaled = b.min(probability * 2.0**32, b.const(float(TOP), probability.type))
    return b.intrinsic("llvm.neuc.fptoui", with_elem(scaled.type, i32), [scaled])


def sigmoid_threshold(b: KernelBuilder, x: Val) -> Val:
    """The threshold of σ(x)."""
    e = exp(b, -b.abs(x))
    one = b.const(1.0, x.type)
    return threshold(b, b.select(b.fcmp("oge", x, 0.0), one, e) / (e + 1.0))


def accept_threshold(b: KernelBuilder, x: Val) -> Val:
    """The threshold of min(1, e^x)."""
    return threshold(b, exp(b, b.min(x, 0.0)))


def gather_bytes(b: KernelBuilder, base: Val, index: Val) -> Val:
    """Signed bytes base[index], i32 lanes; three bytes after each are read, too."""
    lanes = index.lanes
    if b.isa.name == "avx512" and lanes == 16:
        every = b.const(1, vec(i1, lanes))
        args = [b.zero(index.type), base, index, every, b.i32(1)]
        got = b.intrinsic("llvm.x86.avx512.mask.gather.dpi.512", index.type, args)
    elif b.isa.name == "avx2" and lanes == 8:
        args = [b.zero(index.type), base, index, b.const(-1, index.type), b.const(1, i8)]
        got = b.intrinsic("llvm.x86.avx2.gather.d.d.256", index.type, args)
    else:
        got = b.undef(index.type)
        for lane in range(lanes):
            at = b.sext(b.extract(index, lane), i64)
            value = b.sext(b.load(b.elem(base, at, i8), i8), i32)
            got = value if lanes == 1 else b.insert(got, value, lane)
        return got
    return (got << 24).ashr(24)
