"""Packed layouts: reading the bytes as the packing modules' documentation says gives the weights back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuc.backends.cpu.packing.i2 import I2Layout, pack_i2
from neuc.backends.cpu.packing.tiling import Tiling, tiles_per_chunk
from neuc.errors import InternalError

SIZES = st.integers(1, 150)
BLOCKS = st.sampled_from((16, 32, 48, 64, 128))
GROUP_FACTORS = st.sampled_from((0, 1, 2))


def trits(rows: int, columns: int, seed: int, low: int = -1, high: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high + 1, (rows, columns)).astype(np.int8)


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
@given(SIZES, SIZES, BLOCKS, st.integers(1, 200), GROUP_FACTORS, st.integers(-3, 0), st.integers(0, 9))
def test_i2_read_back(rows: int, columns: int, bm: int, bk: int, factor: int, low: int, seed: int) -> None:
    weights = trits(rows, columns, seed, low, low + 3)
    segment = min(columns, 16 * factor) or columns
    layout = I2Layout.of(tuple(range(low, low + 4)), rows, columns, segment, bm, bk)
    data = pack_i2(weights, layout)
    assert data.nbytes == layout.tiling.nbytes
    assert np.array_equal(unpacked_i2(data, layout), weights)


def test_bits_per_weight() -> None:
    """Two bits for one weight."""
    weights = trits(256, 960, 0)
    assert pack_i2(weights, I2Layout.of((-1, 0, 1), 256, 960, 960, 128, 960)).nbytes * 4 == weights.size


def test_levels_outside_the_encoding() -> None:
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
