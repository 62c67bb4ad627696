"""Philox4x32-10, the counter-based random numbers of `spike.encode_rate`.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011): ten rounds of two 32-bit
multiplications on a counter of four words with a key of two. The same words for the same counter on every machine.
"""

from __future__ import annotations

import numpy as np

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(counters: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Random words, uint32 [n, 4], of counters uint32 [n, 4] under a key of two 32-bit words."""
    c0, c1, c2, c3 = (counters[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ np.uint64(k0), p1 & _LOW, (p0 >> _HALF) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def uniforms(count: int, step: int, seed: int) -> np.ndarray:
    """`count` numbers in [0, 1), f32 multiples of 2^-24, for elements 0 … count-1 in a step."""
    calls = -(-count // 4)
    index = np.arange(calls, dtype=np.uint64)
    counters = np.empty((calls, 4), np.uint32)
    counters[:, 0], counters[:, 1] = index & _LOW, index >> _HALF
    counters[:, 2], counters[:, 3] = step & 0xFFFFFFFF, (step >> 32) & 0xFFFFFFFF
    words = philox(counters, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)).reshape(-1)[:count]
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
