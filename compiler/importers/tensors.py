"""Reads ONNX tensor messages: every size is checked against the bytes that are there before anything is allocated.

Also opens external data, only inside the model's folder. Nothing here knows about graphs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, numpy_helper

from neuc.dialects.onnx_types import BITS, ELEMENT_OF_ONNX
from neuc.dialects.store import numpy_dtype
from neuc.errors import Error

MAX_RANK = 32
"""numpy allows 64; no operator needs more than this, and files that have more are broken."""


@dataclass(frozen=True)
class RawTensor:
    """A tensor of an element type numpy lacks: its packed bytes."""

    data_type: int
    dims: tuple[int, ...]
    raw: bytes


@dataclass(frozen=True)
class StringTensor:
    """A tensor of strings, row-major."""

    dims: tuple[int, ...]
    values: tuple[bytes, ...]


Payload = np.ndarray | RawTensor | StringTensor

# The message field that holds elements which are not in raw_data, by element type number.
_FIELD = {
    1: "float_data", 14: "float_data", 11: "double_data", 15: "double_data", 7: "int64_data", 12: "uint64_data",
    13: "uint64_data",
}  # fmt: skip


def read_tensor(tensor: TensorProto, folder: Path | None, where: str) -> Payload:
    """The elements of a tensor message; a view of the file's bytes where that is possible.

    Args:
        tensor: the message.
        folder: where external data may be, None if there is no such place.
        where: what the tensor belongs to, for messages.

    Raises:
        Error: NEUC-E105 when sizes contradict each other, NEUC-E106 when external data cannot be used.
    """
    what = f"tensor {tensor.name!r}" if tensor.name else f"the tensor of {where}"
    number, dims = tensor.data_type, tuple(tensor.dims)
    if number not in ELEMENT_OF_ONNX:
        raise _bad(f"{what} has the unknown element type {number}")
    if tensor.HasField("segment"):
        raise _bad(f"{what} is stored in segments, which ONNX gave up")
    if len(dims) > MAX_RANK or any(dim < 0 for dim in dims):
        raise _bad(f"{what} has impossible dims {list(dims)[:8]}")
    count = 1
    for dim in dims:
        count *= dim
    if number == TensorProto.STRING:
        if len(tensor.string_data) != count:
            raise _bad(f"{what} has dims {list(dims)} but {len(tensor.string_data)} strings")
        return StringTensor(dims, tuple(tensor.string_data))
    nbytes = (count * BITS[number] + 7) // 8
    if tensor.data_location == TensorProto.EXTERNAL:
        return _from_bytes(_external(tensor, folder, nbytes, what), number, dims)
    if tensor.HasField("raw_data"):
        raw = tensor.raw_data
        if len(raw) != nbytes:
            raise _bad(f"{what} has dims {list(dims)}, so {nbytes} bytes, but {len(raw)} are stored")
        return _from_bytes(np.frombuffer(raw, np.uint8), number, dims)
    return _from_field(tensor, number, dims, count, what)


def _from_bytes(raw: np.ndarray, number: int, dims: tuple[int, ...]) -> Payload:
    dtype = numpy_dtype(ELEMENT_OF_ONNX[number])
    if dtype is None:
        return RawTensor(number, dims, raw.tobytes())
    if dtype.kind == "b":
        return (raw != 0).reshape(dims)
    if raw.ctypes.data % dtype.itemsize:
        raw = raw.copy()
    return raw.view(dtype).reshape(dims)


def _from_field(tensor: TensorProto, number: int, dims: tuple[int, ...], count: int, what: str) -> Payload:
    field = getattr(tensor, _FIELD.get(number, "int32_data"))
    expected = count
    if number in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        expected = 2 * count
    elif BITS[number] < 8:  # packed, a byte each
        expected = (count * BITS[number] + 7) // 8
    if len(field) != expected:
        raise _bad(f"{what} has dims {list(dims)}, so {expected} elements, but {len(field)} are stored")
    dtype = numpy_dtype(ELEMENT_OF_ONNX[number])
    if dtype is None:
        packed = numpy_helper.to_array(tensor)
        return RawTensor(number, dims, numpy_helper.from_array(packed).raw_data)
    if number == TensorProto.FLOAT16:
        return np.array(field, np.uint16).view(np.float16).reshape(dims)
    wide = np.float64 if dtype.kind == "f" else np.uint64 if _FIELD.get(number) == "uint64_data" else np.int64
    return np.array(field, wide).astype(dtype).reshape(dims)


def _external(tensor: TensorProto, folder: Path | None, nbytes: int, what: str) -> np.ndarray:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise _refused(f"{what} is in the external file {location!r} but the model was not read from a folder")
    path = _inside(folder, location, what)
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(nbytes)))
    except ValueError as error:
        raise _refused(f"{what} has an offset or length that is not a number") from error
    if length != nbytes:
        raise _bad(f"{what} has dims {list(tensor.dims)}, so {nbytes} bytes, but says it has {length}")
    size = path.stat().st_size
    if offset < 0 or offset + nbytes > size:
        raise _refused(f"{what} needs bytes {offset} to {offset + nbytes} of {location!r}, which has {size}")
    if nbytes == 0:
        return np.empty(0, np.uint8)
    return np.memmap(path, np.uint8, mode="r", offset=offset, shape=(nbytes,))


def _inside(folder: Path, location: str, what: str) -> Path:
    parts = location.replace("\\", "/").split("/")
    if not location or os.path.isabs(location) or ".." in parts or "\0" in location or ":" in parts[0]:
        raise _refused(f"{what} names the external file {location!r}, which is not a path inside the model's folder")
    root = folder.resolve()
    try:
        path = (root / location).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise _refused(f"{what} is in the external file {location!r}, which cannot be read", lost=True) from error
    if not path.is_relative_to(root):
        raise _refused(f"{what} names the external file {location!r}, which leads out of the model's folder")
    if not path.is_file():
        raise _refused(f"{what} names the external file {location!r}, which is not a regular file")
    return path


def _bad(message: str) -> Error:
    return Error("NEUC-E105", message, hint="the file is damaged or was written wrongly; export the model again")


def _refused(message: str, *, lost: bool = False) -> Error:
    hint = "put the data file where the model expects it" if lost else "keep external data beside the model file"
    return Error("NEUC-E106", message, hint=hint)
