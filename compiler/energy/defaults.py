"""The inputs of a sampler that nobody gave: `seed` and `beta`, from the facts in its module or artifact. Light."""

from __future__ import annotations

from typing import cast

import numpy as np

from neuc.errors import Error, Exit

Array = np.ndarray


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
        Error: NEUC-E605, no sweeps or a temperature that is not above 0.
    """
    known = cast("dict[str, object]", facts) if isinstance(facts, dict) else {}
    found: dict[str, Array] = {}
    if "seed" in known:
        found["seed"] = np.asarray(known["seed"] if seed is None else seed, np.int64)
    schedule = known.get("beta")
    if isinstance(schedule, dict):
        plan = cast("dict[str, object]", schedule)
        first, last = beta or (float(str(plan["first"])), float(str(plan["last"])))
        count = int(str(plan["sweeps"])) if sweeps is None else sweeps
        if count < 1 or not (first > 0 and last > 0):
            raise Error(
                "NEUC-E605",
                f"{count} sweeps from β = {first} to {last}",
                hint="at least one sweep, and inverse temperatures above 0",
                exit_code=Exit.USAGE,
            )
        ramp = np.geomspace if plan["ramp"] == "geometric" else np.linspace
        found["beta"] = ramp(first, last, count).astype(np.float32)
    return found
