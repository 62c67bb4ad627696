"""Phase-change memory: programming noise, drift with a power of time, and 1/f read noise. r = target / g_max."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neuc.runtime.analog.devices import DeviceModel, Devices, Floats, polynomial

_LEAST = 1e-7
"""Least r in a logarithm."""


@dataclass(frozen=True)
class PcmDevice(DeviceModel):
    """The common shape of PCM models; subclasses hold the fits.

    g_P = max(0, g_T + sigma(r) N); g(t) = g_P ((t + t0)/t0)^-nu with nu = |mean(r) + std(r) N| fixed in each device;
    a read deviates by g(t) Q(r_P) sqrt(ln((t + t0 + t_read)/(2 t_read))), r_P = g_P / g_max.
    """

    t0: ClassVar[float] = 20.0
    """Seconds between the programming pulse and the first read: drift is counted from the pulse."""
    t_read: ClassVar[float] = 250e-9
    """Length of a read pulse, seconds."""

    @abstractmethod
    def programming_std(self, r: Floats) -> Floats:
        """Standard deviation of programming, µS."""

    @abstractmethod
    def drift_mean(self, r: Floats) -> Floats:
        """Mean drift exponent."""

    @abstractmethod
    def drift_std(self, r: Floats) -> Floats:
        """Standard deviation of the drift exponent between devices."""

    @abstractmethod
    def read_factor(self, r: Floats) -> Floats:
        """Q: relative deviation of a read, before the factor that grows with time."""

    def program(self, target: Floats, rng: np.random.Generator) -> Devices:
        r = target / self.g_max
        programmed = self.deviations(target, self.programming_std(r), rng)
        r = np.maximum(r, _LEAST)
        nu = np.abs(self.drift_mean(r) + self.drift_std(r) * rng.standard_normal(target.shape))
        return Devices(target, programmed, {"nu": self.drift * nu})

    def conductance(self, devices: Devices, time: float) -> Floats:
        return devices.programmed * ((time + self.t0) / self.t0) ** -devices.traits["nu"]

    def read_std(self, devices: Devices, time: float) -> Floats:
        factor = self.read_factor(np.maximum(devices.programmed / self.g_max, _LEAST))
        growth = np.sqrt(np.log((time + self.t0 + self.t_read) / (2 * self.t_read)))
        return self.read_noise * self.conductance(devices, time) * factor * growth


@dataclass(frozen=True)
class NandakumarPcm(PcmDevice):
    """Doped Ge2Sb2Te5 mushroom cells, 90 nm; the fits that are also used by aihwkit."""

    name: ClassVar[str] = "pcm"
    source: ClassVar[str] = "Nandakumar et al., ICECS 2019; devices of Joshi et al., Nat. Commun. 11, 2473 (2020)"

    def programming_std(self, r: Floats) -> Floats:
        return (0.26348 + 1.9650 * r - 1.1731 * r * r) * (self.g_max / 25.0)

    def drift_mean(self, r: Floats) -> Floats:
        return np.clip(-0.0155 * np.log(r) + 0.0244, 0.049, 0.1)

    def drift_std(self, r: Floats) -> Floats:
        return np.clip(-0.0125 * np.log(r) - 0.0059, 0.008, 0.045)

    def read_factor(self, r: Floats) -> Floats:
        return np.minimum(0.0088 / np.maximum(r**0.65, 1e-3), 0.2)


@dataclass(frozen=True)
class HermesPcm(PcmDevice):
    """The 14 nm HERMES chip, one device a weight polarity."""

    name: ClassVar[str] = "hermes1"
    source: ClassVar[str] = "Le Gallo et al., Nat. Electron. 6, 680 (2023); fits as in aihwkit 1.2, one device"
    t0: ClassVar[float] = 200.0
    t_read: ClassVar[float] = 512e-9

    g_max: float = 10.35

    def programming_std(self, r: Floats) -> Floats:
        return polynomial(r, 0.15781817, 2.32443916, -2.16310839, 0.68841818)

    def drift_mean(self, r: Floats) -> Floats:
        low = np.clip(-0.0387 * np.log(r) - 0.0182, 0.072, 0.13)
        return np.where(r < 0.0945, low, -0.0436 * r * r - 0.0126 * r + 0.0736)

    def drift_std(self, r: Floats) -> Floats:
        low = np.clip(-0.0120 * np.log(r) - 0.0023, 0.0124, 0.04)
        return np.where(r < 0.3039, low, -0.0165 * r * r + 0.0116 * r + 0.0104)

    def read_factor(self, r: Floats) -> Floats:
        low = np.clip(-0.0078 * np.log(r) + 0.0038, 0.0179, 0.04)
        return np.where(r < 0.1591, low, polynomial(r, 0.0088, 0.0768, -0.1352, 0.0664))


@dataclass(frozen=True)
class HermesPairPcm(HermesPcm):
    """The same chip with two devices a weight polarity."""

    name: ClassVar[str] = "hermes2"
    source: ClassVar[str] = "Le Gallo et al., Nat. Electron. 6, 680 (2023); fits as in aihwkit 1.2, two devices"
    t0: ClassVar[float] = 300.0

    g_max: float = 20.7

    def programming_std(self, r: Floats) -> Floats:
        return polynomial(r, 0.16603222, 4.71806468, -8.48101252, 4.68961419)

    def drift_std(self, r: Floats) -> Floats:
        low = np.clip(-0.0117 * np.log(r) - 0.0057, 0.0091, 0.04)
        return np.where(r < 0.3055, low, -0.0118 * r * r + 0.0093 * r + 0.0073)

    def read_factor(self, r: Floats) -> Floats:
        low = np.clip(-0.0117 * np.log(r) - 0.0069, 0.015, 0.04)
        return np.where(r < 0.16, low, polynomial(r, 0.0123, 0.0211, -0.028, 0.0069))


@dataclass(frozen=True)
class JoshiPcm(DeviceModel):
    """Programming errors of the PCM array that ran ResNet-32; the fit has no drift and no read noise."""

    name: ClassVar[str] = "joshi"
    source: ClassVar[str] = "Joshi et al., Nat. Commun. 11, 2473 (2020), fit as in CrossSim; valid up to 25 µS"

    def program(self, target: Floats, rng: np.random.Generator) -> Devices:
        std = polynomial(target, 0.28638599, 0.07585724, -0.00178767)
        return Devices(target, self.deviations(target, std, rng))

    def conductance(self, devices: Devices, time: float) -> Floats:
        return devices.programmed

    def read_std(self, devices: Devices, time: float) -> Floats:
        return np.zeros_like(devices.programmed)
