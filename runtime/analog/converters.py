"""Output converters that were built: how far the steps of a successive-approximation or ramp converter are off.

A converter of `levels` steps answers code u = 0 … levels where its input has passed threshold u. An ideal one has its
thresholds evenly apart (``uniform``); the others err by E(u) steps, with both ends of the range calibrated:

- ``sar``: a code is the sum of its binary-weighted capacitors, bit i being 2^i units that are off by m·N(0, 1) each, so
  E jumps where large capacitors change (at half of the range most).
- ``ramp``: a code is the number of steps of a ramp that all columns share; steps are off by m·N(0, 1) each, so E is a
  random walk, smooth, largest in the middle.

Charge-scaling and single-slope converters: R. J. Baker, CMOS: Circuit Design, Layout, and Simulation, data converters.

m is the mismatch of unit elements. What noise adds is no business of this file.
"""

from __future__ import annotations

import numpy as np

from neuc.errors import Error, Exit
from neuc.runtime.analog.devices import Floats


def step_errors(kind: str, levels: int, mismatch: float, rng: np.random.Generator) -> Floats:
    """How many steps each code of one converter is off, [levels + 1]; 0 at both ends.

    Args:
        kind: uniform, sar or ramp.
        levels: steps over the range, 2^bits - 2.
        mismatch: standard deviation of a unit element, relative.
        rng: what draws the converter.

    Raises:
        Error: NEUC-E652, there is no such kind, it has no levels, or the mismatch is negative.
    """
    if kind not in ("uniform", "sar", "ramp") or levels < 2 or not 0 <= mismatch < 1:
        what = f"a {kind} converter of {levels} levels whose elements are {mismatch:g} off"
        hint = "kinds are uniform, sar and ramp; a mismatch is 0 or more, and below 1"
        raise Error("NEUC-E652", f"{what} makes no sense", hint=hint, exit_code=Exit.USAGE)
    codes = np.arange(levels + 1)
    if kind == "uniform":
        return np.zeros(levels + 1)
    if kind == "ramp":
        steps = 1 + mismatch * rng.standard_normal(levels)
        held = np.concatenate([[0.0], np.cumsum(steps)])
    else:
        bits = np.arange(int(levels).bit_length())
        capacitors = 2.0**bits + mismatch * np.sqrt(2.0**bits) * rng.standard_normal(len(bits))
        held = ((codes[:, None] >> bits) & 1) @ capacitors
    return held - held[0] - codes * ((held[-1] - held[0]) / levels)
