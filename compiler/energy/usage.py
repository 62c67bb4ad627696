"""Arguments that make no sense, as errors that name them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import TypeVar

import numpy as np
from xdsl.ir import Operation
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import energy as e
from neuc.errors import Error, Exit

Choice = TypeVar("Choice", bound=Enum)
_FREE = (-math.inf, math.inf)


def usage_error(message: str, hint: str) -> Error:
    """A model or program is used in a way that cannot work."""
    return Error("NEUC-E614", message, hint=hint, exit_code=Exit.USAGE)


def variable_type(space: e.Space, shape: Sequence[int], levels: int = 0, box: tuple[float, float] = _FREE) -> e.VarType:
    """The type of a variable.

    Raises:
        Error: NEUC-E614, sizes, levels or a box that make none.
    """
    whole = all(isinstance(size, int | np.integer) and not isinstance(size, bool) for size in (*shape, levels))
    if not whole:
        what = f"{space.value} variable of shape {list(shape)}" + (f" and {levels} categories" if levels else "")
        raise usage_error(what, "whole sizes above 0")
    try:
        return e.VarType.of(space, shape, levels, box)
    except (VerifyException, TypeError, ValueError) as error:
        what = f"{space.value} variable of shape {list(shape)}: {str(error).splitlines()[0]}"
        raise usage_error(what, "sizes above 0, at least two levels, a box with its lower bound first") from error


def chosen(kind: type[Choice], name: str, what: str) -> Choice:
    """The member of an enumeration that has this value.

    Raises:
        Error: NEUC-E614, there is none.
    """
    names = [str(member.value) for member in kind]
    if name not in names:
        raise usage_error(f"there is no {what} {name!r}", f"one of {', '.join(names)}")
    return kind(name)


def check_schedule(sweeps: int | None, warmup: int, ramp: str, ladder: Sequence[float]) -> None:
    """Refuse a plan of sweeps that keeps nothing or has no temperatures.

    Raises:
        Error: NEUC-E605.
    """
    if ramp not in ("linear", "geometric"):
        raise _schedule(f"there is no ramp {ramp!r}", "linear or geometric")
    if sweeps is not None and warmup >= sweeps > 0:
        raise _schedule(f"{warmup} sweeps of warmup of {sweeps} leave none to keep", "more sweeps, or less warmup")
    betas = np.asarray(ladder, np.float64)
    if not (np.isfinite(betas) & (betas > 0)).all():
        raise _schedule(f"the ladder {list(ladder)} leaves the inverse temperatures", "finite numbers above 0")


def refused(op: Operation, error: VerifyException) -> Error:
    """Operands of an operation that do not go together."""
    hint = "see the term's formula in its docstring"
    if isinstance(op, e.SampleOp | e.RelaxOp | e.InitOp | e.StateOp):
        hint = "change what the message names; the docstring of the call says what it takes"
    return usage_error(f"{op.name}: {str(error).splitlines()[0]}", hint)


def _schedule(message: str, hint: str) -> Error:
    return Error("NEUC-E605", message, hint=hint, exit_code=Exit.USAGE)
