"""NIR's HDF5 files as nested dictionaries: every size is checked against the file before anything is read.

Links out of the file, links in circles and data stored elsewhere are refused. What nodes mean is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuc.errors import Error

_MOST_DEPTH = 64
_MOST_NODES = 100_000
_DEFLATE_RATIO = 1032
"""The most that deflate compresses by: a file cannot honestly hold more than this times its size."""
_SLACK = 1 << 20
"""Files of a few kilobytes hold arrays that HDF5 fills in by itself."""

Tree = dict[str, Any]


def _error(path: Path, what: str) -> Error:
    return Error("NEUC-E500", f"{path.name} {what}", hint="write the graph again with nir.write")


def read_tree(path: Path) -> Mapping[str, object]:
    """The group ``/node`` of a NIR file: groups as dictionaries, data sets as arrays or text.

    Raises:
        Error: NEUC-E500, it is no such file, or damaged; NEUC-E508, h5py is missing; NEUC-E103, not readable.
    """
    try:
        import h5py
    except ImportError as error:
        raise Error("NEUC-E508", "reading NIR files needs h5py", hint="pip install 'neuc[snn]'") from error
    try:
        size = path.stat().st_size
    except OSError as error:
        reason = error.strerror or "it is not readable"
        raise Error("NEUC-E103", f"cannot read {path}: {reason}", hint="check the path and its permissions") from error
    budget = _Budget(path, size * _DEFLATE_RATIO + _SLACK)
    try:
        with h5py.File(path, "r") as file:
            root = file.get("node")
            if not isinstance(root, h5py.Group):
                raise _error(path, "is HDF5 but no NIR file: it has no group /node")
            return _read_group(root, budget, 0)
    except Error:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise _error(path, f"is no HDF5 file, or a damaged one: {reason}") from error


class _Budget:
    """What may still be read."""

    def __init__(self, path: Path, nbytes: int) -> None:
        self.path, self.left, self.items = path, nbytes, _MOST_NODES * 16

    def take(self, nbytes: int) -> None:
        self.left -= nbytes
        self.items -= 1
        if self.left < 0 or self.items < 0:
            raise _error(self.path, "claims to hold more than a file of its size can")


def _read_group(group: Any, budget: _Budget, depth: int) -> Tree:
    import h5py

    if depth > _MOST_DEPTH:
        raise _error(budget.path, f"nests its groups deeper than {_MOST_DEPTH}, or in a circle")
    found: Tree = {}
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise _error(budget.path, f"has a link at {group.name}/{name}; links are not followed")
        item = group[name]
        if isinstance(item, h5py.Group):
            budget.take(0)
            found[name] = _read_group(item, budget, depth + 1)
        elif isinstance(item, h5py.Dataset):
            found[name] = _read_data(item, budget)
    return found


def _read_data(data: Any, budget: _Budget) -> object:
    import h5py

    if data.external or data.is_virtual:
        raise _error(budget.path, f"keeps the data of {data.name} in other files; they are not read")
    text = h5py.check_string_dtype(data.dtype) is not None
    if not text and data.dtype.kind not in "fiubS":
        raise _error(budget.path, f"holds {data.dtype} in {data.name}")
    budget.take(int(data.size or 0) * max(1, data.dtype.itemsize))
    value = data[()]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
        return [tuple(_text(v) for v in row) for row in value] if value.ndim == 2 else [_text(v) for v in value]
    return value


def _text(value: object) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
