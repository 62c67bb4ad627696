"""Packing rows that are made when they are read gives the bytes that packing all at once gives."""

from __future__ import annotations

import numpy as np
import pytest

from neuc.backends.cpu.encodings import CPU_ENCODINGS, Matrix
from neuc.backends.cpu.isa import Isa
from neuc.dialects import lazy_array
from neuc.dialects.lazy_array import LazyArray
from neuc.dialects.ternary_encodings import ENCODINGS, LEVELS


def lazy(rows: np.ndarray, reads: list[int]) -> LazyArray:
    """The same rows, made when they are read; `reads` notes how many at a time."""

    def read(begin: int, end: int) -> np.ndarray:
        reads.append(end - begin)
        return rows[begin:end]

    return LazyArray(rows.shape, rows.dtype, "rows", len(rows), read)


@pytest.mark.parametrize(
    "isa", [Isa.avx512(("avx512vnni", "avx512vbmi")), Isa.avx2(()), Isa.scalar()], ids=lambda i: i.name
)
@pytest.mark.parametrize("kind", CPU_ENCODINGS)
def test_blocks_are_packed_apart(kind: str, isa: Isa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_array, "PIECE_BYTES", 2048)
    monkeypatch.setattr("neuc.backends.cpu.packing.by_blocks._BLOCK_WEIGHTS", 4096)
    rng = np.random.default_rng(0)
    rows = rng.integers(-1, 2, (100, 150)).astype(np.int8)
    g = ENCODINGS[kind].largest_group(LEVELS, None)
    matrix = Matrix(LEVELS, g, 100, 150, 150, 32, 96)
    encoding = CPU_ENCODINGS[kind]
    layout = encoding.layout(isa, matrix)
    reads: list[int] = []
    data, start = encoding.pack_lazy(lazy(rows, reads), layout)
    right_data, right_start = encoding.pack(rows, layout)
    found = data.array() if isinstance(data, LazyArray) else data
    np.testing.assert_array_equal(found.reshape(-1), right_data.reshape(-1))
    assert (start is None) == (right_start is None)
    if start is not None:
        np.testing.assert_array_equal(start, right_start)
    assert max(reads) < 100
