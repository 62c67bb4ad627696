"""Writing files so that an interruption leaves nothing half-written, and finding out early that one cannot.

Standard library only, but for the memory of Ctrl-C.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuc.compiler import interruption
from neuc.errors import Error

ARTIFACT_SUFFIX = ".neuc"
MODEL_CONFIG = "config.json"
_ELSEWHERE = "make room, or choose another place"
"""What makes a folder one of a Hugging Face model."""


def check_writable(path: Path) -> None:
    """Find out before a long job that its output cannot be written.

    Raises:
        Error: NEUC-E005.
    """
    folder = path.parent
    if path.is_dir():
        raise Error("NEUC-E005", f"cannot write {path}: it is a folder", hint="name a file")
    if path.exists() and not path.is_file():
        # Renaming onto a device or a pipe would put a file in its place.
        raise Error("NEUC-E005", f"cannot write {path}: it is no regular file", hint="name another file")
    if not folder.is_dir():
        raise Error("NEUC-E005", f"cannot write {path}: no folder {folder}", hint="create the folder first")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise Error("NEUC-E005", f"cannot write {path}: permission denied", hint="choose another place")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends, and vanishes when it fails.

    Raises:
        Error: NEUC-E005, when the file cannot be written.
    """
    check_writable(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise Error("NEUC-E005", f"cannot write {path}: {error.strerror}", hint=_ELSEWHERE) from error
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; a product has the permissions any new file would have.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        interruption.check()
        os.replace(temporary, path)
    except OSError as error:
        raise Error("NEUC-E005", f"cannot write {path}: {error.strerror or error}", hint=_ELSEWHERE) from error
    finally:
        temporary.unlink(missing_ok=True)


def read_problem(error: OSError | UnicodeDecodeError) -> str:
    """Why a text file cannot be read, in words."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is no UTF-8 text"
    return error.strerror or str(error)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
