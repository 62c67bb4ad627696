"""Device models by name, with their parameters checked; where user-defined ones come in."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import math
from collections.abc import Mapping, Sequence
from typing import cast

from neuc.errors import Error, Exit
from neuc.runtime.analog.devices import DeviceModel, IdealDevice, TableDevice
from neuc.runtime.analog.devices_pcm import HermesPairPcm, HermesPcm, JoshiPcm, NandakumarPcm
from neuc.runtime.analog.devices_reram import CmoReram, SonosDevice, WanReram

ENTRY_POINT_GROUP = "neuc.devices"
"""Packages register subclasses of `DeviceModel` here, by name."""

_BUILT_IN: dict[str, type[DeviceModel]] = {
    model.name: model
    for model in (
        IdealDevice,
        NandakumarPcm,
        HermesPcm,
        HermesPairPcm,
        JoshiPcm,
        WanReram,
        CmoReram,
        SonosDevice,
        TableDevice,
    )
}

DeviceParameters = Mapping[str, object]


def model_names() -> tuple[str, ...]:
    """Names of the models that come with neuc."""
    return tuple(_BUILT_IN)


def model_class(name: str) -> type[DeviceModel]:
    """The class of a model: built in, or from the entry points ``neuc.devices``.

    Raises:
        Error: NEUC-E640, there is no such model.
    """
    found = _BUILT_IN.get(name)
    if found is not None:
        return found
    metadata = importlib.import_module("importlib.metadata")  # slow to import, and seldom needed
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP, name=name):
        loaded: object = entry.load()
        if isinstance(loaded, type) and issubclass(loaded, DeviceModel):
            return loaded
    near = difflib.get_close_matches(name, _BUILT_IN, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(_BUILT_IN)}"
    raise Error("NEUC-E640", f"unknown device {name[:80]!r}", hint=hint, exit_code=Exit.USAGE)


def make_model(name: str, parameters: DeviceParameters | None = None) -> DeviceModel:
    """The device model `name` with its parameters.

    Args:
        name: as for `model_class`.
        parameters: fields of the class; numbers, or (nested) lists of numbers for tables.

    Raises:
        Error: NEUC-E640, there is no such model; NEUC-E641, a parameter makes no sense; NEUC-E642, the range of
            conductances is empty or reversed.
    """
    model = model_class(name)
    fields = {field.name: field for field in dataclasses.fields(model)}
    values: dict[str, object] = {}
    for key, value in (parameters or {}).items():
        if key not in fields:
            raise Error(
                "NEUC-E641",
                f"device {name} has no parameter {key!r}",
                hint=f"it has {', '.join(fields)}",
                exit_code=Exit.USAGE,
            )
        values[key] = _like(fields[key].default, value, f"{key} of device {name}")
    made = model(**values)  # pyright: ignore[reportArgumentType] - a class checks its own fields
    if not 0 <= made.g_min < made.g_max:
        raise Error(
            "NEUC-E642",
            f"device {name}: conductances {made.g_min:g} … {made.g_max:g} µS are no range",
            hint="g_min is at least 0 and below g_max",
            exit_code=Exit.USAGE,
        )
    for key in ("prog_noise", "read_noise", "drift"):
        if getattr(made, key) < 0:
            raise Error(
                "NEUC-E641",
                f"{key} of device {name} is negative",
                hint="it is a factor on a standard deviation or on drift: 0 or more",
                exit_code=Exit.USAGE,
            )
    return made


def parameters_of(model: DeviceModel) -> dict[str, object]:
    """The parameters that `make_model` makes `model` from."""
    return {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}


def _like(default: object, value: object, what: str) -> object:
    """A parameter of the same kind as its default: a text, a number or a table of numbers."""
    found = value if isinstance(value, str) else _numbers(value, what)
    if type(found) is not type(default):
        kinds: dict[type, str] = {str: "a text", float: "a number", tuple: "a list of numbers"}
        kind = kinds.get(type(default), "of another kind")
        raise Error("NEUC-E641", f"{what} is not {kind}", hint=f"its default is {default}", exit_code=Exit.USAGE)
    return found


def _numbers(value: object, what: str) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif isinstance(value, list | tuple):
        return tuple(_numbers(item, what) for item in cast(Sequence[object], value))
    raise Error("NEUC-E641", f"{what} is no finite number", hint="give a number", exit_code=Exit.USAGE)
