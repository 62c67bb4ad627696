"""GGUF files that lie are refused in one line that names the file and the thing.

The cases run with a limit on memory: a count that is believed before it is checked fails the test.
"""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile_gguf import GGUF, SOUND, check_error
from neuc.compiler.formats.gguf import GgufFile
from neuc.errors import Error

ALLOWANCE = 4 * 2**20  # bytes: no file here has more than a few KB, so nothing in one deserves more


@pytest.mark.parametrize("case", GGUF)
def test_gguf_files_that_lie(tmp_path: Path, case: str):
    what, code, says = GGUF[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(what if isinstance(what, bytes) else what.build())
    tracemalloc.start()
    try:
        with pytest.raises(Error) as caught:
            GgufFile.open(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    check_error(caught.value, code, says)
    assert "bad.gguf" in caught.value.message
    assert peak < ALLOWANCE


def test_the_cases_change_what_is_sound(tmp_path: Path):
    (tmp_path / "a.gguf").write_bytes(SOUND)
    assert list(GgufFile.open(tmp_path / "a.gguf").tensors) == ["first", "second"]


@pytest.mark.parametrize("length", range(0, len(SOUND) - 1, 7))
def test_gguf_files_cut_off_anywhere(tmp_path: Path, length: int):
    path = tmp_path / "bad.gguf"
    path.write_bytes(SOUND[:length])
    with pytest.raises(Error, match=r"bad\.gguf"):
        GgufFile.open(path)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(SOUND) - 1), value=st.integers(0, 255))
def test_a_changed_byte_gives_an_error_or_a_file(tmp_path_factory: pytest.TempPathFactory, at: int, value: int):
    """Whatever a byte is changed to, there is no other exception than ours, and every payload can be had."""
    path = tmp_path_factory.getbasetemp() / "flipped.gguf"
    path.unlink(missing_ok=True)
    path.write_bytes(SOUND[:at] + bytes([value]) + SOUND[at + 1 :])
    try:
        file = GgufFile.open(path)
    except Error:
        return
    for tensor in file.tensors.values():
        assert len(file.payload(tensor)) == tensor.nbytes
