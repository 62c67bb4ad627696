"""Reading GGUF containers, versions 2 and 3, memory-mapped. What payloads hold is the business of the block formats.

A file is read as if somebody had made it to do harm: counts, lengths, offsets and dims are checked against the size of
the file before anything is allocated for them.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuc.compiler.formats.gguf_layouts import Place, has_no_gap, resolve
from neuc.compiler.formats.gguf_types import Layout
from neuc.compiler.formats.gguf_values import Cursor, Field, ValueType, shown
from neuc.compiler.formats.hadamard import Hadamard, read_hadamard
from neuc.compiler.formats.recognition import MAGIC
from neuc.errors import Error

VERSIONS = (2, 3)
ALIGNMENT = 32
MAX_TENSORS = 2**20
MAX_FIELDS = 2**16
MAX_RANK = 4
_SMALLEST_TENSOR = 24  # bytes of a tensor's entry without its name
_SMALLEST_FIELD = 13


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in a file.

    Attributes:
        name: its name.
        shape: its dims, outermost first (GGUF writes them innermost first); () for a scalar.
        type_id: the id of its type.
        layout: what that id means in this file.
        offset: where its payload begins in the file.
        nbytes: bytes of its payload.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    layout: Layout
    offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        """How many weights it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class GgufFile:
    """A GGUF file that has been checked.

    Attributes:
        path: the file.
        version: 2 or 3.
        alignment: what offsets are multiples of.
        fields: metadata by key, in the file's order.
        tensors: tensors by name, in the file's order.
        warnings: what is odd about the file, but no fault; one sentence each.
    """

    path: Path
    version: int
    alignment: int
    fields: Mapping[str, Field]
    tensors: Mapping[str, GgufTensor]
    warnings: tuple[str, ...]
    _data: memoryview

    @staticmethod
    def open(path: str | os.PathLike[str], *, read_as: Collection[str] = ()) -> GgufFile:
        """Map and check a file.

        Args:
            path: the file.
            read_as: names of layouts this file has, where an id means several things (`gguf_types.LAYOUTS`).

        Raises:
            Error: NEUC-E103, it cannot be read; NEUC-E120, it is no GGUF file or a damaged one; NEUC-E121, the type of
                a tensor is unknown or cannot be told; NEUC-E125, its prism.hadamard metadata contradict themselves.
        """
        path = Path(path)
        return _read(path, map_file(path), read_as)

    def payload(self, tensor: GgufTensor) -> memoryview:
        """A tensor's bytes, a read-only view of the file."""
        return self._data[tensor.offset : tensor.offset + tensor.nbytes]

    @property
    def architecture(self) -> str:
        """`general.architecture`, or an empty string."""
        return self.text("general.architecture")

    @property
    def file_type(self) -> int | None:
        """`general.file_type`, if the file has one."""
        return self.integer("general.file_type")

    def text(self, key: str) -> str:
        """A text in the metadata, or an empty one."""
        field = self.fields.get(key)
        return field.value if field is not None and isinstance(field.value, str) else ""

    def integer(self, key: str) -> int | None:
        """An integer in the metadata."""
        field = self.fields.get(key)
        return int(field.value) if field is not None and isinstance(field.value, np.integer) else None

    @property
    def hadamard(self) -> Hadamard | None:
        """The rotation the weights are stored in, if any.

        Raises:
            Error: NEUC-E125, its description contradicts itself.
        """
        return read_hadamard(self.path.name, self.fields, self.tensors)

    def refuse_unapplied(self, applied: Collection[str] = ()) -> None:
        """Refuse a file whose weights mean nothing without a transform the caller does not apply.

        Args:
            applied: names of the transforms the caller applies; there is one, `prism.hadamard`.

        Raises:
            Error: NEUC-E125.
        """
        if self.hadamard is not None and "prism.hadamard" not in applied:
            raise Error(
                "NEUC-E125",
                f"{self.path.name}: its weights are rotated (prism.hadamard), and nothing here undoes that",
                hint="a result without the rotation would be garbage; take a release of the model without it",
            )


def map_file(path: Path) -> memoryview:
    """A file's bytes, mapped.

    Raises:
        Error: NEUC-E103, it cannot be read, is empty, or is no regular file.
    """
    if path.exists() and not path.is_file():
        raise Error("NEUC-E103", f"cannot read {path}: it is no regular file", hint="give a file")
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise Error("NEUC-E103", f"{path} is empty", hint="download or convert it again")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise Error("NEUC-E103", f"cannot read {path}: {reason}", hint="check the path") from error


def _read(path: Path, data: memoryview, read_as: Collection[str]) -> GgufFile:
    cursor = Cursor(data, path.name)
    version = _version(cursor)
    tensor_count, field_count = cursor.u64("the number of tensors"), cursor.u64("the number of metadata entries")
    for count, what, smallest, most in (
        (tensor_count, "tensors", _SMALLEST_TENSOR, MAX_TENSORS),
        (field_count, "metadata entries", _SMALLEST_FIELD, MAX_FIELDS),
    ):
        if count > min(cursor.remaining // smallest, most):
            raise cursor.refuse(f"it claims {count} {what}, more than {cursor.remaining} bytes or {most} allow")
    fields: dict[str, Field] = {}
    for number in range(field_count):
        key = cursor.name(f"metadata key {number}")
        if key in fields:
            raise cursor.refuse(f"the metadata key '{shown(key)}' stands there twice")
        fields[key] = cursor.field(key)
    entries = [_entry(cursor, number) for number in range(tensor_count)]
    alignment = _alignment(cursor, fields)
    places = _places(cursor, entries, alignment)
    architecture = fields.get("general.architecture")
    arch = architecture.value if architecture is not None and isinstance(architecture.value, str) else ""
    layouts = resolve(path.name, places, alignment, arch, read_as)
    by_name = {place.name: place for place in places}
    tensors = {
        name: GgufTensor(name, shape, type_id, *_split(layouts[name], by_name[name].offset))
        for name, shape, type_id, _ in entries
    }
    gaps = [place.name for place in places if not has_no_gap(place, layouts[place.name][1], alignment)]
    warnings = [f"bytes after '{shown(gaps[0])}' ({len(gaps)} gaps in all) belong to no tensor"] if gaps else []
    file = GgufFile(path, version, alignment, fields, tensors, tuple(warnings), data)
    _ = file.hadamard  # contradictions in it are the file's fault
    return file


def _split(found: tuple[Layout, int], offset: int) -> tuple[Layout, int, int]:
    layout, nbytes = found
    return layout, offset, nbytes


def _version(cursor: Cursor) -> int:
    magic = bytes(cursor.take(4, "the magic number"))
    if magic == MAGIC[::-1]:
        raise cursor.refuse("its magic number is reversed; only little-endian GGUF files are read")
    if magic != MAGIC:
        raise cursor.refuse(f"it is no GGUF file: it begins with {magic!r}")
    version = cursor.u32("the version")
    if version & 0xFFFF == 0:
        raise cursor.refuse("it is big-endian; only little-endian GGUF files are read")
    if version not in VERSIONS:
        raise cursor.refuse(f"it has GGUF version {version}; versions 2 and 3 are read")
    return version


_Entry = tuple[str, tuple[int, ...], int, int]


def _entry(cursor: Cursor, number: int) -> _Entry:
    """Name, shape (outermost first), type id and offset within the data of a tensor."""
    name = cursor.name(f"the name of tensor {number}")
    what = f"tensor '{shown(name)}'"
    rank = cursor.u32(f"the rank of {what}")
    if rank > MAX_RANK:
        raise cursor.refuse(f"{what} has rank {rank}; up to {MAX_RANK} are allowed")
    shape = tuple(cursor.u64(f"the dims of {what}") for _ in range(rank))[::-1]
    if 0 in shape or math.prod(shape) >= 2**62:
        raise cursor.refuse(f"{what} has the absurd shape {list(shape)}")
    return name, shape, cursor.u32(f"the type of {what}"), cursor.u64(f"the offset of {what}")


def _alignment(cursor: Cursor, fields: Mapping[str, Field]) -> int:
    field = fields.get("general.alignment")
    if field is None:
        return ALIGNMENT
    value = int(field.value) if field.type is ValueType.UINT32 and isinstance(field.value, np.integer) else 0
    if value < 1 or value & (value - 1) or value > 2**20:
        raise cursor.refuse("general.alignment is no 32-bit power of two up to 2^20")
    return value


def _places(cursor: Cursor, entries: Sequence[_Entry], alignment: int) -> list[Place]:
    """Where the tensors are, in the order of their offsets."""
    start = -(-cursor.position // alignment) * alignment
    end = len(cursor.data)
    names: set[str] = set()
    for name, _, _, offset in entries:
        if name in names:
            raise cursor.refuse(f"two tensors are called '{shown(name)}'")
        names.add(name)
        if offset % alignment:
            raise cursor.refuse(f"tensor '{shown(name)}' is at {offset}, which is no multiple of {alignment}")
        if start + offset >= end:
            raise cursor.refuse(f"tensor '{shown(name)}' lies beyond the end of the file")
    ordered = sorted(entries, key=lambda entry: entry[3])
    limits = [*(start + entry[3] for entry in ordered[1:]), end]
    return [
        Place(name, shape, type_id, start + offset, limit - start - offset, last=index == len(ordered) - 1)
        for index, ((name, shape, type_id, offset), limit) in enumerate(zip(ordered, limits))
    ]
