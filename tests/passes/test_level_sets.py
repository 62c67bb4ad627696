"""Matrices with few levels are found, exactly, and others are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from neuc.passes.analysis.level_sets import GROUP_MULTIPLE, MAX_ULP, MIN_GROUP, LevelFit, find_levels, obstacle

Array = np.ndarray
N, K = 24, 192
BF16_BITS = 0xFFFF0000


def rebuilt(fit: LevelFit, k: int) -> Array:
    """The matrix a fit stands for."""
    scales = np.repeat(fit.scales[0], fit.scale.group_size(k), axis=1)[:, :k]
    return fit.trits[0].astype(np.float32) * scales


def ulps(a: Array, b: Array) -> int:
    """The largest distance in units in the last place of f32; signs must agree."""
    assert np.array_equal(np.sign(a), np.sign(b))
    steps = np.abs(a).view(np.int32).astype(np.int64) - np.abs(b).view(np.int32)
    return int(np.abs(steps).max())


def found(matrix: Array) -> LevelFit:
    """The fit of a matrix that has one, checked against it."""
    fit = find_levels(matrix)
    assert fit is not None
    assert fit.trits.dtype == np.int8
    assert fit.scales.dtype == np.float32
    assert set(np.unique(fit.trits).tolist()) <= set(fit.levels)
    assert ulps(rebuilt(fit, matrix.shape[1]), matrix) == fit.ulp <= MAX_ULP
    return fit


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def codes(levels: range | tuple[int, ...] = (-1, 0, 1), seed: int = 0) -> Array:
    return rng(seed).choice(np.array(levels), (N, K)).astype(np.float32)


def scales(*shape: int) -> Array:
    return rng(9).uniform(0.001, 0.1, shape).astype(np.float32)


def straight_through(seed: int = 0, *, tails: bool = False) -> Array:
    """w + (u - w) of BitNet's u = round(w·s)/s in f32, as exporters fold it."""
    draw = rng(seed)
    w = (draw.standard_t(3, (N, K)) if tails else draw.normal(size=(N, K))).astype(np.float32) * np.float32(0.02)
    s = np.float32(1) / np.abs(w).mean(dtype=np.float32)
    u = np.clip(np.round(w * s), -1, 1) / s
    return w + (u - w)


@pytest.mark.parametrize(
    ("matrix", "scale", "levels"),
    [
        (codes() * np.float32(0.0371), "tensor", (-1, 0, 1)),
        (np.where(codes() > 0, 1, -1).astype(np.float32) * np.float32(0.3), "tensor", (-1, 1)),
        (codes() * scales(N, 1), "row", (-1, 0, 1)),
        (codes() * np.repeat(scales(4), N // 4)[:, None], "row", (-1, 0, 1)),
        (codes() * np.repeat(scales(2), K // 2), "group<96>", (-1, 0, 1)),
        (codes() * np.repeat(scales(3), [32, 96, 64]), "group<32>", (-1, 0, 1)),
        (codes() * np.kron(scales(2, 2), np.ones((N // 2, K // 2), np.float32)), "group<96>", (-1, 0, 1)),
        (codes() * np.repeat(scales(N, 2), 128, axis=1)[:, :K], "group<128>", (-1, 0, 1)),
        (codes() * np.repeat(scales(N, K // 16), 16, axis=1), "group<16>", (-1, 0, 1)),
        (codes((-3, -1, 1, 3)) * scales(N, 1), "row", (-3, -1, 1, 3)),
        (codes(range(-2, 2)) * np.repeat(scales(N, 3), 64, axis=1), "group<64>", (-2, -1, 0, 1)),
        (codes(range(-8, 8)) * scales(N, 1), "row", tuple(range(-8, 8))),
        (codes(range(16)) * np.float32(0.0123), "tensor", tuple(range(16))),
    ],
)
def test_forms(matrix: Array, scale: str, levels: tuple[int, ...]) -> None:
    fit = found(matrix)
    assert (str(fit.scale), fit.levels, fit.ulp) == (scale, levels, 0)


@pytest.mark.parametrize("size", [17, 18, 25])
def test_groups_that_kernels_cannot_take_are_none(size: int) -> None:
    assert find_levels(rng(1).integers(-1, 2, (8, 4 * size)) * np.repeat(scales(8, 4), size, axis=1)) is None


@pytest.mark.parametrize("tails", [False, True])
def test_folded_straight_through_estimators(tails: bool) -> None:
    several = 0
    for seed in range(6):
        matrix = straight_through(seed, tails=tails)
        several = max(several, len(np.unique(matrix)))
        fit = found(matrix)
        assert (str(fit.scale), fit.levels) == ("tensor", (-1, 0, 1))
        magnitudes = np.abs(matrix[matrix != 0])
        middle = np.sort(magnitudes)[(magnitudes.size - 1) // 2]
        assert ulps(fit.scales[0, :1, 0], middle[None]) <= 1  # the median, or its neighbour that comes closer
    assert several >= 5


def test_zero_points_that_differ_between_groups() -> None:
    """Codes of four bits minus their group's zero point: levels from -15 to 15 in all, sixteen in a group."""
    q = codes(range(16)).reshape(N, -1, 32) - rng(1).integers(0, 16, (N, K // 32, 1))
    matrix = (q * scales(N, K // 32, 1)).reshape(N, K).astype(np.float32)
    fit = found(matrix)
    assert str(fit.scale) == "group<32>"
    assert fit.ulp == 0
    assert fit.levels[0] < -8
    assert fit.levels[-1] > 8


def test_rows_and_groups_of_zeros_have_some_scale() -> None:
    matrix = codes() * scales(N, 1)
    matrix[3] = 0
    assert (found(matrix).scales > 0).all()
    matrix = codes() * np.repeat(scales(N, 3), 64, axis=1)
    matrix[:, :64] = 0
    assert (found(matrix).scales > 0).all()
    assert find_levels(np.zeros((4, 32), np.float32)) is None


def _noisy() -> Array:
    return (straight_through() * (1 + 1e-5 * rng(2).normal(size=(N, K)))).astype(np.float32)


def _outlier() -> Array:
    matrix = codes() * np.float32(0.02)
    matrix[N - 2, K - 1] = 0.0217
    return matrix


def _nan() -> Array:
    matrix = codes()
    matrix[-1, -1] = np.nan
    return matrix


def _almost_zero() -> Array:
    matrix = codes()
    matrix[0, 0] = 1e-9
    return matrix


def _sixteen_bits() -> Array:
    """Straight through in bfloat16, whose rounding is far coarser than f32's: no three levels."""
    w = (rng(4).normal(size=(N, K)).astype(np.float32) * np.float32(3.7)).view(np.uint32) & np.uint32(BF16_BITS)
    rough = w.view(np.float32)
    return codes() + rough * np.float32(2**-9)


@pytest.mark.parametrize(
    "matrix",
    [
        lambda: rng().normal(size=(N, K)).astype(np.float32),
        lambda: codes((0, 1, 2, 3)) @ np.diag(rng(3).normal(size=K)).astype(np.float32),
        lambda: rng().choice(np.array([-1, -0.37, 0.0, 0.83], np.float32), (N, K)),
        lambda: rng().integers(-128, 128, (N, K)).astype(np.float32) * np.float32(0.01),
        lambda: codes() * np.repeat(scales(N, K // 8), 8, axis=1),
        _noisy,
        _outlier,
        _nan,
        _almost_zero,
        _sixteen_bits,
    ],
)
def test_near_misses(matrix: Callable[[], Array]) -> None:
    assert find_levels(matrix()) is None


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    groups=st.integers(1, 4),
    size=st.integers(MIN_GROUP // GROUP_MULTIPLE, 12).map(lambda fours: GROUP_MULTIPLE * fours),
    low=st.integers(-7, 0),
    high=st.integers(1, 7),
    wobble=st.integers(0, 3),
)
@example(seed=0, n=1, groups=1, size=MIN_GROUP, low=-1, high=1, wobble=3)
def test_whatever_is_planted_is_found(
    seed: int, n: int, groups: int, size: int, low: int, high: int, wobble: int
) -> None:
    """Levels times a scale for each group, up to `wobble` units off; how it is told may be coarser, never wrong."""
    draw = rng(seed)
    q = draw.integers(low, high + 1, (n, groups, size)).astype(np.float32)
    exact = (q * draw.uniform(1e-4, 10, (n, groups, 1)).astype(np.float32)).reshape(n, -1)
    bits = exact.view(np.int32) + draw.integers(-wobble, wobble + 1, exact.shape).astype(np.int32) * (exact != 0)
    matrix = bits.astype(np.int32).view(np.float32)
    if matrix.any():
        found(matrix)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12), k=st.integers(MIN_GROUP, 80))
def test_random_weights_are_not_levels(seed: int, n: int, k: int) -> None:
    assert find_levels(rng(seed).normal(size=(n, k)).astype(np.float32)) is None


def per_columns(size: int) -> Array:
    """A scale for every `size` columns."""
    return codes() * np.repeat(scales(N, -(-K // size)), size, axis=1)[:, :K]


def with_nan() -> Array:
    matrix = codes()
    matrix[5, 100] = np.nan
    return matrix


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (per_columns(8), "hold few levels only with a scale for every 8 columns, not 16 or more that divide 192"),
        (per_columns(40), "hold few levels only with a scale for every 40 columns"),
        (per_columns(38), "hold few levels only with a scale for every 38 columns"),
        (codes(range(-128, 128)) * scales(N, 1), "hold more levels than -15 to 15"),
        (codes(range(-16, 17)) * np.float32(0.3), "hold more levels than -15 to 15"),
        (np.zeros((N, K), np.float32), "are all zero"),
        (with_nan(), "hold NaN or infinity"),
        (rng().normal(size=(N, K)).astype(np.float32), "hold more than few levels"),
        (codes() + rng().normal(size=(N, K)).astype(np.float32) * np.float32(1e-5), "hold more than few levels"),
    ],
)
def test_why_there_are_no_levels(matrix: Array, reason: str) -> None:
    assert find_levels(matrix) is None
    assert obstacle(matrix).startswith(reason)
