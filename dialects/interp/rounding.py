"""Rounding to int8 with a scale, as `ternary.quantize` and the int8 caches of `dense.cache_append` define it."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
SMALLEST_MAXIMUM = np.float32(1e-5)


def quantize(x: Array, axes: int, reciprocal: bool = False) -> tuple[Array, Array]:
    """Codes and scale of x, with one scale for the last `axes` axes; what is not a number has code 0."""
    shared = tuple(range(x.ndim - axes, x.ndim))
    largest = np.max(np.abs(x), axis=shared, keepdims=True, initial=0)
    bounded, top = np.maximum(largest, SMALLEST_MAXIMUM), np.float32(127)
    a = np.float32(1) / bounded * top if reciprocal else top / bounded
    codes = np.clip(np.rint(x * a), -127, 127)
    return np.nan_to_num(codes, nan=0).astype(np.int8), (np.float32(1) / a).reshape(x.shape[: x.ndim - axes])
