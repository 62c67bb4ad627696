"""The user's cache folder, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import BinaryIO

CACHE_VARIABLE = "NEUC_CACHE_DIR"
_DIGEST_BYTES = 32


def cache_dir() -> Path:
    """Where neuc keeps what it can make again; ``NEUC_CACHE_DIR`` overrides the system's custom."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "neuc"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local") / "neuc" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "neuc"


def _home() -> Path:
    """The user's home, or for users without one (as in some containers) the folder for temporary files."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir())


@contextlib.contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """A file that takes the place of ``path`` when the block ends well, and leaves nothing behind when it does not.

    Raises:
        OSError: it cannot be written, or ``path`` is a device, a pipe or the like, whose place no file should take.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise FileExistsError(errno.EEXIST, "it is no regular file", str(path))
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes files private; a result should not be
        temporary.replace(path)
    except BaseException:  # also Ctrl-C: the partial file goes, the exception stays
        temporary.unlink(missing_ok=True)
        raise


class BlobCache:
    """Bytes by key in one folder, each with its digest; a damaged, absent or unwritable entry is a miss."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def _path(self, key: str) -> Path:
        return cache_dir() / self._folder / key

    def get(self, key: str) -> bytes | None:
        """The bytes stored under ``key``."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        digest, blob = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        return blob if hashlib.sha256(blob).digest() == digest else None

    def put(self, key: str, blob: bytes) -> None:
        """Store bytes; a folder that cannot be written only costs the next process time."""
        path = self._path(key)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(hashlib.sha256(blob).digest() + blob)

    def keep_newest(self, count: int) -> None:
        """Drop the oldest entries beyond ``count``."""
        with contextlib.suppress(OSError):
            entries = sorted((cache_dir() / self._folder).iterdir(), key=lambda p: p.stat().st_mtime)
            for path in entries[:-count]:
                path.unlink(missing_ok=True)


def key_of(parts: Iterable[object]) -> str:
    """A cache key for these facts."""
    return hashlib.sha256(repr(tuple(parts)).encode()).hexdigest()
