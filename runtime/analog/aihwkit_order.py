"""aihwkit's way through time, for comparison only: conductances are derived anew from the programmed weights.

What differs from `tiles.py`, where G+ and G- of each pair are carried through time: after programming the two devices
of a pair collapse into one weight, the largest weight of the tile sets the scale anew, and drift acts on conductances
that were never programmed. Read noise and drift exponents are those of the device model.
"""

from __future__ import annotations

import numpy as np

from neuc.runtime.analog.devices import Devices, Floats
from neuc.runtime.analog.devices_pcm import PcmDevice
from neuc.runtime.analog.tiles import check_time


def programmed_weights(weights: Floats, device: PcmDevice, rng: np.random.Generator) -> tuple[Floats, list[Floats]]:
    """Weights after programming, in the units of `weights`, and the drift exponents of the two halves of each pair."""
    scale = _scale(weights, device)
    plus, minus = (device.program(half, rng) for half in _pair(weights, scale, device))
    return (plus.programmed - minus.programmed) / scale, [plus.traits["nu"], minus.traits["nu"]]


def drifted_weights(
    programmed: Floats, exponents: list[Floats], device: PcmDevice, time: float, rng: np.random.Generator
) -> Floats:
    """Weights `time` seconds later, from programmed weights and drift exponents.

    Raises:
        Error: NEUC-E644, `time` is negative or no number.
    """
    check_time(time)
    scale = _scale(programmed, device)
    plus, minus = (
        device.read(Devices(half, half, {"nu": nu}), time, rng)
        for half, nu in zip(_pair(programmed, scale, device), exponents, strict=True)
    )
    return (plus - minus) / scale


def _scale(weights: Floats, device: PcmDevice) -> float:
    """µS for a weight of 1: the tile's largest weight has the largest conductance."""
    return (device.g_max - device.g_min) / max(float(np.max(np.abs(weights), initial=0.0)), 1e-12)


def _pair(weights: Floats, scale: float, device: PcmDevice) -> list[Floats]:
    span = device.g_max - device.g_min
    return [device.g_min + np.clip(part * scale, 0.0, span) for part in (weights, -weights)]
