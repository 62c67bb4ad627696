"""Spiking kernels against numpy, on every instruction set: trains, sums of rows, neurons over time."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import run_kernel, runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.spike_conv import SpikeConvKernel, SpikePoolKernel
from neuc.backends.cpu.kernels.spike_fire import NEURONS_PER_UNIT, SpikeFireKernel
from neuc.backends.cpu.kernels.spike_linear import SpikeLinearKernel
from neuc.backends.cpu.kernels.spike_lists import FRAME, frames_of
from neuc.backends.cpu.kernels.spike_neurons import Neuron
from neuc.backends.cpu.kernels.spike_philox import SpikeRateKernel
from neuc.backends.cpu.kernels.spike_rows import SpikeRowsKernel
from neuc.backends.cpu.kernels.spike_trains import SpikeFramesKernel, SpikeSumKernel
from neuc.dialects.interp.philox import uniforms

QUICK = {runnable_isas()[0], runnable_isas()[-1]}
ISAS = pytest.mark.parametrize(
    "isa",
    [pytest.param(isa, id=isa.name, marks=[] if isa in QUICK else pytest.mark.slow) for isa in runnable_isas()],
)
SHAPES = ((1, 1, 1, 1), (7, 3, 17, 37), (64, 1, 65, 20), (65, 2, 40, 10), (5, 17, 300, 530))
"""Steps, samples, inputs, outputs."""
SUM_ERROR = 300 * 64 * 2.0**-22
"""Rounding of 300 products of magnitude up to 64, each within half a unit in the last place of the running sum."""


def events(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """A third of the neurons fire."""
    fired = rng.random(shape) < 0.3
    sizes = 1 if kind == "binary" else rng.choice([-64, -4, -1, 1, 2, 32], shape)
    return (fired * sizes).astype(np.int8)


def train_of(plain: np.ndarray) -> np.ndarray:
    """Events [T, B, N] as frames [B, G, N]."""
    steps, samples, count = plain.shape
    padded = np.zeros((frames_of(steps) * FRAME, samples, count), np.int8)
    padded[:steps] = plain
    split = padded.reshape(-1, FRAME, samples, count).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(split).view("<i4")[..., 0].copy()


@ISAS
def test_frames_there_and_back(isa: Isa) -> None:
    for steps, samples, count, _ in SHAPES:
        plain = events(np.random.default_rng(steps), (steps, samples, count), "graded")
        train = np.full((samples, frames_of(steps), count), -1, np.int32)
        work = samples * frames_of(steps)
        run_kernel(SpikeFramesKernel("pack"), isa, [plain, train, steps, samples, count], work, threads_split=3)
        np.testing.assert_array_equal(train, train_of(plain))
        back = np.empty_like(plain)
        run_kernel(SpikeFramesKernel("unpack"), isa, [train, back, steps, samples, count], work, threads_split=2)
        np.testing.assert_array_equal(back, plain)


@ISAS
@pytest.mark.parametrize("kind", ["binary", "graded"])
@pytest.mark.parametrize("integer", [False, True], ids=["f32", "i8"])
def test_sums_of_rows_over_time(isa: Isa, kind: str, integer: bool) -> None:
    for steps, samples, k, n in SHAPES:
        rng = np.random.default_rng(k)
        plain = events(rng, (steps, samples, k), kind)
        weight, bias = rng.standard_normal((n, k)).astype(np.float32), rng.standard_normal(n).astype(np.float32)
        if integer:
            weight, bias = rng.integers(-128, 128, (n, k)).astype(np.int8), rng.integers(-99, 99, n).astype(np.int32)
        kernel = SpikeLinearKernel(k, n, "i8" if integer else "f32", True, kind == "binary")
        cut, currents = kernel.blocks(isa), np.empty((steps, samples, n), bias.dtype)
        args = [train_of(plain), cut.pack(weight), bias, currents, steps, samples]
        run_kernel(kernel, isa, args, samples * cut.blocks, threads_split=3, scratch_bytes=kernel.scratch_bytes(isa))
        expected = plain.astype(np.float64) @ weight.T.astype(np.float64) + bias
        np.testing.assert_allclose(currents, expected, rtol=0, atol=0 if integer else SUM_ERROR)


@ISAS
def test_int16_sums_do_not_overflow(isa: Isa) -> None:
    k, n = 700, 33
    plain, weight = np.ones((4, 1, k), np.int8), np.full((n, k), -128, np.int8)
    kernel = SpikeLinearKernel(k, n, "i8", False)
    cut, currents = kernel.blocks(isa), np.empty((4, 1, n), np.int32)
    args = [train_of(plain), cut.pack(weight), currents, currents, 4, 1]
    run_kernel(kernel, isa, args, cut.blocks, scratch_bytes=kernel.scratch_bytes(isa))
    assert (currents == -128 * k).all()


@ISAS
@pytest.mark.parametrize(("x_kind", "integer"), [("f32", False), ("i8", False), ("i8", True), ("i32", True)])
def test_rows_of_one_step(isa: Isa, x_kind: str, integer: bool) -> None:
    for rows, k, n in ((1, 1, 1), (3, 70, 37), (17, 129, 10), (5, 40, 300)):
        rng = np.random.default_rng(n)
        dtype = {"f32": np.float32, "i8": np.int8, "i32": np.int32}[x_kind]
        x = (rng.standard_normal((rows, k)) * 5 * (rng.random((rows, k)) < 0.3)).astype(dtype)
        weight, bias = rng.integers(-128, 128, (n, k)), rng.integers(-99, 99, n)
        weight = weight.astype(np.int8 if integer else np.float32)
        bias = bias.astype(np.int32 if integer else np.float32)
        kernel = SpikeRowsKernel(k, n, x_kind, "i8" if integer else "f32", True)
        slabs, y = kernel.slabs(isa), np.empty((rows, n), bias.dtype)
        args = [x, slabs.pack(weight), bias, y, 3, rows]
        work = kernel.work(rows, isa).value
        run_kernel(kernel, isa, args, work, threads_split=3, scratch_bytes=kernel.scratch_bytes(isa))
        expected = x.astype(np.float64) @ weight.T.astype(np.float64) + 3.0 * bias
        scale = np.abs(x).astype(np.float64) @ np.abs(weight).T.astype(np.float64) + 300
        assert (np.abs(y - expected) <= (0 if integer else k * 2.0**-23 * scale)).all()


@ISAS
def test_rows_of_the_largest_bytes_are_exact(isa: Isa) -> None:
    rows, k, n = 9, 71, 20
    x = np.where(np.arange(rows * k).reshape(rows, k) % 5 == 0, 127, -128).astype(np.int8)
    for value in (-128, 127):
        weight, y = np.full((n, k), value, np.int8), np.empty((rows, n), np.int32)
        kernel = SpikeRowsKernel(k, n, "i8", "i8", False)
        args = [x, kernel.slabs(isa).pack(weight), y, y, 1, rows]
        run_kernel(kernel, isa, args, kernel.work(rows, isa).value, scratch_bytes=kernel.scratch_bytes(isa))
        np.testing.assert_array_equal(y, np.repeat(x.astype(np.int32).sum(1, keepdims=True) * value, n, axis=1))


@ISAS
@pytest.mark.parametrize("number", ["f32", "i32"])
def test_integrate_and_fire_over_time(isa: Isa, number: str) -> None:
    dtype = np.dtype(np.float32 if number == "f32" else np.int32)
    neuron = Neuron("if", number, states=1, parameters=1)
    for steps, samples, count, _ in SHAPES:
        rng = np.random.default_rng(steps)
        start = (rng.standard_normal(count) * 30).astype(dtype)
        threshold = np.array([40], dtype)
        for form in ("fixed", "steps"):
            shape = (steps, samples, count) if form == "steps" else (samples, count)
            currents = (rng.standard_normal(shape) * 30).astype(dtype)
            after, train = np.empty((samples, count), dtype), np.empty((samples, frames_of(steps), count), np.int32)
            kernel = SpikeFireKernel(neuron, form, "frames", single=(0,), shared=(0,))
            args = [currents, start, after, threshold, train, steps, count, 0, samples]
            run_kernel(kernel, isa, args, samples * -(-count // NEURONS_PER_UNIT), threads_split=3)
            potential, plain = np.broadcast_to(start, (samples, count)), np.zeros((steps, samples, count), np.int8)
            for t in range(steps):
                u = potential + (currents[t] if form == "steps" else currents)
                plain[t] = u >= threshold
                potential = np.where(plain[t] != 0, u - threshold, u)
            np.testing.assert_array_equal(train, train_of(plain))
            np.testing.assert_array_equal(after, potential)


@ISAS
def test_sums_over_time(isa: Isa) -> None:
    for steps, samples, count, _ in SHAPES:
        rng = np.random.default_rng(count)
        plain, start = events(rng, (steps, samples, count), "graded"), rng.integers(-9, 9, (samples, count))
        for number, dtype in (("f32", np.float32), ("i32", np.int32)):
            own, y = start.astype(dtype), np.empty((samples, count), dtype)
            args = [train_of(plain), own, y, steps, count, 1, samples, y]
            run_kernel(SpikeSumKernel("frames", number), isa, args, samples, threads_split=2)
            np.testing.assert_array_equal(y, start + plain[1:].sum(axis=0, dtype=np.int64))
            currents = rng.integers(-99, 99, plain.shape).astype(dtype)
            args = [currents, own, y, steps, count, 0, samples, y]
            run_kernel(SpikeSumKernel(number, number), isa, args, samples)
            np.testing.assert_array_equal(y, start + currents.sum(axis=0, dtype=np.int64))


@ISAS
def test_rate_coding_is_philox_everywhere(isa: Isa) -> None:
    for count, step, seed in ((1, 0, 0), (257, 3, 7), (1030, 2**33, 2**40 + 5)):
        x = np.random.default_rng(count).random(count).astype(np.float32)
        made = np.empty(count, np.int8)
        run_kernel(SpikeRateKernel(seed), isa, [x, made, count, step], -(-count // 4), threads_split=3)
        np.testing.assert_array_equal(made, uniforms(count, step, seed) < x)


CONVOLUTIONS = (
    (1, (5, 5), 1, 1, (3, 3), (1, 1, 1, 1), (1, 1)),
    (3, (7, 6), 5, 37, (3, 2), (0, 2, 1, 1), (1, 2)),
    (2, (4, 9), 17, 64, (1, 3), (3, 0, 2, 4), (1, 1)),
    (1, (6, 6), 3, 130, (5, 5), (2, 2, 2, 2), (1, 1)),
)
"""Images, their size, channels, filters, kernel, pads, dilations."""


@pytest.mark.parametrize(
    "isa",
    [
        pytest.param(isa, id=isa.name, marks=[pytest.mark.slow] if number else [])
        for number, isa in enumerate(runnable_isas())
    ],
)
@pytest.mark.parametrize(("x_kind", "integer"), [("f32", False), ("i8", False), ("i8", True)])
def test_convolution_by_scatter(isa: Isa, x_kind: str, integer: bool) -> None:
    for images, size, channels, filters, taps, pads, dilations in CONVOLUTIONS:
        rng = np.random.default_rng(filters)
        fired = rng.random((images, *size, channels)) < 0.3
        # Small whole numbers: sums are exact in f32, too.
        x = (rng.integers(-5, 6, fired.shape) * fired).astype(np.float32 if x_kind == "f32" else np.int8)
        weight = rng.integers(-128, 128, (filters, channels, *taps)).astype(np.int8 if integer else np.float32)
        bias = rng.integers(-99, 99, filters).astype(np.int32 if integer else np.float32)
        kind = "i8" if integer else "f32"
        kernel = SpikeConvKernel(size, channels, filters, taps, pads, dilations, x_kind, kind, True)
        expected = convolution(x, weight, pads, dilations) + bias
        assert expected.shape[1:3] == kernel.out
        y = np.empty(expected.shape, bias.dtype)
        args = [x, kernel.pack(weight, isa), bias, y]
        work = images * kernel.blocks(isa)
        run_kernel(kernel, isa, args, work, threads_split=3, scratch_bytes=kernel.scratch_bytes(isa))
        np.testing.assert_array_equal(y, expected)


def convolution(x: np.ndarray, weight: np.ndarray, pads: tuple[int, ...], dilations: tuple[int, int]) -> np.ndarray:
    """f64 [M, H', W', O] of x [M, H, W, C] and W [O, C, kh, kw]."""
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0))).astype(np.float64)
    height = padded.shape[1] - (weight.shape[2] - 1) * dilations[0]
    width = padded.shape[2] - (weight.shape[3] - 1) * dilations[1]
    y = np.zeros((x.shape[0], height, width, weight.shape[0]))
    for i, j in np.ndindex(*weight.shape[2:]):
        part = padded[:, i * dilations[0] :, j * dilations[1] :][:, :height, :width]
        y += part @ weight[:, :, i, j].T.astype(np.float64)
    return y


@ISAS
def test_sums_of_windows(isa: Isa) -> None:
    for images, size, channels in ((2, (7, 6), 16), (1, (5, 5), 3), (3, (4, 4), 70)):
        x = np.random.default_rng(channels).integers(0, 2, (images, *size, channels)).astype(np.int8)
        kernel = SpikePoolKernel(size, channels, (2, 2), (2, 2))
        y = np.empty((images, *kernel.out, channels), np.int8)
        run_kernel(kernel, isa, [x, y], images * kernel.out[0], threads_split=2)
        height, width = kernel.out
        cut = x[:, : 2 * height, : 2 * width].reshape(images, height, 2, width, 2, channels)
        np.testing.assert_array_equal(y, cut.sum(axis=(2, 4)))
