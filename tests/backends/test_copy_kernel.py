"""The copying kernels against numpy indexing, for every instruction set that runs here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_harness import assert_guards, guarded, run_kernel, runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.copy import CopyKernel, TransposeKernel
from neuc.backends.cpu.kernels.copy_pad import PadKernel
from neuc.backends.cpu.kernels.gather import GatherKernel
from neuc.backends.cpu.kernels.iota import DimsKernel

ISAS = [pytest.param(isa, id=isa.name) for isa in runnable_isas()]
every_isa = pytest.mark.parametrize("isa", ISAS)
DTYPES = {1: np.uint8, 2: np.int16, 4: np.float32, 8: np.int64}


def numbered(size: int, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    return (np.arange(count) * 37 % 251).astype(DTYPES[size]).reshape(shape)


def checked(kernel: KernelSpec, isa: Isa, args: list, out: int, work: int, split: int) -> np.ndarray:
    """Run with `args[out]` inside guard bytes."""
    inner, whole = guarded(args[out])
    args = [*args[:out], inner, *args[out + 1 :]]
    run_kernel(kernel, isa, args, work, threads_split=split)
    assert_guards(whole)
    return inner


@every_isa
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_copies_rows_into_a_wider_tensor(isa: Isa, size: int) -> None:
    for length in (1, 5, 64, 203):
        x = numbered(size, (7, length))
        out = np.zeros((7, length + 9), DTYPES[size])
        args = [x, out, 0, 4, 7, length, length, 1, length + 9, 1]
        got = checked(CopyKernel(size, 2, "unit", "unit"), isa, args, 1, x.size, 3)
        expected = np.zeros_like(out)
        expected[:, 4 : 4 + length] = x
        np.testing.assert_array_equal(got, expected)


@every_isa
@pytest.mark.parametrize("size", [1, 4])
def test_broadcasts_along_the_inner_axis(isa: Isa, size: int) -> None:
    x = numbered(size, (5, 1, 3, 1))
    out = np.zeros((5, 4, 3, 77), DTYPES[size])
    dims, reading = [5, 4, 3, 77], [3, 0, 1, 0]
    writing = [4 * 3 * 77, 3 * 77, 77, 1]
    kernel = CopyKernel(size, 4, "zero", "unit")
    got = checked(kernel, isa, [x, out, 0, 0, *dims, *reading, *writing], 1, out.size, 4)
    np.testing.assert_array_equal(got, np.broadcast_to(x, out.shape))


@every_isa
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_strided_slices_as_numpy(isa: Isa, data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([1, 2, 4, 8]))
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=3, max_size=3)))
    steps = data.draw(st.lists(st.sampled_from([1, 2, 3, -1, -2]), min_size=3, max_size=3))
    starts = [data.draw(st.integers(0, n - 1)) for n in shape]
    x = numbered(size, shape)
    expected = x[tuple(slice(s, None, step) for s, step in zip(starts, steps))]
    strides = [v // size for v in x.strides]
    offset = sum(s * v for s, v in zip(starts, strides))
    reading = [step * v for step, v in zip(steps, strides)]
    out = np.zeros(expected.shape, x.dtype)
    writing = [v // size for v in out.strides]
    kernel = CopyKernel(size, 3, "any", "any")
    args = [x, out, offset, 0, *out.shape, *reading, *writing]
    got = checked(kernel, isa, args, 1, out.size, data.draw(st.integers(1, 4)))
    np.testing.assert_array_equal(got, expected)


@every_isa
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_transposes_tiles_and_their_edges(isa: Isa, size: int) -> None:
    kernel = TransposeKernel(size, 1)
    tile = kernel.tile(isa)
    for rows, columns in [(1, 1), (16, 16), (33, 18), (3, 100), (64, 17)]:
        x = numbered(size, (3, columns, rows))
        out = np.zeros((3, rows, columns), x.dtype)
        work = 3 * -(-rows // tile) * -(-columns // tile)
        args = [x, out, 0, 0, rows, columns, columns, rows, 3, rows * columns, rows * columns]
        got = checked(kernel, isa, args, 1, work, 2)
        np.testing.assert_array_equal(got, x.transpose(0, 2, 1))


@every_isa
def test_transposes_without_outer_dims(isa: Isa) -> None:
    x = numbered(4, (40, 30))
    out = np.zeros((30, 40), np.float32)
    kernel = TransposeKernel(4, 0)
    tile = kernel.tile(isa)
    got = checked(kernel, isa, [x, out, 0, 0, 30, 40, 40, 30], 1, -(-30 // tile) * -(-40 // tile), 2)
    np.testing.assert_array_equal(got, x.T)


@every_isa
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_pads_as_numpy(isa: Isa, mode: str, data: st.DataObject) -> None:
    size = {"constant": 4, "edge": 1, "reflect": 8}[mode]
    rank = data.draw(st.sampled_from([1, 3]))
    shape = (*(data.draw(st.integers(1, 6)) for _ in range(rank - 1)), data.draw(st.integers(1, 90)))
    before = [data.draw(st.integers(0, 4)) for _ in range(rank)]
    after = [data.draw(st.integers(0, 4)) for _ in range(rank)]
    x = numbered(size, shape)
    value = 3
    widths = list(zip(before, after))
    if mode == "constant":
        expected = np.pad(x, widths, constant_values=value)
    else:
        expected = np.pad(x, widths, mode="edge" if mode == "edge" else "reflect")
    bits = int(np.array([value], x.dtype).view(f"u{size}")[0])
    out = np.zeros(expected.shape, x.dtype)
    args = [x, out, bits, *out.shape, *shape, *before]
    got = checked(PadKernel(size, rank, mode), isa, args, 1, out.size, data.draw(st.integers(1, 3)))
    np.testing.assert_array_equal(got, expected)


@every_isa
@pytest.mark.parametrize(("size", "index"), [(1, "i64"), (4, "i64"), (4, "i32"), (8, "i64")])
def test_gathers_rows(isa: Isa, size: int, index: str) -> None:
    indices = np.array([0, 10, -1, -11, 5, 5, 3], np.int32 if index == "i32" else np.int64)
    for inner in (1, 3, 100):
        data = numbered(size, (2, 11, inner))
        out = np.zeros((2, len(indices), inner), data.dtype)
        kernel = GatherKernel(size, index, inner == 1)
        got = checked(kernel, isa, [data, indices, out, 11, len(indices), inner], 2, 2 * len(indices), 3)
        np.testing.assert_array_equal(got, np.take(data, indices, axis=1))


@every_isa
def test_gather_clamps_indices_outside(isa: Isa) -> None:
    data = numbered(4, (5, 2))
    indices = np.array([5, 1 << 40, -6, -(1 << 62)], np.int64)
    out = np.zeros((4, 2), np.float32)
    got = checked(GatherKernel(4, "i64", False), isa, [data, indices, out, 5, 4, 2], 2, 4, 1)
    np.testing.assert_array_equal(got, data[[4, 4, 0, 0]])


@every_isa
def test_gather_from_an_empty_axis_touches_nothing(isa: Isa) -> None:
    out = np.full((2, 3), 7, np.float32)
    args = [np.zeros(0, np.float32), np.zeros(2, np.int64), out, 0, 2, 3]
    got = checked(GatherKernel(4, "i64", False), isa, args, 2, 2, 1)
    np.testing.assert_array_equal(got, 7)


@every_isa
def test_empty_spaces_write_nothing(isa: Isa) -> None:
    out = np.full(4, 9, np.float32)
    args = [np.zeros(4, np.float32), out, 0, 0, 3, 0, 0, 1, 0, 1]
    got = checked(CopyKernel(4, 2, "unit", "unit"), isa, args, 1, 0, 2)
    np.testing.assert_array_equal(got, 9)


@every_isa
def test_writes_out_dims(isa: Isa) -> None:
    out = np.zeros(3, np.int64)
    got = checked(DimsKernel(3), isa, [out, 5, -(1 << 40), 0], 0, 1, 1)
    assert got.tolist() == [5, -(1 << 40), 0]
