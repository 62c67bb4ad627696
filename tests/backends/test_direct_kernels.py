"""Direct products of i2, i4, i8 and t5 weights equal numpy's int32 products."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_harness import assert_guards, guarded, host_features, run_kernel, runnable_isas
from neuc.backends.cpu.codegen import assembly
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.direct import DirectKernel
from neuc.backends.cpu.kernels.direct_i8 import DirectI8Kernel
from neuc.backends.cpu.packing.direct import DirectEncoding, DirectLayout, pack_direct

TERNARY = (-1, 0, 1)
INT4 = tuple(range(-8, 8))
VNNI = ("avx512vnni", "avx512vbmi")


def isas() -> list[Isa]:
    """Every instruction set with kernels of its own that this machine runs."""
    narrower = [Isa.avx512(VNNI), Isa.avx512(VNNI[:1]), Isa.avx512(), Isa.avx2(("avxvnni",))]
    return [isa for isa in narrower if host_features() >= set(isa.features)] + [
        isa for isa in runnable_isas() if isa.name != "avx512"
    ]


def label(isa: Isa) -> str:
    return "+".join([isa.name, *isa.optional])


ISAS = isas()
each_isa = pytest.mark.parametrize("isa", ISAS, ids=label)

Case = tuple[DirectEncoding, int, int, int, int, int, tuple[int, ...]]
# Encoding, N, K, BM, BK, columns per scale (0: one scale a row), levels. K is more than narrow accumulators stand.
CASES: list[Case] = [
    ("i2", 130, 301, 64, 120, 0, (-3, -1, 1, 3)),
    ("t5", 67, 330, 128, 120, 0, TERNARY),
    ("i4", 20, 203, 48, 64, 90, INT4),
    ("i8", 67, 77, 64, 32, 0, (-127, -5, 3, 127)),
]
MORE_CASES: list[Case] = [
    ("i2", 130, 301, 64, 120, 0, TERNARY),
    ("i2", 20, 100, 32, 64, 24, (1, 2, 3)),
    ("t5", 33, 96, 16, 64, 32, (-1, 1)),
    ("i4", 67, 203, 64, 16, 0, tuple(range(-15, 16, 2))),
    ("i8", 20, 70, 16, 12, 9, (-3, 5, 127)),
]
EXTREMES: list[tuple[DirectEncoding, tuple[int, ...]]] = [
    ("i2", (-3, -2, -1, 0)),
    ("t5", TERNARY),
    ("i4", tuple(range(16))),
    ("i8", (-127, 127)),
]
KINDS: list[tuple[DirectEncoding, tuple[int, ...]]] = [
    *EXTREMES,
    ("i4", INT4),
    ("i2", TERNARY),
    ("i2", (-1, 1)),
    ("i2", (1, 2, 3)),
    ("t5", (0, 1)),
    ("i4", (-4, 1, 6)),
]


def activations(tokens: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random rows, and among them all -128, all 127, all zero."""
    q = np.random.default_rng(seed).integers(-128, 128, (tokens, columns)).astype(np.int8)
    for row, value in zip(q[1:], (-128, 127, 0), strict=False):
        row[:] = value
    return q


def weights_with_edges(rows: int, columns: int, levels: tuple[int, ...], seed: int = 0) -> np.ndarray:
    weights = np.random.default_rng(seed).choice(np.array(levels, np.int8), (rows, columns))
    for row, value in zip(weights[1:], (levels[0], levels[-1]), strict=False):
        row[:] = value
    return weights


def products(q: np.ndarray, weights: np.ndarray, segment: int) -> np.ndarray:
    """Int32 [tokens, segments, rows]."""
    parts = [slice(at, at + segment) for at in range(0, q.shape[1], segment)]
    return np.stack([q[:, p].astype(np.int32) @ weights[:, p].astype(np.int32).T for p in parts], axis=1)


def multiply(q: np.ndarray, weights: np.ndarray, layout: DirectLayout, isa: Isa, split: int = 1) -> np.ndarray:
    tokens, tiling = q.shape[0], layout.tiling
    out, whole = guarded(np.full((tokens, tiling.segments, tiling.rows), -7, np.int32))
    kernel = DirectKernel(layout)
    work = tiling.row_blocks * -(-tokens // kernel.token_block)
    args = [q, pack_direct(weights, layout), out, tokens]
    run_kernel(kernel, isa, args, work, threads_split=split, scratch_bytes=kernel.scratch_bytes(isa))
    assert_guards(whole)
    return out


@each_isa
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_numpy(case: Case, isa: Isa) -> None:
    encoding, rows, columns, bm, bk, group, levels = case
    segment = group or columns
    layout = DirectLayout.of(encoding, isa, levels, rows, columns, segment, bm, bk)
    weights = weights_with_edges(rows, columns, levels)
    # All numbers of tokens that are taken together, alone and as what is left of more.
    for tokens, split in ((1, 1), (2, 2), (3, 3), (5, 1), (17, 4), (47, 2)):
        q = activations(tokens, columns)
        assert np.array_equal(multiply(q, weights, layout, isa, split), products(q, weights, segment))


@pytest.mark.slow
@each_isa
@pytest.mark.parametrize("case", MORE_CASES, ids=str)
def test_more_equals_numpy(case: Case, isa: Isa) -> None:
    test_equals_numpy(case, isa)


@pytest.mark.slow
@each_isa
@pytest.mark.parametrize("columns", [2400, 1 << 17])
@pytest.mark.parametrize(("encoding", "levels"), EXTREMES, ids=str)
def test_sums_of_many_columns(encoding: DirectEncoding, levels: tuple[int, ...], columns: int, isa: Isa) -> None:
    """Every product at its extreme, for longer than any narrow accumulator stands, and for as long as int32 does."""
    weights = np.full((16, columns), levels[-1], np.int8)
    weights[1::2] = levels[0]
    layout = DirectLayout.of(encoding, isa, levels, 16, columns, columns, 16, columns)
    for value in (-128, 127):
        for tokens in (1, 4, 8):
            q = np.full((tokens, columns), value, np.int8)
            assert np.array_equal(multiply(q, weights, layout, isa), products(q, weights, columns))


@pytest.mark.slow
@each_isa
@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 200), st.integers(1, 300)),
    st.sampled_from((16, 32, 48, 64, 96, 128, 192)),
    st.integers(1, 400),
    st.sampled_from((0, 1, 7, 16, 32, 64, 128)),
    st.sampled_from((1, 2, 3, 5, 17, 33, 128)),
    st.integers(1, 4),
    st.sampled_from(KINDS),
    st.integers(0, 1000),
)
def test_equals_numpy_at_random(
    isa: Isa,
    shape: tuple[int, int],
    bm: int,
    bk: int,
    group: int,
    tokens: int,
    split: int,
    kind: tuple[DirectEncoding, tuple[int, ...]],
    seed: int,
) -> None:
    (rows, columns), (encoding, levels) = shape, kind
    segment = min(group, columns) or columns
    weights, q = weights_with_edges(rows, columns, levels, seed), activations(tokens, columns, seed)
    layout = DirectLayout.of(encoding, isa, levels, rows, columns, segment, bm, bk)
    assert np.array_equal(multiply(q, weights, layout, isa, split), products(q, weights, segment))


@pytest.mark.parametrize("isa", runnable_isas(), ids=lambda isa: isa.name)
@pytest.mark.parametrize(("rows", "columns", "segment"), [(5, 77, 77), (3, 100, 24), (1, 1, 1)])
def test_scalar_i8_equals_numpy(rows: int, columns: int, segment: int, isa: Isa) -> None:
    weights, q = weights_with_edges(rows, columns, (-127, 127)), activations(4, columns)
    out, whole = guarded(np.zeros((4, -(-columns // segment), rows), np.int32))
    run_kernel(DirectI8Kernel(rows, columns, segment), isa, [q, weights, out, 4], rows, threads_split=2)
    assert_guards(whole)
    assert np.array_equal(out, products(q, weights, segment))


@pytest.mark.parametrize(("encoding", "levels"), EXTREMES, ids=str)
def test_avx512_accumulators_stay_in_registers(encoding: DirectEncoding, levels: tuple[int, ...]) -> None:
    isa = Isa.avx512(VNNI)
    layout = DirectLayout.of(encoding, isa, levels, 256, 960, 960, 128, 960)
    lines = [line.strip() for line in assembly(DirectKernel(layout).build(isa), isa).splitlines()]
    multiplies = [i for i, line in enumerate(lines) if "vpdpbusd" in line]
    # For 16, 8, 4, 2 tokens and one: as many accumulators as `shape` says, times planes.
    assert len(multiplies) >= 16 * layout.planes
    spills = re.compile(r"vmov\S+\s+(%zmm\d+, .*\(%rsp|.*\(%rsp\S*\), %zmm)")
    assert not [line for line in lines[multiplies[0] : multiplies[-1]] if spills.match(line)]
