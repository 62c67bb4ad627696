"""Models of energies given to targets or options of networks: what to use instead.

The dialect is loaded for modules that have operations of it, and for no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from neuc.compiler.options import CompileOptions
from neuc.compiler.pipeline import ChosenTarget
from neuc.errors import Error, Exit

if TYPE_CHECKING:
    from neuc.dialects.energy import SampleOp

_SAMPLERS = ("cpu-relax", "tsu-sim")
"""Targets that find the blocks to sweep."""


def of_energies(module: ModuleOp) -> Operation | None:
    """The first operation of a model of energies; None in a network."""
    return next((op for op in module.walk() if op.name.startswith("energy.")), None)


def refuse_quantization(module: ModuleOp, options: CompileOptions, chosen: ChosenTarget, name: str) -> None:
    """Refuse what quantises the layers of networks: energies have none.

    Raises:
        Error: NEUC-E002, it was asked for; NEUC-E689, the target does so unasked.
    """
    first = of_energies(module)
    if first is None:
        return
    if options.quantize not in (None, "none") or options.planes is not None or options.max_error is not None:
        raise Error(
            "NEUC-E002",
            f"{name} is a model of energies ({first.name}); --quantize, --planes and --max-error are for networks",
            hint="leave them out",
            exit_code=Exit.USAGE,
        )
    if options.quantize is None and chosen.default_quantize != "none":
        what = f"target {chosen.name} runs networks of layers; {name} is a model of energies ({first.name})"
        raise Error("NEUC-E689", what, hint=_instead(module))


def refuse_sampling(module: ModuleOp, chosen: ChosenTarget, name: str) -> None:
    """Refuse samplers on targets that do not find blocks of sites, unless the model has some.

    Raises:
        Error: NEUC-E689.
    """
    if chosen.name in _SAMPLERS or of_energies(module) is None:
        return
    from neuc.dialects.energy import ColorOp

    if any(not isinstance(op.model.owner, ColorOp) for op in _sweeps(module)):
        what = f"{name} samples a model of energies, and target {chosen.name} does not"
        raise Error("NEUC-E689", what, hint=_instead(module))


def _sweeps(module: ModuleOp) -> list[SampleOp]:
    """Samplers over spins and categories."""
    from neuc.dialects.energy import SampleOp
    from neuc.dialects.energy_types import Rule

    real = (Rule.LANGEVIN, Rule.OU_EXACT)
    return [op for op in module.walk() if isinstance(op, SampleOp) and op.rule.data not in real]


def _instead(module: ModuleOp) -> str:
    """Targets for the kinds of variables there are."""
    from neuc.dialects.energy import VarOp
    from neuc.dialects.energy_types import Space

    spaces = {op.result.type.space for op in module.walk() if isinstance(op, VarOp)}
    if _sweeps(module):
        return "use --target cpu-relax" + (" or tsu-sim" if spaces == {Space.SPIN} else "")
    relaxed = any(op.name == "energy.relax" for op in module.walk())
    return "use --target cpu-relax" + (", or xbar-* for crossbars" if relaxed and spaces == {Space.REAL} else "")
