"""What a memory device does after it was told a conductance: the interface, the ideal device, user-defined tables.

Conductances are in µS, times in seconds after programming. A population of devices is programmed once; each device then
has one trajectory through time, which is what `Devices` keeps. Published models: `devices_pcm.py`, `devices_reram.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error, Exit

Floats = NDArray[np.float64]


def polynomial(x: Floats, *coefficients: float) -> Floats:
    """``c[0] + c[1] x + c[2] x² …`` by Horner's rule."""
    total = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


@dataclass(frozen=True)
class Devices:
    """Programmed devices.

    Attributes:
        target: conductances asked for, µS.
        programmed: conductances right after programming, µS.
        traits: what is fixed in each device at programming and decides its trajectory (a drift exponent, say).
    """

    target: Floats
    programmed: Floats
    traits: dict[str, Floats] = field(default_factory=dict[str, Floats])


@dataclass(frozen=True)
class DeviceModel(ABC):
    """A device model; a user-defined one is a subclass with the three methods (see `docs/analog.md`).

    Attributes:
        g_min: lowest conductance programmed, µS.
        g_max: highest, µS.
        prog_noise: factor on the standard deviation of programming.
        read_noise: factor on the standard deviation of reads.
        drift: factor on drift and relaxation.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    cells: ClassVar[str] = "differential"
    """`differential`: two devices a weight; `offset`: one, around the middle of the range."""
    retention_ev: ClassVar[float] = 0.0
    """Activation energy by which heat speeds up drift and relaxation; an assumption where the source has none."""

    g_min: float = 0.0
    g_max: float = 25.0
    prog_noise: float = 1.0
    read_noise: float = 1.0
    drift: float = 1.0

    @abstractmethod
    def program(self, target: Floats, rng: np.random.Generator) -> Devices:
        """Program devices to `target` (µS, any shape); draws all that is random in their trajectories."""

    @abstractmethod
    def conductance(self, devices: Devices, time: float) -> Floats:
        """Conductances without read noise, µS, `time` seconds after programming."""

    @abstractmethod
    def read_std(self, devices: Devices, time: float) -> Floats:
        """Standard deviation of a read at `time`, µS."""

    def read(self, devices: Devices, time: float, rng: np.random.Generator) -> Floats:
        """What one read at `time` finds, µS, never negative."""
        g = self.conductance(devices, time)
        return np.maximum(g + self.read_std(devices, time) * rng.standard_normal(g.shape), 0.0)

    def deviations(self, target: Floats, std: Floats | float, rng: np.random.Generator) -> Floats:
        """`target` plus noise of standard deviation `std` times `prog_noise`, µS, never negative."""
        return np.maximum(target + self.prog_noise * std * rng.standard_normal(target.shape), 0.0)


@dataclass(frozen=True)
class IdealDevice(DeviceModel):
    """Devices that are what they were told to be, for ever."""

    name: ClassVar[str] = "ideal"
    source: ClassVar[str] = "no physics: the reference the other models are compared with"

    def program(self, target: Floats, rng: np.random.Generator) -> Devices:
        return Devices(target, target)

    def conductance(self, devices: Devices, time: float) -> Floats:
        return devices.programmed

    def read_std(self, devices: Devices, time: float) -> Floats:
        return np.zeros_like(devices.programmed)


@dataclass(frozen=True)
class TableDevice(DeviceModel):
    """A model from a table of measurements: rows of target, time, mean and standard deviation.

    Between targets mean and deviation are interpolated linearly, between times linearly in log(1 + t), outside they
    are held. A device keeps its distance from the mean in units of the deviation, so it has one trajectory.

    Attributes:
        label: the model's name.
        targets: increasing conductances, µS, [L].
        times: increasing seconds, [T].
        means: mean conductances, µS, [T][L].
        stds: standard deviations, µS, [T][L].
        read_fraction: standard deviation of a read relative to the conductance.
    """

    name: ClassVar[str] = "table"
    source: ClassVar[str] = "measurements given by the user"

    label: str = "table"
    targets: tuple[float, ...] = (0.0, 25.0)
    times: tuple[float, ...] = (0.0,)
    means: tuple[tuple[float, ...], ...] = ((0.0, 25.0),)
    stds: tuple[tuple[float, ...], ...] = ((0.0, 0.0),)
    read_fraction: float = 0.0

    def __post_init__(self) -> None:
        rows = (*self.means, *self.stds)
        fits = len(self.means) == len(self.stds) == len(self.times) and all(len(r) == len(self.targets) for r in rows)
        rising = all(np.all(np.diff(np.array(axis)) > 0) for axis in (self.targets, self.times))
        if not (fits and rising and self.targets and self.times):
            hint = "targets and times rise; means and stds have a row for each time, a number for each target"
            raise Error("NEUC-E641", "the table of a device does not fit together", hint=hint, exit_code=Exit.USAGE)

    def program(self, target: Floats, rng: np.random.Generator) -> Devices:
        deviation = rng.standard_normal(target.shape)
        programmed = self._at(target, deviation, 0.0)
        return Devices(target, programmed, {"deviation": deviation})

    def conductance(self, devices: Devices, time: float) -> Floats:
        return self._at(devices.target, devices.traits["deviation"], time * self.drift)

    def read_std(self, devices: Devices, time: float) -> Floats:
        return self.read_noise * self.read_fraction * self.conductance(devices, time)

    def _at(self, target: Floats, deviation: Floats, time: float) -> Floats:
        mean, std = (self._interpolate(table, target, time) for table in (self.means, self.stds))
        return np.maximum(mean + self.prog_noise * std * deviation, 0.0)

    def _interpolate(self, table: tuple[tuple[float, ...], ...], target: Floats, time: float) -> Floats:
        axis = np.log1p(np.array(self.times))
        here = np.array([np.log1p(time)])
        row = np.concatenate([np.interp(here, axis, np.array(column)) for column in zip(*table)])
        return np.interp(target, np.array(self.targets), row)
