"""Constants keep every bit, in the text or in the store; the store finds tampering."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from xdsl.dialects.builtin import Builtin, ModuleOp, f32
from xdsl.parser import Parser
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.context import NeucContext
from neuc.dialects.store import Store, constant_array, dims_of, make_constant, tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error

ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.array([np.nan, np.inf, -0.0], np.float32),
    np.array([[-1, 2]], np.int64),
    np.array([255, 0], np.uint8),
    np.array([2**64 - 1], np.uint64),
    np.array([True, False]),
    np.array(2.5, np.float16),
    np.full((4,), 7, np.int8),
    np.zeros((0, 3), np.float32),
    np.random.default_rng(0).standard_normal((5, 7)),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_constants_survive_text(array: np.ndarray) -> None:
    store = WeightStore()
    module = ModuleOp([make_constant("c", array, store)])
    module.verify()
    ctx = NeucContext()
    for dialect in (Builtin, Store):
        ctx.load_dialect(dialect)
    again = Parser(ctx, str(module)).parse_module()
    assert str(again) == str(module)
    (op,) = again.ops
    read = constant_array(op, store)  # pyright: ignore[reportArgumentType]
    assert read.dtype == array.dtype
    assert read.tobytes() == array.tobytes()
    assert read.shape == array.shape


def test_equal_content_is_stored_once_and_names_never_clash() -> None:
    store = WeightStore()
    a = np.arange(100, dtype=np.float32)
    assert store.add("w", a) == "w"
    assert store.add("other", a.copy()) == "w"
    assert store.add("w", a + 1) == "w#2"
    assert store.add("w", a + 2) == "w#3"
    assert not store.get("w").flags.writeable


def test_saved_store_is_the_same_and_a_flipped_bit_is_found(tmp_path: Path) -> None:
    store = WeightStore()
    store.add("w", np.arange(1000, dtype=np.float32))
    store.add("i", np.arange(5, dtype=np.int8))
    path = tmp_path / "w.safetensors"
    store.save(path)
    again = WeightStore.load(path)
    assert {k: again.sha(k) for k in again} == {k: store.sha(k) for k in store}
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    with pytest.raises(Error, match="do not match their hash"):
        WeightStore.load(path)


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"garbage garbage garbage"])
def test_what_is_no_store_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(Error, match="not a readable weight store"):
        WeightStore.load(path)


def test_text_and_store_must_belong_together() -> None:
    store, other = WeightStore(), WeightStore()
    op = make_constant("w", np.zeros((3, 9), np.float32), store)
    with pytest.raises(Error, match="not in the weight store"):
        constant_array(op, other)
    other.add("w", np.zeros((3, 8), np.float32))
    with pytest.raises(Error, match=r"float32\[3, 8\]"):
        constant_array(op, other)
    third = WeightStore()
    third.add("w", np.ones((3, 9), np.float32))
    with pytest.raises(Error, match="other content"):
        constant_array(op, third)


def test_dims_are_part_of_the_type() -> None:
    type_ = tensor_type(f32, ["B", 3, "B*2"])
    assert [str(d) for d in dims_of(type_)] == ["B", "3", "2*B"]
    with pytest.raises((ValueError, VerifyException), match="dimension expression"):
        tensor_type(f32, ["B +"])


def test_a_store_without_entries_is_saved_and_read(tmp_path: Path) -> None:
    WeightStore().save(tmp_path / "empty.safetensors")
    assert list(WeightStore.load(tmp_path / "empty.safetensors")) == []
