"""The options of passes that can be typed in a pipeline: their types in words, their defaults, and checks of values.

Fields of passes that only code can set (caches, callbacks) are no options. What passes do with values is theirs.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from xdsl.passes import ModulePass
from xdsl.utils.arg_spec import ArgSpec
from xdsl.utils.hints import isa

from neuc.errors import Error, Exit

_WORDS = {bool: "true or false", int: "integer", float: "number", str: "text"}
_LISTS = {"integer": "integers", "number": "numbers", "text": "texts"}


@dataclass(frozen=True)
class PassOption:
    """An option.

    Attributes:
        name: what is written before the equals sign.
        type: what is written behind it, in words.
        required: whether it has to be written.
        default: what it is otherwise; None means nothing.
    """

    name: str
    type: str
    required: bool
    default: object

    def describe(self) -> str:
        """One line for people."""
        if self.required:
            return f"{self.name}: {self.type}, required"
        return f"{self.name}: {self.type}, default {_typed(self.default)}"


def options_of(cls: type[ModulePass]) -> list[PassOption]:
    """The options of a pass, in order."""
    hints, options = get_type_hints(cls), list[PassOption]()
    for field in dataclasses.fields(cls):
        words = _in_words(hints[field.name])
        if field.name == "name" or not field.init or words is None:
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        required = default is dataclasses.MISSING and NoneType not in get_args(hints[field.name])
        options.append(PassOption(field.name, words, required, None if default is dataclasses.MISSING else default))
    return options


def with_options(cls: type[ModulePass], spec: ArgSpec) -> ModulePass:
    """The pass with the options of a pipeline; a whole number is a number.

    Raises:
        Error: NEUC-E003, an option is unknown, missing, or its value is of another type.
        ValueError: the pass refuses a value.
    """
    known = {option.name: option for option in options_of(cls)}
    hints, given = get_type_hints(cls), dict(spec.normalize_parameter_names().parameters)
    for name, values in given.items():
        if name not in known:
            raise _unknown(spec.name, name, list(known))
        if _takes_float(hints[name]):
            given[name] = values = tuple(float(v) if type(v) is int else v for v in values)
        if not _fits(values, hints[name]):
            text = ",".join(_typed(value) for value in values)
            raise Error(
                "NEUC-E003",
                f"pass {spec.name}: {name} {f'is {text}' if values else 'has no value'}, expected: {known[name].type}",
                hint=f"{known[name].describe()}; `neuc passes` lists the options of all passes",
                exit_code=Exit.USAGE,
            )
    missing = [option for option in known.values() if option.required and option.name not in given]
    if missing:
        raise Error(
            "NEUC-E003",
            f"pass {spec.name} needs option {missing[0].name}",
            hint=missing[0].describe(),
            exit_code=Exit.USAGE,
        )
    return cls.from_spec(ArgSpec(spec.name, given))


def _unknown(name: str, option: str, known: Sequence[str]) -> Error:
    near = difflib.get_close_matches(option, known, 1)
    listed = f"its options are {', '.join(known)}" if known else "it has none"
    return Error(
        "NEUC-E003",
        f"pass {name} has no option {option}",
        hint=f"did you mean {near[0]}?" if near else listed,
        exit_code=Exit.USAGE,
    )


def _in_words(hint: Any) -> str | None:
    """What can be typed for a field of this type; None if nothing can."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        one = _in_words(parts[0])
        return None if one is None else f"{_LISTS.get(one, one)} separated by commas"
    if origin in (Union, UnionType):
        words = [_in_words(part) for part in parts if part is not NoneType]
        return None if None in words else " or ".join(word for word in words if word is not None)
    return None


def _takes_float(hint: Any) -> bool:
    """Whether the values are floats, and no integers."""
    parts = {part for part in get_args(hint) if part not in (NoneType, Ellipsis)}
    return hint is float or (bool(parts) and all(_takes_float(part) for part in parts))


def _fits(values: Sequence[object], hint: Any) -> bool:
    """Whether xDSL takes the values of an option for a field of this type."""
    if not values and NoneType in get_args(hint):
        return True
    return (len(values) == 1 and isa(values[0], hint)) or isa(tuple(values), hint)


def _typed(value: object) -> str:
    """A value as it is typed."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(_typed(item) for item in value) or "none"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, str):
        return value or json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
