"""Results that are no numbers, though the inputs were: which relaxation diverges, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from neuc.dialects.store import dims_of
from neuc.errors import Error

if TYPE_CHECKING:
    from neuc.compiler.energy.program import Program

Array = np.ndarray
_HINT = "a smaller dt, a box for the variable, or an energy.quad of it"


def first_broken(feeds: Mapping[str, Array], results: Mapping[str, Array]) -> tuple[str, int] | None:
    """The first result that holds NaN or infinity, and in which row; None if an input does, too."""
    if not all(_finite(array).all() for array in feeds.values()):
        return None
    for name, array in results.items():
        good = _finite(array).reshape(len(array) if array.ndim else 1, -1).all(1)
        if not good.all():
            return name, int(np.flatnonzero(~good)[0])
    return None


def divergence(program: Program, feeds: Mapping[str, Array], name: str, row: int) -> Error:
    """The error of a result that diverged; the interpreter finds the variable and the step where chains are inputs."""
    rows = _one_chain(program, feeds, row)
    if rows is not None:
        try:
            program.interpret(**rows)
        except Error as error:
            if error.code == "NEUC-E621":
                return error
    what = f"result {name} holds NaN or infinity in row {row}, and no input does"
    return Error("NEUC-E621", what, hint=_HINT)


def _finite(array: Array) -> Array:
    return np.isfinite(array) if array.dtype.kind == "f" else np.ones(array.shape, bool)


def _one_chain(program: Program, feeds: Mapping[str, Array], row: int) -> dict[str, Array] | None:
    """The inputs of one chain; None where the number of chains is fixed."""
    dims = {name: dims_of(a) for name, a in zip(program.inputs, program.main.body.block.args)}
    symbols = {str(d[0]) for name, d in dims.items() if d and not d[0].is_static and name != "beta"}
    if len(symbols) != 1:
        return None
    moving = {name for name, d in dims.items() if d and str(d[0]) in symbols}
    if any(row >= len(feeds[name]) for name in moving):
        return None
    return {name: feeds[name][row : row + 1] if name in moving else feeds[name] for name in feeds}
