"""The inputs of a sampler that nobody gave: `seed` and `beta`, from the facts in its module or artifact. Light."""

from __future__ import annotations

from typing import cast

import numpy as np

from neuc.errors import Error, Exit

Array = np.ndarray

MOST_SWEEPS = 1 << 27
"""Sweeps of one run: β alone is 512 MiB then. Longer ones are several runs, each from the last state before it."""
_LARGEST_BETA = float(np.finfo(np.float32).max)


def default_inputs(
    facts: object, sweeps: int | None = None, beta: tuple[float, float] | None = None, seed: int | None = None
) -> dict[str, Array]:
    """`seed` i64 and `beta` f32 [sweeps], as far as the model has them.

    Args:
        facts: what the modelling API noted under ``energy``.
        sweeps: in place of the model's.
        beta: the first and last inverse temperature, in place of the model's.
        seed: in place of the model's.

    Raises:
        Error: NEUC-E605, no sweeps, a temperature that is not above 0, a seed of more than 64 bits, or an option that
            the model has no use for.
    """
    known = cast("dict[str, object]", facts) if isinstance(facts, dict) else {}
    found: dict[str, Array] = {}
    if "seed" in known:
        found["seed"] = check_seed(known["seed"] if seed is None else seed)
    elif seed is not None:
        raise _without("seed")
    schedule = known.get("beta")
    if isinstance(schedule, dict):
        plan = cast("dict[str, object]", schedule)
        first, last = beta or _noted_ends(plan)
        count = _noted_sweeps(plan) if sweeps is None else sweeps
        if count > MOST_SWEEPS:
            raise Error(
                "NEUC-E605",
                f"{count} sweeps are more than a run makes at once ({MOST_SWEEPS})",
                hint="make several runs, each from the last state of the one before",
                exit_code=Exit.USAGE,
            )
        if count < 1 or not (0 < first <= _LARGEST_BETA and 0 < last <= _LARGEST_BETA):
            raise Error(
                "NEUC-E605",
                f"{count} sweeps from β = {first} to {last}",
                hint="at least one sweep, and finite inverse temperatures above 0",
                exit_code=Exit.USAGE,
            )
        ramp = np.geomspace if plan.get("ramp") == "geometric" else np.linspace
        found["beta"] = ramp(first, last, count).astype(np.float32)
    elif sweeps is not None or beta is not None:
        raise _without("schedule of inverse temperatures")
    return found


def check_seed(value: object) -> Array:
    """A seed as an array.

    Raises:
        Error: NEUC-E605, it is no integer of 64 bits.
    """
    value = value.item() if isinstance(value, np.generic | np.ndarray) else value
    if not isinstance(value, int) or not -(1 << 63) <= value < 1 << 63:
        raise Error(
            "NEUC-E605", f"seed {value} is not an integer of 64 bits", hint="-2^63 to 2^63 - 1", exit_code=Exit.USAGE
        )
    return np.asarray(value, np.int64)


def _noted_ends(plan: dict[str, object]) -> tuple[float, float]:
    first, last = plan.get("first"), plan.get("last")
    if not isinstance(first, (int, float)) or not isinstance(last, (int, float)):
        raise Error("NEUC-E605", "the model's schedule notes no inverse temperatures", hint="give --beta FIRST:LAST")
    return first, last


def _noted_sweeps(plan: dict[str, object]) -> int:
    sweeps = plan.get("sweeps")
    if not isinstance(sweeps, int):
        raise Error("NEUC-E605", "the model's schedule notes no number of sweeps", hint="give --sweeps")
    return sweeps


def _without(what: str) -> Error:
    devices = "; draws of simulated devices are --seeds N, with --eval" if what == "seed" else ""
    hint = f"leave the option out{devices}"
    return Error("NEUC-E605", f"the model has no {what} to replace", hint=hint, exit_code=Exit.USAGE)
