"""Rounding to bf16: the specification. `runtime/npu/functions.py` does it on bits."""

from __future__ import annotations

import numpy as np

_BITS = 8
"""Significant bits of a bf16 number."""


def bf16(x: np.ndarray) -> np.ndarray:
    """f32 rounded to the nearest bf16 number, ties to even, as f32; what is beyond the largest is infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        _, exponent = np.frexp(x)
        # Below the smallest normal number all have the same step.
        step = np.maximum(exponent, -125) - _BITS
        wide = x.astype(np.float64)
        near = np.ldexp(np.rint(np.ldexp(wide, -step)), step)
        return np.where(np.isfinite(x), near, wide).astype(np.float32)
