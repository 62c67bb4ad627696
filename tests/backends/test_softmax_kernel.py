"""Softmax and layer normalisation against numpy in f64, for every instruction set that runs here."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import assert_guards, guarded, run_kernel, runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.layer_norm import LayerNormKernel
from neuc.backends.cpu.kernels.softmax import SoftmaxKernel

every_isa = pytest.mark.parametrize("isa", [pytest.param(isa, id=isa.name) for isa in runnable_isas()])
EPS = float(np.finfo(np.float32).eps)
SHAPES = [(3, 1, 1), (5, 7, 1), (2, 203, 1), (3, 7, 5), (2, 9, 70)]


def softmax(isa: Isa, x: np.ndarray, *, log: bool) -> np.ndarray:
    outer, size, inner = x.shape
    out, whole = guarded(np.zeros(x.shape, np.float32))
    kernel = SoftmaxKernel(log, inner == 1)
    run_kernel(kernel, isa, [x, out, size, inner], outer * inner, threads_split=3)
    assert_guards(whole)
    return out


def exact(x: np.ndarray, *, log: bool) -> np.ndarray:
    wide = x.astype(np.float64)
    shifted = wide - wide.max(1, keepdims=True)
    total = np.exp(shifted).sum(1, keepdims=True)
    return shifted - np.log(total) if log else np.exp(shifted) / total


@every_isa
def test_softmax(isa: Isa) -> None:
    rng = np.random.default_rng(1)
    for shape in SHAPES:
        x = (5 * rng.standard_normal(shape)).astype(np.float32)
        spread = np.ptp(x, axis=1, keepdims=True)
        # x − max rounds by EPS/2 of at most the spread, which exp turns into a relative error; exp itself, the sum (one
        # rounding a term in a lane at worst), the reciprocal and the product add their own.
        rtol = EPS * (spread / 2 + 2 + shape[1] / 2 + 2)
        want = exact(x, log=False)
        assert (np.abs(softmax(isa, x, log=False) - want) <= rtol * want).all(), shape


@every_isa
def test_log_softmax(isa: Isa) -> None:
    rng = np.random.default_rng(2)
    for shape in SHAPES:
        x = (5 * rng.standard_normal(shape)).astype(np.float32)
        spread = np.ptp(x, axis=1, keepdims=True)
        # As above for the sum, whose relative error log makes absolute; then two differences of the spread's size.
        atol = EPS * (2 * spread + 2 + shape[1] / 2 + 4)
        assert (np.abs(softmax(isa, x, log=True) - exact(x, log=True)) <= atol).all(), shape


@every_isa
@pytest.mark.parametrize("inner", [1, 5])
def test_softmax_of_large_and_special_values(isa: Isa, inner: int) -> None:
    row = np.array([1e4, -1e4, 1e4, -np.inf], np.float32)
    x = np.repeat(row[None, :, None], inner, 2)
    expected = np.repeat(np.array([0.5, 0, 0.5, 0], np.float32)[None, :, None], inner, 2)
    np.testing.assert_allclose(softmax(isa, x, log=False), expected, rtol=4 * EPS)
    nothing = np.full((1, 4, inner), -np.inf, np.float32)
    assert np.isnan(softmax(isa, nothing, log=False)).all()
    x[0, 1, 0] = np.nan
    got = softmax(isa, x, log=False)
    assert np.isnan(got[..., 0]).all()
    assert not np.isnan(got[..., 1:]).any()


@every_isa
def test_softmax_of_nothing(isa: Isa) -> None:
    for shape in [(0, 4, 1), (2, 0, 1), (2, 4, 0)]:
        assert softmax(isa, np.zeros(shape, np.float32), log=False).size == 0


@every_isa
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("parameters", [0, 1, 2])
def test_layer_norm(isa: Isa, rms: bool, parameters: int) -> None:
    rng = np.random.default_rng(3)
    for rows, size in [(1, 1), (5, 7), (3, 384), (2, 1001)]:
        x = (3 + rng.standard_normal((rows, size))).astype(np.float32)
        scale, bias = rng.standard_normal((2, size)).astype(np.float32)
        eps = np.float32(1e-5)
        wide = x.astype(np.float64)
        centred = wide if rms else wide - wide.mean(1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(1, keepdims=True) + eps)
        want = centred / deviation
        # The mean is off by at most size/64 + 12 roundings of max |x|, as is every difference from it; the sum of
        # squares, root, quotient and two products add less than size/64 + 12 relative roundings more.
        roundings = size / 64 + 12
        atol = EPS * roundings * (np.abs(x).max() / deviation + np.abs(want))
        args: list = [x]
        if parameters > 0:
            args.append(scale)
            want, atol = want * scale, atol * np.abs(scale)
        if parameters > 1:
            args.append(bias)
            want, atol = want + bias, atol + EPS * np.abs(want + bias)
        out, whole = guarded(np.zeros(x.shape, np.float32))
        kernel = LayerNormKernel(parameters > 0, parameters > 1, rms)
        run_kernel(kernel, isa, [*args, out, size, float(eps)], rows, threads_split=2)
        assert_guards(whole)
        assert (np.abs(out - want) <= atol).all(), (rows, size)
