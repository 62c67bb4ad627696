"""Times of launches and host segments, as Chrome trace events (``chrome://tracing``, Perfetto)."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from neuc.errors import Error
from neuc.runtime.cache import replacing

MAX_EVENTS = 1_000_000
"""Later events are counted but not kept."""


@dataclass(frozen=True)
class Event:
    """Something that took time: begin and end in ns of the monotonic clock, on a thread of the pool (0 = caller)."""

    name: str
    category: str
    begin: int
    end: int
    thread: int
    details: Mapping[str, object]


class Profile:
    """A growing list of events; `save` writes it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.dropped = 0
        self._lock = threading.Lock()

    def add(self, events: list[Event]) -> None:
        """Append events of one run."""
        with self._lock:
            room = MAX_EVENTS - len(self.events)
            self.events += events[:room]
            self.dropped += max(0, len(events) - room)

    def totals(self) -> dict[str, int]:
        """Nanoseconds by event name, summed over threads and runs, largest first."""
        sums: dict[str, int] = {}
        for event in self.events:
            sums[event.name] = sums.get(event.name, 0) + event.end - event.begin
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    def to_json(self) -> dict[str, object]:
        """The trace in Chrome's format; times in µs from the first event."""
        start = min((event.begin for event in self.events), default=0)
        return {
            "displayTimeUnit": "ns",
            "traceEvents": [
                {
                    "ph": "X",
                    "name": event.name,
                    "cat": event.category,
                    "ts": (event.begin - start) / 1000,
                    "dur": (event.end - event.begin) / 1000,
                    "pid": os.getpid(),
                    "tid": event.thread,
                    "args": dict(event.details),
                }
                for event in self.events
            ],
            "otherData": {"dropped": self.dropped},
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as JSON."""
        try:
            with replacing(Path(path)) as file:
                file.write(json.dumps(self.to_json()).encode("utf-8"))
        except OSError as error:
            raise Error("NEUC-E306", f"cannot write {path}: {error.strerror}", hint="choose another place") from error
