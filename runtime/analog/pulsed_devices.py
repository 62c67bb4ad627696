"""Devices that learn by pulses: each pulse moves a weight by a step that depends on where it is and in which direction.

A weight is in units of the array's own range. Up and down steps of device (i, j) at weight w are, with a normal ξ drawn
anew for each pulse,

    up   = Δ⁺ (1 - γ⁺ w / w_max) + Δ⁺ σ ξ          down = Δ⁻ (1 - γ⁻ w / w_min) + Δ⁻ σ ξ

or, with multiplicative noise, the step times 1 + σ ξ; γ = 0 is a constant step, with γ = 1 steps vanish at the bounds
(soft bounds). Sources: T. Gokmen, Y. Vlasov, Front. Neurosci. 10:333, 2016; the linear-step and soft-bounds devices of
aihwkit (M. Rasch et al., AICAS 2021, arXiv:2104.02184). When pulses are sent is the business of `pulsed_update.py`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error, Exit
from neuc.runtime.analog.devices import Floats

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class PulsedDevice:
    """A kind of device; ``dtod`` are relative spreads from device to device.

    Attributes:
        source: where its figures are from.
        step: mean step of a pulse at weight 0.
        step_dtod: spread of the steps.
        step_noise: σ, noise of each pulse relative to the device's step at 0.
        up_down: how much smaller down steps (if positive) or up steps (if negative) are, relative to `step`.
        up_down_dtod: spread of that.
        w_min: lowest weight, below 0.
        w_max: highest weight, above 0.
        bounds_dtod: spread of both.
        slope_up: γ⁺.
        slope_down: γ⁻.
        slope_dtod: spread of both, absolute.
        multiplicative: noise is relative to the step at the present weight instead of that at 0.
    """

    source: str = "given by the user"
    step: float = 0.001
    step_dtod: float = 0.3
    step_noise: float = 0.3
    up_down: float = 0.0
    up_down_dtod: float = 0.01
    w_min: float = -0.6
    w_max: float = 0.6
    bounds_dtod: float = 0.3
    slope_up: float = 0.0
    slope_down: float = 0.0
    slope_dtod: float = 0.0
    multiplicative: bool = False

    def __post_init__(self) -> None:
        spreads = ("step_dtod", "step_noise", "up_down_dtod", "bounds_dtod", "slope_up", "slope_down", "slope_dtod")
        finite = all(math.isfinite(v) for v in vars(self).values() if isinstance(v, float))
        negative = [name for name in spreads if getattr(self, name) < 0]
        if not finite or negative or self.step <= 0 or not self.w_min < 0 < self.w_max or abs(self.up_down) >= 1:
            what = f"{negative[0]} is negative" if negative else "its numbers do not fit together"
            hint = "step > 0, w_min < 0 < w_max, |up_down| < 1, spreads, noise and slopes 0 or more"
            raise Error("NEUC-E662", f"a device that learns by pulses: {what}", hint=hint, exit_code=Exit.USAGE)


PULSED_DEVICES: Mapping[str, PulsedDevice] = {
    "constant": PulsedDevice("Gokmen and Vlasov 2016, table 1: 1200 states, no slope"),
    "soft-bounds": PulsedDevice("aihwkit's default soft-bounds device", slope_up=1, slope_down=1, multiplicative=True),
    "ecram": PulsedDevice(
        "Tang et al., IEDM 2018 (Li-ion ECRAM), as aihwkit fits it",
        step=0.002,
        step_dtod=0.1,
        w_min=-0.8276,
        w_max=1.1724,
        bounds_dtod=0.05,
        slope_up=0.1153,
        slope_down=0.5085,
        slope_dtod=0.05,
        multiplicative=True,
    ),
    "capacitor": PulsedDevice(
        "Li et al., VLSI 2018 (CMOS capacitor), as aihwkit fits it, without its leakage",
        step=0.005,
        step_dtod=0.1,
        up_down_dtod=0.06,
        w_min=-1.0,
        w_max=1.0,
        bounds_dtod=0.07,
        slope_up=0.05,
        slope_down=0.05,
        slope_dtod=0.01,
    ),
}
"""Kinds of devices by name."""


def pulsed_device(kind: str | PulsedDevice, **changes: float) -> PulsedDevice:
    """The device `kind`, with some of its numbers changed.

    Raises:
        Error: NEUC-E662, there is no such device, it has no such number, or the numbers do not fit together.
    """
    if isinstance(kind, str):
        found = PULSED_DEVICES.get(kind)
        if found is None:
            near = difflib.get_close_matches(kind, PULSED_DEVICES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(PULSED_DEVICES)}"
            raise Error("NEUC-E662", f"unknown pulsed device {kind[:80]!r}", hint=hint, exit_code=Exit.USAGE)
        kind = found
    known = [field.name for field in dataclasses.fields(kind)]
    for name in changes:
        if name not in known:
            hint = f"it has {', '.join(known[1:])}"
            raise Error("NEUC-E662", f"a pulsed device has no {name!r}", hint=hint, exit_code=Exit.USAGE)
    return dataclasses.replace(kind, **changes)


class PulsedArray:
    """An array of such devices, [outputs, inputs].

    Attributes:
        device: their kind.
        weights: what they hold, f64.
        step_up, step_down: Δ⁺ and Δ⁻ of each device.
        w_max, w_min: bounds of each device.
        fall_up, fall_down: γ⁺ / w_max and γ⁻ / w_min of each device.
    """

    def __init__(self, device: PulsedDevice, shape: tuple[int, int], rng: np.random.Generator) -> None:
        self.device = device
        self._rng = rng

        def spread(std: float) -> Floats:
            return std * rng.standard_normal(shape)

        gain, imbalance = 1 + spread(device.step_dtod), spread(device.up_down_dtod)
        self.step_up = np.abs(gain + min(device.up_down, 0.0) + imbalance) * device.step
        self.step_down = np.abs(gain - max(device.up_down, 0.0) - imbalance) * device.step
        self.w_max = np.abs(device.w_max * (1 + spread(device.bounds_dtod)))
        self.w_min = -np.abs(device.w_min * (1 + spread(device.bounds_dtod)))
        self.fall_up = np.abs(device.slope_up + spread(device.slope_dtod)) / self.w_max
        self.fall_down = np.abs(device.slope_down + spread(device.slope_dtod)) / self.w_min
        self.weights = np.zeros(shape)

    def write(self, weights: Floats) -> None:
        """Set the devices to `weights`, as far as their bounds go."""
        self.weights = np.clip(weights, self.w_min, self.w_max)

    def steps(self, weights: Floats) -> tuple[Floats, Floats]:
        """Mean sizes of an up and of a down pulse at `weights`."""
        return self.step_up * (1 - self.fall_up * weights), self.step_down * (1 - self.fall_down * weights)

    def symmetric_point(self) -> Floats:
        """The weights at which up and down steps are as large as each other; 0 where there is no such weight."""
        slope = self.step_up * self.fall_up - self.step_down * self.fall_down
        found = np.divide(self.step_up - self.step_down, slope, out=np.zeros_like(slope), where=slope > 0)
        return np.clip(found, self.w_min, self.w_max)

    def pulse(self, counts: Counts) -> None:
        """Send so many pulses to each device, down where `counts` [outputs, inputs] is negative; one after another."""
        where = np.flatnonzero(counts)
        flat, left = counts.reshape(-1)[where], self.weights.reshape(-1)
        up = flat > 0
        step = np.where(up, self.step_up.reshape(-1)[where], -self.step_down.reshape(-1)[where])
        fall = np.where(up, self.fall_up.reshape(-1)[where], self.fall_down.reshape(-1)[where])
        low, high = self.w_min.reshape(-1)[where], self.w_max.reshape(-1)[where]
        todo = np.abs(flat)
        while where.size:
            w = left[where]
            noise = self.device.step_noise * self._rng.standard_normal(where.size)
            linear = 1 - fall * w
            factor = linear * (1 + noise) if self.device.multiplicative else linear + noise
            left[where] = np.clip(w + step * factor, low, high)
            todo = todo - 1
            again = todo > 0
            if not again.all():
                where, todo, step, fall = where[again], todo[again], step[again], fall[again]
                low, high = low[again], high[again]
