"""Artifacts: what is written is what is read, byte for byte the same each time, or nothing at all."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

import runtime_programs
from neuc.errors import Error
from neuc.runtime import artifact as artifact_module
from neuc.runtime.artifact import CHUNK, Artifact, verify, write_artifact
from neuc.runtime.session import load
from neuc.runtime.tensor_file import Pending, read_tensors, tensor_file
from neuc.runtime.zipstore import StoredZipWriter, read_directory


def write(path: Path, **changes: object) -> None:
    content: dict[str, object] = {
        "program": runtime_programs.chain(),
        "kernels": runtime_programs.kernels(),
        "weights": runtime_programs.chain_weights(),
        "ir": {"00-import.mlir": "builtin.module {}\n"},
        "manifest": {"target": "cpu", "features": [], "graph_name": "chain"},
        "debug_map": {"seg0": [["double"], ["flip"]]},
    }
    write_artifact(path, **{**content, **changes})  # type: ignore[arg-type]


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.neuc"
    write(path)
    read = Artifact.open(path)
    assert read.program == runtime_programs.chain()
    assert read.kernels == runtime_programs.kernels()
    assert read.ir == {"00-import.mlir": "builtin.module {}\n"}
    assert read.debug_map == {"seg0": [["double"], ["flip"]]}
    assert read.manifest["target"] == "cpu"
    assert read.manifest["signature"] == {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["B", 5]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["B", 5]}],
    }
    np.testing.assert_array_equal(read.weights["bias"], runtime_programs.BIAS)
    assert not read.weights["bias"].flags.writeable
    x = np.arange(35, dtype=np.float32).reshape(7, 5)
    with load(path) as session:
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], runtime_programs.chain_expected(x))
        assert session.get_modelmeta().graph_name == "chain"
    assert verify(path).ok


def test_same_input_same_bytes(tmp_path: Path) -> None:
    weights = {"bias": runtime_programs.BIAS, "b": np.ones(3, np.int8), "a": np.zeros((2, 2))}
    write(tmp_path / "1.neuc", weights=weights)
    write(tmp_path / "2.neuc", weights=dict(reversed(weights.items())))
    assert (tmp_path / "1.neuc").read_bytes() == (tmp_path / "2.neuc").read_bytes()


def test_is_a_zip_with_aligned_members(tmp_path: Path) -> None:
    path = tmp_path / "a.neuc"
    write(path)
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        for info in file.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            name_length, extra_length = (
                int.from_bytes(raw[info.header_offset + at : info.header_offset + at + 2], "little") for at in (26, 28)
            )
            assert (info.header_offset + 30 + name_length + extra_length) % 64 == 0


def test_members_are_written_in_large_aligned_pieces() -> None:
    writes: list[tuple[int, int]] = []

    class Recorded(io.BytesIO):
        def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]
            writes.append((self.tell(), len(data)))
            return super().write(data)

    file, piece = Recorded(), 1 << 22
    sizes = [5, piece + 3, 3 * piece, 0, 70_000, piece - 1]
    parts = [np.random.default_rng(size).bytes(size) for size in sizes]
    writer = StoredZipWriter(file)
    writer.add("small", [b"abc"])
    writer.add("large", parts)
    writer.finish()
    assert sum(size == piece and place % piece == 0 for place, size in writes) == sum(sizes) // piece - 1
    assert all(place // piece == (place + size - 1) // piece for place, size in writes if size)
    with zipfile.ZipFile(file) as archive:
        assert archive.read("small") == b"abc"
        assert archive.read("large") == b"".join(parts)
    assert read_directory(memoryview(file.getvalue()), "it")["large"].size == sum(sizes)


def test_weights_are_aligned_views_that_safetensors_can_read() -> None:
    from safetensors.numpy import load as safetensors_load

    rng = np.random.default_rng(0)
    dtypes = ["float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
    tensors: dict[str, np.ndarray] = {f"t.{name}": rng.integers(0, 100, (3, 7)).astype(name) for name in dtypes}
    tensors |= {"flag": np.array([True, False]), "scalar": np.array(3.5, np.float32), "none": np.zeros((0, 4), "i4")}
    parts = tensor_file(tensors)
    blob = b"".join(part for part in parts if not isinstance(part, Pending))
    from_peer = safetensors_load(blob)
    place = np.empty(len(blob) + 64, np.uint8)
    start = -place.ctypes.data % 64
    place[start : start + len(blob)] = np.frombuffer(blob, np.uint8)
    ours = read_tensors(place[start : start + len(blob)].data, "test")
    assert ours.keys() == tensors.keys()
    for key, want in tensors.items():
        for got in (ours[key], from_peer[key]):
            assert got.dtype == want.dtype
            assert got.shape == want.shape
            np.testing.assert_array_equal(got, want)
        assert ours[key].size == 0 or ours[key].ctypes.data % 64 == 0
    assert np.shares_memory(ours["t.int8"], place)


def test_weights_of_an_opened_file_are_mapped_and_aligned(tmp_path: Path) -> None:
    path = tmp_path / "a.neuc"
    write(path, weights={"bias": runtime_programs.BIAS, "other": np.arange(1000)})
    weights = Artifact.open(path).weights
    assert all(array.ctypes.data % 64 == 0 for array in weights.values())
    with Artifact.open(path).path.open("rb") as file:  # still readable, although mapped
        assert file.read(2) == b"PK"


def test_damage_in_each_piece_of_large_weights_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.neuc"
    big = np.zeros(2 * CHUNK + 5, np.uint8)
    write(path, weights={"bias": runtime_programs.BIAS, "big": big})
    assert verify(path).ok
    raw = bytearray(path.read_bytes())
    start = read_directory(memoryview(bytes(raw)), "a")["weights.safetensors"].offset
    for place in (start + 1000, start + CHUNK + 1000, start + 2 * CHUNK + 3):
        damaged = bytearray(raw)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        assert len(verify(path).damaged) == 1
        with pytest.raises(Error, match="damaged"):
            Artifact.open(path)


def test_weights_are_hashed_once_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.neuc"
    write(path)
    calls: list[object] = []
    original = artifact_module._MappedFile.damaged_weights

    def counted(self: artifact_module._MappedFile) -> list[str]:
        calls.append(self)
        return original(self)

    monkeypatch.setattr(artifact_module._MappedFile, "damaged_weights", counted)
    Artifact.open(path)
    Artifact.open(path)
    assert len(calls) == 1
    os.utime(path, ns=(1, 1))
    Artifact.open(path)
    assert len(calls) == 2
    verify(path)
    assert len(calls) == 3


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError, MemoryError])
def test_nothing_is_left_when_writing_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[BaseException]
) -> None:
    path = tmp_path / "a.neuc"
    path.write_bytes(b"what was there")

    def stop(self: object) -> None:
        raise fault

    monkeypatch.setattr(artifact_module.StoredZipWriter, "finish", stop)
    with pytest.raises(Error if fault is OSError else fault):
        write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.neuc"]
    assert path.read_bytes() == b"what was there"


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "missing" / "a.neuc", tmp_path / "file" / "a.neuc", tmp_path / "folder"):
        with pytest.raises(Error) as caught:
            write(place)
        assert caught.value.code == "NEUC-E306"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    assert not list((tmp_path / "folder").iterdir())


def test_unreadable_places(tmp_path: Path) -> None:
    for place in (tmp_path / "missing.neuc", tmp_path, Path("\0")):
        with pytest.raises(Error) as caught:
            load(place)
        assert caught.value.code == "NEUC-E307"


def test_other_machine(tmp_path: Path) -> None:
    path = tmp_path / "a.neuc"
    write(path, manifest={"features": ["avx512f", "no-such-feature"]})
    with pytest.raises(Error, match="no-such-feature") as caught:
        load(path)
    assert caught.value.code == "NEUC-E401"
    write(path, manifest={"architecture": "pdp11"})
    with pytest.raises(Error, match="pdp11") as caught:
        load(path)
    assert caught.value.code == "NEUC-E402"
