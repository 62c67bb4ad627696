"""Weights rounded to int8: one plane of levels -127 … 127 times the scale that a group's largest weight needs."""

from __future__ import annotations

import numpy as np

from neuc.passes.analysis.ternary_fit import TernaryFit, sqnr_db

LEVELS = tuple(range(-127, 128))
GROUP = 128
"""Columns that share a scale where that is asked for by group."""


def fit_int8(weight: np.ndarray, scale: str = "row") -> TernaryFit:
    """Round `weight` [N, K], finite f32, to the nearest level; ties go to even.

    Args:
        weight: the matrix.
        scale: which weights share a scale: a `row`, a `group` of 128 columns of a row, or the `tensor`.

    Returns:
        One plane: trits int8 [1, N, K] in -127 … 127, scales f32 [1, N, G].
    """
    n, k = weight.shape
    shared = GROUP if scale == "group" else k
    groups = -(-k // shared)
    padded = np.zeros((n, groups * shared), np.float32)
    padded[:, :k] = weight
    parts = padded.reshape(n, groups, shared)
    peaks = np.abs(parts).max(axis=2)
    if scale == "tensor":
        peaks[...] = peaks.max()
    scales = np.where(peaks > 0, peaks / np.float32(LEVELS[-1]), np.float32(1)).astype(np.float32)
    codes = np.clip(np.rint(parts / scales[..., None]), LEVELS[0], LEVELS[-1])
    error = np.square(parts - codes * scales[..., None], dtype=np.float64).sum()
    signal = float(np.square(weight, dtype=np.float64).sum())
    trits = np.ascontiguousarray(codes.astype(np.int8).reshape(n, -1)[:, :k])
    return TernaryFit(trits[None], scales[None], shared, sqnr_db(signal, float(error)))
