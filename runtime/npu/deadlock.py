"""Deadlocks told before they happen, with the depths that cure them (`cures.py` searches for those).

A dataflow program with bounded channels either always or never deadlocks, whatever the order of events (Kahn; Parks
1995), so that running tokens without values decides it. One class of hardware hangs has another cause, replayed
coupled broadcasts, and a rule of its own (mlir-aie #3257), which needs no run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from neuc.runtime.npu.cures import smallest_cure
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import DTYPES, Channel, Design, Link, Transfer
from neuc.runtime.npu.simulator import Deadlock, simulate, with_depths


@dataclass(frozen=True)
class Replay:
    """A broadcast of one source that is replayed in a loop: more tokens outstanding than there are buffers."""

    channels: tuple[str, ...]
    fan_out: int
    trips: int
    depth: int

    @property
    def demand(self) -> int:
        """Tokens outstanding at once."""
        return self.fan_out * self.trips

    def __str__(self) -> str:
        names = ", ".join(self.channels)
        return (
            f"{names}: {self.fan_out} consumers x {self.trips} trips need {self.demand} buffers, "
            f"twice depth {self.depth} are {2 * self.depth}"
        )


@dataclass(frozen=True)
class Verdict:
    """Whether a design hangs, why, and the depths (of channels and links) with which it would not.

    ``smallest``: no other depths that cure it add fewer buffers.
    """

    deadlock: Deadlock | None
    replays: tuple[Replay, ...]
    cure: Mapping[str, int] | None
    smallest: bool = True

    @property
    def hangs(self) -> bool:
        """Whether the design comes to a stop."""
        return self.deadlock is not None or bool(self.replays)

    def __str__(self) -> str:
        if not self.hangs:
            return "runs"
        why = [str(self.deadlock)] if self.deadlock is not None else []
        cure = "no depths cure it" if self.cure is None else ", ".join(f"{k} depth {v}" for k, v in self.cure.items())
        rest = "" if self.smallest else " (fewer buffers may do: the search was cut short)"
        return f"hangs: {'; '.join([*why, *map(str, self.replays)])}; cure: {cure}{rest}"


def diagnose_design(design: Design, machine: Machine) -> Verdict:
    """Run tokens without values, look for replayed broadcasts, and search for the cure if either hangs."""
    stuck = simulate(design, machine, {}, values=False).deadlock
    replays = coupled_replays(design)
    if stuck is None and not replays:
        return Verdict(None, (), None)
    depths: dict[str, int] = {}
    for replay in replays:
        depths |= dict.fromkeys(replay.channels, -(-replay.demand // 2))
    if stuck is None:
        return Verdict(None, replays, depths)
    found = smallest_cure(with_depths(design, depths), machine)
    if found is None:
        return Verdict(stuck, replays, None)
    return Verdict(stuck, replays, {**depths, **found.depths}, found.proven)


def coupled_replays(design: Design) -> tuple[Replay, ...]:
    """Broadcasts of one source to several kernels that are replayed in a loop, with too few buffers.

    The loop goes through a memory tile that replays the kernels' results (mlir-aie #3257), or through the broadcast's
    own memory tile, which sends each buffer in several trips and is then filled again (as mlir-air #1822 can be read:
    only settings between a single trip and a single filling hang). Fan-outs of all parts of one source count together;
    more than one trip runs if fan-out x trips <= 2 x depth.
    """
    links = {link.name: link for link in design.links}
    kernels = {kernel.name: kernel for kernel in design.kernels}
    channels = {channel.name: channel for channel in design.channels}
    groups: dict[str, list[tuple[Channel, int]]] = defaultdict(list)
    for channel in design.channels:
        consumers = [kernels[c] for c in channel.consumers if c in kernels]
        if channel.producer not in links or len(consumers) < 2:
            continue
        returns = {consumer for k in consumers for out in k.outputs for consumer in channels[out].consumers}
        trips = max((links[name].repeat for name in returns if name in links), default=1)
        own = links[channel.producer]
        if own.repeat > 1 and _fillings(design, own, channels, links) > 1:
            trips = max(trips, own.repeat)
        if trips > 1:
            groups[_source(channel, channels, links)].append((channel, trips))
    found: list[Replay] = []
    for members in groups.values():
        fan_out = sum(len(channel.consumers) for channel, _ in members)
        depth = min(channel.depth for channel, _ in members)
        replay = Replay(tuple(c.name for c, _ in members), fan_out, max(trips for _, trips in members), depth)
        if replay.demand > 2 * depth:
            found.append(replay)
    return tuple(found)


def _fillings(design: Design, link: Link, channels: Mapping[str, Channel], links: Mapping[str, Link]) -> int:
    """How often the host has a memory tile's buffer filled; 2, meaning often, if a kernel fills it."""
    port = _source(channels[link.inputs[0]], channels, links)
    if port not in {port.name for port in design.ports}:
        return 2
    token = design.channel(next(p.channel for p in design.ports if p.name == port)).nbytes
    moved = 0
    for step in design.sequence:
        if isinstance(step, Transfer) and step.port == port:
            moved += prod(step.sizes) * DTYPES[design.buffer(step.buffer).dtype].itemsize
    return moved // token


def _source(channel: Channel, channels: Mapping[str, Channel], links: Mapping[str, Link]) -> str:
    """Where a channel's tokens come from: back through links to a port or a kernel."""
    seen: set[str] = set()
    while channel.producer in links and channel.name not in seen:
        seen.add(channel.name)
        link = links[channel.producer]
        channel = channels[link.inputs[0]]
    return channel.producer
