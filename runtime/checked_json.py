"""Reading JSON that may be damaged or hostile: bounded, typed access where every complaint names the field."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar, cast

from neuc.errors import Error

T = TypeVar("T")

MAX_JSON_BYTES = 256 * 2**20


CURE = "the file is damaged or was made by something else; compile the model again"


def parse_json(data: bytes | memoryview, what: str, *, code: str = "NEUC-E302", cure: str = CURE) -> Node:
    """Parse JSON text, refusing oversized documents, repeated keys, NaN and absurd nesting."""
    if len(data) > MAX_JSON_BYTES:
        raise Error(code, f"{what} is larger than {MAX_JSON_BYTES >> 20} MiB", hint=cure)

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ValueError("a key is repeated")
        return fields

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        text = bytes(data).decode("utf-8")
        value: object = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise Error(code, f"{what} is not valid JSON: {str(error)[:120]}", hint=cure) from error
    return Node(value, what, code, cure)


def dump_json(value: object) -> bytes:
    """Deterministic JSON: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("utf-8")


@dataclass(frozen=True)
class Node:
    """A JSON value together with where it was found."""

    value: object
    where: str
    code: str = "NEUC-E302"
    cure: str = CURE

    def refuse(self, why: str) -> Error:
        """The error for this place."""
        return Error(self.code, f"{self.where}: {why}", hint=self.cure)

    def _is(self, kind: str) -> Error:
        return self.refuse(f"expected {kind}, got {type(self.value).__name__}")

    def integer(self, low: int = 0, high: int = 2**62) -> int:
        """An integer in ``[low, high]``."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise self._is("an integer")
        if not low <= self.value <= high:
            raise self.refuse(f"{str(self.value)[:30]} is outside [{low}, {high}]")
        return self.value

    def string(self, longest: int = 65536) -> str:
        """A string of bounded length."""
        if not isinstance(self.value, str):
            raise self._is("a string")
        if len(self.value) > longest:
            raise self.refuse(f"longer than {longest} characters")
        return self.value

    def boolean(self) -> bool:
        """A truth value."""
        if not isinstance(self.value, bool):
            raise self._is("true or false")
        return self.value

    def number(self) -> float:
        """A finite float; integers count."""
        if not isinstance(self.value, int | float) or isinstance(self.value, bool):
            raise self._is("a number")
        try:
            number = float(self.value)
        except OverflowError as error:
            raise self.refuse("number too large") from error
        if not math.isfinite(number):
            raise self.refuse(f"{number} is no finite number")
        return number

    def items(self, most: int = 1_000_000) -> list[Node]:
        """The elements of a list of bounded length."""
        values = _as_list(self.value)
        if values is None:
            raise self._is("a list")
        if len(values) > most:
            raise self.refuse(f"more than {most} entries")
        return [Node(value, f"{self.where}[{index}]", self.code, self.cure) for index, value in enumerate(values)]

    def list_of(self, read: Callable[[Node], T], most: int = 1_000_000) -> tuple[T, ...]:
        """``items`` passed through ``read``."""
        return tuple(read(item) for item in self.items(most))

    def fields(self, most: int = 1_000_000) -> Iterator[tuple[str, Node]]:
        """The entries of an object."""
        for key, value in self._object(most).items():
            yield key, Node(value, f"{self.where}.{key[:80]}", self.code, self.cure)

    def has(self, key: str) -> bool:
        """Whether this object has a field."""
        return key in self._object()

    def get(self, key: str) -> Node:
        """A field that must exist."""
        fields = self._object()
        if key not in fields:
            raise self.refuse(f"field '{key}' is missing")
        return Node(fields[key], f"{self.where}.{key[:80]}", self.code, self.cure)

    def only(self, keys: Sequence[str]) -> None:
        """Refuse fields other than these: a reader must not ignore what it does not know."""
        unknown = [key for key in self._object() if key not in keys]
        if unknown:
            near = difflib.get_close_matches(unknown[0][:80], [key for key in keys if not self.has(key)], n=1)
            guess = f" (did you mean '{near[0]}'?)" if near else ""
            raise self.refuse(f"unknown field '{unknown[0][:80]}'{guess}")

    def _object(self, most: int = 1_000_000) -> dict[str, object]:
        fields = _as_dict(self.value)
        if fields is None:
            raise self._is("an object")
        if len(fields) > most:
            raise self.refuse(f"more than {most} fields")
        return fields


def _as_list(value: object) -> list[object] | None:
    return cast("list[object]", value) if isinstance(value, list) else None


def _as_dict(value: object) -> dict[str, object] | None:
    return cast("dict[str, object]", value) if isinstance(value, dict) else None
