"""Normal random numbers as crossbar kernels draw them: Philox 4x32-10 counters and the Box-Muller transform.

Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.
"""

from __future__ import annotations

import numpy as np

Words = np.ndarray
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 2**32 - 1


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Four words (uint32) for each counter; the counter's words are uint32 arrays that broadcast."""
    c0, c1, c2, c3 = (np.asarray(word, np.uint32) for word in counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        wide0, wide1 = c0.astype(np.uint64) * _MULTIPLIERS[0], c2.astype(np.uint64) * _MULTIPLIERS[1]
        (high0, low0), (high1, low1) = (_halves(wide) for wide in (wide0, wide1))
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint32(k0), low1, high0 ^ c3 ^ np.uint32(k1), low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def normals(samples: int, columns: int, tile: int, use: int, seed: int = 0, run: int = 0) -> np.ndarray:
    """Standard normals, f32 [samples, columns]: a counter is (column, sample // 4, tile, use), the key (seed, run).

    A counter's four numbers go to the four samples that share it.
    """
    groups = np.arange(-(-samples // 4), dtype=np.uint32)[:, None]
    lines = np.arange(columns, dtype=np.uint32)[None, :]
    words = philox((lines, groups, np.uint32(tile), np.uint32(use)), (seed & _MASK, run & _MASK))  # type: ignore[arg-type]
    four = [*_box_muller(words[0], words[1]), *_box_muller(words[2], words[3])]
    return np.stack(four, axis=1).reshape(-1, columns)[:samples]


def _halves(wide: Words) -> tuple[Words, Words]:
    return (wide >> np.uint64(32)).astype(np.uint32), wide.astype(np.uint32)


def _box_muller(length: Words, angle: Words) -> tuple[np.ndarray, np.ndarray]:
    """sqrt(-2 ln u) times cosine and sine of an angle."""
    u = ((length >> np.uint32(8)).view(np.int32).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-24)
    radius = np.sqrt(np.log(u) * np.float32(-2))
    turns = angle.view(np.int32).astype(np.float64) * 2.0**-32
    return (
        radius * np.cos(2 * np.pi * turns).astype(np.float32),
        radius * np.sin(2 * np.pi * turns).astype(np.float32),
    )
