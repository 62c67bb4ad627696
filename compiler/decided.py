"""What IR beyond the graph level has decided already, and refusing options that come too late to change it.

Which parts run on a machine, and which layers are quantised, is decided on the way to the paradigm level; compilation
that goes on from there takes both as they are. What passes do about it stands in `compilation.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from xdsl.dialects.builtin import ModuleOp, StringAttr

from neuc.backends.cpu.target import TARGET_ATTRIBUTE, TARGETS, is_cpu_target
from neuc.compiler.driver import LEVELS, level_of
from neuc.compiler.importers.decoder.facts import decoder_facts
from neuc.compiler.options import CompileOptions
from neuc.errors import Error, Exit
from neuc.passes.analysis.ternary_layers import TERNARY_LAYERS, layers

MACHINE = "neuc.compiled_for"
"""Attribute of a module on the paradigm level or beyond: the target it is for, with its options, if that is no CPU."""
QUANTIZED = "neuc.quantized"
"""Attribute of such a module: what ``--quantize`` was; none if nothing was quantised."""


def record(module: ModuleOp, machine: str, quantize: str) -> None:
    """Have the module say what it was compiled for.

    Args:
        module: on its way to the paradigm level.
        machine: its target with options as the user wrote them; "" for CPUs, whose functions say it themselves.
        quantize: what ``--quantize`` was, or stood for.
    """
    if machine:
        module.attributes[MACHINE] = StringAttr(machine)
    if quantize != "none":
        module.attributes[QUANTIZED] = StringAttr(quantize)


def with_own_target(options: CompileOptions, module: ModuleOp) -> CompileOptions:
    """The options, with the target a partitioned module is already for if no other was asked for."""
    own = _own_target(module)
    machine = _text(module, MACHINE)
    if own and (options.target == CompileOptions.target or (machine and options.target == _name(machine))):
        return dataclasses.replace(options, target=own)
    return options


def refuse_late(options: CompileOptions, module: ModuleOp, name: str) -> None:
    """Refuse options that would have to be known before the level a module is on.

    Args:
        options: what the user asked for.
        module: IR as it was read.
        name: what to call it.

    Raises:
        Error: NEUC-E253.
    """
    level = level_of(module)
    if level == LEVELS[0]:
        return
    own = _own_target(module) or CompileOptions.target
    for option, decided in (*_late_target(options, module, own, level), *_late_quantization(options, module)):
        raise Error(
            "NEUC-E253",
            f"{name} is on level {level}, where {decided}: {option} comes too late",
            hint=f"give {option} when compiling the model, or its IR of --compile-to {LEVELS[0]}; or leave it out here",
            exit_code=Exit.USAGE,
        )


def _late_target(options: CompileOptions, module: ModuleOp, own: str, level: str) -> Iterator[tuple[str, str]]:
    asked, machine = options.target, _text(module, MACHINE)
    if asked in (CompileOptions.target, own) or (machine and asked == _name(own)):
        return
    if machine or _name(asked) not in TARGETS:
        yield f"--target {asked}", f"what runs on which machine is decided, for {own}"
    elif level != "paradigm":
        yield f"--target {asked}", f"the code is decided, for {own}"
    elif _name(asked) != own and TARGETS[_name(asked)].default_quantize == "auto" and _all_float(module):
        yield f"--target {asked}", f"its layers are decided to be float, for {own}"


def _late_quantization(options: CompileOptions, module: ModuleOp) -> Iterator[tuple[str, str]]:
    if decoder_facts(module) is not None:
        return
    done = _text(module, QUANTIZED) or "none"
    decided = f"which layers are quantised is decided (--quantize {done})"
    if options.quantize is not None and not options.quantize == done == "none":
        yield f"--quantize {options.quantize}", decided
    if options.planes is not None:
        yield f"--planes {options.planes}", decided
    if options.max_error is not None:
        yield f"--max-error {options.max_error:g}", decided
    if not options.recognize:
        yield "--no-recognize", decided


def _own_target(module: ModuleOp) -> str:
    """The target a module says it is for; "" if it says nothing."""
    machine = _text(module, MACHINE)
    if machine:
        return machine
    for op in module.ops:
        attribute = op.attributes.get(TARGET_ATTRIBUTE)
        if is_cpu_target(op) and isinstance(attribute, StringAttr):
            return attribute.data
    return ""


def _all_float(module: ModuleOp) -> bool:
    """Whether a module has layers that a target might make ternary, and none that is."""
    kinds = [isinstance(op, TERNARY_LAYERS) for _, op in layers(module)]
    return bool(kinds) and not any(kinds)


def _name(target: str) -> str:
    return target.partition("{")[0].strip()


def _text(module: ModuleOp, attribute: str) -> str:
    found = module.attributes.get(attribute)
    return found.data if isinstance(found, StringAttr) else ""
