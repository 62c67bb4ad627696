"""Which meaning a tensor's id has in a file: by the room the file leaves for it, and by the model's architecture."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from neuc.compiler.formats.gguf_types import LAYOUTS, OTHER_MEANINGS, Layout
from neuc.compiler.formats.gguf_values import shown
from neuc.errors import Error

UNKNOWN_TYPE = "NEUC-E121"

# The meaning id 39 has in models of an architecture; in others both occur.
_ARCHITECTURES = {"bitnet": "tl2", "bitnet-25": "tl2", "bitnet-b1.58": "tl2", "gpt-oss": "mxfp4"}


@dataclass(frozen=True)
class Place:
    """A tensor as the file lists it.

    Attributes:
        name: its name.
        shape: its dims, outermost first.
        type_id: the id of its type.
        offset: where it begins in the file.
        span: bytes to the next tensor, or to the end of the file.
        last: whether it is the last one in the file.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int
    span: int
    last: bool


def resolve(
    file: str, places: Sequence[Place], alignment: int, architecture: str, read_as: Collection[str] = ()
) -> dict[str, tuple[Layout, int]]:
    """Layout and bytes of every tensor.

    Args:
        file: the file's name, for errors.
        places: the tensors.
        alignment: of the file.
        architecture: `general.architecture`, or an empty string.
        read_as: layouts the user says the file has.

    Raises:
        Error: NEUC-E121, an id is unknown, or what it means cannot be told.
    """
    found: dict[str, tuple[Layout, int]] = {}
    for type_id in sorted({place.type_id for place in places}):
        mine = [place for place in places if place.type_id == type_id]
        candidates = LAYOUTS.get(type_id)
        if candidates is None:
            raise _refuse(file, mine[0], "no known type has this id", "a newer version of neuc may know it")
        layout = _agreed(file, mine, candidates, alignment, architecture, read_as)
        for place in mine:
            found[place.name] = layout, _size(file, place, layout, alignment)
    return found


def _agreed(
    file: str,
    places: Sequence[Place],
    candidates: Sequence[Layout],
    alignment: int,
    architecture: str,
    read_as: Collection[str],
) -> Layout:
    """The one layout all tensors of an id have."""
    chosen = [layout for layout in candidates if layout.name in read_as]
    if chosen:
        return chosen[0]
    if len(candidates) == 1:
        return candidates[0]
    left = list(candidates)
    for place in places:
        fitting = [layout for layout in left if _fits(place, layout, alignment)]
        if not fitting:
            raise _refuse(file, place, _misfit(place, left), "say which it is with --read-as, if the file is sound")
        left = fitting
    expected = _ARCHITECTURES.get(architecture)
    names = [layout.name for layout in left]
    if expected in {layout.name for layout in candidates} and expected not in names:
        raise _refuse(
            file,
            places[0],
            f"an architecture '{shown(architecture)}' has {expected} under this id, but only {names[0]} fits its bytes",
            f"--read-as {names[0]}, if that is what it is",
        )
    if len(left) > 1:
        wording = " and ".join(names)
        raise _refuse(file, places[0], f"{wording} fit its bytes equally", f"say which with --read-as {names[0]}")
    return left[0]


def _fits(place: Place, layout: Layout, alignment: int) -> bool:
    return any(_fills(place, size, alignment) for size in layout.sizes(place.shape))


def _fills(place: Place, size: int, alignment: int) -> bool:
    """Whether a tensor of `size` bytes leaves no more room behind it than its padding."""
    padded = -(-size // alignment) * alignment
    return size <= place.span <= padded if place.last else place.span == padded


def _size(file: str, place: Place, layout: Layout, alignment: int) -> int:
    """Bytes of a tensor whose layout is known."""
    sizes = layout.sizes(place.shape)
    if not sizes:
        raise _refuse(file, place, f"no {layout.name} tensor has the shape {list(place.shape)}", "convert it again")
    for size in sizes:
        if _fills(place, size, alignment):
            return size
    if place.type_id in OTHER_MEANINGS:
        raise _refuse(file, place, _misfit(place, [layout]), "the file is damaged, or its id means something else")
    if min(sizes) <= place.span:
        return min(sizes)
    after = "the file ends" if place.last else "the next tensor begins"
    raise _refuse(
        file,
        place,
        f"{layout.name} takes {min(sizes)} bytes, but {after} after {place.span}",
        "the file is damaged or was cut off; download or convert it again",
    )


def _misfit(place: Place, layouts: Sequence[Layout]) -> str:
    """What was tried for an id that means several things."""
    tried = ", ".join(
        f"{layout.name} takes {' or '.join(map(str, layout.sizes(place.shape))) or 'no such shape'}"
        for layout in layouts
    )
    meanings = OTHER_MEANINGS.get(place.type_id)
    return f"{tried}, and it has {place.span} bytes" + (f" (this id is also {meanings})" if meanings else "")


def _refuse(file: str, place: Place, why: str, hint: str) -> Error:
    return Error(UNKNOWN_TYPE, f"{file}: tensor '{shown(place.name)}' of type {place.type_id}: {why}", hint=hint)


def has_no_gap(place: Place, size: int, alignment: int) -> bool:
    """Whether only padding follows a tensor."""
    return _fills(place, size, alignment)
