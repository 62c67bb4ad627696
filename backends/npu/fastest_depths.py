"""Depths of channels and links that make a graph as fast as its buffers ever could, and no deeper.

More buffers never slow a self-timed dataflow graph down (Wiggers et al. 2007), so that the time with all depths as
large as memory and buffer descriptors allow is the best there is. From there every depth is made as small as keeps that
time, the largest buffers first: no single one can be smaller. Time is the simulator's, without values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from neuc.errors import Error
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import Channel, Design, Link
from neuc.runtime.npu.simulator import simulate, with_depths

_DEEPEST = 32
"""No published design goes near it: buffer descriptors run out (16 a core tile)."""
_SAME = 1 + 1e-9


@dataclass(frozen=True)
class Depths:
    """Depths by name, of those that changed, and the cycles of a run before and after."""

    depths: Mapping[str, int]
    before: float
    after: float


def fastest_depths(design: Design, machine: Machine) -> Depths:
    """The smallest depths with which `design` runs as fast as memory permits.

    Args:
        design: a checked design with a host sequence that runs to its end.
        machine: whose costs, memory and descriptors count.

    Raises:
        Error: NEUC-E679, the design deadlocks with the depths it has.
    """
    before = _cycles(design, machine, {})
    if before is None:
        raise Error("NEUC-E679", f"{design.name} comes to a stop", hint="size its buffers for that first")
    parts = [*design.channels, *design.links]
    now = {part.name: part.depth for part in parts}
    deep = _deepest(design, machine, now)
    best = _cycles(design, machine, deep)
    if best is None or best >= before:
        deep, best = dict(now), before
    channels = {channel.name: channel for channel in design.channels}
    for part in sorted(parts, key=lambda p: (-_bytes_a_buffer(p, channels), p.name)):
        low, high = 1, deep[part.name]
        while low < high:
            middle = (low + high) // 2
            cycles = _cycles(design, machine, {**deep, part.name: middle})
            low, high = (low, middle) if cycles is not None and cycles <= best * _SAME else (middle + 1, high)
        deep[part.name] = high
    return Depths({name: depth for name, depth in deep.items() if depth != now[name]}, before, best)


def _cycles(design: Design, machine: Machine, depths: Mapping[str, int]) -> float | None:
    """Cycles until the host's sequence is over; None if it never is."""
    run = simulate(with_depths(design, depths), machine, {}, values=False)
    return None if run.deadlock is not None else run.cycles


def _bytes_a_buffer(part: Channel | Link, channels: Mapping[str, Channel]) -> int:
    if isinstance(part, Channel):
        return part.nbytes * (1 + len(part.consumers))
    return sum(channels[name].nbytes for name in part.inputs)


def _deepest(design: Design, machine: Machine, now: Mapping[str, int]) -> dict[str, int]:
    """Depths raised together, by doubling, while every node alone fits its kind of tile."""
    found, wider = dict(now), dict(now)
    while max(wider.values(), default=_DEEPEST) <= _DEEPEST and _fits(design, machine, wider):
        found = wider
        wider = {name: 2 * depth for name, depth in found.items()}
    # One node without room must not hold back the others.
    for name in now:
        while found[name] < _DEEPEST and _fits(design, machine, {**found, name: 2 * found[name]}):
            found[name] *= 2
    return found


def _fits(design: Design, machine: Machine, depths: Mapping[str, int]) -> bool:
    channels = {channel.name: channel for channel in design.channels}
    core, mem = machine.classes.get("core"), machine.classes.get("mem")
    for kernel in design.kernels:
        names = (*kernel.inputs, *kernel.outputs)
        wanted = kernel.state_bytes + sum(channels[c].nbytes * depths[c] for c in names)
        if core is None or wanted > core.memory_bytes - core.reserved_bytes:
            return False
        if core.dma is not None and sum(depths[c] for c in names) > core.dma.bds:
            return False
    for link in design.links:
        wanted = depths[link.name] * sum(channels[c].nbytes for c in link.inputs)
        if mem is None or wanted > mem.memory_bytes - mem.reserved_bytes:
            return False
        if mem.dma is not None and depths[link.name] * (len(link.inputs) + len(link.outputs)) > mem.dma.bds:
            return False
    return True
