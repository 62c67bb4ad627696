"""Random numbers and probabilities of the `energy` samplers, to the bit: kernels draw and compare the same words.

Philox 4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011) under the seed as its key. The counter
is (c, sweep, chain, purpose). Position p of a sweep reads word (p // 16) % 4 of counter c = 16·(p // 64) + p % 16.
Probabilities are f32 from plain multiplications and additions, which round the same everywhere.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray
LANES, WORDS = 16, 4
GROUP = LANES * WORDS
SITES, START, NORMAL, EXCHANGE, PLANES, WORLD = 0, 1, 2, 3, 4, 20
"""Purposes, the last counter word: updates, random states, noise, exchanges of replicas, planes (4 to 19), worlds."""
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

LOG2_E = np.float32(1.44269504)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
EXP = tuple(np.float32(c) for c in (1.0, 1.0, 0.499999934, 0.166665195, 0.0416684011, 0.00836885107, 0.00138143205))
LOWEST = np.float32(-87.0)
TOP = np.float32(4294967040.0)
"""The largest f32 below 2^32."""


def philox(counter: tuple[Array | int, Array | int, Array | int, int], seed: int) -> tuple[Array, ...]:
    """The four u32 words of each counter; the counter's parts broadcast."""
    mask = np.uint64(0xFFFFFFFF)
    c = [np.asarray(part, np.uint64) & mask for part in counter]
    c = list(np.broadcast_arrays(*c))
    key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    for _ in range(ROUNDS):
        first, second = c[0] * np.uint64(MULTIPLIERS[0]), c[2] * np.uint64(MULTIPLIERS[1])
        c = [
            (second >> np.uint64(32)) ^ c[1] ^ np.uint64(key[0]),
            second & mask,
            (first >> np.uint64(32)) ^ c[3] ^ np.uint64(key[1]),
            first & mask,
        ]
        key = [(k + w) & 0xFFFFFFFF for k, w in zip(key, WEYL)]
    return tuple(part.astype(np.uint32) for part in c)


def words(positions: int, sweep: int, chains: int, purpose: int, seed: int) -> Array:
    """u32 [chains, positions] of a sweep."""
    groups = -(-positions // GROUP)
    counter = np.arange(groups * LANES, dtype=np.uint64)
    drawn = philox((counter, sweep, np.arange(chains)[:, None], purpose), seed)
    stacked = np.stack([w.reshape(chains, groups, LANES) for w in drawn], 2)
    return stacked.reshape(chains, groups * GROUP)[:, :positions]


def plane_words(positions: int, sweep: int, chains: int, seed: int) -> Array:
    """u32 [chains, positions], drawn for 64 chains together.

    Bit 31 − b of a number is bit c of the 64-bit plane b of chains 64·g … 64·g + 63. Planes 2j and 2j + 1 are the words
    (0, 1) and (2, 3), low word first, of the counter (position, sweep, g, 4 + j).
    """
    groups = -(-chains // 64)
    place, group = np.arange(positions), np.arange(groups)[:, None]
    numbers = np.zeros((groups, 64, positions), np.uint32)
    bit = np.arange(64, dtype=np.uint64)[None, :, None]
    for j in range(16):
        drawn = [w.astype(np.uint64) for w in philox((place, sweep, group, PLANES + j), seed)]
        for half in range(2):
            plane = drawn[2 * half] | (drawn[2 * half + 1] << np.uint64(32))
            bits = ((plane[:, None, :] >> bit) & np.uint64(1)).astype(np.uint32)
            numbers |= bits << np.uint32(31 - (2 * j + half))
    return numbers.reshape(groups * 64, positions)[:chains]


def exp(x: Array) -> Array:
    """e^x of f32 x ≤ 0, f32; below −87 as at −87."""
    x = np.maximum(x, LOWEST)
    n = np.rint(x * LOG2_E)
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    y = np.full_like(r, EXP[-1])
    for coefficient in reversed(EXP[:-1]):
        y = y * r + coefficient
    return y * ((n.astype(np.int32) + 127) << 23).astype(np.int32).view(np.float32)


def threshold(probability: Array) -> Array:
    """u32 t so that a word is below it with this probability, to 2^-24 of 1; f32 p from 0 to 1."""
    return np.minimum(probability * np.float32(2.0**32), TOP).astype(np.uint32)


def choice_thresholds(p: Array) -> Array:
    """Where a word passes from each outcome to the next, i64 […, K − 1], of probabilities [K, …].

    To 2^-32; what has probability 0 is never chosen, and what has 1 always.
    """
    ends = np.cumsum(np.asarray(p, np.float64), 0)
    return np.moveaxis(np.rint(ends[:-1] / ends[-1:] * 2.0**32).astype(np.int64), 0, -1)


def choose(word: Array, thresholds: Array) -> Array:
    """The outcome of each u32 word [C], from thresholds [C, K − 1]."""
    return (word[:, None].astype(np.int64) >= thresholds).sum(-1)


def sigmoid_threshold(x: Array) -> Array:
    """The threshold of σ(x) = 1/(1 + e^−x), f32 x."""
    e = exp(-np.abs(x))
    one = np.float32(1.0)
    return threshold(np.where(x >= 0, one, e) / (one + e))


def accept_threshold(x: Array) -> Array:
    """The threshold of min(1, e^x), f32 x."""
    return threshold(exp(np.minimum(x, np.float32(0.0))))


def normals(count: int, sweep: int, chains: int, seed: int) -> Array:
    """Standard normal f64 [chains, count], by Box and Muller from two words each."""
    counter = np.arange(-(-count // 2), dtype=np.uint64)
    a, b, _, _ = philox((counter, sweep, np.arange(chains)[:, None], NORMAL), seed)
    radius = np.sqrt(-2.0 * np.log((a + 0.5) * 2.0**-32))
    angle = 2.0 * np.pi * (b * 2.0**-32)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).reshape(chains, -1)[:, :count]
