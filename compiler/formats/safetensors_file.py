"""Reading and writing safetensors files with any element type, memory-mapped, believing no number in them.

What the tensors mean is not known here. (`runtime/tensor_file.py` is the artifact's own, aligned form of the format.)
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuc.compiler.formats.gguf import map_file
from neuc.compiler.formats.gguf_values import MAX_NAME, shown
from neuc.errors import Error
from neuc.runtime.checked_json import Node, dump_json, parse_json

CODE = "NEUC-E124"
CURE = "download or export the model again"
MAX_HEADER = 64 * 2**20
MAX_TENSORS = 2**20
_MAX_RANK = 32

# Bytes of an element.
ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: element type as spelt there, shape, and where its bytes are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class SafetensorsFile:
    """A file that has been checked: its tensors in the order of their bytes, and its own metadata."""

    path: Path
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    _data: memoryview

    @staticmethod
    def open(path: str | os.PathLike[str]) -> SafetensorsFile:
        """Map and check a file.

        Raises:
            Error: NEUC-E103, it cannot be read; NEUC-E124, it is damaged: the header does not fit, tensors overlap or
                leave gaps, sizes and shapes contradict each other.
        """
        path = Path(path)
        data = map_file(path)
        if len(data) < 8:
            raise _refuse(path, "it ends within its first number")
        (length,) = struct.unpack_from("<Q", data)
        if length > min(len(data) - 8, MAX_HEADER):
            raise _refuse(path, f"it claims a header of {length} bytes, more than there are or {MAX_HEADER}")
        start = 8 + length
        root = parse_json(data[8:start], f"{path.name}: header", code=CODE, cure=CURE)
        metadata: dict[str, str] = {}
        entries: list[StoredTensor] = []
        for name, node in root.fields(MAX_TENSORS):
            if name == "__metadata__":
                metadata = {key: item.string() for key, item in node.fields()}
                continue
            if not name.isprintable() or not 0 < len(name) <= MAX_NAME:
                raise _refuse(path, f"'{shown(name)}' is no name for a tensor")
            entries.append(_entry(path, name, node, start))
        entries.sort(key=lambda entry: (entry.offset, entry.nbytes))
        position = start
        for entry in entries:
            if entry.offset != position:
                raise _refuse(path, f"tensor '{shown(entry.name)}' overlaps the one before it or leaves a gap")
            position += entry.nbytes
        if position != len(data):
            raise _refuse(path, f"its tensors end at byte {position}, and the file at {len(data)}")
        return SafetensorsFile(path, {entry.name: entry for entry in entries}, metadata, data)

    def payload(self, tensor: StoredTensor) -> memoryview:
        """A tensor's bytes, a read-only view of the file."""
        return self._data[tensor.offset : tensor.offset + tensor.nbytes]


def _entry(path: Path, name: str, node: Node, start: int) -> StoredTensor:
    node.only(("dtype", "shape", "data_offsets"))
    dtype = node.get("dtype").string(20)
    if dtype not in ITEM_BYTES:
        raise _refuse(path, f"tensor '{shown(name)}' has the unknown element type '{shown(dtype)}'")
    shape = node.get("shape").list_of(lambda item: item.integer(), _MAX_RANK)
    begin, end = (*node.get("data_offsets").list_of(lambda item: item.integer(), 2), -1, -1)[:2]
    if end < begin or end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise _refuse(path, f"the bytes of tensor '{shown(name)}' do not match {dtype}{list(shape)}")
    return StoredTensor(name, dtype, shape, start + begin, end - begin)


def _refuse(path: Path, why: str) -> Error:
    return Error(CODE, f"{path.name}: {why}", hint=CURE)


def as_float32(dtype: str, data: memoryview) -> NDArray[np.float32] | None:
    """The numbers of a float tensor as float32 [n], or None for other element types."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    kind = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}.get(dtype)
    return None if kind is None else np.frombuffer(data, kind).astype(np.float32)


def safetensors_head(tensors: Sequence[tuple[str, str, tuple[int, ...], int]], metadata: Mapping[str, str]) -> bytes:
    """What stands before the data of a file with these tensors: name, element type, shape and bytes of each."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, dtype, shape, nbytes in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + nbytes]}
        position += nbytes
    text = dump_json(header)
    return struct.pack("<Q", len(text) + -len(text) % 8) + text + b" " * (-len(text) % 8)
