"""The cache folder: where it is, and that a bad entry is never used."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuc.runtime.cache import BlobCache, cache_dir, key_of, replacing
from neuc.runtime.native import driver as driver_module


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEUC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEUC_CACHE_DIR", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("NEUC_CACHE_DIR")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/neuc")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_dir() == Path("/home/someone/.cache/neuc")


def test_damaged_entries_are_misses(folder: Path) -> None:
    cache = BlobCache("things")
    assert cache.get("k") is None
    cache.put("k", b"content")
    assert cache.get("k") == b"content"
    path = folder / "things" / "k"
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.get("k") is None
    path.write_bytes(b"")
    assert cache.get("k") is None


def test_a_folder_that_cannot_be_written_is_no_error(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    cache = BlobCache("things")
    cache.put("k", b"content")
    cache.keep_newest(1)
    assert cache.get("k") is None


def test_only_the_newest_stay(folder: Path) -> None:
    import os

    cache = BlobCache("things")
    for number in range(6):
        cache.put(str(number), b"")
        os.utime(folder / "things" / str(number), (number, number))
    cache.keep_newest(2)
    assert sorted(path.name for path in (folder / "things").iterdir()) == ["4", "5"]


def test_a_damaged_driver_is_compiled_again(folder: Path) -> None:
    made = driver_module._object()
    (entry,) = (folder / "driver").iterdir()
    entry.write_bytes(b"\x7fELF" + bytes(1000))
    assert driver_module._object() == made
    assert driver_module._object() == made


def test_replacing_keeps_the_users_permissions(tmp_path: Path) -> None:
    path, plain = tmp_path / "new", tmp_path / "plain"
    with replacing(path) as file:
        file.write(b"x")
    plain.write_bytes(b"x")
    assert path.stat().st_mode == plain.stat().st_mode


def test_keys_differ_where_facts_do() -> None:
    assert key_of(("a", 1)) == key_of(["a", 1])
    assert len({key_of(("a", 1)), key_of(("a", "1")), key_of(("a1",)), key_of(())}) == 4
