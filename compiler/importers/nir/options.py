"""How NIR graphs are told from other models, and the options of reading one. Light: imports no compiler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from neuc.errors import Error, Exit

SUFFIXES = (".nir", ".h5", ".hdf5")
DEFAULT_DT = 1e-4
"""Seconds in a step where nothing says otherwise: what the paper on NIR and most exporters take."""
RESETS = ("file", "subtract", "snntorch")


@dataclass(frozen=True)
class NirOptions:
    """How a NIR graph is read.

    Attributes:
        dt: seconds in a step; None takes what the file's metadata say, or `DEFAULT_DT`.
        reset: ``file``: as the file says. Resets to 0 without metadata are soft ones for ``subtract``, and for
            ``snntorch``, which takes the threshold off in the next step, after the decay.
        keep_state: whether states are arguments and results of the program.
        shapes: [T, B, ...] of some inputs: ints, or names of symbols.
    """

    dt: float | None = None
    reset: str = "file"
    keep_state: bool = False
    shapes: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict[str, "tuple[int | str, ...]"])

    def __post_init__(self) -> None:
        if self.dt is not None and not (math.isfinite(self.dt) and self.dt > 0):
            hint = "a step takes a positive number of seconds, 1e-4 for instance"
            raise Error("NEUC-E506", f"--dt {self.dt} makes no sense", hint=hint, exit_code=Exit.USAGE)
        if self.reset not in RESETS:
            hint = f"choose {' or '.join(RESETS)}"
            raise Error("NEUC-E506", f"--reset {self.reset} makes no sense", hint=hint, exit_code=Exit.USAGE)


def is_nir(model: object) -> bool:
    """Whether something is a NIR graph: a path to one, or a graph of the package `nir`."""
    if isinstance(model, Path):
        return model.suffix.lower() in SUFFIXES
    return type(model).__name__ == "NIRGraph" and hasattr(model, "to_dict")
