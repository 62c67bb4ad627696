"""Reductions and positions of extremes against numpy, for every instruction set that runs here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_harness import assert_guards, guarded, run_kernel, runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.arg_reduce import ArgReduceKernel
from neuc.backends.cpu.kernels.reduce import BLOCK, ReduceKernel

WIDEST = runnable_isas()[0]
every_isa = pytest.mark.parametrize("isa", [pytest.param(isa, id=isa.name) for isa in runnable_isas()])
NUMPY = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "prod": np.prod}
SHAPES = [(3, 1, 1), (5, 7, 1), (2, 203, 1), (2, 5000, 1), (3, 7, 5), (1, 130, 203), (2, 3, 64)]
EPS = float(np.finfo(np.float32).eps)


def reduce(isa: Isa, x: np.ndarray, kind: str, *, split: int = 3) -> np.ndarray:
    outer, reduced, inner = x.shape
    out, whole = guarded(np.zeros((outer, inner), x.dtype))
    dtype = {"float32": "f32", "int32": "i32", "int64": "i64"}[x.dtype.name]
    kernel = ReduceKernel(kind, dtype, inner == 1)
    run_kernel(kernel, isa, [x, out, reduced, inner], outer * inner, threads_split=split)
    assert_guards(whole)
    return out


@every_isa
@pytest.mark.parametrize("kind", ["sum", "mean"])
def test_sums_stay_within_the_rounding_of_their_blocks(isa: Isa, kind: str) -> None:
    rng = np.random.default_rng(1)
    for shape in SHAPES:
        x = rng.standard_normal(shape).astype(np.float32)
        terms = shape[1]
        # An element passes at most BLOCK additions in its block, then one for each block, then the lanes' tree; each
        # rounds by half an EPS of a partial sum that is at most the sum of magnitudes.
        roundings = min(terms, BLOCK) + terms / BLOCK + 10
        bound = roundings * EPS / 2 * np.abs(x).sum(1, dtype=np.float64)
        if kind == "mean":
            bound = bound / terms + EPS * np.abs(x).mean(1)
        error = np.abs(reduce(isa, x, kind) - NUMPY[kind](x.astype(np.float64), axis=1))
        assert (error <= bound).all(), (shape, (error / bound).max())


@every_isa
@pytest.mark.parametrize("kind", ["max", "min"])
def test_extremes_are_exact_and_nan_wins(isa: Isa, kind: str) -> None:
    rng = np.random.default_rng(2)
    for shape in SHAPES:
        x = rng.standard_normal(shape).astype(np.float32)
        x[rng.random(shape) < 0.5 / shape[1]] = np.nan
        x[rng.random(shape) < 0.5 / shape[1]] = -np.inf
        np.testing.assert_array_equal(reduce(isa, x, kind), NUMPY[kind](x, axis=1))


@every_isa
def test_products(isa: Isa) -> None:
    rng = np.random.default_rng(3)
    for shape in [(3, 1, 1), (4, 37, 1), (2, 20, 19)]:
        x = rng.uniform(0.5, 2, shape).astype(np.float32)
        # Each of the factors' products rounds once.
        np.testing.assert_allclose(reduce(isa, x, "prod"), np.prod(x.astype(float), 1), rtol=shape[1] * EPS)


@pytest.mark.parametrize(
    ("isa", "dtype"), [(WIDEST, np.int32), (runnable_isas()[-2], np.int64)], ids=["widest-i32", "portable-i64"]
)
def test_integers(isa: Isa, dtype: type) -> None:
    rng = np.random.default_rng(4)
    for kind in ("sum", "prod", "max", "min"):
        for shape in [(3, 1, 1), (2, 203, 1), (3, 7, 21)]:
            x = rng.integers(-9, 9, shape).astype(dtype)
            np.testing.assert_array_equal(
                reduce(isa, x, kind),
                NUMPY[kind](x, axis=1, dtype=dtype) if kind in ("sum", "prod") else NUMPY[kind](x, axis=1),
            )


@pytest.mark.parametrize("isa", [WIDEST], ids=["widest"])
@pytest.mark.parametrize("inner", [1, 3])
@pytest.mark.parametrize(
    ("kind", "expected"), [("sum", 0), ("prod", 1), ("max", -np.inf), ("min", np.inf), ("mean", np.nan)]
)
def test_over_nothing(isa: Isa, inner: int, kind: str, expected: float) -> None:
    got = reduce(isa, np.zeros((2, 0, inner), np.float32), kind)
    np.testing.assert_array_equal(got, np.full((2, inner), expected, np.float32))


@every_isa
@pytest.mark.parametrize("kind", ["sum", "max"])
def test_nothing_to_do(isa: Isa, kind: str) -> None:
    assert reduce(isa, np.zeros((0, 5, 1), np.float32), kind).size == 0
    assert reduce(isa, np.zeros((3, 5, 0), np.float32), kind).size == 0


def arg_reduce(isa: Isa, x: np.ndarray, kind: str, select_last: bool, split: int) -> np.ndarray:
    outer, reduced, inner = x.shape
    out, whole = guarded(np.full((outer, inner), -7, np.int64))
    dtype = {"float32": "f32", "int64": "i64"}[x.dtype.name]
    kernel = ArgReduceKernel(kind, dtype, select_last, inner == 1)
    run_kernel(kernel, isa, [x, out, reduced, inner], outer * inner, threads_split=split)
    assert_guards(whole)
    return out


@every_isa
@pytest.mark.parametrize(("kind", "select_last"), [("max", False), ("max", True), ("min", False)])
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_positions_with_ties_and_nan(isa: Isa, kind: str, select_last: bool, data: st.DataObject) -> None:
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 70)), data.draw(st.sampled_from([1, 1, 5, 33])))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    if data.draw(st.booleans()):
        values = data.draw(st.sampled_from([[0, 1], [-np.inf], [np.inf, -np.inf], [1, 2, np.nan], [np.nan]]))
        x = rng.choice(np.array(values, np.float32), shape)
    else:
        limits = np.iinfo(np.int64)
        x = rng.choice(np.array([limits.min, limits.max, 0][: data.draw(st.integers(1, 3))]), shape)
    find = np.argmax if kind == "max" else np.argmin
    expected = shape[1] - 1 - find(x[:, ::-1], axis=1) if select_last else find(x, axis=1)
    got = arg_reduce(isa, x, kind, select_last, data.draw(st.integers(1, 3)))
    np.testing.assert_array_equal(got, expected)
