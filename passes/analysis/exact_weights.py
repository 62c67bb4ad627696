"""Weights that hold few levels already, as a `ternary.weight` that loses nothing."""

from __future__ import annotations

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, i64

from neuc.dialects.ternary import WeightOp
from neuc.dialects.ternary_weights import make_weight
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.level_sets import BOUNDS, LevelFit, find_levels
from neuc.passes.analysis.ternary_layers import ULP


def exact_weight(matrix: np.ndarray, name: str, store: WeightStore, most: int = BOUNDS[-1]) -> WeightOp | None:
    """The levels of an f32 matrix [N, K], up to `most`, as a `ternary.weight` in `store`; None if it has none."""
    fit = find_levels(matrix, most)
    if fit is None:
        return None
    sqnr = _sqnr_db(matrix, fit) if fit.ulp else None
    weight = make_weight(f"{name}.levels", fit.trits, fit.scales, store, scale=fit.scale, levels=fit.levels, sqnr=sqnr)
    weight.attributes[ULP] = IntegerAttr(fit.ulp, i64)
    return weight


def _sqnr_db(matrix: np.ndarray, fit: LevelFit) -> float:
    scales = np.repeat(fit.scales[0], fit.scale.group_size(matrix.shape[1]), axis=1)[:, : matrix.shape[1]]
    error = np.square(matrix - fit.trits[0] * scales, dtype=np.float64).sum()
    return float(10 * np.log10(np.square(matrix, dtype=np.float64).sum() / error))
