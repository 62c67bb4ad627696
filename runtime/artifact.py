"""The ``.neuc`` file: writing one, opening one, and checking that its bytes are what was written.

Members: ``manifest.json``, ``program/program.json``, ``program/kernels/<name>.o``, ``program/*.onnx`` (host segments),
``weights.safetensors``, ``debug_map.json`` and ``ir/*``. The manifest holds the SHA-256 of every other member; the
weights have one for each 4 MiB, checked once for a file and then remembered in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error
from neuc.runtime.cache import BlobCache, key_of, replacing
from neuc.runtime.checked_json import Node, dump_json, parse_json
from neuc.runtime.cpu_features import available_cpus
from neuc.runtime.program import FORMAT, Program
from neuc.runtime.program_reader import check_format
from neuc.runtime.tensor_file import Part, Pending, PiecewiseTensor, Tensor, as_bytes, read_tensors, tensor_file
from neuc.runtime.zipstore import Member, StoredZipWriter, read_directory

CHUNK = 4 * 2**20
MANIFEST = "manifest.json"
PROGRAM = "program/program.json"
WEIGHTS = "weights.safetensors"
DEBUG_MAP = "debug_map.json"
_KERNELS = "program/kernels/"
_SUFFIX = ".o"
_IR = "ir/"
EXTRA = "extra/"
"""Folder of members that go with a model, such as what its tokenizer needs; nothing here reads them."""
_REMEMBERED = 512

_verified = BlobCache("verified")


# ---------------------------------------------------------------------------------------------------- writing


def write_artifact(
    path: str | os.PathLike[str],
    *,
    program: Program,
    kernels: Mapping[str, bytes],
    weights: Mapping[str, NDArray[np.generic] | PiecewiseTensor],
    hosts: Mapping[str, bytes] | None = None,
    ir: Mapping[str, str] | None = None,
    manifest: Mapping[str, object] | None = None,
    debug_map: object = None,
    extra: Mapping[str, bytes] | None = None,
) -> None:
    """Write an artifact; on any failure ``path`` is as it was before.

    Args:
        path: the file to write or replace.
        program: what to run.
        kernels: object code by kernel name.
        weights: arrays by key; those that are made piece by piece are written so.
        hosts: ONNX bytes by the ``model`` path that host segments name.
        ir: IR texts by file name, kept for people to read.
        manifest: JSON data to add, such as ``target``, ``features`` (CPU features the code needs, a list),
            ``architecture`` and versions; ``format``, ``signature`` and ``members`` are filled in here.
        debug_map: JSON data that maps launches to ONNX nodes.
        extra: further members by name, ``extra/…``, that go with the model.

    Raises:
        Error: the file cannot be written.
    """
    small: dict[str, bytes] = {PROGRAM: program.to_bytes(), DEBUG_MAP: dump_json(debug_map)}
    small |= {f"{_KERNELS}{name}{_SUFFIX}": data for name, data in kernels.items()}
    small |= {name: data for name, data in (hosts or {}).items()}
    small |= {f"{_IR}{name}": text.encode("utf-8") for name, text in (ir or {}).items()}
    small |= dict(extra or {})
    members: dict[str, object] = {name: {"sha256": _sha(data), "size": len(data)} for name, data in small.items()}
    signature = program.to_json()
    target = Path(path)
    try:
        with replacing(target) as file:
            writer = StoredZipWriter(file)
            for name in sorted(small):
                writer.add(name, [small[name]])
            hashes = _ChunkHashes()
            writer.add(WEIGHTS, hashes.of(_made(tensor_file(weights))))
            members[WEIGHTS] = {"chunks": hashes.finished(), "size": hashes.size}
            described = {
                **(manifest or {}),
                "format": list(FORMAT),
                "signature": {"inputs": signature["inputs"], "outputs": signature["outputs"]},
                "members": members,
            }
            writer.add(MANIFEST, [dump_json(described)])
            writer.finish()
    except OSError as error:
        raise Error(
            "NEUC-E306",
            f"cannot write {target}: {error.strerror or error}",
            hint="choose another place, or make room",
        ) from error


def _sha(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _made(parts: Sequence[Part]) -> Iterator[bytes | memoryview]:
    """The parts in order; those still to be made are made ahead, a few at a time, on all CPUs."""
    ready: deque[bytes | memoryview | Future[NDArray[Any]]] = deque()
    waiting, workers = 0, available_cpus()
    with ThreadPoolExecutor(workers) as pool:
        for part in parts:
            if isinstance(part, Pending):
                ready.append(pool.submit(part.make))
                waiting += 1
            else:
                ready.append(part)
            while ready and (waiting > 2 * workers or not isinstance(ready[0], Future)):
                first = ready.popleft()
                if isinstance(first, Future):
                    waiting -= 1
                    first = as_bytes(first.result())
                yield first
        for last in ready:
            yield as_bytes(last.result()) if isinstance(last, Future) else last


class _ChunkHashes:
    """SHA-256 of each 4 MiB of a stream of bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._hashes: list[str] = []
        self._current = hashlib.sha256()

    def of(self, parts: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        """The same parts, seen on their way."""
        for part in parts:
            view, position = memoryview(part), 0
            while position < len(view):
                piece = view[position : position + CHUNK - self.size % CHUNK]
                self._current.update(piece)
                self.size, position = self.size + len(piece), position + len(piece)
                if self.size % CHUNK == 0:
                    self._hashes.append(self._current.hexdigest())
                    self._current = hashlib.sha256()
            yield part

    def finished(self) -> list[str]:
        """The hashes, the last of fewer bytes perhaps."""
        return [*self._hashes, self._current.hexdigest()] if self.size % CHUNK else self._hashes


# ---------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Artifact:
    """An opened artifact: everything in it has been checked, and weights are views of the mapped file.

    Attributes:
        path: the file.
        manifest: the manifest's JSON object.
        program: what to run.
        kernels: object code by kernel name.
        weights: read-only arrays by key.
        hosts: ONNX bytes by member path.
        ir: IR texts by file name.
        debug_map: JSON data that maps launches to ONNX nodes.
        sizes: bytes of each member.
        identity: differs between any two files with different contents.
        extra: further members that go with the model, by name (``extra/…``).
    """

    path: Path
    manifest: Mapping[str, object]
    program: Program
    kernels: Mapping[str, bytes]
    weights: Mapping[str, Tensor]
    hosts: Mapping[str, bytes]
    ir: Mapping[str, str]
    debug_map: object
    sizes: Mapping[str, int]
    identity: str
    extra: Mapping[str, memoryview] = field(default_factory=dict[str, memoryview])

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Artifact:
        """Map, check and read an artifact.

        Raises:
            Error: the file cannot be read, is not an artifact, is damaged, or is of a newer format.
        """
        file = _MappedFile.open(Path(path))
        bad = [*file.damaged_small_members(), *file.damaged_weights_once()]
        if bad:
            raise _damaged(file.path, bad)
        return file.artifact()

    @property
    def features(self) -> tuple[str, ...]:
        """CPU features the kernels need."""
        node = Node(self.manifest, MANIFEST)
        return node.get("features").list_of(lambda item: item.string(200)) if node.has("features") else ()

    @property
    def architecture(self) -> str:
        """What the kernels were compiled for, or an empty string."""
        node = Node(self.manifest, MANIFEST)
        return node.get("architecture").string(200) if node.has("architecture") else ""


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found: members checked, bytes hashed, and one line for each damaged member."""

    members: int
    nbytes: int
    damaged: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every byte is as it was written."""
        return not self.damaged


def verify(path: str | os.PathLike[str]) -> VerifyReport:
    """Hash every member of an artifact again, whatever is remembered about it.

    Raises:
        Error: the file cannot be read, or its structure is not an artifact's.
    """
    file = _MappedFile.open(Path(path))
    damaged = (*file.damaged_small_members(), *file.damaged_weights())
    return VerifyReport(len(file.members), len(file.data), damaged)


def _damaged(path: Path, problems: Sequence[str]) -> Error:
    return Error(
        "NEUC-E301",
        f"{path} is damaged: {problems[0]}" + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""),
        hint="copy or compile it again; `neuc verify` lists every damaged part",
    )


@dataclass(frozen=True)
class _MappedFile:
    """A file whose container and manifest have been checked, but not yet the bytes of other members."""

    path: Path
    data: memoryview
    members: Mapping[str, Member]
    manifest: Node
    identity: tuple[object, ...]

    @staticmethod
    def open(path: Path) -> _MappedFile:
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_size == 0:
                    raise Error("NEUC-E300", f"{path} is empty", hint="compile the model again")
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise Error("NEUC-E307", f"cannot read {path}: {reason}", hint="check the path") from error
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # what is not in memory yet is read into large pages, where systems can
                mapped.madvise(mmap.MADV_HUGEPAGE)
        data = memoryview(mapped)
        members = read_directory(data, str(path))
        for name in (MANIFEST, PROGRAM, WEIGHTS, DEBUG_MAP):
            if name not in members:
                raise Error("NEUC-E300", f"{path}: {name} is missing", hint="compile the model again")
        raw = data[members[MANIFEST].offset :][: members[MANIFEST].size]
        if zlib.crc32(raw) != members[MANIFEST].crc:
            raise _damaged(path, [f"{MANIFEST} has changed"])
        manifest = parse_json(raw, f"{path}: {MANIFEST}", code="NEUC-E300")
        check_format(manifest.get("format"))
        _check_member_list(manifest.get("members"), members)
        identity = (str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev, _sha(raw))
        return _MappedFile(path, data, members, manifest, identity)

    def bytes_of(self, name: str) -> memoryview:
        member = self.members[name]
        return self.data[member.offset : member.offset + member.size]

    def damaged_small_members(self) -> list[str]:
        """Members other than the weights whose bytes have changed."""
        listed = self.manifest.get("members")
        return [
            f"{name} has changed"
            for name in self.members
            if name not in (MANIFEST, WEIGHTS)
            and _sha(self.bytes_of(name)) != listed.get(name).get("sha256").string(64)
        ]

    def damaged_weights(self) -> list[str]:
        """4 MiB pieces of the weights that have changed."""
        data = self.bytes_of(WEIGHTS)
        wanted = self.manifest.get("members").get(WEIGHTS).get("chunks").list_of(lambda item: item.string(64))
        starts = range(0, len(data), CHUNK)
        if len(wanted) != len(starts):
            return [f"{WEIGHTS} has {len(starts)} pieces, but hashes for {len(wanted)}"]
        with ThreadPoolExecutor(available_cpus()) as pool:  # hashing releases the interpreter lock
            found = pool.map(_sha, (data[start : start + CHUNK] for start in starts))
        return [
            f"{WEIGHTS} has changed between bytes {start} and {start + CHUNK}"
            for start, is_, should in zip(starts, found, wanted)
            if is_ != should
        ]

    def damaged_weights_once(self) -> list[str]:
        """The same, but a file that was found good before is not hashed again until it changes."""
        key = key_of(self.identity)
        if _verified.get(key) is not None:
            return []
        damaged = self.damaged_weights()
        if not damaged:
            _verified.put(key, b"")
            _verified.keep_newest(_REMEMBERED)
        return damaged

    def artifact(self) -> Artifact:
        program = Program.from_bytes(self.bytes_of(PROGRAM), f"{self.path}: {PROGRAM}")
        kernels = {
            name.removeprefix(_KERNELS).removesuffix(_SUFFIX): bytes(self.bytes_of(name))
            for name in self.members
            if name.startswith(_KERNELS) and name.endswith(_SUFFIX)
        }
        weights = read_tensors(self.bytes_of(WEIGHTS), f"{self.path}: {WEIGHTS}")
        missing = [
            *(f"kernel '{name}'" for name in sorted(program.kernels() - kernels.keys())),
            *(f"weight '{key}'" for key in sorted(program.weight_keys() - weights.keys())),
            *(f"host model '{name}'" for name in sorted(program.host_models() - self.members.keys())),
        ]
        if missing:
            raise Error(
                "NEUC-E305",
                f"{self.path}: the program needs {missing[0][:200]}, which the file does not contain",
                hint="compile the model again",
            )
        return Artifact(
            path=self.path,
            manifest=cast("Mapping[str, object]", self.manifest.value),
            program=program,
            kernels=kernels,
            weights=weights,
            hosts={name: bytes(self.bytes_of(name)) for name in program.host_models()},
            ir={
                name.removeprefix(_IR): bytes(self.bytes_of(name)).decode("utf-8", "replace")
                for name in self.members
                if name.startswith(_IR)
            },
            debug_map=parse_json(self.bytes_of(DEBUG_MAP), f"{self.path}: {DEBUG_MAP}").value,
            sizes={name: member.size for name, member in self.members.items()},
            identity=key_of(self.identity),
            extra={name: self.bytes_of(name) for name in self.members if name.startswith(EXTRA)},
        )


def _check_member_list(listed: Node, members: Mapping[str, Member]) -> None:
    """The manifest and the directory name the same members with the same sizes."""
    names = {name for name, _ in listed.fields()}
    if names != members.keys() - {MANIFEST}:
        differing = min(names ^ (members.keys() - {MANIFEST}))
        raise listed.refuse(f"'{differing[:80]}' is in the manifest or in the file, but not in both")
    for name, entry in listed.fields():
        if entry.get("size").integer() != members[name].size:
            raise entry.refuse("its size differs from the file's")
