"""Whether a path is a weight file at all, without the readers, which take longer to import than to ask.

What is in it is the business of `sources.py`.
"""

from __future__ import annotations

from pathlib import Path

MAGIC = b"GGUF"
CONFIG = "config.json"


def is_source(path: Path) -> bool:
    """Whether a path is a GGUF file or a Hugging Face folder, by its first bytes or its configuration."""
    if path.is_dir():
        return (path / CONFIG).exists()
    if not path.is_file():  # opening a pipe would wait for its other end
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC or path.suffix.lower() == ".gguf"
    except OSError:
        return False
