"""Packed layouts: reading the bytes as the packing modules' documentation says gives the weights back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.packing.i2 import I2Layout, pack_i2
from neuc.backends.cpu.packing.tiling import Tiling, tiles_per_chunk
from neuc.backends.cpu.packing.tl2 import QUADS_BIAS, Tl2Layout, pack_tl2, table_kind
from neuc.errors import InternalError

VBMI = Isa.avx512(("avx512vnni", "avx512vbmi"))
SIZES = st.integers(1, 150)
BLOCKS = st.sampled_from((16, 32, 48, 64, 128))
GROUP_FACTORS = st.sampled_from((0, 1, 2))


def trits(rows: int, columns: int, seed: int, low: int = -1, high: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high + 1, (rows, columns)).astype(np.int8)


def unpacked_tl2(data: np.ndarray, layout: Tl2Layout) -> np.ndarray:
    """Bit by bit from the text of `packing/tl2.py`, one look-up at a time."""
    steps = layout.tiling.disarrange(data)
    pieces = np.zeros((*steps.shape[:4], layout.tiling.chunk_rows, layout.tiling.step_columns), np.int8)
    lanes, tiles = layout.lanes, layout.tiling.chunk_rows // 16
    for vector in range(8):
        for lane in range(lanes):
            packed = steps[..., lanes * (vector // 2) + lane].astype(np.int32)
            if layout.kind == "quads":
                moved = packed >> 2 * (vector % 2)
                index = (moved & 3) | (moved >> 4 & 3) << 2
                row, group = 16 * (vector % tiles) + lane // 4, 4 * (vector // tiles) + lane % 4
            else:
                index = packed >> 4 * (vector % 2) & 15
                row, group = lane // 2 + 16 * (lane % 2), vector
            minus = steps[..., 4 * lanes + lane].astype(np.int32) >> vector & 1
            value = np.where(minus, -index, index)
            for digit in range(layout.g - 1, -1, -1):
                trit = (value + 1) % 3 - 1
                pieces[..., row, group * layout.g + digit] = trit
                value = (value - trit) // 3
    return layout.tiling.uncut(pieces)


def unpacked_i2(data: np.ndarray, layout: I2Layout) -> np.ndarray:
    steps = layout.tiling.disarrange(data)
    pieces = np.zeros((*steps.shape[:4], layout.tiling.chunk_rows, 16), np.int8)
    for tile in range(layout.tiles):
        for row in range(16):
            for column in range(16):
                byte = steps[..., 64 * tile + 4 * row + column % 4].astype(np.int32)
                pieces[..., 16 * tile + row, column] = (byte >> 2 * (column // 4) & 3) + layout.low
    return layout.tiling.uncut(pieces)


@settings(max_examples=20, deadline=None)
@given(SIZES, SIZES, st.sampled_from((1, 2, 3)), BLOCKS, st.integers(1, 200), GROUP_FACTORS, st.integers(0, 9))
def test_tl2_read_back(rows: int, columns: int, g: int, bm: int, bk: int, factor: int, seed: int) -> None:
    weights = trits(rows, columns, seed)
    segment = min(columns, 8 * g * factor) or columns
    for isa in (VBMI, Isa.avx2()):
        layout = Tl2Layout.of(isa, g, rows, columns, segment, bm, bk)
        data, start = pack_tl2(weights, layout)
        assert data.nbytes == layout.tiling.nbytes
        assert np.array_equal(unpacked_tl2(data, layout), weights)
        assert (start is None) == (layout.kind == "bytes")


@settings(max_examples=20, deadline=None)
@given(SIZES, SIZES, BLOCKS, st.integers(1, 200), GROUP_FACTORS, st.integers(-3, 0), st.integers(0, 9))
def test_i2_read_back(rows: int, columns: int, bm: int, bk: int, factor: int, low: int, seed: int) -> None:
    weights = trits(rows, columns, seed, low, low + 3)
    segment = min(columns, 16 * factor) or columns
    layout = I2Layout.of(tuple(range(low, low + 4)), rows, columns, segment, bm, bk)
    data = pack_i2(weights, layout)
    assert data.nbytes == layout.tiling.nbytes
    assert np.array_equal(unpacked_i2(data, layout), weights)


def test_bits_per_weight() -> None:
    """Five bits for three trits, and two bits for one."""
    weights = trits(256, 960, 0)
    for isa in (VBMI, Isa.avx2()):
        data, _ = pack_tl2(weights, Tl2Layout.of(isa, 3, 256, 960, 960, 128, 960))
        assert data.nbytes * 8 * 3 == weights.size * 5
    assert pack_i2(weights, I2Layout.of((-1, 0, 1), 256, 960, 960, 128, 960)).nbytes * 4 == weights.size


def test_quads_start_counts_signs() -> None:
    """Row 0: all groups negative; row 1: none. Zero groups, padding too, count as positive."""
    weights = np.zeros((2, 24), np.int8)
    weights[0] = -1
    layout = Tl2Layout.of(VBMI, 3, 2, 24, 24, 64, 24)
    _, start = pack_tl2(weights, layout)
    assert start is not None
    assert start.shape == (1, 1, 64)
    assert start[0, 0, 0] == 8 * QUADS_BIAS
    assert (start[0, 0, 1:] == -8 * QUADS_BIAS).all()


def test_levels_outside_the_encoding() -> None:
    layout = Tl2Layout.of(VBMI, 3, 1, 3, 3, 16, 12)
    with pytest.raises(InternalError, match="-1, 0, 1"):
        pack_tl2(np.array([[2, 0, 0]], np.int8), layout)
    with pytest.raises(InternalError, match="-1 … 1"):
        pack_i2(np.array([[2, 0, 0]], np.int8), I2Layout.of((-1, 0, 1), 1, 3, 3, 16, 12))


def test_tiling_refuses_other_sizes() -> None:
    tiling = Tiling(4, 8, 8, 16, 16, 1, 16, 64)
    with pytest.raises(InternalError, match="4x9 values"):
        tiling.cut(np.zeros((4, 9), np.int8))
    with pytest.raises(InternalError, match="positive sizes"):
        Tiling(0, 8, 8, 16, 16, 1, 16, 64)


@pytest.mark.parametrize(("bm", "tiles"), [(16, 1), (32, 2), (48, 1), (64, 4), (96, 2), (128, 4)])
def test_tiles_divide_blocks(bm: int, tiles: int) -> None:
    assert tiles_per_chunk(bm) == tiles


def test_kind_of_tables_by_instruction_set() -> None:
    assert table_kind(VBMI) == "quads"
    assert table_kind(Isa.avx512(("avx512vnni",))) == "bytes"
    assert table_kind(Isa.avx2()) == "bytes"
    assert table_kind(Isa.portable()) == table_kind(Isa.scalar()) == "words"
