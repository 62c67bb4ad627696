"""From an operation's location back to the ONNX nodes it came from."""

from __future__ import annotations

from typing import TypeAlias

from xdsl.dialects.builtin import (
    ArrayAttr,
    CallSiteLoc,
    FileLineColLoc,
    FusedLoc,
    IntAttr,
    NameLoc,
    NoneAttr,
    StringAttr,
    UnknownLoc,
)
from xdsl.ir import Attribute, Operation

Location: TypeAlias = UnknownLoc | FileLineColLoc | CallSiteLoc | NameLoc | FusedLoc


def location_names(location: Attribute) -> tuple[str, ...]:
    """All node names in `location`, each once, in order."""
    match location:
        case NameLoc():
            return (location.desc.data,)
        case FusedLoc():
            parts = [location_names(part) for part in _parts(location)]
            return tuple(dict.fromkeys(name for part in parts for name in part))
        case CallSiteLoc():
            return location_names(location.callee)
        case _:
            return ()


def node_location(name: str, file: str, index: int) -> NameLoc:
    """The location of the ONNX node `name`, number `index` of `file`."""
    return NameLoc(StringAttr(name), FileLineColLoc(StringAttr(file), IntAttr(index), IntAttr(0)))


def node_names(op: Operation) -> tuple[str, ...]:
    """The ONNX node names `op` stands for; empty if it came from none."""
    return location_names(op.location)


def fuse_locations(*ops: Operation) -> Location:
    """One location for an operation that replaces `ops`."""
    flat: dict[Attribute, None] = {}
    for op in ops:
        if isinstance(op.location, FusedLoc):
            flat.update(dict.fromkeys(_parts(op.location)))
        elif not isinstance(op.location, UnknownLoc):
            flat[op.location] = None
    if not flat:
        return UnknownLoc()
    first = next(iter(flat))
    if len(flat) == 1 and isinstance(first, FileLineColLoc | CallSiteLoc | NameLoc):
        return first
    return FusedLoc(tuple(flat), NoneAttr())


def _parts(location: FusedLoc) -> list[Attribute]:
    assert isinstance(location.locations, ArrayAttr)
    return list(location.locations.data)
