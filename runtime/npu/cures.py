"""The fewest added buffers with which a deadlocked design runs.

More depth never makes a design hang (Parks 1995), and no depths cure a circle of waiting in which nobody waits for
room; in any other, a channel or link that somebody of the circle waits for room in must grow (Stuijk, Geilen and Basten
2006). So growing each of those by one buffer, the cheapest depths first, finds the smallest cure: provided it is not so
far away that the search is cut short. What is a deadlock, `deadlock.py` tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import Design
from neuc.runtime.npu.simulator import Deadlock, Run, simulate, with_depths

MAX_DEPTH = 4096
MOST_DOUBLINGS = 32
MOST_EVENTS = 1_500_000
"""Simulated events after which the search for a smaller cure ends: some seconds."""


@dataclass(frozen=True)
class Cure:
    """Depths of channels and links that let a design run; ``proven`` if no others add fewer buffers."""

    depths: Mapping[str, int]
    proven: bool


def smallest_cure(design: Design, machine: Machine) -> Cure | None:
    """The fewest added buffers that let a deadlocked design run; None if depths are not the reason."""
    old = {part.name: part.depth for part in (*design.channels, *design.links)}
    some = _some_cure(design, machine, old)
    if some is None:
        return None
    most = _added(some, old)
    waiting: list[tuple[int, tuple[tuple[str, int], ...]]] = [(0, ())]
    seen = {waiting[0][1]}
    events = 0
    while waiting and events < MOST_EVENTS:
        added, key = heappop(waiting)
        if added >= most:
            return Cure(some, proven=True)
        depths = dict(key)
        run = _run(design, machine, depths)
        events += run.events
        if run.deadlock is None:
            return Cure(depths, proven=True)
        for name in _full(run.deadlock, old):
            grown = tuple(sorted({**depths, name: depths.get(name, old[name]) + 1}.items()))
            if grown not in seen:
                seen.add(grown)
                heappush(waiting, (added + 1, grown))
    return Cure(some, proven=not waiting)


def _some_cure(design: Design, machine: Machine, old: Mapping[str, int]) -> dict[str, int] | None:
    """Depths that let the design run, none of which alone could be smaller; None if there are none."""
    grown: dict[str, int] = {}
    for _ in range(MOST_DOUBLINGS):
        run = _run(design, machine, grown)
        if run.deadlock is None:
            break
        full = _full(run.deadlock, old)
        if not full or any(2 * grown.get(name, old[name]) > MAX_DEPTH for name in full):
            return None
        grown |= {name: 2 * grown.get(name, old[name]) for name in full}
    else:
        return None
    for name in sorted(grown):
        low, high = old[name] - 1, grown[name]
        while high - low > 1:
            middle = (low + high) // 2
            runs = _run(design, machine, {**grown, name: middle}).deadlock is None
            low, high = (low, middle) if runs else (middle, high)
        grown[name] = high
    return {name: depth for name, depth in grown.items() if depth > old[name]}


def _run(design: Design, machine: Machine, depths: Mapping[str, int]) -> Run:
    return simulate(with_depths(design, depths), machine, {}, values=False)


def _added(depths: Mapping[str, int], old: Mapping[str, int]) -> int:
    return sum(depth - old[name] for name, depth in depths.items())


def _full(deadlock: Deadlock, names: Mapping[str, int]) -> list[str]:
    """Channels and links that somebody in the circle waits for room in."""
    room = [what for _, what, _ in deadlock.cycle if what.startswith(("room", "a free"))]
    words = {word for what in room for word in what.replace("@", " ").split()}
    return [name for name in names if name in words]
