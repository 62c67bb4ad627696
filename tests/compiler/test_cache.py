"""The cache of compile results: what makes an entry, what invalidates it, how it stays small."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from neuc.compiler import cache
from neuc.compiler.options import CompileOptions, parse_shape
from neuc.errors import Error, Exit


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEUC_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "m.onnx"
    path.write_bytes(b"model")
    return path


def _filled(model: Path, options: CompileOptions, external: list[Path] | None = None) -> cache.Entry:
    entry = cache.entry_for(model, options.to_json())
    artifact = model.with_name("artifact")
    artifact.write_bytes(b"x" * 1000)
    entry.fill(artifact, {"target": options.target}, external or [])
    return entry


def test_an_entry_is_found_again_until_anything_changes(model: Path, monkeypatch: pytest.MonkeyPatch):
    options = CompileOptions()
    assert cache.entry_for(model, options.to_json()).report() is None
    _filled(model, options)
    found = cache.entry_for(model, options.to_json())
    assert found.report() == {"target": "cpu"}
    found.copy_to(model.with_name("copy"))
    assert model.with_name("copy").read_bytes() == b"x" * 1000

    assert cache.entry_for(model, CompileOptions(target="cpu-tl2").to_json()).report() is None
    monkeypatch.setenv("NEUC_CPU_FEATURES", "-avx")
    assert cache.entry_for(model, options.to_json()).report() is None
    monkeypatch.delenv("NEUC_CPU_FEATURES")
    model.write_bytes(b"another")
    assert cache.entry_for(model, options.to_json()).report() is None


def test_external_data_count(model: Path):
    data = model.with_name("weights.bin")
    data.write_bytes(b"1")
    entry = _filled(model, CompileOptions(), [data])
    assert entry.report() is not None
    data.write_bytes(b"2")
    assert entry.report() is None
    data.unlink()
    assert entry.report() is None


def test_damaged_entries_do_not_count(model: Path):
    entry = _filled(model, CompileOptions())
    (entry.folder / "entry.json").write_text("{")
    assert entry.report() is None


def test_least_recently_used_entries_go(model: Path, monkeypatch: pytest.MonkeyPatch):
    entries = [_filled(model, CompileOptions(planes=planes, quantize="ternary")) for planes in (1, 2, 3)]
    for age, entry in zip((30, 10, 20), entries):
        os.utime(entry.artifact, (1e9 - age, 1e9 - age))
    cache.trim(2500)
    assert [entry.report() is None for entry in entries] == [True, False, False]
    assert cache.usage()["artifacts"]["files"] == 4
    cache.clear()
    assert cache.usage() == {}


def test_a_limit_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NEUC_CACHE_SIZE", "2GB")
    with pytest.raises(Error, match="NEUC_CACHE_SIZE=2GB is no number of bytes") as caught:
        cache.size_limit()
    assert caught.value.exit_code == Exit.USAGE
    monkeypatch.setenv("NEUC_CACHE_SIZE", "0")
    assert cache.size_limit() == 0


@pytest.mark.parametrize("text", ["", "x", "x=", "=1x2", "x=1x0", "x=1x-2", "x=1x 2"])
def test_bad_shapes(text: str):
    with pytest.raises(Error, match=r"NAME=1x3x224x224|at least 1"):
        parse_shape(text)


def test_shapes_may_stay_symbolic():
    assert parse_shape("x=Bx3x224xW") == ("x", ("B", 3, 224, "W"))
    assert parse_shape("a=b=4") == ("a=b", (4,))
