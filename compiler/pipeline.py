"""Which passes take a module from level to level, and what happens between them.

Running passes is `driver.py`'s business, choosing ternary planes `quantize.py`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass
from xdsl.utils.arg_spec import parse_spec
from xdsl.utils.exceptions import ArgSpecParseError

from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.lowering import unsupported_reason
from neuc.backends.cpu.target import TARGET_ATTRIBUTE, CpuTarget, is_cpu_target, isa_from_text
from neuc.compiler import universe
from neuc.compiler.options import CompileOptions
from neuc.errors import Error, Exit
from neuc.passes.lower_onnx_to_dense import LowerOnnxToDense
from neuc.passes.partition import Partition

_TARGET_OPTIONS = ("group", "bm", "bk")
_ON_GRAPH_LEVEL = ("fold-batch-norm",)
# Norms are recognised, and biases join their producers, before maps merge; activations also after, when merging has
# made one of a chain. What the model quantised itself is recognised before anything changes its order of rounding.
_RECOGNITION = "recognize-ternary"
_AFTER_LOWERING = ("fuse-layer-norm", "fold-into-matmul", "fuse-activation", "fuse-maps", "fuse-activation")


@dataclass(frozen=True)
class ChosenTarget:
    """A target with what was asked of it.

    Attributes:
        target: the target.
        isa: the instruction set.
        tiling: options of its pipeline: g, BM and BK of ternary kernels.
    """

    target: CpuTarget
    isa: Isa
    tiling: Mapping[str, int]

    def passes(self) -> list[ModulePass]:
        """From the paradigm level to the machine level."""
        return self.target.pipeline(self.isa, **self.tiling)


def choose_target(options: CompileOptions) -> ChosenTarget:
    """The target ``options.target`` names.

    Raises:
        Error: NEUC-E001 for an unknown target, NEUC-E002 for options it does not take.
    """
    try:
        spec = parse_spec(options.target)
    except ArgSpecParseError as error:
        raise _bad_option(options.target, "it cannot be read") from error
    known = universe.targets()
    if spec.name not in known:
        raise universe.unknown_name("target", spec.name, known)
    tiling: dict[str, int] = {}
    for name, values in spec.parameters.items():
        if name not in _TARGET_OPTIONS or len(values) != 1 or not isinstance(values[0], int):
            raise _bad_option(options.target, f"option {name} is unknown or has no whole number")
        if values[0] < 0:
            raise _bad_option(options.target, f"{name}={values[0]} is negative; 0 leaves the choice to neuc")
        tiling[name] = int(values[0])
    target = known[spec.name]
    isa = target.isa() if options.isa == "host" else isa_from_text(options.isa)
    return ChosenTarget(target, isa, tiling)


def with_own_target(options: CompileOptions, module: ModuleOp) -> CompileOptions:
    """The options, with the target a partitioned module is already for if none was asked for."""
    if options.target != CompileOptions.target:
        return options
    for op in module.ops:
        attribute = op.attributes.get(TARGET_ATTRIBUTE)
        if is_cpu_target(op) and isinstance(attribute, StringAttr):
            return dataclasses.replace(options, target=attribute.data)
    return options


def graph_passes() -> list[ModulePass]:
    """Within the graph level."""
    return [universe.PASSES[name]()() for name in _ON_GRAPH_LEVEL]


def float_passes(options: CompileOptions) -> list[ModulePass]:
    """From the graph level to `dense` operations; what has no native form stays `onnx`, with the reason.

    Layers that the model quantised itself become `ternary` on the way, unless the options say no.
    """
    names = ((_RECOGNITION,) if options.recognize else ()) + _AFTER_LOWERING
    return [LowerOnnxToDense(supports=unsupported_reason), *(universe.PASSES[name]()() for name in names)]


def partition_pass(options: CompileOptions, chosen: ChosenTarget) -> Partition:
    """Cuts @main into segments; the module is then on the paradigm level."""
    return Partition(target=chosen.target.name, fallback=options.fallback)


def _bad_option(text: str, why: str) -> Error:
    return Error(
        "NEUC-E002",
        f"target {text!r}: {why}",
        hint=f"write 'cpu-tl2{{bm=64 bk=32}}'; options are {', '.join(_TARGET_OPTIONS)}",
        exit_code=Exit.USAGE,
    )
