"""`neuc.thrml` and its modules, by the names THRML's own have: `from neuc.thrml.models import IsingEBM`."""

from __future__ import annotations

import sys
from importlib import import_module

from neuc.compiler.energy.thrml import *  # noqa: F403 - what type checkers see

_HOME = "neuc.compiler.energy.thrml"
_MODULES = (
    "block_management",
    "block_sampling",
    "conditional_samplers",
    "factor",
    "models",
    "models.discrete_ebm",
    "models.ebm",
    "models.ising",
    "observers",
    "pgm",
)

# The same modules under a second name: a second copy would have classes of its own.
for _name in _MODULES:
    sys.modules[f"{__name__}.{_name}"] = import_module(f"{_HOME}.{_name}")
sys.modules[__name__] = import_module(_HOME)
