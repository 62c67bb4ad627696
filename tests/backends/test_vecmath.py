"""Accuracy of the vector functions against float64, on every instruction set this CPU runs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from kernel_harness import run_kernel, runnable_isas
from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32
from neuc.backends.cpu.isa import Isa

ISAS = pytest.mark.parametrize("isa", runnable_isas(), ids=lambda isa: isa.name)
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38, 1.0, -1.0], np.float32)


def evaluate(function: Callable[[KernelBuilder, Val], Val], isa: Isa, x: np.ndarray) -> np.ndarray:
    b = KernelBuilder("evaluate", isa)
    with b.loop(b.begin, b.end, b.lanes) as loop:
        mask = b.mask_below(b.end - loop.i, b.lanes)
        v = b.masked_load(b.elem(b.arg_ptr(0), loop.i, f32), b.vtype(), mask)
        b.masked_store(function(b, v), b.elem(b.arg_ptr(1), loop.i, f32), mask)
    y = np.empty_like(x)
    run_kernel(b.finish(), isa, [x, y], x.size)
    return y


def everywhere() -> np.ndarray:
    """Numbers of every sign and exponent, near one, and the special ones."""
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**32, 20_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    parts = [bits[np.isfinite(bits)], rng.normal(0, 1, 20_000), rng.uniform(-110, 110, 20_000), SPECIAL]
    return np.concatenate(parts).astype(np.float32)


def ulp(value: np.ndarray) -> np.ndarray:
    """The spacing of f32 at these float64 values; at least the smallest subnormal."""
    return np.spacing(np.minimum(np.abs(value), np.finfo(np.float32).max).astype(np.float32)).astype(np.float64)


def worst_ulp(got: np.ndarray, exact: np.ndarray) -> float:
    """Largest error in ULP; the special values must agree (overflow counts as infinity)."""
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(exact))
    # One ULP at the overflow border may go either way.
    border = np.abs(exact) > 3.402e38
    np.testing.assert_array_equal(got[np.isinf(rounded) & ~border], rounded[np.isinf(rounded) & ~border])
    ok = np.isfinite(rounded) & ~border
    return float(np.max(np.abs(got[ok].astype(np.float64) - exact[ok]) / ulp(exact[ok]), initial=0.0))


def exact_erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(v) for v in x.astype(np.float64)])


FUNCTIONS: list[tuple[str, Callable[[np.ndarray], np.ndarray], float]] = [
    ("exp", np.exp, 2.0),
    ("expm1", np.expm1, 3.0),
    ("log", np.log, 2.0),
    ("log1p", np.log1p, 3.0),
    ("sigmoid", lambda x: np.where(x >= 0, 1, np.exp(-np.abs(x))) / (1 + np.exp(-np.abs(x))), 4.0),
    ("tanh", np.tanh, 4.0),
    ("erf", exact_erf, 3.0),
    ("floor", np.floor, 0.0),
    ("ceil", np.ceil, 0.0),
    ("trunc", np.trunc, 0.0),
    ("round_even", np.rint, 0.0),
]


@ISAS
@pytest.mark.parametrize(("name", "exact", "bound"), FUNCTIONS, ids=[f[0] for f in FUNCTIONS])
def test_within_the_stated_bound(name: str, exact: Callable[[np.ndarray], np.ndarray], bound: float, isa: Isa) -> None:
    x = everywhere()
    if name in ("floor", "ceil", "trunc", "round_even"):
        x = np.concatenate([x, np.linspace(-5, 5, 41), [8388607.5, -8388607.5, 2.0**24]])
        x = x.astype(np.float32)
    got = evaluate(getattr(vecmath, name), isa, x)
    with np.errstate(all="ignore"):
        assert worst_ulp(got, exact(x.astype(np.float64))) <= bound


@ISAS
def test_powers_of_two_below_one(isa: Isa) -> None:
    x = -np.abs(everywhere())
    got = evaluate(vecmath.exp2_below, isa, x)
    with np.errstate(all="ignore"):
        assert worst_ulp(got, np.exp2(np.maximum(x.astype(np.float64), -126))) <= 2.0


@ISAS
def test_signs_of_zero_are_kept(isa: Isa) -> None:
    zeros = np.array([0.0, -0.0], np.float32)
    for function in (vecmath.tanh, vecmath.erf, vecmath.floor, vecmath.ceil, vecmath.trunc, vecmath.round_even):
        assert np.signbit(evaluate(function, isa, zeros)).tolist() == [False, True], function.__name__


@ISAS
def test_gelu(isa: Isa) -> None:
    x = np.concatenate([np.linspace(-20, 20, 40_001), [0, -1e30, 1e30, np.inf, np.nan, 1e-40]]).astype(np.float32)
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        exact = wide * 0.5 * np.array([math.erfc(-v / math.sqrt(2)) for v in wide])
    got = evaluate(vecmath.gelu, isa, x).astype(np.float64)
    assert np.isnan(got[np.isnan(x)]).all()
    assert got[-3] == np.inf
    ok = np.isfinite(x)
    assert (np.abs(got[ok] - exact[ok]) <= 1.5 * np.abs(wide[ok]) * 2.0**-23 + 1e-44).all()


@ISAS
@pytest.mark.parametrize("name", ["gelu_tanh", "silu"])
def test_gated_functions(name: str, isa: Isa) -> None:
    x = np.concatenate([np.linspace(-30, 30, 20_001), [0, 1e-40, 1e4, -1e4]]).astype(np.float32)
    wide = x.astype(np.float64)
    inner = wide if name == "silu" else 2 * math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    small = np.exp(-np.abs(inner))
    exact = wide * np.where(inner >= 0, 1, small) / (1 + small)
    got = evaluate(getattr(vecmath, name), isa, x).astype(np.float64)
    # e^-|u| has the relative error |u| eps of its rounded argument u, on top of the function's own 5 ULP.
    bound = (5 + 3 * np.abs(inner)) * 2.0**-23 * np.abs(exact) + 1e-44
    assert (np.abs(got - exact) <= bound).all()
