"""What simulated runs of an array took, as executors add it up and profiles keep it.

Sums over programs, predicted or run, and their text are in `figures.py`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from neuc.runtime.npu.accounts import by_operand, energy_marks, energy_of, peak_seconds
from neuc.runtime.npu.figures import Figures, figures_from, summed
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.simulator import Run
from neuc.runtime.profile import Event, Profile

CATEGORY = "npu"
"""Category of the profile's events that say what the array would have taken."""
MARKS = "energy_marks"
"""Detail of such an event: where figures of energy come from."""


@dataclass
class Usage:
    """What the array did in all calls: runs of a program, switches of program, cycles, seconds with both, bytes."""

    dispatches: int = 0
    switches: int = 0
    cycles: float = 0.0
    seconds: float = 0.0
    ddr_bytes: int = 0
    macs: int = 0
    padded_macs: int = 0
    peak_seconds: float = 0.0
    energy_pj: dict[str, float] = field(default_factory=dict[str, float])
    operand_bytes: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, run: Run, machine: Machine, kind: str, macs: tuple[int, int], switch: bool, rate: str = "") -> None:
        """Add a dispatch: its element type, multiply-adds without and with padding, whether the program changed.

        ``rate`` names the kernels' peak in the machine file; ``peak_seconds`` is what the array would take at it.
        """
        host, counts = machine.host, run.counts
        self.dispatches += 1
        self.switches += switch
        self.cycles += run.cycles
        waits = host.get("dispatch_us", 0.0) + switch * host.get("program_switch_us", 0.0)
        self.seconds += run.seconds + waits * 1e-6
        self.ddr_bytes += counts.ddr_bytes
        self.macs += macs[0]
        self.padded_macs += macs[1]
        self.peak_seconds += peak_seconds(machine, rate, macs[0])
        used = energy_of(machine, kind, macs[1], counts.sram_bytes, counts.stream_byte_hops, counts.ddr_bytes)
        self.energy_pj = {name: self.energy_pj.get(name, 0.0) + value for name, value in used.items()}
        moved = by_operand(counts.ddr)
        self.operand_bytes = {
            name: self.operand_bytes.get(name, 0) + moved.get(name, 0) for name in {**self.operand_bytes, **moved}
        }


def record(profile: Profile, name: str, machine: Machine, usage: tuple[Usage, Usage], began: int) -> None:
    """What a call would have taken on the array, as an event of the profile (whose own times are the host's)."""
    before, now = usage
    names = ("dispatches", "switches", "cycles", "seconds", "ddr_bytes", "macs", "padded_macs", "peak_seconds")
    details: dict[str, object] = {key: getattr(now, key) - getattr(before, key) for key in names}
    details["machine"] = machine.name
    details["dispatch_seconds"] = (now.dispatches - before.dispatches) * machine.host.get("dispatch_us", 0.0) * 1e-6
    details["switch_seconds"] = (now.switches - before.switches) * machine.host.get("program_switch_us", 0.0) * 1e-6
    details["array_seconds"] = (now.cycles - before.cycles) / machine.clock_hz
    details["energy_pj"] = sum(now.energy_pj.values()) - sum(before.energy_pj.values())
    details["energy_pj_by_source"] = _grown(before.energy_pj, now.energy_pj)
    details["ddr_bytes_by_operand"] = _grown(before.operand_bytes, now.operand_bytes)
    details[MARKS] = energy_marks(machine)
    profile.add([Event(name, CATEGORY, began, time.monotonic_ns(), 0, details)])


def _grown(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    return {name: value - before.get(name, 0) for name, value in now.items()}


def array_usage(profile: Profile) -> dict[str, float]:
    """What the array would have taken in all profiled calls: sums of the figures of its events."""
    sums: dict[str, float] = {}
    for event in profile.events:
        if event.category == CATEGORY:
            for name, value in event.details.items():
                if isinstance(value, int | float):
                    sums[name] = sums.get(name, 0.0) + value
    return sums


def run_figures(profile: Profile) -> tuple[list[Figures], dict[str, str]]:
    """The profiled calls' figures by segment, and where those of energy come from; nothing without an array."""
    found: dict[str, list[Figures]] = {}
    marks: dict[str, str] = {}
    for event in profile.events:
        if event.category == CATEGORY:
            found.setdefault(event.name, []).append(figures_from(event.name, event.details))
            marks = cast("dict[str, str]", event.details[MARKS])
    return [summed(name, parts) for name, parts in found.items()], marks
