"""Results that are no numbers, or far off and still growing, though the inputs were: which relaxation diverges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from neuc.dialects import energy as e
from neuc.dialects.dense_attrs import int_attr
from neuc.dialects.interp.core import interpret
from neuc.dialects.onnx import function_names
from neuc.dialects.store import dims_of
from neuc.errors import Error
from neuc.passes.color_blocks import ColorBlocks

if TYPE_CHECKING:
    from neuc.compiler.energy.program import Program

Array = np.ndarray
_DOWNHILL = (e.Method.FLOW, e.Method.BLOCK_MIN)
_HINT = "a smaller dt, a box for the variable, or an energy.quad of it"
_FAR = 1e6
"""Values this many times the largest input, or 1, are looked at again with twice the steps."""
_GROWN = 10.0
"""What at rest or on its way to rest grows by less than 2 with twice the steps; what diverges, by a power."""


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


def growth(program: Program, feeds: Mapping[str, Array], results: Mapping[str, Array]) -> Error | None:
    """The error of a relaxation whose numbers f32 still holds, but which grow without end; None where they do not.

    Values of real variables above 1e6 times the largest input are computed again by the interpreter, with twice the
    steps: ten times as large then, they diverge. Smaller ones pass.
    """
    if not all(_finite(array).all() for array in feeds.values()):
        return None
    sizes = [float(np.abs(a).max(initial=0.0)) for a in feeds.values() if a.dtype.kind == "f"]
    limit = _FAR * max([1.0, *sizes])
    names = function_names(program.main)[1]
    returned = program.main.body.block.last_op
    assert returned is not None
    values = {name for name, value in zip(names, returned.operands, strict=True) if isinstance(value.owner, e.ReadOp)}
    found = [(float(np.abs(results[n]).max(initial=0.0)), n) for n in names if n in values if n in results]
    largest, name = max(found, default=(0.0, ""))
    if not limit < largest < np.inf:
        return None
    module = program.module.clone()
    relaxations = [op for op in module.walk() if isinstance(op, e.RelaxOp) and op.method.data in _DOWNHILL]
    if not relaxations:
        return None
    array = results[name]
    row = int(np.abs(array).reshape(len(array), -1).max(1).argmax())
    steps = relaxations[-1].steps.value.data
    for op in relaxations:
        op.properties["steps"] = int_attr(2 * op.steps.value.data)
    ColorBlocks().apply(program.context, module)
    again = _one_chain(program, feeds, row) or feeds
    try:
        more = interpret(module, [again[n] for n in program.inputs], program.context.weights)[names.index(name)]
        reached = float(np.abs(more).max())
    except Error as error:
        if error.code != "NEUC-E621":
            raise
        reached = np.inf
    if reached < _GROWN * largest:
        return None
    then = f"{reached:.2g}" if np.isfinite(reached) else "more than f32 holds"
    what = f"result {name} is {largest:.2g} in row {row} after {steps} steps and {then} after {2 * steps}: it diverges"
    return Error("NEUC-E621", what, hint=f"smaller couplings, {_HINT}")


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
