"""Runs compiled models. Knows no compiler: only numpy and llvmlite are needed, onnxruntime for host segments.

Importing this package loads nothing; its names are found on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuc.runtime.artifact import Artifact, verify, write_artifact
    from neuc.runtime.session import Session, load

__all__ = ["Artifact", "Session", "load", "verify", "write_artifact"]

_LAZY = {
    "Artifact": "neuc.runtime.artifact",
    "Session": "neuc.runtime.session",
    "load": "neuc.runtime.session",
    "verify": "neuc.runtime.artifact",
    "write_artifact": "neuc.runtime.artifact",
}


def __getattr__(name: str) -> object:
    """Resolve a public name on first use."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'neuc.runtime' has no attribute {name!r}")
