"""Metadata values of GGUF, and the cursor that reads them without believing any length in the file.

What keys mean is not known here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error

DAMAGED = "NEUC-E120"
_HINT = "download or convert the file again"
MAX_NAME = 1024  # bytes of a key or a tensor's name
MAX_ITEMS = 2**22  # strings and nested arrays in a file's metadata: each is a Python object
MAX_NESTING = 4
_LENGTH = struct.Struct("<Q")


class ValueType(IntEnum):
    """Type of a metadata value, as numbered in the file."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


_NUMBERS = {
    ValueType.UINT8: np.dtype("<u1"),
    ValueType.INT8: np.dtype("<i1"),
    ValueType.UINT16: np.dtype("<u2"),
    ValueType.INT16: np.dtype("<i2"),
    ValueType.UINT32: np.dtype("<u4"),
    ValueType.INT32: np.dtype("<i4"),
    ValueType.FLOAT32: np.dtype("<f4"),
    ValueType.BOOL: np.dtype("?"),
    ValueType.UINT64: np.dtype("<u8"),
    ValueType.INT64: np.dtype("<i8"),
    ValueType.FLOAT64: np.dtype("<f8"),
}


@dataclass(frozen=True, eq=False)
class Array:
    """An array of values of one type: numbers as numpy, strings and arrays as a list."""

    type: ValueType
    items: NDArray[np.generic] | list[str] | list[Array]

    def __len__(self) -> int:
        return len(self.items)


Value: TypeAlias = np.generic | str | Array


@dataclass(frozen=True, eq=False)
class Field:
    """A metadata value: a numpy scalar, text (bytes that are no UTF-8 as surrogates), or an array."""

    type: ValueType
    value: Value

    @staticmethod
    def text(value: str) -> Field:
        """A string."""
        return Field(ValueType.STRING, value)

    @staticmethod
    def u32(value: int) -> Field:
        """An unsigned 32-bit integer, which most counts and types are."""
        return Field(ValueType.UINT32, np.uint32(value))

    @staticmethod
    def texts(values: list[str]) -> Field:
        """An array of strings."""
        return Field(ValueType.ARRAY, Array(ValueType.STRING, values))


def shown(text: str) -> str:
    """A name out of a file, fit for one line: control characters escaped, bounded."""
    line = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return line if len(line) <= 80 else f"{line[:77]}..."


class Cursor:
    """Reads a file's structure front to back; every complaint names the file and what was being read."""

    def __init__(self, data: memoryview, file: str) -> None:
        self.data = data
        self.file = file
        self.position = 0
        self.items = 0

    @property
    def remaining(self) -> int:
        """Bytes not yet read."""
        return len(self.data) - self.position

    def refuse(self, why: str) -> Error:
        """The error for this file."""
        return Error(DAMAGED, f"{self.file}: {why}", hint=_HINT)

    def take(self, count: int, what: str) -> memoryview:
        """The next `count` bytes."""
        if count > self.remaining:
            raise self.refuse(f"the file ends within {what}: {count} bytes wanted, {self.remaining} left")
        self.position += count
        return self.data[self.position - count : self.position]

    def u32(self, what: str) -> int:
        """An unsigned integer of 4 bytes."""
        (value,) = struct.unpack("<I", self.take(4, what))
        return value

    def u64(self, what: str) -> int:
        """An unsigned integer of 8 bytes."""
        (value,) = struct.unpack("<Q", self.take(8, what))
        return value

    def name(self, what: str) -> str:
        """A key or a tensor's name: short, not empty, UTF-8 without control characters."""
        length = self.u64(f"the length of {what}")
        if not 0 < length <= MAX_NAME:
            raise self.refuse(f"{what} has {length} bytes; 1 to {MAX_NAME} are allowed")
        raw = bytes(self.take(length, what))
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.refuse(f"{what} is no UTF-8 text: {raw[:40]!r}") from None
        if not text.isprintable():
            raise self.refuse(f"{what} has control characters: '{shown(text)}'")
        return text

    def field(self, key: str) -> Field:
        """A value with its type before it."""
        what = f"the value of '{shown(key)}'"
        kind = self._type(what)
        return Field(kind, self._value(kind, what, 0))

    def _type(self, what: str) -> ValueType:
        number = self.u32(f"the type of {what}")
        try:
            return ValueType(number)
        except ValueError:
            raise self.refuse(f"{what} has the unknown type {number}") from None

    def _value(self, kind: ValueType, what: str, depth: int) -> Value:
        if kind is ValueType.STRING:
            return self._text(what)
        if kind is ValueType.ARRAY:
            return self._array(what, depth)
        return self._numbers(kind, 1, what)[0]

    def _text(self, what: str) -> str:
        length = self.u64(f"the length of {what}")
        return bytes(self.take(length, what)).decode("utf-8", "surrogateescape")

    def _texts(self, count: int, what: str) -> list[str]:
        """Strings one after the other, a tokenizer's hundreds of thousands among them."""
        data, position, end, found = self.data, self.position, len(self.data), list[str]()
        for _ in range(count):
            start = position + 8
            if start > end:
                break
            (length,) = _LENGTH.unpack_from(data, position)
            position = start + length
            if position > end:
                break
            found.append(str(data[start:position], "utf-8", "surrogateescape"))
        else:
            self.position = position
            return found
        # What is wrong is told as for a single one.
        while True:
            self._text(what)

    def _numbers(self, kind: ValueType, count: int, what: str) -> NDArray[np.generic]:
        dtype = _NUMBERS[kind]
        raw = self.take(count * dtype.itemsize, what)
        if kind is ValueType.BOOL and count and max(raw) > 1:
            raise self.refuse(f"{what} is no truth value: {max(raw)}")
        return np.frombuffer(raw, dtype)

    def _array(self, what: str, depth: int) -> Array:
        if depth == MAX_NESTING:
            raise self.refuse(f"{what} nests arrays more than {MAX_NESTING} deep")
        kind = self._type(f"the elements of {what}")
        count = self.u64(f"the length of {what}")
        smallest = {ValueType.STRING: 8, ValueType.ARRAY: 12}.get(kind) or _NUMBERS[kind].itemsize
        if count > self.remaining // smallest:
            raise self.refuse(f"{what} claims {count} elements, and {self.remaining} bytes are left")
        if kind in _NUMBERS:
            return Array(kind, self._numbers(kind, count, what))
        self.items += count
        if self.items > MAX_ITEMS:
            raise self.refuse(f"{what}: more than {MAX_ITEMS} strings in the metadata")
        if kind is ValueType.STRING:
            return Array(kind, self._texts(count, what))
        return Array(kind, [self._array(what, depth + 1) for _ in range(count)])


def pack_text(text: str) -> bytes:
    """A string with its length before it."""
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def pack_field(field: Field) -> bytes:
    """A value with its type before it."""
    return struct.pack("<I", field.type) + _pack(field.type, field.value)


def _pack(kind: ValueType, value: Value) -> bytes:
    if isinstance(value, str):
        return pack_text(value)
    if isinstance(value, Array):
        head = struct.pack("<IQ", value.type, len(value))
        if isinstance(value.items, np.ndarray):
            return head + value.items.astype(_NUMBERS[value.type], copy=False).tobytes()
        return head + b"".join(_pack(value.type, item) for item in value.items)
    # A scalar of the right type is copied bit by bit: a conversion would quiet signalling NaNs.
    return value.tobytes() if value.dtype == _NUMBERS[kind] else np.asarray(value, _NUMBERS[kind]).tobytes()
