"""Timelines in mlir-aie's own shape: a JSON list of begin and end events in cycles, one process row a tile's module.

Row and event names are those of mlir-aie's hardware traces (`parse_trace`, its trace event enumerations), so that a
simulated and a measured run can be laid side by side: a core's DMAs are events of its memory module (``mem_trace``), a
memory tile's events are of the two channels that SEL0 and SEL1 watch, here the first two. Times come from the
simulator.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from neuc.runtime.npu.machine import Tile

_ROWS = {"core": "core_trace", "dma": "mem_trace", "mem": "memtile_trace", "shim": "shim_trace"}
_WATCHED = 2
"""DMA channels of a tile that events exist for."""
_PORTS = 8
"""Stream ports of a tile that PORT_RUNNING events can watch."""
PULSE = 1.0
"""Cycles that an event without a duration lasts."""


@dataclass(frozen=True)
class DmaLane:
    """A DMA channel in a timeline: the module it belongs to, its direction and number, and the port its stream has."""

    kind: str
    tile: Tile | None
    direction: str
    index: int
    port: int

    def event(self, what: str) -> str:
        """The event's name; "" where no event of this channel exists."""
        if self.index >= _WATCHED:
            return ""
        return f"DMA_{self.direction}_{'SEL' if self.kind == 'mem' else ''}{self.index}_{what}"

    @property
    def running(self) -> str:
        """The name of the event "words move on this stream"; "" beyond the ports that can be watched."""
        return f"PORT_RUNNING_{self.port}" if self.port < _PORTS else ""


@dataclass
class Trace:
    """Events of one run; ``limit`` bounds how many are kept, the rest are counted."""

    limit: int = 500_000
    events: list[tuple[float, float, str, Tile, str]] = field(default_factory=list[tuple[float, float, str, Tile, str]])
    dropped: int = 0

    def span(self, begin: float, end: float, kind: str, tile: Tile | None, event: str) -> None:
        """Something lasted from `begin` to `end` on a tile; nodes without a tile stand on (0, 0)."""
        if not event or end <= begin:
            return
        if len(self.events) >= self.limit:
            self.dropped += 1
            return
        self.events.append((begin, end, kind, tile or (0, 0), event))

    def to_json(self) -> list[dict[str, object]]:
        """Chrome trace events: ``ts`` in cycles; a ``process_name`` row for each tile and kind."""
        pids: dict[tuple[str, Tile], int] = {}
        tids: dict[tuple[int, str], int] = {}
        timed: list[tuple[float, int, dict[str, object]]] = []
        for begin, end, kind, tile, event in self.events:
            pid = pids.setdefault((kind, tile), len(pids))
            tid = tids.setdefault((pid, event), sum(1 for p, _ in tids if p == pid))
            for order, (ts, phase) in enumerate(((begin, "B"), (end, "E"))):
                entry: dict[str, object] = {
                    "name": event,
                    "ts": round(ts),
                    "ph": phase,
                    "pid": pid,
                    "tid": tid,
                    "args": dict[str, object](),
                }
                timed.append((ts, 1 - order, entry))
        timed.sort(key=lambda item: item[:2])
        names: list[dict[str, object]] = [
            {"name": "process_name", "ph": "M", "pid": pid, "args": {"name": _row(kind, tile)}}
            for (kind, tile), pid in pids.items()
        ]
        threads: list[dict[str, object]] = [
            {"name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": {"name": event}}
            for (pid, event), tid in tids.items()
        ]
        return [*names, *threads, *(entry for _, _, entry in timed)]


def _row(kind: str, tile: Tile) -> str:
    return f"{_ROWS[kind]} for tile{tile[1]},{tile[0]}"
