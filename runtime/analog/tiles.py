"""Weights on devices: how a tile's weights become conductances, and what it computes with at a later time.

A differential cell is a pair of devices, weight = (G+ - G-)/(g_max - g_min); an offset cell is one device,
weight = (G - middle)/(half of the range). Both devices of a pair are carried through time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neuc.errors import Error, Exit
from neuc.runtime.analog.devices import DeviceModel, Devices, Floats
from neuc.runtime.analog.streams import Purpose, stream
from neuc.runtime.analog.wires import effective_conductance

_BOLTZMANN_EV = 8.617333e-5
_ROOM = 25.0
_KELVIN = 273.15
_MICRO = 1e-6


@dataclass(frozen=True)
class Chip:
    """What all tiles of a program have in common.

    Attributes:
        device: the device model.
        stuck_low: share of devices stuck at g_min.
        stuck_high: share of devices stuck at g_max.
        chip: which chip: decides which devices are stuck, whatever is programmed.
        verify_rounds: times a device that missed its target is programmed again.
        verify_tolerance: distance from the target that counts as missed, µS.
        r_word: ohms of a word-line segment, for exact wires; 0 for ideal ones.
        r_bit: ohms of a bit-line segment.
        temperature: degrees Celsius while time passes; heat speeds up drift and relaxation (Arrhenius).
    """

    device: DeviceModel
    stuck_low: float = 0.0
    stuck_high: float = 0.0
    chip: int = 0
    verify_rounds: int = 0
    verify_tolerance: float = 0.0
    r_word: float = 0.0
    r_bit: float = 0.0
    temperature: float = _ROOM

    def __post_init__(self) -> None:
        rates = (self.stuck_low, self.stuck_high)
        if not all(0 <= rate <= 1 for rate in rates) or sum(rates) > 1:
            raise Error(
                "NEUC-E643",
                f"stuck-at rates {self.stuck_low:g} and {self.stuck_high:g} make no sense",
                hint="they are shares of all devices, together at most 1",
                exit_code=Exit.USAGE,
            )
        if not -_KELVIN < self.temperature < 1000:
            raise Error(
                "NEUC-E643",
                f"temperature {self.temperature:g} makes no sense",
                hint="give degrees Celsius",
                exit_code=Exit.USAGE,
            )

    @property
    def halves(self) -> int:
        """Devices of a cell."""
        return 2 if self.device.cells == "differential" else 1

    def targets(self, weights: Floats) -> list[Floats]:
        """Conductances that hold `weights` (-1 … 1, any shape), µS, one array for each device of a cell."""
        low, high = self.device.g_min, self.device.g_max
        if self.halves == 1:
            return [0.5 * (low + high) + 0.5 * (high - low) * weights]
        return [low + (high - low) * np.maximum(part, 0.0) for part in (weights, -weights)]

    def weights(self, conductances: list[Floats]) -> Floats:
        """The weights that these conductances (µS) are."""
        low, high = self.device.g_min, self.device.g_max
        if self.halves == 1:
            return (conductances[0] - 0.5 * (low + high)) / (0.5 * (high - low))
        return (conductances[0] - conductances[1]) / (high - low)

    def stuck(self, tile: int, shape: tuple[int, ...]) -> list[Floats]:
        """Conductances of stuck devices of tile number `tile`, NaN where devices work; one array for each of a cell."""
        found: list[Floats] = []
        for half in range(self.halves):
            level = np.full(shape, np.nan)
            if self.stuck_low or self.stuck_high:
                drawn = stream(self.chip, tile, Purpose.FAULTS, part=half).random(shape)
                level[drawn < self.stuck_low] = self.device.g_min
                level[drawn >= 1 - self.stuck_high] = self.device.g_max
            found.append(level)
        return found

    def program(self, weights: Floats, tile: int, seed: int) -> ProgrammedTile:
        """Program tile number `tile` with `weights` (-1 … 1, [rows, columns]).

        Args:
            weights: what to hold.
            tile: which tile of the program; decides the random numbers together with `seed`.
            seed: which draw.
        """
        halves: list[Devices] = []
        for half, target in enumerate(self.targets(weights)):
            made = self.device.program(target, stream(seed, tile, Purpose.PROGRAMMING, part=half))
            for again in range(1, self.verify_rounds + 1):
                rng = stream(seed, tile, Purpose.PROGRAMMING, part=half + 2 * again)
                made = self._better(made, self.device.program(target, rng))
            halves.append(made)
        return ProgrammedTile(self, tile, seed, halves, self.stuck(tile, weights.shape))

    def _better(self, first: Devices, second: Devices) -> Devices:
        """Program-and-verify: devices that missed their target take the second attempt if it is nearer."""
        miss = np.abs(first.programmed - first.target)
        take = (miss > self.verify_tolerance) & (np.abs(second.programmed - first.target) < miss)
        traits = {name: np.where(take, second.traits[name], first.traits[name]) for name in first.traits}
        return Devices(first.target, np.where(take, second.programmed, first.programmed), traits)

    def equivalent_time(self, time: float) -> float:
        """Seconds at room temperature that do what `time` seconds at `temperature` do.

        Raises:
            Error: NEUC-E644, `time` is negative or no number.
        """
        check_time(time)
        kelvin, room = self.temperature + _KELVIN, _ROOM + _KELVIN
        return time * math.exp(self.device.retention_ev / _BOLTZMANN_EV * (1 / room - 1 / kelvin))


@dataclass(frozen=True)
class ProgrammedTile:
    """Devices that were programmed once.

    Attributes:
        chip: what all tiles have in common.
        tile: the tile's number.
        seed: the draw.
        halves: the devices, one population for each device of a cell.
        stuck: conductances of stuck devices, NaN elsewhere.
    """

    chip: Chip
    tile: int
    seed: int
    halves: list[Devices]
    stuck: list[Floats]

    def conductances(self, time: float) -> list[Floats]:
        """What a read `time` seconds after programming finds, µS, one array for each device of a cell.

        Raises:
            Error: NEUC-E644, `time` is negative or no number.
        """
        passed = self.chip.equivalent_time(time)
        found: list[Floats] = []
        for half, (devices, stuck) in enumerate(zip(self.halves, self.stuck, strict=True)):
            rng = stream(self.seed, self.tile, Purpose.READ_NOISE, time, half)
            g = self.chip.device.read(devices, passed, rng)
            found.append(np.where(np.isnan(stuck), g, stuck))
        return found

    def weights(self, time: float) -> Floats:
        """The weights the tile multiplies with at `time`, [rows, columns], losses in its wires included."""
        chip, read = self.chip, self.conductances(time)
        if chip.r_word or chip.r_bit:
            read = [effective_conductance(g * _MICRO, chip.r_word, chip.r_bit) / _MICRO for g in read]
        return chip.weights(read)


def check_time(time: float) -> None:
    """Refuse times that are none.

    Raises:
        Error: NEUC-E644.
    """
    if not (math.isfinite(time) and time >= 0):
        raise Error(
            "NEUC-E644",
            f"time {time:g} s makes no sense",
            hint="give seconds after programming, 0 or more",
            exit_code=Exit.USAGE,
        )
