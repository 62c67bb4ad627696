"""Arrays that are made when they are read, and the weight store that holds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuc.dialects import lazy_array
from neuc.dialects.lazy_array import LazyArray
from neuc.dialects.ternary_types import ScaleAttr
from neuc.dialects.ternary_weights import make_weight, weight_arrays, weight_rows, weight_scales
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, InternalError


def counted(rows: np.ndarray, identity: str = "a") -> LazyArray:
    return LazyArray((1, *rows.shape), rows.dtype, identity, len(rows), lambda begin, end: rows[begin:end])


ROWS = (np.arange(70, dtype=np.int8) % 3 - 1).reshape(7, 10)


def test_parts_and_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_array, "PIECE_BYTES", 25)
    found = counted(ROWS)
    assert [nbytes for nbytes, _ in found.pieces()] == [20, 20, 20, 10]
    np.testing.assert_array_equal(np.concatenate([make() for _, make in found.pieces()]), ROWS)
    np.testing.assert_array_equal(found.array(), ROWS[None])
    np.testing.assert_array_equal(found.part(2, 4), ROWS[2:4])
    assert not found.array().flags.writeable


def test_parts_of_another_size_are_a_bug() -> None:
    found = LazyArray((4, 4), np.dtype(np.int8), "a", 4, lambda begin, end: np.zeros((1, 4), np.int8))
    with pytest.raises(InternalError, match="parts 0 to 4"):
        found.array()
    with pytest.raises(InternalError, match="3 parts"):
        LazyArray((4, 4), np.dtype(np.int8), "a", 3, lambda begin, end: ROWS)


def test_the_store_keeps_no_copy_and_knows_equal_ones() -> None:
    store = WeightStore()
    key = store.add_lazy("w", counted(ROWS))
    assert store.add_lazy("again", counted(ROWS)) == key
    assert store.add_lazy("w", counted(ROWS, "b")) == "w#2"
    assert isinstance(store.entry(key), LazyArray)
    assert store.get(key) is not store.get(key)


def test_a_saved_store_answers_to_the_same_identity(tmp_path: Path) -> None:
    store = WeightStore()
    weight = make_weight(
        "w", counted(ROWS, "0123456789abcdef"), np.ones((1, 7, 1), np.float32), store, scale=ScaleAttr.of("row")
    )
    rows = weight_rows(weight, store)
    assert isinstance(rows, LazyArray)
    assert rows.shape == (7, 10)
    store.save(tmp_path / "w.safetensors")
    loaded = WeightStore.load(tmp_path / "w.safetensors")
    trits, scales = weight_arrays(weight, loaded)
    np.testing.assert_array_equal(trits, ROWS[None])
    np.testing.assert_array_equal(scales, weight_scales(weight, store))
    damaged = bytearray((tmp_path / "w.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "w.safetensors").write_bytes(damaged)
    with pytest.raises(Error, match="do not match their hash"):
        WeightStore.load(tmp_path / "w.safetensors")
