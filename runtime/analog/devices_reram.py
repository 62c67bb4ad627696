"""Resistive and charge-trap memory: conductances relax with log(time); each device keeps its own deviation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neuc.runtime.analog.devices import DeviceModel, Devices, Floats, polynomial

_DAY = 86400.0


@dataclass(frozen=True)
class WanReram(DeviceModel):
    """The NeuRRAM chip: the spread around the target grows in the days after programming.

    sigma(r) is a polynomial measured after 1 s, 1 day and 2 days for g_max = 40 µS; for another g_max it scales with
    it. Between those times it is linear in log t, before and after it is held. A device's deviation in units of sigma
    does not change, so it has one trajectory; measurements give no read noise.
    """

    name: ClassVar[str] = "reram"
    source: ClassVar[str] = "Wan et al., Nature 608, 504 (2022), fits as in aihwkit 1.2, at their true scale of 40 µS"
    retention_ev: ClassVar[float] = 1.1  # assumed: typical of HfOx filaments

    g_max: float = 40.0

    def spread(self, target: Floats, time: float) -> Floats:
        """Sigma at `time`, µS."""
        r = target / self.g_max
        table = np.stack([polynomial(r, *c) for c in _WAN])
        here = np.log(np.array([max(time * self.drift, 1.0)]))
        at = float(np.interp(here, np.log(np.array(_WAN_TIMES)), np.arange(3.0))[0])
        low = int(min(at, 1.0))
        return (table[low] + (at - low) * (table[low + 1] - table[low])) * (self.g_max / 40.0)

    def program(self, target: Floats, rng: np.random.Generator) -> Devices:
        deviation = self.prog_noise * rng.standard_normal(target.shape)
        programmed = np.maximum(target + self.spread(target, 0.0) * deviation, 0.0)
        return Devices(target, programmed, {"deviation": deviation})

    def conductance(self, devices: Devices, time: float) -> Floats:
        moved = devices.target + self.spread(devices.target, time) * devices.traits["deviation"]
        return np.maximum(moved, 0.0)

    def read_std(self, devices: Devices, time: float) -> Floats:
        return np.zeros_like(devices.target)


_WAN_TIMES = (1.0, _DAY, 2 * _DAY)
_WAN = (
    (0.348, 16.03, -43.853, 45.393, -16.815),
    (0.701, 22.086, -50.773, 47.095, -16.458),
    (0.782, 20.274, -43.507, 37.062, -11.934),
)
"""Coefficients of sigma in µS, constant first, at `_WAN_TIMES`."""


@dataclass(frozen=True)
class CmoReram(DeviceModel):
    """Analog ReRAM with a conductive metal oxide, one device a weight around the middle of 9 … 88.2 µS.

    Programming stops within an acceptance range; then conductances shift by -0.089 ln t µS and spread by
    0.042 ln t + 0.412 µS (for t >= 1 s; before, nothing has relaxed); a read deviates by
    0.0277 log10(g) sqrt(ln((t + 1 µs)/(2 µs))).

    Attributes:
        acceptance: acceptance range of programming, percent: 2 or 0.2.
    """

    name: ClassVar[str] = "reram-cmo"
    source: ClassVar[str] = "IBM CMO/HfOx ReRAM model of aihwkit 1.2"
    cells: ClassVar[str] = "offset"
    retention_ev: ClassVar[float] = 1.1  # assumed, as for other filaments

    g_min: float = 9.0
    g_max: float = 88.2
    acceptance: float = 2.0

    def program(self, target: Floats, rng: np.random.Generator) -> Devices:
        base, slope = (0.0112185391, 0.01129027418) if self.acceptance >= 2.0 else (0.00081107, 0.00106879)
        programmed = self.deviations(target, base + slope * target, rng)
        return Devices(target, programmed, {"relaxation": rng.standard_normal(target.shape)})

    def conductance(self, devices: Devices, time: float) -> Floats:
        if time < 1.0:
            return devices.programmed
        log_time = np.log(time)
        shift, spread = -0.08900206 * log_time, 0.04201137 * log_time + 0.41183342
        moved = devices.programmed + self.drift * (shift + spread * devices.traits["relaxation"])
        return np.maximum(moved, 0.0)

    def read_std(self, devices: Devices, time: float) -> Floats:
        growth = np.sqrt(np.log(max(time + 1e-6, 2e-6) / 2e-6))
        g = np.maximum(self.conductance(devices, time), 1.0)
        return self.read_noise * 0.0277316483 * np.log10(g) * growth


@dataclass(frozen=True)
class SonosDevice(DeviceModel):
    """40 nm SONOS charge-trap cells in subthreshold; currents of 0 … 1600 nA are 0 … 16 µS at 100 mV.

    Means drift by a polynomial of the current, spreads are A (1 - exp(-I/B)), both measured after 0 … 5 days, linear in
    time between those and held after; a read deviates by 12.58 (1 - exp(-I/215.4)) nA.
    """

    name: ClassVar[str] = "sonos"
    source: ClassVar[str] = "Agrawal et al., IEDM 2022, 21.7; 128K devices, fits as in CrossSim 3"
    retention_ev: ClassVar[float] = 1.0  # assumed: charge loss through the bottom oxide

    g_max: float = 16.0

    def program(self, target: Floats, rng: np.random.Generator) -> Devices:
        deviation = self.prog_noise * rng.standard_normal(target.shape)
        return Devices(target, self._at(target, deviation, 0.0), {"deviation": deviation})

    def conductance(self, devices: Devices, time: float) -> Floats:
        return self._at(devices.target, devices.traits["deviation"], time)

    def read_std(self, devices: Devices, time: float) -> Floats:
        current = _NANOAMPERE * self.conductance(devices, time)
        return self.read_noise * 12.58037 * (1 - np.exp(-current / 215.36557)) / _NANOAMPERE

    def mean_and_spread(self, target: Floats, time: float) -> tuple[Floats, Floats]:
        """Mean and standard deviation at `time`, µS."""
        day = min(self.drift * time / _DAY, 5.0)
        low = min(int(day), 4)
        share = day - low
        current = target * _NANOAMPERE
        shift, scale, knee = (
            (1 - share) * np.asarray(first) + share * np.asarray(second)
            for first, second in zip(_SONOS[low], _SONOS[low + 1])
        )
        mean = current + polynomial(current, *shift)
        return mean / _NANOAMPERE, np.maximum(scale * (1 - np.exp(-mean / knee)), 0.0) / _NANOAMPERE

    def _at(self, target: Floats, deviation: Floats, time: float) -> Floats:
        mean, std = self.mean_and_spread(target, time)
        return np.maximum(mean + std * deviation, 0.0)


_NANOAMPERE = 100.0
"""nA for each µS, at a read voltage of 100 mV."""
_NO_DRIFT = (0.0,) * 11
_SONOS: tuple[tuple[tuple[float, ...], float, float], ...] = (
    (_NO_DRIFT, 19.88665, 176.3115),
    (
        (
            0.68365,
            6.5125e-3,
            -4.03163e-4,
            3.37944e-6,
            -1.87435e-8,
            5.88902e-11,
            -1.07685e-13,
            1.17751e-16,
            -7.60016e-20,
            2.67255e-23,
            -3.94954e-27,
        ),
        25.59102,
        186.85544,
    ),
    (
        (
            0.660925,
            8.60627e-3,
            -1.72936e-4,
            7.44096e-7,
            -5.94866e-9,
            2.36734e-11,
            -4.8374e-14,
            5.56072e-17,
            -3.65397e-20,
            1.28405e-23,
            -1.8745e-27,
        ),
        28.72753,
        193.56834,
    ),
    (
        (
            1.15821,
            1.96116e-2,
            -4.70807e-4,
            3.6751e-6,
            -2.08786e-8,
            6.59752e-11,
            -1.19499e-13,
            1.28435e-16,
            -8.11574e-20,
            2.78802e-23,
            -4.02057e-27,
        ),
        31.04318,
        198.90332,
    ),
    (
        (
            0.872216,
            1.70926e-2,
            -2.2337e-4,
            1.57526e-6,
            -1.32779e-8,
            5.08256e-11,
            -1.01251e-13,
            1.14633e-16,
            -7.46124e-20,
            2.60559e-23,
            -3.78724e-27,
        ),
        33.76214,
        204.77023,
    ),
    (
        (
            1.15294,
            1.03149e-2,
            -6.05199e-5,
            1.76086e-8,
            -6.4669e-9,
            3.39044e-11,
            -7.53872e-14,
            8.98185e-17,
            -6.00346e-20,
            2.12615e-23,
            -3.11099e-27,
        ),
        34.57909,
        207.34309,
    ),
)
"""After 0 … 5 days: drift polynomial in nA (constant first), A and B in nA."""
