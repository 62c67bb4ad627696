"""The NPU program: a dataflow graph, where its parts are, and what the host does; plain frozen data.

One structure serves every stage: a graph has no tiles yet, a placed one has no pools, DMA ends or routes. Passes give
new designs, the simulator runs one, exports print one. What a machine can do stands in `machine.py`; reading and
writing JSON in `program_json.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

import numpy as np

from neuc.runtime.npu.machine import Tile

ParamValue: TypeAlias = int | float | str | list[int]

DTYPES: Mapping[str, np.dtype[np.generic]] = {
    **{f"i{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32)},
    **{f"u{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32)},
    "bf16": np.dtype("uint16"),
    "f32": np.dtype("float32"),
}
"""Element types of tokens; bf16 travels as its 16 bits."""

LINK_MODES = ("forward", "split", "join", "broadcast")


@dataclass(frozen=True)
class Kernel:
    """A function fired again and again on one core.

    In phase p (phases repeat) it takes ``consume[i][p]`` tokens from ``inputs[i]``, computes for ``cycles[p]`` cycles
    and gives ``produce[j][p]`` tokens to ``outputs[j]``. ``function`` names an entry of `functions.py` or one that the
    caller of the simulator brings; ``pinned`` tiles are the user's choice, which the placer keeps.
    """

    name: str
    function: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    consume: tuple[tuple[int, ...], ...]
    produce: tuple[tuple[int, ...], ...]
    cycles: tuple[int, ...]
    params: Mapping[str, ParamValue] = field(default_factory=dict[str, ParamValue])
    state_bytes: int = 0
    program_bytes: int = 2048
    tile: Tile | None = None
    pinned: bool = False

    @property
    def phases(self) -> int:
        """Phases of one period."""
        return len(self.cycles)


@dataclass(frozen=True)
class Channel:
    """An object FIFO: tokens of one shape, in order, from one producer to each of its consumers.

    ``depth`` buffers stand at each end that is a core (one pool if both see it). ``layout`` is the order in which a
    token's elements leave its producer's memory: (size, stride) pairs, outermost first; () is as they lie.
    """

    name: str
    producer: str
    consumers: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    depth: int = 2
    layout: tuple[tuple[int, int], ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of one token."""
        return prod(self.shape) * self.element_bytes

    @property
    def element_bytes(self) -> int:
        """Bytes of one element of a token."""
        return DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Link:
    """A memory tile's pool between channels: what comes in on ``inputs`` leaves on ``outputs``.

    forward and broadcast: one input, every output carries the whole token. split: output i carries the bytes from
    ``offsets[i]``. join: input i fills them. Each buffer is sent ``repeat`` times before it is free again.
    """

    name: str
    mode: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    offsets: tuple[int, ...] = ()
    repeat: int = 1
    depth: int = 2
    tile: Tile | None = None
    pinned: bool = False


@dataclass(frozen=True)
class Port:
    """Where a channel meets host memory: a shim tile's DMA. ``direction`` is ``in`` (host to array) or ``out``."""

    name: str
    channel: str
    direction: str
    tile: Tile | None = None
    pinned: bool = False


@dataclass(frozen=True)
class HostBuffer:
    """An array in host memory; ``role`` is input, output or weight."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    role: str

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Param:
    """A run-time parameter of a kernel, with the value it has until the sequence sets another."""

    name: str
    kernel: str
    value: int


@dataclass(frozen=True)
class Transfer:
    """Host: queue a task on a port: elements ``offset + Σ index·stride`` of a buffer, the last index fastest."""

    port: str
    buffer: str
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Wait:
    """Host: until every task queued on a port is done."""

    port: str


@dataclass(frozen=True)
class SetParam:
    """Host: write a run-time parameter."""

    param: str
    value: int


Step: TypeAlias = Transfer | Wait | SetParam


@dataclass(frozen=True)
class Pool:
    """Buffers on a tile, their addresses, and their locks: a pair (free, full) for each part handled apart."""

    name: str
    tile: Tile
    nbytes: int
    addresses: tuple[int, ...]
    locks: tuple[int, ...]


@dataclass(frozen=True)
class DmaEnd:
    """The end of a channel at a tile's DMA; ``node`` is the kernel, link or port there."""

    channel: str
    node: str
    tile: Tile
    direction: str
    index: int
    bds: tuple[int, ...]


@dataclass(frozen=True)
class Connection:
    """One circuit in a tile's switch: from a slave port to a master port."""

    tile: Tile
    source: tuple[str, int]
    target: tuple[str, int]


@dataclass(frozen=True)
class Route:
    """A channel's tree of circuits, from its producer's DMA to each consumer's."""

    channel: str
    connections: tuple[Connection, ...]


Node: TypeAlias = Kernel | Link | Port


@dataclass(frozen=True)
class Design:
    """A dataflow program for one machine, at any stage of its making."""

    name: str
    machine: str
    kernels: tuple[Kernel, ...] = ()
    channels: tuple[Channel, ...] = ()
    links: tuple[Link, ...] = ()
    ports: tuple[Port, ...] = ()
    buffers: tuple[HostBuffer, ...] = ()
    params: tuple[Param, ...] = ()
    sequence: tuple[Step, ...] = ()
    shared: Mapping[str, Tile] = field(default_factory=dict[str, Tile])
    pools: tuple[Pool, ...] = ()
    dmas: tuple[DmaEnd, ...] = ()
    routes: tuple[Route, ...] = ()

    @property
    def stage(self) -> str:
        """logical, placed (every node has a tile), assigned (pools and DMA ends) or routed."""
        if self.routes:
            return "routed"
        if self.pools:
            return "assigned"
        return "placed" if self.nodes and all(node.tile is not None for node in self.nodes) else "logical"

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Everything that stands on a tile."""
        return (*self.kernels, *self.links, *self.ports)

    def node(self, name: str) -> Node:
        """The kernel, link or port of this name."""
        return next(node for node in self.nodes if node.name == name)

    def channel(self, name: str) -> Channel:
        """The channel of this name."""
        return next(channel for channel in self.channels if channel.name == name)

    def buffer(self, name: str) -> HostBuffer:
        """The host buffer of this name."""
        return next(buffer for buffer in self.buffers if buffer.name == name)


@dataclass(frozen=True)
class PoolPlan:
    """A pool a design needs, before it has addresses: ``owner`` is the node on whose tile it stands."""

    name: str
    owner: str
    nbytes: int
    depth: int


def pool_name(channel: str, node: str) -> str:
    """The name of the pool at one end of a channel."""
    return f"{channel}@{node}"


def pools_of(design: Design) -> list[PoolPlan]:
    """The pools a design needs: one a core end of a channel (one in all where it is shared), one a link."""
    links = {link.name: link for link in design.links}
    kernels = {kernel.name for kernel in design.kernels}
    plans: list[PoolPlan] = []
    for channel in design.channels:
        if channel.name in design.shared:
            plans.append(PoolPlan(channel.name, channel.producer, channel.nbytes, channel.depth))
            continue
        for end in (channel.producer, *channel.consumers):
            if end in kernels:
                plans.append(PoolPlan(pool_name(channel.name, end), end, channel.nbytes, channel.depth))
    channels = {channel.name: channel for channel in design.channels}
    for link in links.values():
        whole = sum(channels[c].nbytes for c in link.inputs)
        plans.append(PoolPlan(link.name, link.name, whole, link.depth))
    return plans
