"""Time, utilisation, host memory's traffic and energy of what an array does: one form for predicted and simulated runs.

Predictions are made in `compiler/npu/figures.py`, what runs took is in `usage.py`; text for people is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import cast


@dataclass(frozen=True)
class Figures:
    """What a product, or a sum of products, takes on an array.

    ``seconds`` are those of dispatches, switches of program and the array at work (``array_seconds``). ``peak_seconds``
    is what all cores would take for the multiply-adds at their kernels' peak; ``padded_macs`` counts padding, too.
    Bytes of host memory by operand, energy in picojoules by source.
    """

    segment: str
    dispatches: int
    switches: int
    seconds: float
    dispatch_seconds: float
    switch_seconds: float
    array_seconds: float
    peak_seconds: float
    macs: int
    padded_macs: int
    ddr_bytes_by_operand: Mapping[str, int]
    energy_pj_by_source: Mapping[str, float]

    @property
    def utilisation(self) -> float:
        """Multiply-adds done over what the array's peak allows in all of the time."""
        return self.peak_seconds / self.seconds if self.seconds else 0.0

    @property
    def utilisation_at_work(self) -> float:
        """The same in the time the array works: without dispatches and switches."""
        return self.peak_seconds / self.array_seconds if self.array_seconds else 0.0

    def to_json(self) -> dict[str, object]:
        """Plain data, sums and shares included."""
        return {
            **{name: getattr(self, name) for name in _NAMES},
            "ddr_bytes": sum(self.ddr_bytes_by_operand.values()),
            "energy_pj": sum(self.energy_pj_by_source.values()),
            "utilisation": self.utilisation,
            "utilisation_at_work": self.utilisation_at_work,
            "ddr_bytes_by_operand": dict(self.ddr_bytes_by_operand),
            "energy_pj_by_source": dict(self.energy_pj_by_source),
        }


_MILLIJOULE = 1e9
"""In picojoules."""
_BY = ("ddr_bytes_by_operand", "energy_pj_by_source")
_NAMES = tuple(field.name for field in fields(Figures) if field.name not in _BY)
_NUMBERS = tuple(name for name in _NAMES if name != "segment")


def figures_from(segment: str, data: Mapping[str, object]) -> Figures:
    """Figures from plain data that has them all."""
    return Figures(segment, **{name: data[name] for name in (*_NUMBERS, *_BY)})  # type: ignore[arg-type]


def summed(name: str, parts: Sequence[Figures]) -> Figures:
    """All of them together, under a name."""
    numbers = {key: sum(getattr(part, key) for part in parts) for key in _NUMBERS}
    by = {key: _added([cast("Mapping[str, float]", getattr(part, key)) for part in parts]) for key in _BY}
    return figures_from(name, {**numbers, **by})


def _added(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0) for part in parts) for name in names}


def time_text(figures: Figures) -> str:
    """``2.26 ms: 0.60 ms for 6 dispatches, 0 ms for …``: all of the time, and its parts."""
    parts = [f"{figures.dispatch_seconds * 1e3:.3g} ms for {_counted(figures.dispatches, 'dispatch', 'es')}"]
    if figures.switches:
        parts.append(f"{figures.switch_seconds * 1e3:.3g} ms for {_counted(figures.switches, 'program switch', 'es')}")
    return f"{figures.seconds * 1e3:.3g} ms: {', '.join(parts)}, {figures.array_seconds * 1e3:.3g} ms of the array"


def work_text(figures: Figures) -> str:
    """Utilisation, and bytes of host memory by operand."""
    moved = ", ".join(f"{name} {size_text(nbytes)}" for name, nbytes in figures.ddr_bytes_by_operand.items())
    total = size_text(sum(figures.ddr_bytes_by_operand.values()))
    used = "no multiply-adds"
    if figures.macs:
        whole, busy = (f"{share * 100:.2g}%" for share in (figures.utilisation, figures.utilisation_at_work))
        used = f"{whole} of the cores' peak in that time, {busy} while the array works"
    return f"utilisation {used}; host memory {total}: {moved}"


def energy_text(figures: Figures, marks: Mapping[str, str]) -> str:
    """Energy by source, and where the machine's figures come from."""
    total = sum(figures.energy_pj_by_source.values())
    unit, size = ("mJ", 1e9) if total >= _MILLIJOULE else ("µJ", 1e6)
    parts = ", ".join(f"{name} {value / size:.3g}" for name, value in figures.energy_pj_by_source.items())
    kinds = sorted(set(marks.values()))
    said = f"figures {kinds[0]}" if len(kinds) == 1 else ", ".join(f"{name} {mark}" for name, mark in marks.items())
    return f"energy {total / size:.3g} {unit}: {parts} ({said})"


def size_text(nbytes: float) -> str:
    """Bytes as kB or MB of 10^3 and 10^6."""
    return f"{nbytes / 1e6:.2f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:.1f} kB"


def _counted(count: int, noun: str, plural: str) -> str:
    return f"{count} {noun}" + (plural if count != 1 else "")
