"""What all processes of a simulation share: the clock, the machine, host memory, and the counts for reports."""

from __future__ import annotations

from dataclasses import dataclass, field

from neuc.runtime.npu.clockwork import Clock
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.trace import Trace


@dataclass
class Counts:
    """What a run moved and computed, for reports: bytes, those of host memory by buffer too, cycles by tile name."""

    ddr_bytes: int = 0
    ddr: dict[str, int] = field(default_factory=dict[str, int])
    stream_byte_hops: int = 0
    sram_bytes: int = 0
    busy: dict[str, float] = field(default_factory=dict[str, float])
    firings: dict[str, int] = field(default_factory=dict[str, int])


@dataclass
class World:
    """What all processes share. ``ddr_free`` is when the host memory has served all that was asked of it."""

    clock: Clock
    machine: Machine
    counts: Counts
    trace: Trace | None
    values: bool
    ddr_free: float = 0.0

    def timing(self, name: str) -> float:
        """A figure of the machine model, 0 where a machine does not have it."""
        return self.machine.timing.get(name, 0.0)

    def ddr(self, nbytes: int, run_bytes: int, buffer: str) -> float:
        """Cycles until host memory has moved `nbytes` of a buffer in contiguous runs of `run_bytes`."""
        rate = self.machine.ddr.get("bytes_per_second", 0.0)
        self.counts.ddr_bytes += nbytes
        self.counts.ddr[buffer] = self.counts.ddr.get(buffer, 0) + nbytes
        if not rate:
            return 0.0
        efficiency = run_bytes / (run_bytes + self.machine.ddr.get("burst_half_bytes", 0.0))
        begin = max(self.ddr_free, self.clock.now)
        self.ddr_free = begin + nbytes / (rate * efficiency) * self.machine.clock_hz
        return self.ddr_free - self.clock.now
