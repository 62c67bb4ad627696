"""The look-up layout: reading its bytes as its documentation says, bit by bit, gives the weights back."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.packing.lut import LutLayout, pack_lut, table_kind
from neuc.backends.cpu.packing.lut_code import TableCode, WeightCode
from neuc.errors import InternalError

VBMI = Isa.avx512(("avx512vnni", "avx512vbmi"))
CODES = [
    ("tl2", (-1, 0, 1), 3),
    ("tl2", (-1, 0, 1), 1),
    ("tl1", (-1, 0, 1), 2),
    ("tl1", (-3, -1, 1, 3), 2),
    ("tl1", (-5, 5), 4),
    ("tl1", tuple(range(-16, 0)), 1),
    ("bitserial", (-1, 0, 1), 4),
    ("bitserial", tuple(range(-3, 13)), 3),
    ("bitserial", (7, 10, 13), 2),
]


def digit_values(number: np.ndarray, minus: np.ndarray | int, table: TableCode) -> list[np.ndarray]:
    """The g digits of an entry's number, from their definition."""
    digits: list[np.ndarray] = []
    value = np.where(minus, -number, number)
    for _ in range(table.g):
        digit = (value + 1) % 3 - 1 if table.mirrored else value % table.radix
        value = (value - digit) // table.radix
        digits.insert(0, digit if table.mirrored else digit + table.low)
    return digits


def unpacked(data: np.ndarray, layout: LutLayout) -> np.ndarray:
    """Weights from the text of `packing/lut.py`, one look-up at a time; padding comes as other weights may."""
    code, steps = layout.code, layout.tiling.disarrange(data)
    lanes, tiles = (64 if layout.kind == "quads" else 32), layout.tiling.chunk_rows // 16
    shape = (*steps.shape[:4], layout.tiling.chunk_rows, layout.tiling.step_columns)
    pieces = np.full(shape, code.offset, np.int32)
    for plane, vector, lane in product(range(len(code.factors)), range(8), range(lanes)):
        packed = steps[..., lanes * (4 * plane + vector // 2) + lane].astype(np.int32)
        if layout.kind == "quads":
            moved = packed >> 2 * (vector % 2)
            number = (moved & 3) | (moved >> 4 & 3) << 2
            row, group = 16 * (vector % tiles) + lane // 4, 4 * (vector // tiles) + lane % 4
        else:
            number = packed >> 4 * (vector % 2) & 15
            row, group = lane // 2 + 16 * (lane % 2), vector
        minus = 0
        if code.table.mirrored:
            minus = steps[..., lanes * 4 * len(code.factors) + lane].astype(np.int32) >> vector & 1
        for place, digit in enumerate(digit_values(number, minus, code.table)):
            pieces[..., row, group * code.table.g + place] += code.step * code.factors[plane] * digit
    return layout.tiling.uncut(pieces)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(CODES),
    st.integers(1, 150),
    st.integers(1, 150),
    st.sampled_from((16, 32, 48, 64, 128)),
    st.integers(1, 200),
    st.sampled_from((0, 1, 2)),
)
def test_read_back(
    encoding: tuple[str, tuple[int, ...], int], rows: int, columns: int, bm: int, bk: int, factor: int
) -> None:
    name, levels, g = encoding
    weights = np.random.default_rng(rows).choice(np.asarray(levels, np.int8), (rows, columns))
    segment = min(columns, 4 * g * factor) or columns
    for isa in (VBMI, Isa.avx2()):
        layout = LutLayout.of(isa, name, levels, g, rows, columns, segment, bm, bk)
        data, start = pack_lut(weights, layout)
        assert data.nbytes == layout.tiling.nbytes
        assert np.array_equal(unpacked(data, layout), weights)
        assert (start is not None) == (layout.kind == "quads" and name == "tl2")


def test_bits_per_weight() -> None:
    """Five bits for three trits in tl2, two a trit and one a binary weight in tl1, a bit per plane in bitserial."""
    for name, levels, g, bits in (
        ("tl2", (-1, 0, 1), 3, 5 / 3),
        ("tl1", (-1, 0, 1), 2, 2),
        ("tl1", (-1, 1), 4, 1),
        ("bitserial", (-1, 0, 1), 4, 2),
        ("bitserial", tuple(range(-8, 8)), 4, 4),
    ):
        weights = np.zeros((256, 960), np.int8) + np.int8(levels[0])
        for isa in (VBMI, Isa.avx2()):
            data, _ = pack_lut(weights, LutLayout.of(isa, name, levels, g, 256, 960, 960, 128, 960))
            assert data.nbytes * 8 == weights.size * bits


def test_quads_start_counts_signs() -> None:
    """Row 0: all groups negative; row 1: none. Zero groups, padding too, count as positive."""
    weights = np.zeros((2, 24), np.int8)
    weights[0] = -1
    layout = LutLayout.of(VBMI, "tl2", (-1, 0, 1), 3, 2, 24, 24, 64, 24)
    _, start = pack_lut(weights, layout)
    assert start is not None
    assert start.shape == (1, 1, 64)
    bias = layout.code.table.quads_bias
    assert start[0, 0, 0] == 8 * bias
    assert (start[0, 0, 1:] == -8 * bias).all()


@pytest.mark.parametrize("table", [WeightCode.of(*encoding).table for encoding in CODES], ids=str)
def test_entries_are_all_digits_once(table: TableCode) -> None:
    """Each tuple of digits, or one of it and its opposite, has a number of its own; bounds are of the extremes."""
    digits = table.digits()[: table.entries].astype(np.int64)
    some = {tuple(row) for row in digits} | ({tuple(-row) for row in digits} if table.mirrored else set())
    assert some == set(product(range(table.low, table.high + 1), repeat=table.g))
    assert not table.digits()[table.entries :].any()
    numbers, minus = table.index(digits)
    assert np.array_equal(numbers, np.arange(table.entries))
    assert not minus.any()
    assert (digits[table.all_ones] == 1).all() or table.high < 1
    # Entries are linear in each activation, so extremes are at the ends of their range.
    ends = np.array(list(product((-128, 127), repeat=table.g)))
    sums = np.concatenate([digits @ ends.T, -(digits @ ends.T)] if table.mirrored else [digits @ ends.T])
    least, most = table.bounds()
    if table.mirrored:
        assert -least == most >= sums.max()
    else:
        assert (least, most) == (sums.min(), sums.max())


def test_what_is_refused() -> None:
    layout = LutLayout.of(VBMI, "tl2", (-1, 0, 1), 3, 1, 3, 3, 16, 12)
    with pytest.raises(InternalError, match=r"weights 0 … 2 have levels"):
        pack_lut(np.array([[2, 0, 0]], np.int8), layout)
    with pytest.raises(InternalError, match="not evenly spaced"):
        WeightCode.of("tl1", (-1, 0, 2), 2)
    with pytest.raises(InternalError, match="more than 16 entries"):
        WeightCode.of("tl1", (-1, 0, 1), 3)
    with pytest.raises(InternalError, match="up to 16 levels"):
        WeightCode.of("bitserial", tuple(range(17)), 4)
    with pytest.raises(InternalError, match="no look-up encoding"):
        WeightCode.of("i2", (-1, 0, 1), 1)


def test_kind_of_tables_by_instruction_set() -> None:
    assert table_kind(VBMI) == "quads"
    assert table_kind(Isa.avx512(("avx512vnni",))) == table_kind(Isa.avx512()) == "bytes"
    assert table_kind(Isa.avx2()) == table_kind(Isa.sse4()) == "bytes"
    assert table_kind(Isa.neon()) == table_kind(Isa.portable("aarch64")) == "bytes"
    assert table_kind(Isa.portable("x86_64")) == table_kind(Isa.scalar()) == "words"
