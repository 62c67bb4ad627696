"""Energy, time and area of a crossbar program, by adding up components whose figures are labelled.

A figure is `measured` (by us), `published` (in the source named) or `assumed` (nobody measured it; change it if you
know better). Digital work outside of crossbars, memories and wires between arrays is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neuc.errors import InternalError
from neuc.runtime.analog.program import CrossbarProgram, TileEntry
from neuc.runtime.analog.tiles import Chip


@dataclass(frozen=True)
class Figure:
    """One number of the component table.

    Attributes:
        value: the number.
        unit: what it counts.
        label: measured, published or assumed.
        source: where it is from, or why it was assumed.
    """

    value: float
    unit: str
    label: str
    source: str


_ISAAC = "Shafiee et al., ISAAC, ISCA 2016, table I (32 nm)"
FIGURES: Mapping[str, Figure] = {
    "adc energy": Figure(1.56e-12, "J a conversion of 8 bits", "published", f"{_ISAAC}: 2 mW at 1.28 GS/s"),
    "adc bit": Figure(
        2.0, "times the energy for each further bit", "assumed", "trend of converter surveys below 10 bits"
    ),
    "adc rate": Figure(1.28e9, "conversions a second of one converter", "published", _ISAAC),
    "adc share": Figure(128, "columns that take turns on one converter", "published", _ISAAC),
    "adc area": Figure(1.2e-3, "mm² a converter", "published", _ISAAC),
    "ramp energy": Figure(1e-14, "J a step of a column's comparator", "assumed", "a small comparator's magnitude"),
    "ramp area": Figure(2e-6, "mm² a column of a ramp converter", "assumed", "a comparator and a register a column"),
    "dac energy": Figure(0.39e-12, "J a line and bit", "published", f"{_ISAAC}: 4 mW for 1024 lines, 100 ns"),
    "dac area": Figure(1.7e-7, "mm² a line", "published", _ISAAC),
    "read voltage": Figure(0.2, "V", "assumed", "usual for reading without disturbing"),
    "read time": Figure(100e-9, "s a pass", "published", f"{_ISAAC}: 100 ns a crossbar read"),
    "pulse step": Figure(1e-9, "s a level of a pulse-width input or a ramp converter", "assumed", "a clock of 1 GHz"),
    "cell area": Figure(1.5e-9, "mm² a device", "published", f"{_ISAAC}: 128 x 128 devices on 25 µm²"),
    "add energy": Figure(0.05e-12, "J a digital addition of 16 bits", "published", "Horowitz, ISSCC 2014 (45 nm)"),
}


@dataclass(frozen=True)
class Estimate:
    """What one inference of one sample costs on the crossbars, and what they are.

    Attributes:
        energy: joules by component: adc, dac, devices, additions.
        latency: seconds for one sample, layers one after another.
        interval: seconds between samples when layers work as a pipeline.
        area: mm² of arrays and converters.
        products: multiply-adds of one inference.
        arrays: arrays in use.
        utilisation: share of the arrays' devices that hold weights.
    """

    energy: Mapping[str, float]
    latency: float
    interval: float
    area: float
    products: float
    arrays: int
    utilisation: float

    @property
    def total_energy(self) -> float:
        """Joules of one inference."""
        return sum(self.energy.values())

    def describe(self) -> list[str]:
        """As sentences."""
        total = self.total_energy
        shares = ", ".join(f"{name} {value / total:.0%}" for name, value in self.energy.items()) if total else "none"
        rate = 2 * self.products / total / 1e12 if total else 0.0
        return [
            f"arrays {self.arrays}, {self.utilisation:.0%} of their devices used, {self.area:.3g} mm²",
            f"energy {total * 1e6:.3g} µJ an inference ({shares}), {rate:.3g} TOPS/W",
            f"latency {self.latency * 1e6:.3g} µs, one inference each {self.interval * 1e6:.3g} µs as a pipeline",
            "energy, time and area are estimates for the arrays alone, from published and assumed figures",
        ]

    def to_json(self) -> dict[str, object]:
        """As plain data, the component table included."""
        return {
            "energy_j": dict(self.energy),
            "latency_s": self.latency,
            "interval_s": self.interval,
            "area_mm2": self.area,
            "multiply_adds": self.products,
            "arrays": self.arrays,
            "utilisation": self.utilisation,
            "figures": {name: vars(figure) for name, figure in FIGURES.items()},
        }


def estimate(program: CrossbarProgram) -> Estimate:
    """What one inference costs on memory arrays; inputs whose number is not known (a batch, a sequence) count once."""
    chip = program.chip
    if not isinstance(chip, Chip):
        raise InternalError("costs are known for memory arrays alone")
    energy: dict[str, float] = dict.fromkeys(("adc", "dac", "devices", "additions"), 0.0)
    for tile in program.tiles:
        for name, value in _energy(tile, chip).items():
            energy[name] += value
    busy: dict[int, float] = {}
    for tile in program.tiles:
        seconds = _seconds(tile) * tile.conversions * tile.passes / tile.copies
        # Tiles of one step work side by side, unless they are on the same array.
        busy[tile.step] = max(busy.get(tile.step, 0.0), _turns(tile, program) * seconds)
    used = sum(tile.rows * tile.columns for tile in program.tiles)
    held = sum(tile.rows * tile.columns * tile.copies for tile in program.tiles)
    size = program.tile_rows * program.tile_columns
    area = program.cores * (
        size * chip.halves * _value("cell area") + _converter_area(program) + program.tile_rows * _value("dac area")
    )
    return Estimate(
        energy=energy,
        latency=sum(busy.values()),
        interval=max(busy.values(), default=0.0),
        area=float(area),
        products=sum(tile.rows * tile.columns * tile.conversions for tile in program.tiles),
        arrays=program.cores,
        utilisation=held / (program.cores * size) if program.cores and used else 0.0,
    )


def _value(name: str) -> float:
    return FIGURES[name].value


def _bits(levels: int) -> float:
    """Bits of a converter; an ideal one counts as one of 8."""
    return float(np.log2(levels + 2)) if levels else 8.0


def _energy(tile: TileEntry, chip: Chip) -> dict[str, float]:
    times = tile.conversions * tile.passes
    device = chip.device
    # Half of the devices' range on average, driven at the read voltage for the length of a pass.
    conductance = 0.5 * (device.g_min + device.g_max) * 1e-6
    cell = _value("read voltage") ** 2 * conductance * _read_seconds(tile)
    return {
        "adc": times * tile.columns * _conversion_energy(tile),
        "dac": times
        * tile.rows
        * _value("dac energy")
        * (1.0 if tile.mode == "bit-serial" else _bits(tile.dac_levels)),
        "devices": times * tile.rows * tile.columns * chip.halves * cell,
        "additions": times * tile.columns * _value("add energy"),
    }


def _conversion_energy(tile: TileEntry) -> float:
    """One column, once. A ramp converter compares at each step; others are priced as the published SAR one."""
    if tile.adc_kind == "ramp":
        return _ramp_steps(tile) * _value("ramp energy")
    return _value("adc energy") * _value("adc bit") ** (_bits(tile.adc_levels) - 8)


def _ramp_steps(tile: TileEntry) -> int:
    """Steps of a whole ramp; an ideal converter counts as one of 8 bits."""
    return tile.adc_levels or 254


def _converter_area(program: CrossbarProgram) -> float:
    """Output converters of one array, mm²."""
    if any(tile.adc_kind == "ramp" for tile in program.tiles):
        return program.tile_columns * _value("ramp area")
    return float(np.ceil(program.tile_columns / _value("adc share"))) * _value("adc area")


def _read_seconds(tile: TileEntry) -> float:
    return max(_value("read time"), tile.dac_levels * _value("pulse step") if tile.mode == "pwm" else 0.0)


def _seconds(tile: TileEntry) -> float:
    """One pass of one input vector: reading, or converting if that takes longer."""
    if tile.adc_kind == "ramp":
        converting = _ramp_steps(tile) * _value("pulse step")
    else:
        converting = min(tile.columns, _value("adc share")) / _value("adc rate")
    return max(_read_seconds(tile), converting)


def _turns(tile: TileEntry, program: CrossbarProgram) -> int:
    """Tiles of the same step on the same array."""
    return sum(other.step == tile.step and other.core == tile.core for other in program.tiles)
