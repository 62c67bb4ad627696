"""The placement problem: which tiles each node may take, what it weighs to be apart, and what a tile can hold.

Built from a design and a machine; solvers (`exact.py`, `annealing.py`) read nothing else. What a placement is judged by
stands in `objective.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import gcd

from neuc.backends.npu.interval import iteration, loads_of
from neuc.errors import Error
from neuc.runtime.npu.machine import Machine, Tile
from neuc.runtime.npu.program import Design, Kernel, Link, Node, Port


@dataclass(frozen=True)
class Wire:
    """Bytes an iteration moves between two nodes on one channel; ``shareable`` if one pool could serve both ends."""

    channel: str
    source: str
    target: str
    weight: int
    shareable: bool


@dataclass(frozen=True)
class Demand:
    """What a node takes of a tile: DMA channels each way and bytes of memory. A kernel also takes the core itself."""

    s2mm: int
    mm2s: int
    memory: int
    kernel: bool


@dataclass(frozen=True)
class Problem:
    """Nodes with their possible tiles and demands, and wires between them. Weights are divided by ``unit`` bytes.

    ``must_share`` gives for a kernel how many of its inputs and outputs have to be shared with a neighbour, because the
    tile has fewer DMA channels; such ends are not part of its demand. ``loads`` are the cycles of an iteration by
    channels that may be shared, ``floor`` the cycles that no placement saves.
    """

    machine: Machine
    domains: Mapping[str, tuple[Tile, ...]]
    demands: Mapping[str, Demand]
    wires: tuple[Wire, ...]
    pinned: frozenset[str]
    unit: int = 1
    must_share: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, "tuple[int, int]"])
    loads: Mapping[str, float] = field(default_factory=dict[str, float])
    floor: float = 0.0

    @property
    def reach(self) -> tuple[Tile, ...]:
        """Steps from a core tile to the tiles whose memory it sees."""
        core = self.machine.classes.get("core")
        return () if core is None else core.shared_memory

    def cost(self, places: Mapping[str, Tile]) -> int:
        """Σ weight x Manhattan distance."""
        return sum(wire.weight * distance(places[wire.source], places[wire.target]) for wire in self.wires)

    def capacity(self, tile: Tile) -> Demand:
        """What a tile has, in the same terms."""
        cls = self.machine.tile_class(tile)
        dma = cls.dma
        channels = (0, 0) if dma is None else (dma.s2mm, dma.mm2s)
        return Demand(*channels, cls.memory_bytes - cls.reserved_bytes, cls.kind == "core")


def distance(a: Tile, b: Tile) -> int:
    """Hops between two tiles."""
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def can_share(a: Tile, b: Tile, reach: tuple[Tile, ...]) -> bool:
    """Whether a pool on one of two core tiles is visible to both."""
    step = (b[0] - a[0], b[1] - a[1])
    return step in reach or (-step[0], -step[1]) in reach


_KINDS: Mapping[type[Node], str] = {Kernel: "core", Link: "mem", Port: "shim"}


def problem_of(design: Design, machine: Machine) -> Problem:
    """The problem of placing `design`.

    Raises:
        Error: NEUC-E674, a pin is outside the array or on a tile of another kind; NEUC-E675, a node fits no tile.
    """
    domains: dict[str, tuple[Tile, ...]] = {}
    for node in design.nodes:
        kind = _KINDS[type(node)]
        if node.tile is not None and node.pinned:
            _check_pin(node, kind, machine)
            domains[node.name] = (node.tile,)
        else:
            domains[node.name] = tuple(machine.tiles(kind))
        if not domains[node.name]:
            raise Error(
                "NEUC-E675", f"{node.name} needs a {kind} tile, {machine.name} has none", hint="take another machine"
            )
    tokens = iteration(design)
    wires, unit = _wires(design, tokens)
    demands, shares = _demands(design, machine, wires)
    pinned = frozenset(node.name for node in design.nodes if node.pinned)
    busy = loads_of(design, machine, tokens)
    shareable = {wire.channel for wire in wires if wire.shareable}
    always = [*busy.fixed.values(), *(load for name, load in busy.dma.items() if name not in shareable)]
    loads = {name: load for name, load in busy.dma.items() if name in shareable}
    return Problem(machine, domains, demands, wires, pinned, unit, shares, loads, max(always, default=0.0))


def _check_pin(node: Node, kind: str, machine: Machine) -> None:
    assert node.tile is not None
    if not machine.contains(node.tile):
        size = f"{machine.cols} columns and {machine.rows} rows"
        raise Error(
            "NEUC-E674",
            f"{node.name} is pinned to {node.tile}, outside {machine.name} of {size}",
            hint="correct the pin",
        )
    found = machine.tile_class(node.tile).kind
    if found != kind:
        raise Error(
            "NEUC-E674",
            f"{node.name} is pinned to {node.tile}, a {found} tile; it needs a {kind} tile",
            hint="correct the pin",
        )


def _wires(design: Design, tokens: Mapping[str, int]) -> tuple[tuple[Wire, ...], int]:
    kernels = {kernel.name for kernel in design.kernels}
    raw = [
        (channel, consumer, channel.nbytes * tokens[channel.name])
        for channel in design.channels
        for consumer in channel.consumers
    ]
    unit = gcd(*(weight for _, _, weight in raw)) if raw else 1
    wires = tuple(
        Wire(
            channel.name,
            channel.producer,
            consumer,
            weight // unit,
            len(channel.consumers) == 1 and channel.producer in kernels and consumer in kernels and not channel.layout,
        )
        for channel, consumer, weight in raw
    )
    return wires, unit


def _demands(
    design: Design, machine: Machine, wires: tuple[Wire, ...]
) -> tuple[dict[str, Demand], dict[str, tuple[int, int]]]:
    channels = {channel.name: channel for channel in design.channels}
    shareable = {wire.channel for wire in wires if wire.shareable}
    demands: dict[str, Demand] = {}
    shares: dict[str, tuple[int, int]] = {}
    for link in design.links:
        memory = link.depth * sum(channels[c].nbytes for c in link.inputs)
        demands[link.name] = Demand(len(link.inputs), len(link.outputs), memory, kernel=False)
    for port in design.ports:
        out = port.direction == "out"
        demands[port.name] = Demand(int(out), int(not out), 0, kernel=False)
    dma = machine.classes["core"].dma
    limit = (64, 64) if dma is None else (dma.s2mm, dma.mm2s)
    for kernel in design.kernels:
        memory = kernel.state_bytes + sum(
            channels[c].nbytes * channels[c].depth for c in (*kernel.inputs, *kernel.outputs)
        )
        needs = (len(kernel.inputs), len(kernel.outputs))
        excess = tuple(max(0, n - most) for n, most in zip(needs, limit))
        for what, ends, over, need, most in zip(
            ("input", "output"), (kernel.inputs, kernel.outputs), excess, needs, limit
        ):
            if over > sum(1 for c in ends if c in shareable):
                way = "S2MM" if what == "input" else "MM2S"
                raise Error(
                    "NEUC-E675",
                    f"{need} {what}s of kernel {kernel.name} need {need} {way} channels, a core tile has {most}",
                    hint="join inputs in a memory tile, or feed some from a neighbouring kernel",
                )
        if any(excess):
            shares[kernel.name] = (excess[0], excess[1])
        demands[kernel.name] = Demand(min(needs[0], limit[0]), min(needs[1], limit[1]), memory, kernel=True)
    return demands, shares
