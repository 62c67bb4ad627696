"""Quantisation kernels give the interpreter's codes and scales, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kernel_harness import assert_guards, guarded, run_kernel, runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.ternary_quantize import (
    PART,
    AbsMaxPartsKernel,
    QuantizePartsKernel,
    TernaryQuantizeKernel,
)
from neuc.dialects.interp.ternary import quantize

pytestmark = pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero", "ignore:overflow")
ISAS = runnable_isas()


def by_rows(x: np.ndarray, isa: Isa, reciprocal: bool = False) -> tuple[np.ndarray, np.ndarray]:
    q, whole = guarded(np.full(x.shape, 99, np.int8))
    s = np.full(x.shape[0], 99, np.float32)
    run_kernel(TernaryQuantizeKernel(reciprocal), isa, [x, q, s, x.shape[1]], x.shape[0], threads_split=3)
    assert_guards(whole)
    return q, s


def by_parts(x: np.ndarray, isa: Isa, reciprocal: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rows, length = x.shape
    parts = max(1, -(-length // PART))
    q, whole = guarded(np.full(x.shape, 99, np.int8))
    s, maxima = np.full(rows, 99, np.float32), np.full((rows, parts), -1, np.int32)
    run_kernel(AbsMaxPartsKernel(), isa, [x, maxima, length, parts], rows * parts, threads_split=2)
    run_kernel(QuantizePartsKernel(reciprocal), isa, [x, maxima, length, parts, q, s], rows * parts, threads_split=3)
    assert_guards(whole)
    return q, s


def assert_as_interpreted(x: np.ndarray, isa: Isa) -> None:
    for reciprocal in (False, True):
        q, s = quantize(x, 1, reciprocal)
        for found_q, found_s in (by_rows(x, isa, reciprocal), by_parts(x, isa, reciprocal)):
            assert np.array_equal(found_q, q)
            assert np.array_equal(found_s, s, equal_nan=True)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("length", [0, 1, 5, 16, 77, 9001])
def test_rows_of_many_magnitudes(length: int, isa: Isa) -> None:
    random = np.random.default_rng(length)
    x = (random.standard_normal((7, length)) * 10.0 ** random.integers(-7, 30, (7, 1))).astype(np.float32)
    if length:
        x[1] = 0
        x[2, length // 2] = np.nan
        x[3, -1] = -np.inf
        x[4, 0] = np.finfo(np.float32).max
        x[5] = np.finfo(np.float32).smallest_subnormal
    assert_as_interpreted(x, isa)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_ties_go_to_even(isa: Isa) -> None:
    """With a maximum of 127 the factor is 1 and every x.5 is a tie."""
    x = np.concatenate([np.arange(-127, 127.5, 0.5), [0.25]]).astype(np.float32)[None]
    assert_as_interpreted(x, isa)
    q, _ = by_rows(x, isa)
    assert q[0, :3].tolist() == [-127, -126, -126]
    assert q[0, 254 + 1] == 0
    assert q[0, 254 + 3] == 2


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=st.floats(width=32)))
def test_any_floats(x: np.ndarray) -> None:
    for isa in ISAS:
        assert_as_interpreted(x, isa)
