"""The simulator's clock and its pools of buffers: events in time order, and who may read or write which buffer.

Nothing here knows what a kernel, a DMA or a host is; those are `processes.py`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]


class Clock:
    """Events by (time, order of posting): equal designs give equal runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._posted = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, delay: float, action: Callable[[], None]) -> None:
        """Run `action` `delay` cycles from now."""
        self._posted += 1
        heapq.heappush(self._heap, (self.now + delay, self._posted, action))

    def step(self) -> bool:
        """Run the next event; False when there is none."""
        if not self._heap:
            return False
        self.now, _, action = heapq.heappop(self._heap)
        self.events += 1
        action()
        return True


class Process(Protocol):
    """Something that starts work when buffers allow it."""

    @property
    def name(self) -> str:
        """The name diagnoses use."""
        ...

    def poke(self) -> None:
        """Something changed: start if possible."""
        ...

    def blocked_on(self) -> list[tuple[str, Process]]:
        """Why it does not go on, and who would have to act; nothing if it has no wish to go on."""
        ...


class PoolState:
    """Buffers used in turn: each writer fills every buffer (or its part), each reader frees every buffer.

    Counts only grow; buffer i is slot i mod depth. A writer may begin buffer i when every reader has freed i - depth; a
    reader may take buffer i when every writer has finished it.
    """

    def __init__(self, name: str, depth: int, nbytes: int) -> None:
        self.name = name
        self.depth = depth
        self.begun: list[int] = []
        self.written: list[int] = []
        self.freed: list[int] = []
        self.writers: list[Process] = []
        self.readers: list[Process] = []
        self.slots: list[Bytes] = [np.zeros(nbytes, np.uint8) for _ in range(depth)]

    def add_writer(self, process: Process) -> int:
        """Register a writer; its number."""
        self.writers.append(process)
        self.begun.append(0)
        self.written.append(0)
        return len(self.writers) - 1

    def add_reader(self, process: Process) -> int:
        """Register a reader; its number."""
        self.readers.append(process)
        self.freed.append(0)
        return len(self.readers) - 1

    def room(self, writer: int) -> int:
        """Buffers this writer may begin now."""
        return self.depth - (self.begun[writer] - min(self.freed)) if self.freed else self.depth

    def filled(self, reader: int) -> int:
        """Buffers this reader may take now."""
        return min(self.written) - self.freed[reader] if self.written else 0

    def slot(self, index: int) -> Bytes:
        """The buffer with this running number."""
        return self.slots[index % self.depth]

    def finish(self, writer: int, count: int = 1) -> None:
        """The writer finished buffers it had begun; readers look again."""
        self.written[writer] += count
        for process in self.readers:
            process.poke()

    def free(self, reader: int, count: int = 1) -> None:
        """The reader is done with buffers; writers look again."""
        self.freed[reader] += count
        for process in self.writers:
            process.poke()

    def missing_writers(self, reader: int, wanted: int) -> list[Process]:
        """Who has to write before `reader` can take `wanted` buffers."""
        goal = self.freed[reader] + wanted
        return [process for process, done in zip(self.writers, self.written) if done < goal]

    def missing_readers(self, writer: int, wanted: int) -> list[Process]:
        """Who has to free buffers before `writer` can begin `wanted`."""
        goal = self.begun[writer] + wanted - self.depth
        return [process for process, done in zip(self.readers, self.freed) if done < goal]
