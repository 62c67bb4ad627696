"""The fit of ternary planes: exact where it can be, at least as good as known figures where it cannot."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuc.errors import Error
from neuc.passes.analysis.ternary_fit import EXACT_SQNR_DB, fit_ternary

SAMPLING_DB = 0.15
"""How far a figure over 256 x 1024 random weights strays from another draw's."""

DRAWS = {
    "gauss": lambda rng, shape: rng.standard_normal(shape),
    "laplace": lambda rng, shape: rng.laplace(size=shape),
    "t5": lambda rng, shape: rng.standard_t(5, size=shape),
}
# Published-method figures (docs: alternating least squares from a greedy start), dB for gauss, laplace, t5.
KNOWN = {
    (1, "row"): (7.21, 5.80, 5.59),
    (1, "group"): (7.27, 5.93, 5.79),
    (2, "row"): (15.13, 12.43, 11.40),
    (2, "group"): (15.37, 12.91, 12.50),
    (3, "group"): (23.27, 21.73, 21.27),
}


def measured_sqnr(weight: np.ndarray, rebuilt: np.ndarray) -> float:
    signal, error = (np.square(a, dtype=np.float64).sum() for a in (weight, weight - rebuilt))
    return 10 * float(np.log10(signal / error))


@pytest.mark.parametrize(("planes", "scale"), KNOWN)
def test_sqnr_reaches_known_figures(planes: int, scale: str) -> None:
    for name, known in zip(DRAWS, KNOWN[planes, scale], strict=True):
        weight = DRAWS[name](np.random.default_rng(7), (256, 1024)).astype(np.float32)
        fit = fit_ternary(weight, planes, scale)
        assert fit.sqnr_db >= known - SAMPLING_DB, name
        assert fit.sqnr_db == pytest.approx(measured_sqnr(weight, fit.reconstruct()), abs=1e-3)
        if planes == 1:  # the optimum: nothing can be better than the figure
            assert fit.sqnr_db <= known + SAMPLING_DB


@given(st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=7), st.sampled_from(["row", "tensor"]))
@settings(max_examples=60, deadline=None)
def test_one_plane_is_optimal(values: list[float], scale: str) -> None:
    """No choice of trits with its best scale has a smaller error."""
    weight = np.array([values], np.float32)
    exact = weight[0].astype(np.float64)
    fit = fit_ternary(weight, 1, scale)
    error = np.square(exact - fit.reconstruct()[0]).sum()
    best = min(
        np.square(exact - (t @ exact) / max(1, t @ t) * t).sum()
        for t in map(np.array, itertools.product((-1, 0, 1), repeat=len(values)))
    )
    rounding = 1e-6 * np.square(exact).sum()  # scales are f32
    assert error <= best + rounding


@given(
    st.integers(1, 4),
    st.integers(1, 40),
    st.integers(1, 4),
    st.sampled_from(["row", "group", "tensor"]),
    st.integers(0, 9),
)
@settings(max_examples=50, deadline=None)
def test_shapes_signs_and_order(n: int, k: int, planes: int, scale: str, seed: int) -> None:
    weight = np.random.default_rng(seed).standard_normal((n, k)).astype(np.float32)
    fit = fit_ternary(weight, planes, scale, group_size=16)
    groups = -(-k // 16) if scale == "group" else 1
    assert fit.trits.shape == (planes, n, k)
    assert fit.trits.dtype == np.int8
    assert fit.scales.shape == (planes, n, groups)
    assert fit.scales.dtype == np.float32
    assert set(np.unique(fit.trits)) <= {-1, 0, 1}
    assert (fit.scales >= 0).all()
    assert (np.diff(fit.scales, axis=0) <= 0).all()
    if scale == "tensor":
        assert (fit.scales == fit.scales[:, :1]).all()


@given(st.integers(0, 50), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_no_weight_has_a_nearer_level(seed: int, planes: int, n: int) -> None:
    weight = np.random.default_rng(seed).laplace(size=(n, 30)).astype(np.float32)
    fit = fit_ternary(weight, planes, iterations=40)
    combos = np.array(list(itertools.product((-1, 0, 1), repeat=planes)))
    levels = np.einsum("cp,pn->nc", combos, fit.scales[..., 0])
    nearest = np.abs(weight[:, :, None] - levels[:, None, :]).min(axis=2)
    # The scales are refitted once after the last assignment; where that still moved them, a weight near a threshold
    # may lie on its other side by about that move.
    slack = 0.05 * np.abs(weight).max()
    assert (np.abs(weight - fit.reconstruct()) <= nearest + slack).all()


@pytest.mark.parametrize("planes", [1, 2, 3, 4])
def test_ternary_weights_come_back_exactly(planes: int) -> None:
    rng = np.random.default_rng(3)
    scales = rng.uniform(0.1, 2, (20, 1)).astype(np.float32)
    weight = rng.integers(-1, 2, (20, 96)).astype(np.float32) * scales
    fit = fit_ternary(weight, planes)
    assert np.abs(weight - fit.reconstruct()).max() <= 4e-7 * scales.max()  # an ULP of the refitted scale
    assert fit.sqnr_db > 120


@pytest.mark.parametrize("planes", [1, 2, 3])
def test_rows_of_zeros(planes: int) -> None:
    weight = np.zeros((3, 33), np.float32)
    weight[1] = np.linspace(-1, 1, 33)
    fit = fit_ternary(weight, planes)
    assert not fit.trits[:, [0, 2]].any()
    assert np.isfinite(fit.scales).all()
    assert fit_ternary(np.zeros((2, 8), np.float32), planes).sqnr_db == EXACT_SQNR_DB


def test_same_input_same_bytes() -> None:
    weight = np.random.default_rng(0).standard_normal((40, 200)).astype(np.float32)
    first, second = fit_ternary(weight, 3), fit_ternary(weight.copy(), 3)
    assert first.trits.tobytes() == second.trits.tobytes()
    assert first.scales.tobytes() == second.scales.tobytes()


@pytest.mark.parametrize(
    ("weight", "planes", "scale", "message"),
    [
        (np.ones((2, 2)), 0, "row", "planes = 0"),
        (np.ones((2, 2)), 5, "row", "planes = 5"),
        (np.ones((2, 2)), 1, "column", "'column'"),
        (np.ones(4), 1, "row", r"\[4\]"),
        (np.array([[1.0, np.nan]]), 1, "row", "NaN"),
    ],
)
def test_bad_arguments(weight: np.ndarray, planes: int, scale: str, message: str) -> None:
    with pytest.raises(Error, match=message) as caught:
        fit_ternary(weight, planes, scale)
    assert caught.value.code == "NEUC-E220"
