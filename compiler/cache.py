"""The cache of compile results: model bytes, options, versions and CPU features in; artifact and report out.

Nothing heavy is imported, so that a hit costs a hash and a copy. The cache of kernels'
object code is the backend's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import neuc
from neuc.compiler.files import replacing, write_text
from neuc.errors import Error, Exit
from neuc.runtime.cache import cache_dir
from neuc.runtime.cpu_features import host_features

SIZE_LIMIT = 4 << 30
"""Bytes of artifacts kept; least recently used ones go first."""
LIMIT_VARIABLE = "NEUC_CACHE_SIZE"
"""Overrides `SIZE_LIMIT`."""

LARGE_MODEL = 256 << 20
"""Bytes from which on a model is not hashed, and `neuc compile` keeps no second copy of the artifact."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One cached compilation: where it lies, whether it is there."""

    folder: Path

    @property
    def artifact(self) -> Path:
        """The cached artifact."""
        return self.folder / "model.neuc"

    def report(self) -> dict[str, object] | None:
        """The compile report kept with the artifact; None if there is no usable entry."""
        try:
            details = json.loads((self.folder / "entry.json").read_text(encoding="utf-8"))
            unchanged = all(file_sha(Path(p)) == sha for p, sha in details["external"].items())
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return details["report"] if unchanged and self.artifact.is_file() else None

    def copy_to(self, path: Path) -> None:
        """Copy the artifact to `path` and mark the entry as used."""
        with replacing(path) as temporary:
            shutil.copyfile(self.artifact, temporary)
        os.utime(self.artifact)

    def fill(self, artifact: Path, report: Mapping[str, object], external: Sequence[Path]) -> None:
        """Keep `artifact` and its report; `external` are further files the model consists of."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.artifact) as temporary:
            shutil.copyfile(artifact, temporary)
        self.describe(report, external)

    def describe(self, report: Mapping[str, object], external: Sequence[Path]) -> None:
        """Complete an entry whose artifact is in place; until then it does not count."""
        shas = {str(path.resolve()): file_sha(path) for path in external}
        write_text(self.folder / "entry.json", json.dumps({"report": report, "external": shas}))
        trim(size_limit())


def size_limit() -> int:
    """Bytes of artifacts to keep.

    Raises:
        Error: NEUC-E002, `NEUC_CACHE_SIZE` is no number of bytes.
    """
    text = os.environ.get(LIMIT_VARIABLE, str(SIZE_LIMIT))
    if not text.isdigit():
        raise Error(
            "NEUC-E002",
            f"{LIMIT_VARIABLE}={text} is no number of bytes",
            hint=f"{SIZE_LIMIT} is the default; 0 keeps nothing",
            exit_code=Exit.USAGE,
        )
    return int(text)


def entry_for(model: Path, options: Mapping[str, object], inputs: Sequence[Path] = ()) -> Entry:
    """The entry of one compilation.

    Args:
        model: the model file; its bytes count, not its name. (Reports name the file, so its base name counts too.) Of a
            folder or a large file sizes and times of change count instead.
        options: everything else that changes the result, as JSON-able values.
        inputs: further files whose bytes count, such as calibration data.
    """
    key = {
        "model": _content(model),
        "inputs": [file_sha(path) for path in inputs],
        "options": options,
        "versions": [neuc.__version__, *(_version(name) for name in ("xdsl", "onnx", "llvmlite"))],
        "build": _build_stamp(),
        "features": sorted(host_features()),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
    return Entry(_artifacts() / digest[:2] / digest[2:])


def is_large(model: Path) -> bool:
    """Whether keeping a copy of what a model compiles to costs more than it saves: those of weights alone, mostly."""
    return sum(size for _, size, _, _ in _files(model)) > LARGE_MODEL


def _content(model: Path) -> object:
    """What a model is known by: its bytes; of a folder or a large file, names, sizes and times of change."""
    if model.is_dir() or is_large(model):
        return _files(model)
    return [model.name, file_sha(model)]


def _files(model: Path) -> list[tuple[str, int, int, int]]:
    """Path, size, time of change and number of a file, or of the files of a folder."""
    files = sorted(model.iterdir()) if model.is_dir() else [model]
    found = [(str(file.resolve()), file.stat()) for file in files if file.is_file()]
    return [(name, status.st_size, status.st_mtime_ns, status.st_ino) for name, status in found]


def file_sha(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def trim(limit: int) -> None:
    """Drop the least recently used artifacts until at most `limit` bytes are kept."""
    kept = sorted(_artifacts().glob("*/*/model.neuc"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in kept:
        total += path.stat().st_size
        if total > limit:
            shutil.rmtree(path.parent, ignore_errors=True)


def usage() -> dict[str, dict[str, int]]:
    """Files and bytes in the cache, by kind (the cache folder's subfolders)."""
    kinds: dict[str, dict[str, int]] = {}
    home = cache_dir()
    for kind in sorted(p for p in home.iterdir() if p.is_dir()) if home.is_dir() else []:
        files = [file for file in kind.rglob("*") if file.is_file()]
        kinds[kind.name] = {"files": len(files), "bytes": sum(file.stat().st_size for file in files)}
    return kinds


def clear() -> None:
    """Remove everything neuc keeps in the cache folder."""
    shutil.rmtree(cache_dir(), ignore_errors=True)


def _artifacts() -> Path:
    return cache_dir() / "artifacts"


def _version(package: str) -> str:
    """The installed version of a package, from the name of its metadata's folder where there is one.

    `importlib.metadata` says the same, and takes longer to load than everything else a hit needs.
    """
    spec = find_spec(package)
    beside = [] if spec is None or spec.origin is None else sorted(Path(spec.origin).parents[1].glob("*.dist-info"))
    for folder in beside:
        name, _, version = folder.stem.partition("-")
        if name == package:
            return version
    from importlib import metadata

    return metadata.version(package)


def _build_stamp() -> str:
    """Changes whenever one of neuc's own source files does, as it does in a checkout without a new version."""
    digest = hashlib.sha256()
    root = Path(neuc.__file__).parent
    for part in ("compiler", "dialects", "passes", "backends", "runtime"):
        for folder, _, names in os.walk(root / part):
            for name in sorted(n for n in names if n.endswith(".py")):
                status = os.stat(os.path.join(folder, name))
                digest.update(f"{folder}/{name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()
