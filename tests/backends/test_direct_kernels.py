"""Direct products of i2 and i8 weights equal numpy's int32 products."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_harness import assert_guards, guarded, run_kernel, runnable_isas
from neuc.backends.cpu.codegen import assembly
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.direct_i2 import DirectI2Kernel
from neuc.backends.cpu.kernels.direct_i8 import DirectI8Kernel
from neuc.backends.cpu.packing.i2 import I2Layout, pack_i2

ISAS = runnable_isas()
TERNARY = (-1, 0, 1)

# N, K, BM, BK, columns per scale (0: one scale a row), levels.
SHAPES = [
    (130, 301, 64, 120, 0, TERNARY),
    (33, 96, 32, 64, 0, TERNARY),
    (5, 1, 16, 4, 0, TERNARY),
    (20, 100, 64, 64, 24, (-2, -1, 0, 1)),
]


def activations(tokens: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random rows, and among them all -128, all 127, all zero."""
    q = np.random.default_rng(seed).integers(-128, 128, (tokens, columns)).astype(np.int8)
    for row, value in zip(q[1:], (-128, 127, 0), strict=False):
        row[:] = value
    return q


def weights_with_edges(rows: int, columns: int, levels: tuple[int, ...], seed: int = 0) -> np.ndarray:
    weights = np.random.default_rng(seed).integers(levels[0], levels[-1] + 1, (rows, columns)).astype(np.int8)
    for row, value in zip(weights[1:], (0, levels[-1], levels[0]), strict=False):
        row[:] = value
    return weights


def products(q: np.ndarray, weights: np.ndarray, segment: int) -> np.ndarray:
    """Int32 [tokens, segments, rows]."""
    parts = [slice(at, at + segment) for at in range(0, q.shape[1], segment)]
    return np.stack([q[:, p].astype(np.int32) @ weights[:, p].astype(np.int32).T for p in parts], axis=1)


def multiply(q: np.ndarray, weights: np.ndarray, layout: I2Layout, isa: Isa, split: int = 1) -> np.ndarray:
    tokens, tiling = q.shape[0], layout.tiling
    out, whole = guarded(np.full((tokens, tiling.segments, tiling.rows), -7, np.int32))
    kernel = DirectI2Kernel(layout)
    work = tiling.row_blocks * -(-tokens // kernel.token_block)
    args = [q, pack_i2(weights, layout), out, tokens]
    run_kernel(kernel, isa, args, work, threads_split=split, scratch_bytes=kernel.scratch)
    assert_guards(whole)
    return out


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_i2_equals_numpy(shape: tuple[int, int, int, int, int, tuple[int, ...]], isa: Isa) -> None:
    rows, columns, bm, bk, group, levels = shape
    segment = group or columns
    layout = I2Layout.of(levels, rows, columns, segment, bm, bk)
    weights = weights_with_edges(rows, columns, levels)
    for tokens, split in ((1, 1), (2, 2), (3, 3), (17, 4), (47, 2)):
        q = activations(tokens, columns)
        assert np.array_equal(multiply(q, weights, layout, isa, split), products(q, weights, segment))


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("levels", [(-3, -2, -1, 0)], ids=str)
def test_i2_sums_of_many_columns(levels: tuple[int, ...], isa: Isa) -> None:
    """Every product at its extreme, for longer than any narrow accumulator stands."""
    columns = 6912
    weights = np.full((16, columns), levels[-1], np.int8)
    weights[1::2] = levels[0]
    layout = I2Layout.of(levels, 16, columns, columns, 16, columns)
    for value in (-128, 127):
        q = np.full((5, columns), value, np.int8)
        assert np.array_equal(multiply(q, weights, layout, isa), products(q, weights, columns))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 200), st.integers(1, 300)),
    st.sampled_from((16, 32, 48, 64, 96, 128, 192)),
    st.integers(1, 400),
    st.integers(0, 40),
    st.sampled_from((1, 2, 3, 17, 128)),
    st.integers(1, 4),
    st.integers(0, 1000),
)
def test_i2_equals_numpy_at_random(
    shape: tuple[int, int], bm: int, bk: int, group: int, tokens: int, split: int, seed: int
) -> None:
    rows, columns = shape
    segment = min(group, columns) or columns
    weights, q = weights_with_edges(rows, columns, TERNARY, seed), activations(tokens, columns, seed)
    for isa in ISAS:
        layout = I2Layout.of(TERNARY, rows, columns, segment, bm, bk)
        assert np.array_equal(multiply(q, weights, layout, isa, split), products(q, weights, segment))


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize(("rows", "columns", "segment"), [(5, 77, 77), (3, 100, 24), (1, 1, 1)])
def test_i8_equals_numpy(rows: int, columns: int, segment: int, isa: Isa) -> None:
    weights, q = weights_with_edges(rows, columns, (-127, 127)), activations(4, columns)
    out, whole = guarded(np.zeros((4, -(-columns // segment), rows), np.int32))
    run_kernel(DirectI8Kernel(rows, columns, segment), isa, [q, weights, out, 4], rows, threads_split=2)
    assert_guards(whole)
    assert np.array_equal(out, products(q, weights, segment))


def test_avx512_accumulators_stay_in_registers() -> None:
    isa = Isa.avx512(("avx512vnni",))
    kernel = DirectI2Kernel(I2Layout.of(TERNARY, 256, 768, 768, 128, 768))
    lines = [line.strip() for line in assembly(kernel.build(isa), isa).splitlines()]
    multiplies = [i for i, line in enumerate(lines) if "vpdpbusd" in line]
    assert len(multiplies) >= 64
    spills = re.compile(r"vmov\S+\s+%zmm\d+, .*\(%rsp")
    assert not [line for line in lines[multiplies[0] : multiplies[-1]] if spills.match(line)]
