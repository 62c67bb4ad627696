"""What a run would have cost on a sampling chip: nodes written, sampled and read, times the prices of the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Ledger:
    """Node operations of one run, and energies in joules.

    Attributes:
        writes: couplings and fields of every node, once for each value of β, and states that are given.
        samples: Gibbs updates.
        reads: states read out: of every observed sweep, and at the end.
        write_energy: of the writes.
        sample_energy: of the updates.
        read_energy: of the reads.
        source: of the prices.
    """

    writes: int
    samples: int
    reads: int
    write_energy: float
    sample_energy: float
    read_energy: float
    source: str

    @property
    def energy(self) -> float:
        """The whole in joules."""
        return self.write_energy + self.sample_energy + self.read_energy

    def describe(self) -> str:
        """One line."""
        parts = [
            f"{self.writes:,} writes {_joules(self.write_energy)}",
            f"{self.samples:,} samples {_joules(self.sample_energy)}",
            f"{self.reads:,} reads {_joules(self.read_energy)}",
        ]
        return f"on the chip: {_joules(self.energy)} ({', '.join(parts)}); {self.source}"

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return {**asdict(self), "energy": self.energy}


def ledger(facts: object, feeds: Mapping[str, Array]) -> Ledger | None:
    """The ledger of a run with these inputs; None for a program of another target.

    β is in a chip's couplings and fields, so a ramp writes them again at every step.
    """
    samplers = cast("Sequence[dict[str, object]]", facts) if isinstance(facts, list) else []
    if not samplers:
        return None
    counts, energies = np.zeros(3, np.int64), np.zeros(3)
    for fact in samplers:
        prices = cast("dict[str, float]", fact["prices"])
        of = _counts(fact, feeds)
        counts += of
        energies += of * [prices["write"], prices["sample"], prices["read"]]
    writes, samples, reads = (int(n) for n in counts)
    write, sample, read = (float(x) for x in energies)
    return Ledger(writes, samples, reads, write, sample, read, str(samplers[0]["prices_source"]))


def _counts(fact: Mapping[str, object], feeds: Mapping[str, Array]) -> Array:
    """Writes, samples and reads of one sampler."""
    number = {name: int(cast(int, fact[name])) for name in ("spins", "free", "clamped", "warmup", "thin")}
    chains = fact["chains"]
    count = len(feeds[chains]) if isinstance(chains, str) and chains in feeds else int(cast(int, chains or 1))
    beta = feeds.get(str(fact["beta"]), np.ones(1, np.float32))
    sweeps = len(beta)
    # A table [sweeps, chains] gives each chain its own ramp; chains follow each other on one chip.
    columns = beta.reshape(sweeps, -1).T
    programmings = sum(1 + int((np.diff(column) != 0).sum()) for column in columns)
    programmings *= count if len(columns) == 1 and programmings > 1 else 1
    kept = max(0, sweeps - number["warmup"]) // number["thin"] if fact["observed"] else 0
    written = number["spins"] * programmings + count * number["clamped"]
    if fact["given_states"]:
        written += count * number["free"]
    return np.array([written, sweeps * count * number["free"], (kept + 1) * count * number["free"]], np.int64)


def _joules(energy: float) -> str:
    for unit, size in (("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9)):
        if energy >= size:
            return f"{energy / size:.3g} {unit}"
    return f"{energy / 1e-12:.3g} pJ"
