"""Damaged and forged ``.neuc`` files: every one ends in an `Error`, and none in wrong results."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime_programs
from neuc.errors import Error
from neuc.runtime.artifact import CHUNK, MANIFEST, PROGRAM, WEIGHTS, write_artifact
from neuc.runtime.session import load
from neuc.runtime.zipstore import StoredZipWriter, read_directory

Members = dict[str, bytes]
Change = Callable[[Members], None]


@lru_cache(maxsize=1)
def sound() -> bytes:
    """A sound artifact."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.neuc"
        write_artifact(
            path,
            program=runtime_programs.chain(),
            kernels=runtime_programs.kernels(),
            weights=runtime_programs.chain_weights(),
            ir={"a.mlir": "text"},
        )
        return path.read_bytes()


def refuse(tmp_path: Path, data: bytes) -> Error:
    """Load bytes that must be refused."""
    path = tmp_path / "bad.neuc"
    path.unlink(missing_ok=True)  # a new inode, so that no earlier check of this name is remembered
    path.write_bytes(data)
    with pytest.raises(Error) as caught:
        load(path, threads=1)
    assert caught.value.hint
    assert caught.value.code.startswith("NEUC-E3")
    return caught.value


def pack(members: Mapping[str, bytes]) -> bytes:
    """A container with these members and whatever they hold."""
    file = io.BytesIO()
    writer = StoredZipWriter(file)
    for name, data in members.items():
        writer.add(name, [data])
    writer.finish()
    return file.getvalue()


def forge(change: Change) -> bytes:
    """An artifact changed by somebody who also makes all its hashes fit."""
    data = memoryview(sound())
    members = {m.name: bytes(data[m.offset : m.offset + m.size]) for m in read_directory(data, "sound").values()}
    change(members)
    manifest: dict[str, Any] = json.loads(members[MANIFEST])
    if "keep" not in manifest:
        manifest["members"] = {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in members.items()
            if name not in (MANIFEST, WEIGHTS)
        }
        if WEIGHTS in members:
            weights = members[WEIGHTS]
            pieces = [weights[at : at + CHUNK] for at in range(0, len(weights), CHUNK)]
            chunks = [hashlib.sha256(piece).hexdigest() for piece in pieces]
            manifest["members"][WEIGHTS] = {"size": len(weights), "chunks": chunks}
    members[MANIFEST] = json.dumps(manifest).encode()
    return pack(members)


def test_the_forger_changes_nothing_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "ok.neuc"
    path.write_bytes(forge(lambda members: None))
    x = np.ones((2, 5), np.float32)
    with load(path, threads=1) as session:
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], runtime_programs.chain_expected(x))


@pytest.mark.parametrize("data", [b"", b"P", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), bytes(10_000), b"\x7fELF" * 99])
def test_not_an_artifact(tmp_path: Path, data: bytes) -> None:
    assert refuse(tmp_path, data).code == "NEUC-E300"


def test_random_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for size in (100, 5000):
        refuse(tmp_path, rng.bytes(size))
        refuse(tmp_path, sound()[:200] + rng.bytes(size))


def test_truncated_anywhere(tmp_path: Path) -> None:
    for length in range(0, len(sound()), 61):
        refuse(tmp_path, sound()[:length])
    refuse(tmp_path, sound()[:-1])


def test_extended(tmp_path: Path) -> None:
    refuse(tmp_path, sound() + b"\0")
    refuse(tmp_path, b"#!/bin/sh\n" + sound())
    refuse(tmp_path, sound() + sound())


def test_a_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    data = sound()
    rng = np.random.default_rng(2)
    for place in range(0, len(data), 29):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        refuse(tmp_path, bytes(damaged))


def test_bytes_moved_about(tmp_path: Path) -> None:
    data, rng = sound(), np.random.default_rng(3)
    for _ in range(40):
        start, end = sorted(rng.integers(0, len(data), 2).tolist())
        if data[start:end].strip(b"\0"):
            refuse(tmp_path, data[:start] + data[end:])
            refuse(tmp_path, data[:end] + data[start:])


def program(change: Callable[[dict[str, Any]], None]) -> Change:
    """A change of the program."""

    def apply(members: Members) -> None:
        data = json.loads(members[PROGRAM])
        change(data)
        members[PROGRAM] = json.dumps(data).encode()

    return apply


def manifest(**fields: object) -> Change:
    """Changed manifest fields, with its member list kept as it is if ``members`` is among them."""

    def apply(members: Members) -> None:
        keep = {"keep": 1} if "members" in fields else {}
        members[MANIFEST] = json.dumps({**json.loads(members[MANIFEST]), **fields, **keep}).encode()

    return apply


def tensors(header: object, data: bytes = bytes(64)) -> Change:
    """Another weight file."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return lambda members: members.update({WEIGHTS: struct.pack("<Q", len(text)) + text + data})


def member(name: str, data: bytes | None) -> Change:
    """A member replaced, or taken out."""

    def apply(members: Members) -> None:
        if data is None:
            del members[name]
        else:
            members[name] = data

    return apply


def _tensor(begin: int, end: int, *shape: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}


def _launch(data: dict[str, Any]) -> dict[str, Any]:
    return data["segments"]["seg0"]["launches"][0]


HOST: dict[str, object] = {"kind": "host", "inputs": [], "outputs": []}
OBJECT = "program/kernels/k_add.o"
FORGED: dict[str, Change] = {
    "newer major": manifest(format=[2, 0]),
    "newer minor": manifest(format=[1, 1000]),
    "format of text": manifest(format="1.0"),
    "manifest no object": member(MANIFEST, b'{"keep": 1}'),
    "member list empty": manifest(members={}),
    "member list no object": manifest(members=[]),
    "member without hash": manifest(members={PROGRAM: {"size": 3}}),
    "features no list": manifest(features="avx2"),
    "features no texts": manifest(features=[1]),
    "architecture no text": manifest(architecture=7),
    "no program": member(PROGRAM, None),
    "no weights": member(WEIGHTS, None),
    "no debug map": member("debug_map.json", None),
    "debug map no JSON": member("debug_map.json", b"{"),
    "kernel missing": member(OBJECT, None),
    "kernel empty": member(OBJECT, b""),
    "kernel of noise": member(OBJECT, bytes(range(256)) * 4),
    "kernel for another machine": lambda m: m.update({OBJECT: m[OBJECT][:18] + b"\x03\x00" + m[OBJECT][20:]}),
    "kernel that is a program": lambda m: m.update({OBJECT: m[OBJECT][:16] + b"\x02\x00" + m[OBJECT][18:]}),
    "kernel without its symbol": lambda m: m.update({OBJECT: m["program/kernels/k_scale.o"]}),
    "program no JSON": member(PROGRAM, b"\x80"),
    "program nested": member(PROGRAM, b"[" * 200_000),
    "program of digits": member(PROGRAM, b"1" * 100_000),
    "key twice": member(PROGRAM, b'{"format":[1,0],"format":[1,0]}'),
    "launches unknown kernel": program(lambda d: _launch(d).update(kernel="k_none")),
    "kernel is a path": program(lambda d: _launch(d).update(kernel="../../../etc/passwd")),
    "buffer out of range": program(lambda d: _launch(d).update(args=[{"buffer": 99}])),
    "weight unknown": program(lambda d: d["segments"]["seg0"]["buffers"].append({"kind": "weight", "key": "no"})),
    "expression bomb": program(lambda d: _launch(d).update(work="9**9**9**9")),
    "expression call": program(lambda d: _launch(d).update(work="print(B)")),
    "expression deep": program(lambda d: _launch(d).update(work="(" * 5000 + "B" + ")" * 5000)),
    "expression long": program(lambda d: _launch(d).update(work="B+" * 60_000 + "B")),
    "executor unknown": program(
        lambda d: d.update(
            segments={"s": {"kind": "acme.magic", "data": {}, "inputs": ["x"], "outputs": ["y"]}},
            schedule=[{"segment": "s", "inputs": ["x"], "outputs": ["y"]}],
        )
    ),
    "host model missing": program(lambda d: d["segments"].update(h={**HOST, "model": "../x.onnx"})),
    "host model of noise": lambda m: (
        program(lambda d: d["segments"].update(h={**HOST, "model": "h.onnx"}))(m) or m.update({"h.onnx": b"\x08\x01no"})
    ),
    "weights cut": member(WEIGHTS, b"\x01"),
    "weights header too long": member(WEIGHTS, struct.pack("<Q", 2**63) + bytes(64)),
    "weights header no JSON": tensors(b"{]"),
    "weights header a list": tensors([]),
    "weights dtype unknown": tensors({"bias": {"dtype": "F7", "shape": [16], "data_offsets": [0, 64]}}),
    "weights negative size": tensors({"bias": _tensor(64, 0, 16)}),
    "weights negative dim": tensors({"bias": _tensor(0, 64, -16)}),
    "weights absurd dims": tensors({"bias": _tensor(0, 64, 2**40, 2**40)}),
    "weights beyond the end": tensors({"bias": _tensor(0, 128, 32)}),
    "weights with a gap": tensors({"bias": _tensor(32, 64, 8)}),
    "weights overlapping": tensors({"bias": _tensor(0, 64, 16), "b": _tensor(0, 64, 16)}),
    "weights with unused bytes": tensors({"bias": _tensor(0, 32, 8)}),
    "weights shape no list": tensors({"bias": {"dtype": "F32", "shape": 16, "data_offsets": [0, 64]}}),
    "weights without offsets": tensors({"bias": {"dtype": "F32", "shape": [16]}}),
    "name climbs out": member("../evil.so", b"x"),
    "name is absolute": member("/etc/evil", b"x"),
    "name of another system": member("ir\\..\\evil", b"x"),
    "name with a drive": member("c:evil", b"x"),
    "name is a dot": member("ir/./a", b"x"),
    "name is empty": member("", b"x"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged(tmp_path: Path, name: str) -> None:
    refuse(tmp_path, forge(FORGED[name]))


@pytest.mark.parametrize("key", ["size", "sha256", "chunks"])
def test_manifest_disagrees_with_members(tmp_path: Path, key: str) -> None:
    def change(members: Members) -> None:
        data = json.loads(members[MANIFEST])
        entry = data["members"][WEIGHTS if key == "chunks" else PROGRAM]
        entry[key] = {"size": 7, "sha256": "0" * 64, "chunks": []}[key]
        members[MANIFEST] = json.dumps({**data, "keep": 1}).encode()

    refuse(tmp_path, forge(change))


CONTAINER = {
    "compressed": (10, 2, 8),
    "encrypted": (8, 2, 0x801),
    "another CRC": (16, 4, 1),
    "comment": (32, 2, 4),
    "another disk": (34, 2, 1),
    "longer name": (28, 2, 200),
}


@pytest.mark.parametrize("name", CONTAINER)
def test_directory_entry_changed(tmp_path: Path, name: str) -> None:
    """Fields of the first directory entry, by offset and width."""
    offset, width, value = CONTAINER[name]
    data = bytearray(sound())
    place = data.index(b"PK\x01\x02") + offset
    data[place : place + width] = value.to_bytes(width, "little")
    assert refuse(tmp_path, bytes(data)).code == "NEUC-E300"


def test_members_that_overlap_or_repeat(tmp_path: Path) -> None:
    data = sound()
    start = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", start + 4)
    entry, end = data[start:second], len(data) - 98
    size, count = end - start, data[start:end].count(b"PK\x01\x02")

    def directory(content: bytes, members: int) -> bytes:
        tail = bytearray(data[end:])
        struct.pack_into("<QQQQ", tail, 24, members, members, len(content), start)
        struct.pack_into("<Q", tail, 56 + 8, start + len(content))
        return data[:start] + content + bytes(tail)

    assert directory(data[start:end], count) == data
    refuse(tmp_path, directory(entry + data[start:end], count + 1))
    refuse(tmp_path, directory(data[second:end], count - 1))
    refuse(tmp_path, directory(data[start:end], count + 1))
    refuse(tmp_path, directory(data[start:end], 2**40))
    refuse(tmp_path, directory(b"", 0))
    assert size > 0


def test_bytes_between_members(tmp_path: Path) -> None:
    """Where something could hide that no hash covers."""
    data = memoryview(sound())
    file = io.BytesIO()
    writer = StoredZipWriter(file)
    for member in read_directory(data, "sound").values():
        writer.add(member.name, [data[member.offset : member.offset + member.size]])
        writer._write(bytes(64))
    writer.finish()
    assert refuse(tmp_path, file.getvalue()).code == "NEUC-E300"
