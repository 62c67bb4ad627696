"""Packed layouts: reading the bytes as the packing modules' documentation says gives the weights back."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.packing.direct import ByteCode, DirectEncoding, DirectLayout, pack_direct
from neuc.backends.cpu.packing.t5 import FIRST, SECOND
from neuc.backends.cpu.packing.tiling import Tiling, tiles_per_chunk
from neuc.errors import InternalError

VBMI = Isa.avx512(("avx512vnni", "avx512vbmi"))
SIZES = st.integers(1, 150)
BLOCKS = st.sampled_from((16, 32, 48, 64, 128))


def unpacked(data: np.ndarray, layout: DirectLayout) -> np.ndarray:
    """Byte by byte from the text of `packing/direct.py` and `packing/t5.py`."""
    steps, columns = layout.tiling.disarrange(data), layout.tiling.step_columns
    pieces = np.zeros((*steps.shape[:4], layout.tiling.chunk_rows, columns), np.int8)
    for tile in range(layout.tiles):
        for row in range(16):
            for column in range(columns):
                byte = steps[..., 64 * tile + 4 * row + column % 4].astype(np.int32)
                code = code_of(byte, column // 4, layout.code)
                pieces[..., 16 * tile + row, column] = layout.low + layout.step * code
    return layout.tiling.uncut(pieces)


def code_of(byte: np.ndarray, plane: int, code: ByteCode) -> np.ndarray:
    match code:
        case "i2":
            return byte >> 2 * plane & 3
        case "i4":
            return byte >> 4 * plane & 15
        case "i8":
            return byte.astype(np.int8)
        case "u8":
            return byte
        case "t5_thirds":
            return byte // 3 ** (4 - plane) % 3
        case "t5_tables":
            a, b = np.array(FIRST)[byte % 64], np.array(SECOND)[byte // 4]
            return np.stack([a & 3, (a | b) >> 2 & 3, (a | b) >> 4 & 3, (a ^ b) >> 6 & 3, b & 3])[plane]


KINDS: list[tuple[DirectEncoding, Isa, tuple[int, ...]]] = [
    ("i2", VBMI, (-2, -1, 0, 1)),
    ("i2", VBMI, (1, 4, 7)),
    ("i4", VBMI, tuple(range(-15, 16, 2))),
    ("i8", VBMI, (-127, 2, 127)),
    ("i8", Isa.avx2(), (-127, 2, 127)),
    ("t5", VBMI, (-1, 0, 1)),
    ("t5", Isa.avx2(), (-1, 0, 1)),
    ("t5", Isa.neon(), (-1, 1)),
]


@settings(max_examples=5, deadline=None)
@pytest.mark.parametrize(("encoding", "isa", "levels"), KINDS, ids=str)
@given(SIZES, SIZES, BLOCKS, st.integers(1, 200), st.sampled_from((0, 5, 16, 32)), st.integers(0, 9))
def test_read_back(
    encoding: DirectEncoding,
    isa: Isa,
    levels: tuple[int, ...],
    rows: int,
    columns: int,
    bm: int,
    bk: int,
    group: int,
    seed: int,
) -> None:
    weights = np.random.default_rng(seed).choice(np.array(levels, np.int8), (rows, columns))
    layout = DirectLayout.of(encoding, isa, levels, rows, columns, min(columns, group) or columns, bm, bk)
    data = pack_direct(weights, layout)
    assert data.nbytes == layout.tiling.nbytes
    assert np.array_equal(unpacked(data, layout), weights)


@pytest.mark.parametrize(("encoding", "bits"), [("i2", 2), ("i4", 4), ("i8", 8), ("t5", 1.6)])
def test_bits_per_weight(encoding: DirectEncoding, bits: float) -> None:
    weights = np.ones((256, 960), np.int8)
    layout = DirectLayout.of(encoding, VBMI, (-1, 0, 1), 256, 960, 960, 128, 960)
    assert pack_direct(weights, layout).nbytes * 8 == weights.size * bits
    assert layout.encoding == encoding


def test_byte_codes_of_instruction_sets() -> None:
    """Look-ups in 64 bytes where there are any; unsigned weights where `vpdpbusd` wants them."""
    codes = {
        isa.name + str(isa.has_vbmi): [
            DirectLayout.of(encoding, isa, (-1, 0, 1), 1, 1, 1, 16, 16).code for encoding in ("t5", "i8")
        ]
        for isa in (VBMI, Isa.avx512(("avx512vnni",)), Isa.avx2(), Isa.neon(), Isa.portable())
    }
    assert codes == {
        "avx512True": ["t5_tables", "u8"],
        "avx512False": ["t5_thirds", "u8"],
        "avx2False": ["t5_thirds", "i8"],
        "neonFalse": ["t5_tables", "i8"],
        "portableFalse": ["t5_thirds", "i8"],
    }


def test_levels_outside_the_encoding() -> None:
    layout = DirectLayout.of("i2", VBMI, (-1, 1), 1, 3, 3, 16, 12)
    for outside in (0, 3, -3):
        with pytest.raises(InternalError, match=re.escape("i2 weights are outside its levels [-1, 1]")):
            pack_direct(np.array([[outside, 1, 1]], np.int8), layout)
    with pytest.raises(InternalError, match="up to 4 evenly spaced levels"):
        DirectLayout.of("i2", VBMI, (-1, 0, 2), 1, 3, 3, 16, 12)


def test_tiling_refuses_other_sizes() -> None:
    tiling = Tiling(4, 8, 8, 16, 16, 1, 16, 64)
    with pytest.raises(InternalError, match="4x9 values"):
        tiling.cut(np.zeros((4, 9), np.int8))
    with pytest.raises(InternalError, match="positive sizes"):
        Tiling(0, 8, 8, 16, 16, 1, 16, 64)


@pytest.mark.parametrize(("bm", "tiles"), [(16, 1), (32, 2), (48, 1), (64, 4), (96, 2), (128, 4)])
def test_tiles_divide_blocks(bm: int, tiles: int) -> None:
    assert tiles_per_chunk(bm) == tiles
