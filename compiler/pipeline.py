"""Which passes take a module from level to level, and what happens between them.

Running passes is `driver.py`'s business, choosing ternary planes `quantize.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xdsl.passes import ModulePass

from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.lowering import unsupported_reason
from neuc.backends.cpu.target import TARGETS, CpuTarget, isa_from_text
from neuc.backends.paradigm_target import CALIBRATED, SCALES_OPTION, ParadigmTarget, paradigm_targets
from neuc.compiler import universe
from neuc.compiler.options import CompileOptions
from neuc.errors import Error, Exit
from neuc.passes.lower_onnx_to_dense import LowerOnnxToDense
from neuc.passes.partition import Partition
from neuc.passes.recognize_ternary import RecognizeTernary

_TARGET = re.compile(r"(?P<name>[\w.-]+)(\{(?P<options>[^{}]*)\})?")
_TARGET_OPTIONS = ("group", "bm", "bk")
_ON_GRAPH_LEVEL = ("fold-batch-norm",)
# Norms are recognised, and biases join their producers, before maps merge; activations also after, when merging has
# made one of a chain. What the model quantised itself is recognised before anything changes its order of rounding.
_AFTER_LOWERING = ("fuse-layer-norm", "fold-into-matmul", "fuse-activation", "fuse-maps", "fuse-activation")


@dataclass(frozen=True)
class ChosenTarget:
    """A target with what was asked of it.

    Attributes:
        target: the CPU target, of everything or of the rest.
        isa: the instruction set.
        tiling: options of its pipeline: g, BM and BK of ternary kernels.
        machine: the target that was named, if it is no CPU.
        options: what was asked of that.
    """

    target: CpuTarget
    isa: Isa
    tiling: Mapping[str, int]
    machine: ParadigmTarget | None = None
    options: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.target.name if self.machine is None else self.machine.name

    @property
    def default_quantize(self) -> str:
        """What ``--quantize`` means when it is not given."""
        return (self.machine or self.target).default_quantize

    def fixes_scales(self, options: CompileOptions) -> bool:
        """Whether calibration data fix the scales of activations: where the machine gains by it, and there are data.

        Raises:
            Error: NEUC-E002, it is asked for and there are no data.
        """
        if self.machine is None or SCALES_OPTION not in self.machine.options:
            return False
        asked = self.options.get(SCALES_OPTION, CALIBRATED if options.calib is not None else "")
        if asked == CALIBRATED and options.calib is None:
            hint = "give an .npz with some of the model's inputs, by name, rows along the first axis"
            what = f"target {options.target!r}: {SCALES_OPTION}={asked} needs --calib"
            raise Error("NEUC-E002", what, hint=hint, exit_code=Exit.USAGE)
        return asked == CALIBRATED

    def placing(self) -> list[ModulePass]:
        """Within the paradigm level, before the module is cut into segments."""
        return [] if self.machine is None else self.machine.placing(self.options)

    def rounding(self) -> list[ModulePass]:
        """Those of `placing` that round floats."""
        return [] if self.machine is None else self.machine.rounds(self.options)

    def finishing(self) -> list[ModulePass]:
        """What the machine does at the machine level before the CPU's turn."""
        return [] if self.machine is None else self.machine.finishing(self.options)

    def passes(self) -> list[ModulePass]:
        """From the paradigm level to the machine level, for the CPU's part."""
        return self.target.pipeline(self.isa, **self.tiling)


def choose_target(options: CompileOptions) -> ChosenTarget:
    """The target ``options.target`` names.

    Raises:
        Error: NEUC-E001 for an unknown target, NEUC-E002 for options it does not take.
    """
    name, given = _parsed(options.target)
    target = universe.target(name)
    if isinstance(target, ParadigmTarget):
        for option in given:
            if option not in target.options:
                raise _bad_option(options.target, f"option {option} is unknown", tuple(target.options))
        host = TARGETS[target.host]
        chosen = ChosenTarget(host, _isa(host, options), {}, target, given)
        chosen.placing()  # so that an option that makes no sense is told before the model is read
        return chosen
    tiling: dict[str, int] = {}
    for option, value in given.items():
        if option not in _TARGET_OPTIONS:
            raise _bad_option(options.target, f"option {option} is unknown", _TARGET_OPTIONS)
        if not value.removeprefix("-").isdecimal():
            raise _bad_option(options.target, f"{option}={value} is no whole number", _TARGET_OPTIONS)
        if int(value) < 0:
            why = f"{option}={value} is negative; 0 leaves the choice to neuc"
            raise _bad_option(options.target, why, _TARGET_OPTIONS)
        tiling[option] = int(value)
    return ChosenTarget(target, _isa(target, options), tiling)


def _isa(target: CpuTarget, options: CompileOptions) -> Isa:
    return target.isa() if options.isa == "host" else isa_from_text(options.isa)


def _parsed(text: str) -> tuple[str, dict[str, str]]:
    """``name{a=1,b=2}`` as a name and options; blanks part options, too."""
    if not text.strip():
        hint = f"known: {', '.join(sorted((*TARGETS, *paradigm_targets())))}"
        raise Error("NEUC-E001", "target '': the name is empty", hint=hint, exit_code=Exit.USAGE)
    found = _TARGET.fullmatch(text)
    parts = [] if found is None else re.split(r"[,\s]+", (found["options"] or "").strip(", "))
    pairs = [part.partition("=") for part in parts if part]
    if found is None or not all(key and equals and value for key, equals, value in pairs):
        empty = next((key for key, _, value in pairs if key and not value), None)
        why = "it cannot be read" if empty is None else f"option {empty} has no value"
        if text.count("{") > text.count("}"):
            why = "the closing brace is missing"
        raise _bad_option(text, why, _options_of(text))
    given: dict[str, str] = {}
    for key, _, value in pairs:
        if key in given:
            raise _bad_option(text, f"option {key} stands there twice", _options_of(text))
        given[key] = value
    return found["name"], given


def graph_passes() -> list[ModulePass]:
    """Within the graph level."""
    return [universe.PASSES[name]()() for name in _ON_GRAPH_LEVEL]


def layer_passes(chosen: ChosenTarget) -> list[ModulePass]:
    """From the graph level to layers as `float_passes` finds them, with their biases and nothing else that follows."""
    whole = CompileOptions()
    return [step for step in float_passes(whole, chosen) if step.name not in ("fuse-activation", "fuse-maps")]


def float_passes(options: CompileOptions, chosen: ChosenTarget | None = None) -> list[ModulePass]:
    """From the graph level to `dense` operations; what has no native form stays `onnx`, with the reason.

    Layers that the model quantised itself become `ternary` on the way, unless the options say no: those of few levels,
    and int8 ones where the target computes with them.
    """
    int8 = chosen is not None and chosen.machine is not None and chosen.machine.int8_layers
    groups = chosen is not None and chosen.options.get("grouped", "array") == "array"
    known = RecognizeTernary(min_k=1, most_level=127, shifted_groups=groups) if int8 else RecognizeTernary()
    recognition = [known] if options.recognize else []
    rest = [universe.PASSES[name]()() for name in _AFTER_LOWERING]
    return [LowerOnnxToDense(supports=unsupported_reason), *recognition, *rest]


def partition_pass(options: CompileOptions, chosen: ChosenTarget) -> Partition:
    """Cuts @main into segments; the module is then on the paradigm level."""
    return Partition(target=chosen.target.name, fallback=options.fallback)


def _options_of(text: str) -> Sequence[str]:
    """What the target at the beginning of a text that cannot be read takes; a CPU's options if there is none."""
    machine = paradigm_targets().get(text.partition("{")[0].strip())
    return _TARGET_OPTIONS if machine is None else tuple(machine.options)


def _bad_option(text: str, why: str, known: Sequence[str]) -> Error:
    options = f"options are {', '.join(known)}" if known else "it has no options"
    name = text.partition("{")[0].strip()
    form = f"{name}{{{known[0]}=…}}" if name in paradigm_targets() and known else "cpu-tl2{bm=64 bk=32}"
    return Error(
        "NEUC-E002",
        f"target {text!r}: {why}",
        hint=f"write '{form}'; {options}",
        exit_code=Exit.USAGE,
    )
