"""What every kernel family shares: the specification object and the calling convention.

No kernel and no code emission lives here.

Calling convention
------------------
A kernel is ``void name(i64 *args, i64 begin, i64 end, i8 *scratch)``. ``args[i]`` is one 64-bit slot:

* a buffer: its address;
* an integer: its value, sign-extended to 64 bits;
* an f32: its bit pattern in the low half, zero above.

The work of a launch is the units ``0 .. work-1``. Each thread calls the kernel with its own contiguous
``[begin, end)`` (possibly empty) and its own 64-byte aligned scratch memory; units may run in any order and
at the same time, so two units never write the same byte.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from abc import ABC, abstractmethod
from typing import ClassVar

from xdsl.dialects import llvm

from neuc.backends.cpu.isa import Isa
from neuc.errors import InternalError

_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_NAME = 180
"""What artifacts and file systems allow, and some room."""
_DIGEST = 16


@dataclasses.dataclass(frozen=True)
class KernelSpec(ABC):
    """Everything that decides a kernel's code; equal specs give the same code.

    A subclass is a frozen dataclass whose fields are plain values (int, float, bool, str, tuples, frozen
    dataclasses), and whose docstring lists the argument slots in order.
    """

    family: ClassVar[str] = "kernel"
    written: ClassVar[tuple[int, ...] | None] = None
    """Argument slots whose buffers the kernel writes; None if unknown, and then launches never overlap with others."""

    in_place: ClassVar[tuple[int, int] | None] = None
    """The slot it reads and the slot it writes of buffers that may be the same one."""

    def writes(self) -> tuple[int, ...] | None:
        """`written`, for families in which it depends on the fields."""
        return self.written

    @property
    def name(self) -> str:
        """The symbol: the family, then the fields that differ from their defaults; a digest ends what is too long."""
        name = "_".join([self.family, *_parts(self)])
        if not _SYMBOL.fullmatch(name):
            raise InternalError(f"kernel name {name!r} is not a symbol; a field needs a simpler value")
        if len(name) > _LONGEST_NAME:
            digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
            return f"{name[: _LONGEST_NAME - _DIGEST - 1]}_{digest}"
        return name

    @abstractmethod
    def build(self, isa: Isa) -> llvm.FuncOp:
        """The kernel as one ``llvm.func`` for this instruction set."""


def _parts(spec: object) -> list[str]:
    """The fields of a frozen dataclass as parts of a symbol; unequal specs give different parts."""
    assert dataclasses.is_dataclass(spec)
    parts: list[str] = []
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if field.default is not dataclasses.MISSING and value == field.default:
            continue
        match value:
            case bool():
                parts.append(field.name if value else f"no_{field.name}")
            case _ if dataclasses.is_dataclass(value):
                parts += _parts(value)
            case _:
                parts.append(f"{field.name}{'_' if isinstance(value, str) else ''}{_mangle(value)}")
    return parts


def _mangle(value: object) -> str:
    """A plain value as part of a symbol; different values give different text."""
    match value:
        case None:
            return "X"
        case bool():
            return "t" if value else "f"
        case int():
            return str(value) if value >= 0 else f"m{-value}"
        case float():
            text = str(int(value)) if value.is_integer() and abs(value) < 1e6 else value.hex()
            return text.replace("-", "m").replace("+", "p").replace(".", "d")
        case str():
            return value.replace("-", "_")
        case tuple():
            return f"{len(value)}t" + "_".join(_mangle(item) for item in value)
        case _ if dataclasses.is_dataclass(value):
            return "_".join(_parts(value))
        case _:
            raise InternalError(f"kernel field of type {type(value).__name__} has no place in a symbol")
