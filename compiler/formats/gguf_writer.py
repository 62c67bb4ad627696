"""Writing GGUF containers, version 3 (or 2): the same metadata and tensors give the same bytes.

Payloads come ready-made from the block formats, one at a time, so that a file may be larger than memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path

import numpy as np

from neuc.compiler.files import replacing
from neuc.compiler.formats.gguf import ALIGNMENT, MAX_RANK, VERSIONS
from neuc.compiler.formats.gguf_values import Field, ValueType, pack_field, pack_text, shown
from neuc.compiler.formats.recognition import MAGIC
from neuc.errors import Error, InternalError

MAX_TENSOR_NAME = 63  # bytes; llama.cpp refuses longer ones


@dataclass(frozen=True)
class NewTensor:
    """A tensor to write.

    Attributes:
        name: its name, up to 63 bytes.
        shape: its dims, outermost first.
        type_id: the id of its type.
        nbytes: bytes of its payload.
        payload: makes the payload when it is its turn.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    nbytes: int
    payload: Callable[[], bytes | memoryview]


def write_gguf(
    path: Path, fields: Mapping[str, Field], tensors: Sequence[NewTensor], *, version: int = VERSIONS[-1]
) -> int:
    """Write a file; on any failure `path` is as it was before.

    Args:
        path: the file to write or replace.
        fields: metadata, written in this order; `general.alignment` is followed if it is there.
        tensors: tensors, written in this order without gaps.
        version: 2 or 3; they differ in nothing but this number.

    Returns:
        The file's size in bytes.

    Raises:
        Error: NEUC-E005, it cannot be written; NEUC-E123, a name is too long for GGUF.
    """
    alignment = _alignment(fields)
    head = _head(fields, tensors, alignment, version)
    with replacing(path) as temporary, temporary.open("wb") as file:
        _padded(file, head, alignment)
        for tensor in tensors:
            payload = tensor.payload()
            if len(payload) != tensor.nbytes:
                raise InternalError(f"{tensor.name} has {len(payload)} bytes, {tensor.nbytes} were announced")
            _padded(file, payload, alignment)
        return file.tell()


def _head(fields: Mapping[str, Field], tensors: Sequence[NewTensor], alignment: int, version: int) -> bytes:
    parts = [MAGIC, struct.pack("<IQQ", version, len(tensors), len(fields))]
    parts += [pack_text(key) + pack_field(field) for key, field in fields.items()]
    names: set[str] = set()
    offset = 0
    for tensor in tensors:
        if len(tensor.name.encode()) > MAX_TENSOR_NAME:
            why = f"its name has more than {MAX_TENSOR_NAME} bytes, the most GGUF allows"
            raise Error("NEUC-E123", f"tensor '{shown(tensor.name)}': {why}", hint="shorten the name in the source")
        if tensor.name in names or len(tensor.shape) > MAX_RANK:
            raise InternalError(f"{tensor.name}: taken, or of rank {len(tensor.shape)}")
        names.add(tensor.name)
        dims = tensor.shape[::-1]
        parts.append(pack_text(tensor.name))
        parts.append(struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, tensor.type_id, offset))
        offset += -(-tensor.nbytes // alignment) * alignment
    return b"".join(parts)


def _alignment(fields: Mapping[str, Field]) -> int:
    field = fields.get("general.alignment")
    if field is None:
        return ALIGNMENT
    if field.type is not ValueType.UINT32 or not isinstance(field.value, np.integer):
        raise InternalError("general.alignment is no u32")
    return int(field.value)


def _padded(file: BufferedWriter, data: bytes | memoryview, alignment: int) -> None:
    file.write(data)
    file.write(bytes(-file.tell() % alignment))
