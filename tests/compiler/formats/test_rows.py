"""Reading a few rows gives what decoding everything gives, for every ternary format; embeddings as their blocks say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuc.compiler.formats.float_rows import block_levels, float_rows, from_f16
from neuc.compiler.formats.gguf_values import Field
from neuc.compiler.formats.gguf_writer import NewTensor, write_gguf
from neuc.compiler.formats.level_rows import level_rows
from neuc.compiler.formats.sources import Source, open_source
from neuc.compiler.formats.table import BLOCK_FORMATS, GGUF_FORMS
from neuc.compiler.formats.ternary import ROW, TENSOR, Granularity, Ternary

ROWS, COLUMNS = 12, 512


def source(path: Path, kind: str, levels: np.ndarray, scales: np.ndarray) -> Source:
    """A file with one tensor `w` of a format."""
    form = BLOCK_FORMATS[kind]
    data = form.encode(Ternary(levels, scales, form.granularity))
    fields = {"general.architecture": Field.text("llama"), "neuc.i2_s.layout": Field.text(kind)}
    tensor = NewTensor("w", levels.shape, GGUF_FORMS[kind].type_id, len(data), lambda: data)
    write_gguf(path, fields, [tensor])
    return open_source(path, read_as=[kind] if kind.startswith("q2_0") else [])


@pytest.mark.parametrize("kind", BLOCK_FORMATS)
def test_rows_of_every_format(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(-1, 2, (ROWS, COLUMNS)).astype(np.int8)
    shape = BLOCK_FORMATS[kind].granularity.shape(ROWS, COLUMNS)
    scales = rng.integers(1, 200, shape).astype(np.float32) / 64
    opened = source(tmp_path / "w.gguf", kind, levels, scales)
    found = level_rows(opened, opened.tensors[0])
    assert found.granularity == BLOCK_FORMATS[kind].granularity
    np.testing.assert_array_equal(found.scales, scales)
    for begin, end in ((0, ROWS), (3, 4), (5, 11), (11, 12)):
        np.testing.assert_array_equal(found.read(begin, end), levels[begin:end])


@pytest.mark.parametrize(("by", "expected"), [("tensor", TENSOR), ("row", ROW)])
def test_scales_become_as_few_as_there_are(tmp_path: Path, by: str, expected: Granularity) -> None:
    levels = np.ones((ROWS, COLUMNS), np.int8)
    scales = np.full((ROWS, 2), 0.5, np.float32)
    if by == "row":
        scales[:] = np.arange(1, ROWS + 1)[:, None]
    else:  # a group of zeros has any scale
        levels[4, 256:] = 0
        scales[4, 1] = 0
    opened = source(tmp_path / "w.gguf", "tq2_0", levels, scales)
    found = level_rows(opened, opened.tensors[0])
    assert found.granularity == expected
    assert found.scales.shape == expected.shape(ROWS, COLUMNS)


def test_groups_that_differ_stay(tmp_path: Path) -> None:
    levels = np.ones((ROWS, COLUMNS), np.int8)
    scales = np.full((ROWS, 2), 0.5, np.float32)
    scales[4, 1] = 0.25
    opened = source(tmp_path / "w.gguf", "tq2_0", levels, scales)
    assert level_rows(opened, opened.tensors[0]).granularity == BLOCK_FORMATS["tq2_0"].granularity


def test_float16_is_exact() -> None:
    bits = np.arange(65536, dtype=np.uint16)
    right = bits.view(np.float16).astype(np.float32)
    found = from_f16(bits)
    np.testing.assert_array_equal(found, right)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(right))


def test_q4_0_and_q8_0() -> None:
    rng = np.random.default_rng(0)
    for kind, size in (("q4_0", 18), ("q8_0", 34)):
        data = rng.integers(0, 256, (3, size)).astype(np.uint8)
        data[:, :2] = np.frombuffer(np.array([1.5, -0.25, 2**-20], np.float16).tobytes(), np.uint8).reshape(3, 2)
        levels, scales = block_levels(kind, data.reshape(-1))
        for b in range(3):
            assert scales[b] == np.float32(np.float16([1.5, -0.25, 2**-20][b]))
            for j in range(32):
                if kind == "q8_0":
                    right = int(data[b, 2 + j]) - 256 * (data[b, 2 + j] > 127)
                else:
                    right = (int(data[b, 2 + j % 16]) >> 4 * (j // 16) & 15) - 8
                assert levels[b, j] == right


def test_q6_k() -> None:
    rng = np.random.default_rng(0)
    block = rng.integers(0, 256, 210).astype(np.uint8)
    block[208:] = np.frombuffer(np.float16(0.125).tobytes(), np.uint8)
    found = float_rows("q6_k", block, 256)[0]
    for n in range(256):
        half, i, j = n // 128, n % 128 // 32, n % 32
        low = int(block[half * 64 + j + 32 * (i % 2)]) >> 4 * (i // 2) & 15
        high = int(block[128 + half * 32 + j]) >> 2 * i & 3
        scale = int(block[192 + n // 16].view(np.int8))
        assert found[n] == np.float32(0.125) * scale * ((low | high << 4) - 32)


def test_bfloat16_and_float32() -> None:
    values = np.array([[1.0, -2.5, 0.0, 3.0e38]], np.float32)
    np.testing.assert_array_equal(float_rows("f32", values.view(np.uint8).reshape(-1), 4), values)
    half = (values.view(np.uint32) >> 16).astype(np.uint16)
    right = (half.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(float_rows("bf16", half.view(np.uint8).reshape(-1), 4), right)
