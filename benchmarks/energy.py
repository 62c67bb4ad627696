"""Energy: joules from the processor's own counters where they can be read, and else a model that says it is one.

Linux shows the counters (RAPL) under /sys/class/powercap; virtual machines seldom have them, and reading may need root.
Processor seconds are never turned into joules.
"""

from __future__ import annotations

from pathlib import Path

from limits import Spread

POWERCAP = Path("/sys/class/powercap")
DRAM_PICOJOULES = 20.0
"""Per byte read: a round figure for DDR4 and DDR5, interface and array together; published ones go from 10 to 60."""


class EnergyCounter:
    """The package domains of all sockets, and memory where it is counted apart.

    Attributes:
        domains: folders of the counters read; empty where there are none.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        found = sorted(powercap.glob("intel-rapl:*")) if powercap.is_dir() else []
        self.domains = [folder for folder in found if _counts(folder)]
        self._last = [_number(folder / "energy_uj") for folder in self.domains]
        self._total = [0.0] * len(self.domains)

    def joules(self) -> float | None:
        """Joules since this counter was made, wrap-arounds followed; None without a counter."""
        if not self.domains:
            return None
        for index, folder in enumerate(self.domains):
            now = _number(folder / "energy_uj")
            passed = now - self._last[index]
            if passed < 0:
                passed += _number(folder / "max_energy_range_uj")
            self._last[index] = now
            self._total[index] += passed * 1e-6
        return sum(self._total)


def energy_lines(
    counter: EnergyCounter, joules: dict[tuple[str, str, int], list[float]], weight_bytes: dict[str, int]
) -> list[str]:
    """What is said about energy: measured joules per token, or that there are none, beside the labelled model."""
    lines = ["", "energy"]
    if counter.domains:
        for (name, work, threads), values in joules.items():
            spread = Spread.of(values)
            figures = f"{spread.median:.3f} J per token ({spread.p10:.3f}..{spread.p90:.3f})"
            lines.append(f"  {name}, {work}, {threads} threads: {figures}")
        return lines
    lines.append("  not measured: this machine shows no energy counter (/sys/class/powercap)")
    lines.append("  MODEL, not a measurement: reading the weights of one decoded token from memory")
    for name, size in weight_bytes.items():
        lines.append(f"    {name}: {size * DRAM_PICOJOULES * 1e-9:.1f} mJ at {DRAM_PICOJOULES:.0f} pJ per byte")
    return lines


def _counts(folder: Path) -> bool:
    """Whether this domain is a package or its memory, and readable; parts of a package would count twice."""
    try:
        name = (folder / "name").read_text().strip()
        _number(folder / "energy_uj")
    except (OSError, ValueError):
        return False
    return name.startswith("package") or name == "dram"


def _number(path: Path) -> int:
    return int(path.read_text())
