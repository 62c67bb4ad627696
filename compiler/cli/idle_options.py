"""Options of `neuc convert` that another of its conversions is for: given beside one, they are refused, not ignored.

An option's help begins with the conversions that it is for, `snn, qdq-int8: …`; no list of options is kept here.
"""

from __future__ import annotations

from collections.abc import Mapping

import click

from neuc.compiler.cli import arguments
from neuc.errors import Error

SPIKING = ("snn", "nir")
_CONVERSIONS = (*SPIKING, "qdq-int8")
_WEIGHT_FILES = ("lossy_scales", "read_as", "tl")
"""Options of GGUF files and Hugging Face folders, some of them shared with other commands."""


def given(name: str) -> bool:
    """Whether the option with the parameter `name` stands in the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not None and source is not click.core.ParameterSource.DEFAULT


def refuse_others(conversion: str, said: str) -> None:
    """Refuse options of other conversions.

    Args:
        conversion: `snn`, `nir`, `qdq-int8`, `onnx` for low-bit forms, `weights` for GGUF files and folders.
        said: how it was asked for.

    Raises:
        Error: NEUC-E002.
    """
    for parameter in click.get_current_context().command.params:
        name = parameter.name or ""
        if isinstance(parameter, click.Option) and given(name) and conversion not in _conversions(parameter):
            raise _idle(parameter.opts[0], said)


def refuse(idle: Mapping[str, str], said: str, instead: str = "") -> None:
    """Refuse those of some options that are given.

    Args:
        idle: parameter -> what the option is called.
        said: beside what they do nothing.
        instead: another cure than to leave them out.

    Raises:
        Error: NEUC-E002.
    """
    for name, option in idle.items():
        if given(name):
            raise _idle(option, said, instead)


def _idle(option: str, said: str, instead: str = "") -> Error:
    cure = f"leave {option} out"
    return arguments.usage_error(f"{option} does nothing {said}", f"{instead}, or {cure}" if instead else cure)


def _conversions(option: click.Option) -> tuple[str, ...]:
    """What conversions an option is for."""
    if option.name in _WEIGHT_FILES:
        return ("weights",)
    named = (option.help or "").partition(":")[0].split(", ")
    if option.name == "name":
        return ("weights", "onnx", "qdq-int8")
    every = (*_CONVERSIONS, "onnx", "weights")
    return tuple(named) if set(named) <= set(_CONVERSIONS) else every
