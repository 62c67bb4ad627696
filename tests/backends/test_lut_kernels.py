"""Look-up products equal numpy's int32 products, whatever encoding, shape, tile, instruction set, batch and data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aarch64 import require_aarch64, run_on_aarch64
from kernel_harness import assert_guards, guarded, host_features, run_kernel, runnable_isas
from neuc.backends.cpu.codegen import assembly
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.lut_accumulate import LutAccumulateKernel
from neuc.backends.cpu.kernels.lut_build import LutBuildKernel, table_arrays
from neuc.backends.cpu.packing.lut import TABLE_BYTES, LutLayout, pack_lut, table_kind
from neuc.backends.cpu.packing.lut_code import WeightCode

WITHOUT_GFNI = Isa.avx512(("avx512vnni", "avx512vbmi"))
WITHOUT_VBMI = Isa.avx512()
ISAS = [*runnable_isas(), *(isa for isa in (WITHOUT_GFNI, WITHOUT_VBMI) if host_features() >= set(isa.features))]
ISA_NAMES = ["-".join([isa.name, *sorted(set(isa.features) & {"gfni", "avx512vbmi"})]) for isa in ISAS]


@dataclass(frozen=True)
class Encoding:
    name: str
    levels: tuple[int, ...]
    g: int

    def __str__(self) -> str:
        return f"{self.name}-g{self.g}-{','.join(map(str, self.levels))}"


TRITS = (-1, 0, 1)
ENCODINGS = [
    Encoding("tl2", TRITS, 3),
    Encoding("tl2", TRITS, 2),
    Encoding("tl1", TRITS, 2),
    Encoding("tl1", (-1, 1), 4),
    Encoding("tl1", (-2, -1, 0, 1), 2),
    Encoding("tl1", (-3, -1, 1, 3), 2),
    # Sixteen levels: entries that only four look-ups' digits add up in a byte; and the largest there are.
    Encoding("tl1", tuple(range(0, 16)), 1),
    Encoding("tl1", tuple(range(-127, 128, 127)), 2),
    Encoding("bitserial", TRITS, 4),
    Encoding("bitserial", (-1, 1), 4),
    Encoding("bitserial", (-3, -1, 1, 3), 4),
    Encoding("bitserial", (-1, 0, 1, 2), 3),
    Encoding("bitserial", (-4, -2, 0, 2, 4, 6), 4),
    Encoding("bitserial", tuple(range(-8, 8)), 4),
]
FEW = [ENCODINGS[i] for i in (0, 3, 7, 11)]
"""Mirrored; with an offset; digits that four look-ups fill a byte with and a step; planes."""

# N, K, BM, BK, tables per scale group in fours (0: one scale a row).
SHAPES = [(130, 301, 64, 120, 0), (33, 97, 32, 24, 2), (5, 1, 16, 4, 0)]


def activations(tokens: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random rows, and among them all zero, -128, 127 and alternating ones."""
    q = np.random.default_rng(seed).integers(-128, 128, (tokens, columns)).astype(np.int8)
    for row, value in zip(q[1:], (-128, 127, 0), strict=False):
        row[:] = value
    q[4:5, ::2] = -127
    return q


def weights_with_edges(rows: int, columns: int, levels: Sequence[int] = TRITS, seed: int = 0) -> np.ndarray:
    """Random levels, and among them a row of the lowest, one of the highest, and one of alternating ones."""
    weights = np.random.default_rng(seed).choice(np.asarray(levels, np.int8), (rows, columns))
    for row, value in zip(weights[1:], (levels[0], levels[-1], levels[0]), strict=False):
        row[:] = value
    weights[3:4, ::2] = levels[-1]
    return weights


def products(q: np.ndarray, weights: np.ndarray, segment: int) -> np.ndarray:
    """Int32 [tokens, segments, rows]."""
    parts = [slice(at, at + segment) for at in range(0, q.shape[1], segment)]
    return np.stack([q[:, p].astype(np.int32) @ weights[:, p].astype(np.int32).T for p in parts], axis=1)


Run = Callable[[KernelSpec, Isa, list[np.ndarray | int], int, int, int], None]


def on_host(kernel: KernelSpec, isa: Isa, args: list[np.ndarray | int], work: int, split: int, scratch: int) -> None:
    run_kernel(kernel, isa, args, work, threads_split=split, scratch_bytes=scratch)


def on_aarch64(kernel: KernelSpec, isa: Isa, args: list[np.ndarray | int], work: int, split: int, scratch: int) -> None:
    run_on_aarch64(kernel, isa, args, work, threads_split=split, scratch_bytes=scratch)


def build_tables(q: np.ndarray, layout: LutLayout, isa: Isa, split: int, run: Run = on_host) -> np.ndarray:
    tokens, columns = q.shape
    groups = -(-layout.table_groups // 4) * 4
    kernel = LutBuildKernel(table_kind(isa), columns, layout.code.table, groups)
    tables, whole = guarded(np.full(tokens * groups * TABLE_BYTES, 0xEE, np.uint8))
    run(kernel, isa, [q, tables, tokens], tokens * kernel.units_per_token, split, kernel.scratch)
    assert_guards(whole)
    return tables.reshape(tokens, groups, TABLE_BYTES)


def look_up(
    q: np.ndarray, weights: np.ndarray, layout: LutLayout, isa: Isa, split: int = 1, run: Run = on_host
) -> np.ndarray:
    """The kernels' product."""
    tokens = q.shape[0]
    packed, start = pack_lut(weights, layout)
    tables = build_tables(q, layout, isa, split, run)
    out, whole = guarded(np.full((tokens, layout.tiling.segments, layout.tiling.rows), -7, np.int32))
    kernel = LutAccumulateKernel(table_kind(isa), layout)
    args = [tables, packed, out, tokens, 0 if start is None else start, tables.shape[1]]
    run(kernel, isa, args, layout.tiling.row_blocks * -(-tokens // kernel.token_block), split, kernel.scratch)
    assert_guards(whole)
    return out


def check(
    encoding: Encoding, shape: Sequence[int], isa: Isa, batches: Sequence[tuple[int, int]], run: Run = on_host
) -> None:
    """The product is numpy's for batches of (tokens, threads)."""
    rows, columns, bm, bk, fours = shape
    segment = min(columns, 4 * encoding.g * fours) or columns
    layout = LutLayout.of(isa, encoding.name, encoding.levels, encoding.g, rows, columns, segment, bm, bk)
    weights = weights_with_edges(rows, columns, encoding.levels)
    for tokens, split in batches:
        q = activations(tokens, columns)
        found = look_up(q, weights, layout, isa, split, run)
        assert np.array_equal(found, products(q, weights, segment)), (tokens, split)


QUICK = [(isa, encoding) for isa in runnable_isas() for encoding in (FEW if isa.name != "scalar" else FEW[:1])]
QUICK += [(isa, FEW[0]) for isa in ISAS if isa not in runnable_isas()]


@pytest.mark.parametrize(("isa", "encoding"), QUICK, ids=lambda part: getattr(part, "name", None))
def test_equals_numpy(isa: Isa, encoding: Encoding) -> None:
    """Every instruction set; more shapes and encodings are in the slow suite and in `suites/test_exact_grid.py`."""
    check(encoding, SHAPES[FEW.index(encoding) % 2], isa, [(1, 1), (2, 2), (3, 3), (35, 2)])


@pytest.mark.slow
@pytest.mark.parametrize("isa", ISAS, ids=ISA_NAMES)
@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_shapes(shape: tuple[int, ...], encoding: Encoding, isa: Isa) -> None:
    check(encoding, shape, isa, [(1, 1), (2, 2), (3, 3), (5, 1), (17, 4), (33, 2)])


@pytest.mark.slow
@pytest.mark.parametrize("isa", [Isa.neon(), Isa.portable("aarch64"), Isa.scalar("aarch64")], ids=lambda isa: isa.name)
@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_on_aarch64(encoding: Encoding, isa: Isa) -> None:
    require_aarch64()
    check(encoding, SHAPES[0], isa, [(1, 1), (3, 2)], on_aarch64)
    if encoding in FEW:
        check(encoding, SHAPES[1], isa, [(2, 1)], on_aarch64)


@pytest.mark.parametrize("group", [32, 64, 128])
def test_scale_groups(group: int) -> None:
    """The sizes that file formats have."""
    for encoding in (ENCODINGS[2], ENCODINGS[8]):
        check(encoding, (48, 300, 48, 64, group // (4 * encoding.g)), ISAS[0], [(2, 1)])


@pytest.mark.parametrize("isa", ISAS, ids=ISA_NAMES)
@pytest.mark.parametrize("encoding", FEW[:1], ids=str)
def test_sums_of_many_columns(encoding: Encoding, isa: Isa) -> None:
    """Every product at its extreme, for longer than any narrow accumulator stands."""
    columns, levels = 6912, encoding.levels
    weights = np.full((16, columns), levels[-1], np.int8)
    weights[1::2] = levels[0]
    layout = LutLayout.of(isa, encoding.name, levels, encoding.g, 16, columns, columns, 16, columns)
    for value in (-128, 127):
        q = np.full((3, columns), value, np.int8)
        assert np.array_equal(look_up(q, weights, layout, isa), products(q, weights, columns))


@pytest.mark.slow
@pytest.mark.parametrize("isa", ISAS, ids=ISA_NAMES)
@pytest.mark.parametrize("encoding", ENCODINGS[1:], ids=str)
def test_sums_of_many_columns_in_all_encodings(encoding: Encoding, isa: Isa) -> None:
    test_sums_of_many_columns(encoding, isa)


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(
        st.integers(1, 200),
        st.integers(1, 300),
        st.sampled_from((16, 32, 48, 64, 96, 128, 192)),
        st.integers(1, 100).map(lambda quads: 12 * quads),
        st.sampled_from((0, 0, 1, 2)),
    )


def encodings() -> st.SearchStrategy[Encoding]:
    """Any g that fits, any evenly spaced levels that are int8."""
    sizes = st.sampled_from([(c, g) for g in (1, 2, 3, 4) for c in range(2, 17) if c**g <= 16])
    full = sizes.flatmap(lambda cg: st.tuples(st.just("tl1"), levels(cg[0]), st.just(cg[1])))
    planes = st.tuples(st.just("bitserial"), st.integers(2, 16).flatmap(levels), st.integers(1, 4))
    mirrored = st.tuples(st.just("tl2"), st.just(TRITS), st.integers(1, 3))
    return st.one_of(full, planes, mirrored).map(lambda parts: Encoding(*parts))


def levels(count: int) -> st.SearchStrategy[tuple[int, ...]]:
    steps = st.integers(1, min(20, 254 // (count - 1)))
    lowest = steps.flatmap(lambda s: st.tuples(st.integers(-127, 127 - s * (count - 1)), st.just(s)))
    return lowest.map(lambda ls: tuple(ls[0] + ls[1] * i for i in range(count)))


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(shapes(), encodings(), st.sampled_from((1, 2, 3, 17, 128)), st.integers(1, 4))
def test_equals_numpy_at_random(shape: tuple[int, ...], encoding: Encoding, tokens: int, split: int) -> None:
    for isa in ISAS:
        check(encoding, shape, isa, [(tokens, split)])


@pytest.mark.parametrize("isa", runnable_isas()[:-1], ids=lambda isa: isa.name)
@pytest.mark.parametrize("encoding", [*FEW, ENCODINGS[6]], ids=str)
def test_tables_hold_the_sums(encoding: Encoding, isa: Isa) -> None:
    """Every entry of every table, read as the layout's documentation says; past K they are of zeros."""
    layout = LutLayout.of(isa, encoding.name, encoding.levels, encoding.g, 16, 131, 131, 64, 96)
    q, code = activations(5, 131), layout.code.table
    tables = build_tables(q, layout, isa, 3)
    expected = table_arrays(q, code, tables.shape[1])
    match table_kind(isa):
        case "words":
            found = tables.view(np.int16).astype(np.int32)
        case "bytes":
            split = code.byte_split()
            parts = tables.view(np.int8).astype(np.int32).reshape(5, -1, 2, 16)
            used = parts[..., : code.entries] * split.adds
            # Either sign must fit where signs are applied to the digits.
            assert used.max() <= 127
            assert used.min() >= (-127 if code.mirrored else -128)
            found = parts[:, :, 0] + split.base * parts[:, :, 1] - split.bias
        case "quads":
            # [token, four tables, low or high, entry div 4, table, entry mod 4]
            parts = tables.astype(np.int32).reshape(5, -1, 2, 4, 4, 4)
            sums = parts[:, :, 0] + 256 * parts[:, :, 1] - code.quads_bias
            found = sums.transpose(0, 1, 3, 2, 4).reshape(5, -1, 16)
    assert np.array_equal(found[..., : code.entries], expected[..., : code.entries])


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


@pytest.mark.parametrize("encoding", [FEW[0], FEW[3]], ids=str)
@pytest.mark.parametrize("optional", [("avx512vnni", "avx512vbmi", "gfni"), ("avx512vnni", "avx512vbmi")])
def test_avx512_accumulators_stay_in_registers(optional: tuple[str, ...], encoding: Encoding) -> None:
    isa = Isa.avx512(optional)
    layout = LutLayout.of(isa, encoding.name, encoding.levels, encoding.g, 256, 768, 768, 128, 384)
    text = assembly(LutAccumulateKernel("quads", layout).build(isa), isa)
    hot = [body for body in inner_loops(text) if any("vpermb" in line for line in body)]
    assert len(hot) >= 3
    for body in hot:
        assert not [line for line in body if re.match(r"vmov\S+\s+%zmm\d+, .*\(", line)]
        assert sum("vpermb" in line for line in body) == sum("vpdpbusd" in line for line in body)


def test_codes_are_small() -> None:
    """No sum of activations where 0 is a level, and digits around 0."""
    for encoding, levels, offset in (
        ("tl1", (-1, 0, 1, 2), 0),
        ("tl1", (-2, -1, 0, 1), 0),
        ("tl1", (-1, 1), -1),
        ("bitserial", (-1, 0, 1), 0),
        ("bitserial", tuple(range(-8, 8)), 0),
        ("bitserial", (-3, -1, 1, 3), -3),
    ):
        code = WeightCode.of(encoding, levels, 1)
        assert code.offset == offset
        assert code.holds(np.array(levels, np.int8))
        assert not code.holds(np.array([99], np.int8))


def test_results_do_not_depend_on_tiles_or_encodings() -> None:
    isa = ISAS[0]
    weights, q = weights_with_edges(100, 96), activations(3, 96)
    results = [
        look_up(q, weights, LutLayout.of(isa, name, TRITS, g, 100, 96, 96, bm, bk), isa)
        for name, g, bm, bk in (("tl2", 3, 64, 24), ("tl2", 2, 32, 96), ("tl1", 2, 64, 24), ("bitserial", 4, 128, 48))
    ]
    assert all(np.array_equal(result, results[0]) for result in results)
