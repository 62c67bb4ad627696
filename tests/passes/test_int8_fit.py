"""Weights rounded to int8: no weight is further off than half a step, and what has eight bits stays what it is."""

from __future__ import annotations

import numpy as np
import pytest

from neuc.passes.analysis.int8_fit import fit_int8
from neuc.passes.analysis.level_sets import find_levels

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("scale", "shape"), [("row", (5, 1)), ("tensor", (5, 1)), ("group", (5, 2))])
def test_no_weight_is_off_by_more_than_half_a_step(scale: str, shape: tuple[int, int]):
    weight = RNG.standard_normal((5, 200)).astype(np.float32)
    weight[2] = 0
    fit = fit_int8(weight, scale)
    assert fit.trits.dtype == np.int8
    assert fit.scales.shape == (1, *shape)
    steps = np.repeat(fit.scales[0], fit.group_size, axis=1)[:, :200]
    assert (np.abs(fit.reconstruct() - weight) <= 0.5001 * steps).all()
    assert fit.trits.max() == 127 or fit.trits.min() == -127
    assert not fit.reconstruct()[2].any()
    if scale == "tensor":
        assert len(np.unique(fit.scales)) == 1
    assert 35 < fit.sqnr_db < 60


def test_int8_weights_are_found_again():
    weight = RNG.standard_normal((6, 64)).astype(np.float32)
    fit = fit_int8(weight)
    assert find_levels(fit.reconstruct()) is None
    found = find_levels(fit.reconstruct(), 127)
    assert found is not None
    np.testing.assert_array_equal(found.trits, fit.trits)
    assert find_levels(weight, 127) is None
