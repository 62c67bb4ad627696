"""What requantisation of int32 sums to int8 codes means: the specification, in integers, one column after the other.

`runtime/npu/requantize.py` computes the same faster and shares no code with this file.
"""

from __future__ import annotations

import numpy as np


def requantize(
    acc: np.ndarray,
    multiplier: np.ndarray,
    addend: np.ndarray,
    limits: np.ndarray,
    corrections: np.ndarray,
    table: np.ndarray | None,
) -> np.ndarray:
    """Codes int8 of sums int32 […, N].

    Code = clip(nearest((acc·multiplier + addend) / 2^shift) + zero, low, high), ties to even; each correction (first,
    span) of its column adds the sign of its span to codes of the sums first … first + |span| − 1; then the table.

    Args:
        acc: int32 […, N].
        multiplier: int32 [N].
        addend: int64 [N].
        limits: int8 [N, 4]: shift, zero, low, high.
        corrections: int32 [N, E, 2].
        table: int8 [256], entry code + 128, or None.
    """
    codes = np.empty(acc.shape, np.int64)
    for n in range(acc.shape[-1]):
        shift, zero, low, high = (int(v) for v in limits[n])
        sums = acc[..., n].astype(np.int64)
        quotient, rest = np.divmod(sums * int(multiplier[n]) + int(addend[n]), 1 << shift)
        double = 2 * rest
        up = (double > 1 << shift) | ((double == 1 << shift) & (quotient % 2 == 1))
        code = np.minimum(np.maximum(quotient + up + zero, low), high)
        for first, span in corrections[n].astype(np.int64):
            code = code + np.sign(span) * ((sums >= first) & (sums - first < abs(span)))
        codes[..., n] = code
    return (codes if table is None else table[codes + 128]).astype(np.int8)
