"""Look-up products equal numpy's int32 products, whatever the shape, tile, instruction set, batch and data."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_harness import assert_guards, guarded, host_features, run_kernel, runnable_isas
from neuc.backends.cpu.codegen import assembly
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.lut_accumulate import LutAccumulateKernel
from neuc.backends.cpu.kernels.lut_build import BASE, LutBuildKernel, digits, table_arrays
from neuc.backends.cpu.packing.tl2 import QUADS_BIAS, TABLE_BYTES, Tl2Layout, pack_tl2, table_kind

WITHOUT_GFNI = Isa.avx512(("avx512vnni", "avx512vbmi"))
ISAS = [*runnable_isas(), *([WITHOUT_GFNI] if host_features() >= set(WITHOUT_GFNI.features) else [])]
ISA_NAMES = [isa.name + ("" if isa.has_gfni or isa.name != "avx512" else "-gfni") for isa in ISAS]

# N, K, g, BM, BK, columns per scale (0: one scale a row).
SHAPES = [
    (130, 301, 3, 64, 120, 0),
    (33, 95, 2, 32, 24, 32),
    (5, 1, 1, 16, 4, 0),
]


def activations(tokens: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random rows, and among them all zero, -128, 127 and alternating ones."""
    q = np.random.default_rng(seed).integers(-128, 128, (tokens, columns)).astype(np.int8)
    for row, value in zip(q[1:], (-128, 127, 0), strict=False):
        row[:] = value
    q[4:5, ::2] = -127
    return q


def weights_with_edges(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random trits with a zero row, a row of 1 and a row of -1."""
    trits = np.random.default_rng(seed).integers(-1, 2, (rows, columns)).astype(np.int8)
    for row, value in zip(trits[1:], (0, 1, -1), strict=False):
        row[:] = value
    return trits


def products(q: np.ndarray, weights: np.ndarray, segment: int) -> np.ndarray:
    """Int32 [tokens, segments, rows]."""
    parts = [slice(at, at + segment) for at in range(0, q.shape[1], segment)]
    return np.stack([q[:, p].astype(np.int32) @ weights[:, p].astype(np.int32).T for p in parts], axis=1)


def build_tables(q: np.ndarray, layout: Tl2Layout, isa: Isa, split: int) -> np.ndarray:
    tokens, columns = q.shape
    kernel = LutBuildKernel(table_kind(isa), columns, layout.g, layout.table_groups)
    tables, whole = guarded(np.full(tokens * layout.table_groups * TABLE_BYTES, 0xEE, np.uint8))
    work = tokens * kernel.units_per_token
    run_kernel(kernel, isa, [q, tables, tokens], work, threads_split=split, scratch_bytes=kernel.scratch)
    assert_guards(whole)
    return tables


def look_up(q: np.ndarray, weights: np.ndarray, layout: Tl2Layout, isa: Isa, split: int = 1) -> np.ndarray:
    """The kernels' product."""
    tokens = q.shape[0]
    packed, start = pack_tl2(weights, layout)
    tables = build_tables(q, layout, isa, split)
    out, whole = guarded(np.full((tokens, layout.tiling.segments, layout.tiling.rows), -7, np.int32))
    kernel = LutAccumulateKernel(table_kind(isa), layout)
    args = [tables, packed, out, tokens, 0 if start is None else start, layout.table_groups]
    work = layout.tiling.row_blocks * -(-tokens // kernel.token_block)
    run_kernel(kernel, isa, args, work, threads_split=split, scratch_bytes=kernel.scratch)
    assert_guards(whole)
    return out


@pytest.mark.parametrize("isa", ISAS, ids=ISA_NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_numpy(shape: tuple[int, int, int, int, int, int], isa: Isa) -> None:
    rows, columns, g, bm, bk, group = shape
    segment = group or columns
    layout = Tl2Layout.of(isa, g, rows, columns, segment, bm, bk)
    weights = weights_with_edges(rows, columns)
    for tokens, split in ((1, 1), (2, 2), (3, 3), (17, 4), (35, 2)):
        q = activations(tokens, columns)
        assert np.array_equal(look_up(q, weights, layout, isa, split), products(q, weights, segment))


@pytest.mark.parametrize("isa", ISAS, ids=ISA_NAMES)
def test_sums_of_many_columns(isa: Isa) -> None:
    """Every product at its extreme, for longer than any narrow accumulator stands."""
    columns = 6912
    weights = np.ones((16, columns), np.int8)
    weights[1::2] = -1
    layout = Tl2Layout.of(isa, 3, 16, columns, columns, 16, columns)
    for value in (-128, 127):
        q = np.full((3, columns), value, np.int8)
        assert np.array_equal(look_up(q, weights, layout, isa), products(q, weights, columns))


def shapes() -> st.SearchStrategy[tuple[int, int, int, int, int, int]]:
    return st.tuples(
        st.integers(1, 200),
        st.integers(1, 300),
        st.sampled_from((1, 2, 3)),
        st.sampled_from((16, 32, 48, 64, 96, 128, 192)),
        st.integers(1, 100).map(lambda quads: 12 * quads),
        st.sampled_from((0, 0, 1, 2)),
    )


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(shapes(), st.sampled_from((1, 2, 3, 17, 128)), st.integers(1, 4), st.integers(0, 1000))
def test_equals_numpy_at_random(shape: tuple[int, ...], tokens: int, split: int, seed: int) -> None:
    rows, columns, g, bm, bk, groups = shape
    segment = min(columns, 12 * g * groups) or columns
    weights, q = weights_with_edges(rows, columns, seed), activations(tokens, columns, seed)
    for isa in ISAS:
        layout = Tl2Layout.of(isa, g, rows, columns, segment, bm, bk)
        assert np.array_equal(look_up(q, weights, layout, isa, split), products(q, weights, segment))


@pytest.mark.parametrize("isa", ISAS, ids=ISA_NAMES)
@pytest.mark.parametrize(("columns", "g"), [(200, 3), (131, 2)])
def test_tables_hold_the_sums(columns: int, g: int, isa: Isa) -> None:
    """Every entry of every table, read as the layout's documentation says; past K they are of zeros."""
    layout = Tl2Layout.of(isa, g, 16, columns, columns, 64, 96)
    q = activations(5, columns)
    expected = table_arrays(q, g, layout.table_groups)
    tables = build_tables(q, layout, isa, 3).reshape(5, layout.table_groups, TABLE_BYTES)
    match table_kind(isa):
        case "words":
            found = tables.view(np.int16).astype(np.int32)
        case "bytes":
            parts = tables.view(np.int8).astype(np.int32).reshape(5, -1, 2, 16)
            assert np.abs(parts).max() <= BASE // 2
            found = parts[:, :, 0] + BASE * parts[:, :, 1]
        case "quads":
            # [token, four tables, low or high, entry div 4, table, entry mod 4]
            parts = tables.astype(np.int32).reshape(5, -1, 2, 4, 4, 4)
            sums = parts[:, :, 0] + 256 * parts[:, :, 1] - QUADS_BIAS
            found = sums.transpose(0, 1, 3, 2, 4).reshape(5, -1, 16)
    assert np.array_equal(found, expected)


def test_digits_are_balanced_ternary() -> None:
    for g in (1, 2, 3):
        entries = (3**g + 1) // 2
        assert np.array_equal(digits(g)[:entries] @ 3 ** np.arange(g - 1, -1, -1), np.arange(entries))
        assert not digits(g)[entries:].any()


def inner_loops(text: str) -> Iterator[list[str]]:
    """Bodies of the loops that are one basic block."""
    lines = [line.strip() for line in text.splitlines()]
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\.LBB\w+:", line)}
    for end, line in enumerate(lines):
        jump = re.fullmatch(r"j\w+\s+(\.LBB\w+)", line)
        if jump and labels.get(jump[1], end) < end:
            body = lines[labels[jump[1]] + 1 : end]
            if not any(inner.startswith(".LBB") for inner in body):
                yield body


@pytest.mark.parametrize("optional", [("avx512vnni", "avx512vbmi", "gfni"), ("avx512vnni", "avx512vbmi")])
def test_avx512_accumulators_stay_in_registers(optional: tuple[str, ...]) -> None:
    isa = Isa.avx512(optional)
    kernel = LutAccumulateKernel("quads", Tl2Layout.of(isa, 3, 256, 768, 768, 128, 384))
    hot = [body for body in inner_loops(assembly(kernel.build(isa), isa)) if any("vpdpbusd" in line for line in body)]
    assert len(hot) >= 3
    for body in hot:
        assert not [line for line in body if re.match(r"vmov\S+\s+%zmm\d+, .*\(", line)]
        assert sum("vpermb" in line for line in body) == sum("vpdpbusd" in line for line in body)


def test_results_do_not_depend_on_tiles() -> None:
    isa = ISAS[0]
    weights, q = weights_with_edges(100, 96), activations(3, 96)
    results = [
        look_up(q, weights, Tl2Layout.of(isa, g, 100, 96, 96, bm, bk), isa)
        for g, bm, bk in ((3, 64, 24), (3, 32, 96), (2, 64, 24))
    ]
    assert all(np.array_equal(result, results[0]) for result in results)
