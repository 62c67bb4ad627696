"""Targets whose machine is not a CPU: passes of their own put parts of a model on it, the rest runs on the CPU.

Targets themselves live in the folder of their family (`backends/<family>/target.py`); nothing of a family belongs here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from xdsl.passes import ModulePass

from neuc.errors import Error, Exit

ENTRY_POINT_GROUP = "neuc.targets"
"""Entry points of other packages: each loads a `ParadigmTarget`."""

SCALES_OPTION, CALIBRATED = "scales", "calibrated"
"""The option of targets that gain by fixed scales of activations, and its value for scales from calibration data."""

PassesOf = Callable[[Mapping[str, str]], Sequence[ModulePass]]
"""The passes for given options. Raises NEUC-E002 for a value that makes no sense (`option_error`)."""

_FAMILIES: tuple[str, ...] = ("crossbar", "npu", "tsu")
"""Folders of this one that have a ``target.py`` with ``TARGETS``."""


@dataclass(frozen=True)
class ParadigmTarget:
    """A target that shares a model with the CPU.

    Attributes:
        name: how the user calls it.
        summary: one line for ``neuc targets``.
        place: ``module:function``, a `PassesOf`: from `dense` (and `ternary`) operations of @main to those of the
            machine. What it puts into functions of its own (`backends/placed.py`) is run by an executor of its own;
            other operations need lowerings of the CPU backend, which may well simulate a machine.
        options: what may stand in braces behind the name, and what each is.
        finish: ``module:function``, a `PassesOf` for the machine level, before the CPU's; empty if there are none.
        rounding: ``module:function``, a `PassesOf`: those of its passes that round floats, by which errors come in.
        host: the CPU target of the rest.
        default_quantize: what ``--quantize`` means when it is not given.
        deviation: how far its devices and converters may take a result from the model's, as a share of the largest:
            what `neuc doctor` takes for healthy. 0 for machines that compute exactly.
        networks: whether it runs neural networks, such as the one `neuc doctor` tries.
        int8_layers: whether layers that a model has in int8 are worth recognising as such, as those of few levels are.
    """

    name: str
    summary: str
    place: str
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    finish: str = ""
    rounding: str = ""
    host: str = "cpu"
    default_quantize: str = "none"
    deviation: float = 0.0
    networks: bool = True
    int8_layers: bool = False

    def placing(self, options: Mapping[str, str]) -> list[ModulePass]:
        """The passes before `partition`."""
        return list(_load(self.place)(options))

    def finishing(self, options: Mapping[str, str]) -> list[ModulePass]:
        """The passes at the machine level."""
        return list(_load(self.finish)(options)) if self.finish else []

    def rounds(self, options: Mapping[str, str]) -> list[ModulePass]:
        """The passes that round floats."""
        return list(_load(self.rounding)(options)) if self.rounding else []


def option_error(target: str, name: str, value: str, hint: str) -> Error:
    """The error for an option's value that makes no sense."""
    return Error("NEUC-E002", f"target {target}: {name}={value} makes no sense", hint=hint, exit_code=Exit.USAGE)


def paradigm_targets() -> dict[str, ParadigmTarget]:
    """Every such target by name, those of other packages included."""
    found: dict[str, ParadigmTarget] = {}
    for family in _FAMILIES:
        for target in cast(Sequence[ParadigmTarget], import_module(f"neuc.backends.{family}.target").TARGETS):
            found[target.name] = target
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        loaded: object = entry.load()
        if isinstance(loaded, ParadigmTarget):
            found.setdefault(loaded.name, loaded)
    return found


def _load(path: str) -> PassesOf:
    module, _, name = path.partition(":")
    return cast(PassesOf, getattr(import_module(module), name))
