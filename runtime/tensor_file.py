"""The weight file: safetensors, with every tensor at a multiple of 64 bytes; written and read without copying.

The format allows no holes, so filler tensors named ``__pad__.N`` stand between tensors that would not be aligned.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error
from neuc.runtime.checked_json import Node, dump_json, parse_json

ALIGNMENT = 64
CODE = "NEUC-E305"

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_CODES = {name: code for code, name in _DTYPES.items()}
_LENGTH = struct.Struct("<Q")
_PAD = "__pad__."
_MAX_RANK = 32

Tensor = NDArray[np.generic]


class PiecewiseTensor(Protocol):
    """A tensor that is made piece by piece while it is written, and never whole."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of the whole."""
        ...

    def pieces(self) -> Sequence[tuple[int, Callable[[], NDArray[Any]]]]:
        """Consecutive pieces: bytes of each, and what makes it, from any thread."""
        ...


@dataclass(frozen=True)
class Pending:
    """A part of a weight file that is yet to be made."""

    nbytes: int
    make: Callable[[], NDArray[Any]]


Part = bytes | memoryview | Pending


@dataclass(frozen=True)
class _Placed:
    """A tensor of the file: its data begin at byte ``begin`` of the data part."""

    begin: int
    end: int
    dtype: str
    shape: tuple[int, ...]


def tensor_file(tensors: Mapping[str, Tensor | PiecewiseTensor]) -> list[Part]:
    """The parts of a weight file, in order; equal tensors give equal bytes."""
    header: dict[str, object] = {}
    parts: list[Part] = []
    position = 0
    for key in sorted(tensors):
        array = tensors[key]
        if isinstance(array, np.ndarray):
            array = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
        if array.dtype.name not in _CODES or key.startswith("__"):
            raise Error(CODE, f"weight '{key}' ({array.dtype.name}) cannot be stored", hint="convert it to float32")
        padding = -position % ALIGNMENT
        if padding:
            header[f"{_PAD}{position}"] = _entry("U8", (padding,), position, padding)
            parts.append(bytes(padding))
            position += padding
        header[key] = _entry(_CODES[array.dtype.name], array.shape, position, array.nbytes)
        if isinstance(array, np.ndarray):
            parts.append(as_bytes(array))
        else:
            parts += [Pending(nbytes, make) for nbytes, make in array.pieces()]
        position += array.nbytes
    text = dump_json(header)
    text += b" " * (-(len(text) + _LENGTH.size) % ALIGNMENT)
    return [_LENGTH.pack(len(text)), text, *parts]


def as_bytes(array: NDArray[Any]) -> memoryview:
    """The bytes of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _entry(code: str, shape: tuple[int, ...], begin: int, nbytes: int) -> dict[str, object]:
    return {"dtype": code, "shape": list(shape), "data_offsets": [begin, begin + nbytes]}


def read_tensors(data: memoryview, what: str) -> dict[str, Tensor]:
    """Read-only arrays over ``data``, which must be a whole weight file.

    Raises:
        Error: the header is malformed, or tensors overlap, leave gaps or do not fit.
    """
    if len(data) < _LENGTH.size:
        raise Node(None, what, CODE).refuse("too short")
    (length,) = _LENGTH.unpack_from(data)
    start = _LENGTH.size + length
    if start > len(data):
        raise Node(None, what, CODE).refuse("its header does not fit")
    root = parse_json(data[_LENGTH.size : start], what, code=CODE)
    placed = {key: _read_entry(item) for key, item in root.fields() if key != "__metadata__"}
    position = 0
    for key, entry in sorted(placed.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            raise root.get(key).refuse("overlaps its neighbour or leaves a gap")
        position = entry.end
    if start + position != len(data):
        raise root.refuse("its size does not match its tensors")
    return {
        key: _array(data[start + entry.begin : start + entry.end], entry)
        for key, entry in placed.items()
        if not key.startswith(_PAD)
    }


def _read_entry(node: Node) -> _Placed:
    node.only(("dtype", "shape", "data_offsets"))
    code = node.get("dtype").string()
    if code not in _DTYPES:
        raise node.refuse(f"unknown dtype '{code[:20]}'")
    dtype = _DTYPES[code]
    shape = node.get("shape").list_of(lambda item: item.integer(), _MAX_RANK)
    offsets = node.get("data_offsets").list_of(lambda item: item.integer(), 2)
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * np.dtype(dtype).itemsize:
        raise node.refuse("its size does not match its shape")
    return _Placed(offsets[0], offsets[1], dtype, shape)


def _array(data: memoryview, entry: _Placed) -> Tensor:
    array = np.frombuffer(data, np.uint8).view(entry.dtype).reshape(entry.shape)
    array.flags.writeable = False
    return array
