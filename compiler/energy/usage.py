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

Array = np.ndarray
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


class DefaultSweeps(int):
    """The number of sweeps that nobody gave: a β for each sweep says another."""


def check_schedule(
    sweeps: int | None, beta: float | Sequence[float], warmup: int, ramp: str, ladder: Sequence[float]
) -> Array | tuple[float, float]:
    """β as a constant f32 [S] or [S, C], or as the first and last of a ramp.

    Raises:
        Error: NEUC-E605, a plan of sweeps that keeps nothing, has no temperatures, or two that do not agree.
    """
    if ramp not in ("linear", "geometric"):
        raise _schedule(f"there is no ramp {ramp!r}", "linear or geometric")
    betas, rungs = _numbers("beta", beta), _numbers("ladder", ladder)
    each = betas.ndim == 1 and len(betas) != 2
    count = len(betas) if each else sweeps
    if count is not None and warmup >= count > 0:
        raise _schedule(f"{warmup} sweeps of warmup of {count} leave none to keep", "more sweeps, or less warmup")
    if rungs.ndim != 1 or not (np.isfinite(rungs) & (rungs > 0)).all():
        raise _schedule(f"the ladder {list(ladder)} leaves the inverse temperatures", "finite numbers above 0")
    if len(rungs):
        if betas.ndim or betas != 1.0 or ramp != "linear":
            hint = "leave beta and ramp out, or for one schedule of all chains the ladder"
            raise _schedule("beta or ramp is given beside a ladder, which is β of each chain in every sweep", hint)
        if sweeps is None or sweeps < 1:
            raise _schedule(f"sweeps={sweeps} with a ladder, which is a constant", "give how many sweeps to make")
        return np.tile(rungs.astype(np.float32), (sweeps, 1))
    if not each:
        first, last = np.broadcast_to(betas, 2).tolist()
        return first, last
    if not len(betas) or not (np.isfinite(betas) & (betas > 0)).all():
        raise _schedule("beta leaves the inverse temperatures", "finite numbers above 0, one for each sweep")
    if ramp != "linear":
        raise _schedule(f"ramp={ramp!r} with a beta for each sweep", "leave ramp out, or give the pair (first, last)")
    if sweeps is not None and sweeps != count and not isinstance(sweeps, DefaultSweeps):
        hint = "leave sweeps out, give a beta for each, or the pair (first, last) of a ramp"
        raise _schedule(f"sweeps={sweeps}, and beta has {len(betas)} numbers, one for each sweep", hint)
    return betas.astype(np.float32)


def _numbers(name: str, values: object) -> Array:
    hint = "a number, a pair (first, last), or one for each sweep" if name == "beta" else "a number for each chain"
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise _schedule(f"{name}={str(values)[:40]!r} is no inverse temperature", hint) from error
    if isinstance(values, str) or found.ndim > 1 or np.isnan(found).any():
        raise _schedule(f"{name}={str(values)[:40]} is no inverse temperature", hint)
    return found


def refused(op: Operation, error: VerifyException) -> Error:
    """Operands of an operation that do not go together."""
    hint = "see the term's formula in its docstring"
    if isinstance(op, e.SampleOp | e.RelaxOp | e.InitOp | e.StateOp | e.RolloutOp):
        hint = "change what the message names; the docstring of the call says what it takes"
    return usage_error(f"{op.name}: {str(error).splitlines()[0]}", hint)


def _schedule(message: str, hint: str) -> Error:
    return Error("NEUC-E605", message, hint=hint, exit_code=Exit.USAGE)
