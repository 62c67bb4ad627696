"""The names of the learning rules, and the bounds of their options."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from neuc.compiler.energy.learning_local import DendriticLearning, SelfContrastive
from neuc.compiler.energy.learning_rules import (
    Backpropagation,
    EquilibriumPropagation,
    ForwardForward,
    PredictiveCoding,
    Rule,
)
from neuc.compiler.energy.learning_variants import (
    ContrastiveDivergence,
    ContrastiveHebbian,
    HolomorphicEquilibriumPropagation,
    IncrementalPredictiveCoding,
    ScaledPredictiveCoding,
)
from neuc.errors import Error, Exit

METHODS = {
    "ep": EquilibriumPropagation,
    "chl": ContrastiveHebbian,
    "hep": HolomorphicEquilibriumPropagation,
    "cd": ContrastiveDivergence,
    "pc": PredictiveCoding,
    "ipc": IncrementalPredictiveCoding,
    "mupc": ScaledPredictiveCoding,
    "ff": ForwardForward,
    "scff": SelfContrastive,
    "dendritic": DendriticLearning,
    "bp": Backpropagation,
}
"""Names of rules."""
CONVOLVE = (
    EquilibriumPropagation,
    HolomorphicEquilibriumPropagation,
    PredictiveCoding,
    DendriticLearning,
    Backpropagation,
)
"""Rules whose layers may be convolutions."""


def make_rule(method: str | Rule, options: dict[str, float]) -> Rule:
    """The rule called `method`, with options in place of its defaults.

    Raises:
        Error: NEUC-E619, no such method or option, or an option that makes no sense.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise _wrong(f"there is no learning method {method!r}", f"methods: {', '.join(METHODS)}")
        known = sorted(field.name for field in fields(METHODS[method]))
        unknown = [name for name in options if name not in known]
        if unknown:
            raise _wrong(f"method {method} has no option {unknown[0]!r}", f"options: {', '.join(known)}")
        rule = METHODS[method](**options)  # type: ignore[arg-type]
    elif options:
        raise _wrong(f"option {next(iter(options))!r} beside a rule that is made already", "give it to the rule")
    else:
        rule = method
    for named in METHODS.values():
        if isinstance(rule, named):
            for field in fields(named):
                _check_option(field.name, getattr(rule, field.name))
            break
    return rule


def _check_option(name: str, value: float) -> None:
    """Bounds of the options of the rules that have names."""
    if isinstance(value, bool):
        return
    if not (np.isfinite(value) and (value > 0 or name == "theta")):
        raise _wrong(f"{name} = {value}", "rates, strengths and numbers of steps are above 0")
    if (name.endswith("steps") or name in ("nudges", "sweeps")) and value != int(value):
        raise _wrong(f"{name} = {value}", "numbers of steps are whole")
    if name == "beta" and value >= 1.0:
        raise _wrong(f"beta = {value}", "at −β with β ≥ 1 the energy of an output has no minimum; 0.25 is usual")
    if name == "loss" and value >= 1.0:
        raise _wrong(f"loss = {value}", "a share below 1")


def _wrong(what: str, hint: str) -> Error:
    return Error("NEUC-E619", what, hint=hint, exit_code=Exit.USAGE)
