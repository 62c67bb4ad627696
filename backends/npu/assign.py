"""Resources of a placed design: buffers' addresses, locks, DMA channels and buffer descriptors, tile by tile.

Nothing is searched: numbers are given out in order, buffers go bank by bank where they fit. What runs out is named.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from neuc.errors import Error
from neuc.runtime.npu.machine import Machine, Tile
from neuc.runtime.npu.program import Channel, Design, DmaEnd, Link, Pool, PoolPlan, Port, Transfer, pools_of

ALIGNMENT = 32


def assign_resources(design: Design, machine: Machine) -> Design:
    """`design` with pools and DMA ends.

    Raises:
        Error: NEUC-E677: a tile has too little memory, or too few locks, DMA channels or buffer descriptors.
    """
    tiles = {node.name: node.tile for node in design.nodes}
    plans: dict[Tile, list[PoolPlan]] = defaultdict(list)
    for plan in pools_of(design):
        tile = design.shared.get(plan.name) or tiles[plan.owner]
        assert tile is not None, f"{plan.owner} is not placed"
        plans[tile].append(plan)
    pools: list[Pool] = []
    for tile, here in plans.items():
        state = sum(k.state_bytes for k in design.kernels if k.tile == tile)
        addresses = _addresses(tile, here, state, machine)
        locks = 0
        for plan in here:
            pairs = _parts(design, plan)
            own = tuple(range(locks, locks + 2 * pairs))
            locks += 2 * pairs
            pools.append(Pool(plan.name, tile, plan.nbytes, addresses[plan.name], own))
        limit = machine.tile_class(tile).locks
        if locks > limit:
            names = ", ".join(plan.name for plan in here)
            raise _exhausted(tile, machine, f"needs {locks} locks for {names}; it has {limit}")
    return replace(
        design, pools=tuple(sorted(pools, key=lambda p: p.name)), dmas=tuple(_dma_ends(design, machine)), routes=()
    )


def _parts(design: Design, plan: PoolPlan) -> int:
    """Pairs of locks of a pool: one for each part that has a DMA of its own."""
    link = next((link for link in design.links if link.name == plan.name), None)
    return 1 if link is None else max(len(link.inputs), len(link.outputs))


def _exhausted(tile: Tile, machine: Machine, what: str) -> Error:
    kind = machine.tile_class(tile).kind
    return Error(
        "NEUC-E677", f"{kind} tile {tile} {what}", hint="smaller or shallower buffers, or fewer channels at this tile"
    )


def _up(value: int) -> int:
    return -(-value // ALIGNMENT) * ALIGNMENT


def _addresses(tile: Tile, plans: list[PoolPlan], state: int, machine: Machine) -> dict[str, tuple[int, ...]]:
    """Addresses of every buffer: within banks if all fit so, else one after the other."""
    cls = machine.tile_class(tile)
    first = _up(cls.reserved_bytes + state)
    bank = cls.memory_bytes // max(1, cls.banks)
    buffers = sorted(
        ((plan.nbytes, plan.name, i) for plan in plans for i in range(plan.depth)), key=lambda b: (-b[0], b[1:])
    )
    fill = [min(max(first - index * bank, 0), bank) for index in range(cls.banks)]
    placed: dict[str, dict[int, int]] = defaultdict(dict)
    for nbytes, name, i in buffers:
        free = [index for index in range(cls.banks) if fill[index] + nbytes <= bank]
        if not free:
            return _in_line(tile, buffers, first, machine)
        index = min(free, key=lambda b: (fill[b], b))
        placed[name][i] = index * bank + fill[index]
        fill[index] = _up(fill[index] + nbytes)
    return {name: tuple(at[i] for i in sorted(at)) for name, at in placed.items()}


def _in_line(
    tile: Tile, buffers: list[tuple[int, str, int]], first: int, machine: Machine
) -> dict[str, tuple[int, ...]]:
    placed: dict[str, dict[int, int]] = defaultdict(dict)
    at, limit = first, machine.tile_class(tile).memory_bytes
    for nbytes, name, i in buffers:
        placed[name][i] = at
        at = _up(at + nbytes)
    if at > limit:
        sizes = ", ".join(f"{name} {nbytes}" for nbytes, name, i in buffers if i == 0)
        raise _exhausted(
            tile, machine, f"needs {at} bytes for its stack and {len(buffers)} buffers ({sizes}); it has {limit}"
        )
    return {name: tuple(found[i] for i in sorted(found)) for name, found in placed.items()}


class _TileDma:
    """Channels and descriptors of one tile, given out in order."""

    def __init__(self, tile: Tile, machine: Machine) -> None:
        self.tile, self.machine = tile, machine
        dma = machine.tile_class(tile).dma
        if dma is None:
            raise _exhausted(tile, machine, "has no DMA")
        self.dma = dma
        self.left = {"s2mm": list(range(dma.s2mm)), "mm2s": list(range(dma.mm2s))}
        half = dma.bds // 2
        everything = list(range(dma.bds))
        self.bds = {0: everything[:half], 1: everything[half:]} if dma.parity_pools else {0: everything, 1: everything}
        self.users: list[str] = []

    def take(self, channel: str, direction: str, count: int) -> tuple[int, tuple[int, ...]]:
        """A channel and `count` descriptors for an end of `channel`."""
        self.users.append(f"{channel} ({direction})")
        if not self.left[direction]:
            have = self.dma.s2mm if direction == "s2mm" else self.dma.mm2s
            raise _exhausted(
                self.tile,
                self.machine,
                f"needs more than its {have} {direction.upper()} channels: {', '.join(self.users)}",
            )
        for index in sorted(self.left[direction], key=lambda i: (-len(self.bds[i % 2]), i)):
            if len(self.bds[index % 2]) >= count:
                self.left[direction].remove(index)
                pool = self.bds[index % 2]
                own = tuple(pool[:count])
                del pool[:count]
                return index, own
        raise _exhausted(
            self.tile, self.machine, f"has too few of its {self.dma.bds} buffer descriptors for {', '.join(self.users)}"
        )


def _dma_ends(design: Design, machine: Machine) -> list[DmaEnd]:
    engines: dict[Tile, _TileDma] = {}
    ends: list[DmaEnd] = []
    for channel in design.channels:
        if channel.name in design.shared:
            continue
        for node, direction in ((channel.producer, "mm2s"), *((c, "s2mm") for c in channel.consumers)):
            found = design.node(node)
            assert found.tile is not None, f"{node} is not placed"
            engine = engines.setdefault(found.tile, _TileDma(found.tile, machine))
            count = _descriptors(design, channel, found.name, engine)
            index, bds = engine.take(channel.name, direction, count)
            ends.append(DmaEnd(channel.name, node, found.tile, direction, index, bds))
    return ends


def _descriptors(design: Design, channel: Channel, node: str, engine: _TileDma) -> int:
    """One for each buffer; a port has one for each task that may be queued."""
    found = design.node(node)
    if isinstance(found, Link):
        return found.depth
    if isinstance(found, Port):
        tasks = sum(isinstance(step, Transfer) and step.port == node for step in design.sequence)
        return max(1, min(tasks, engine.dma.queue_depth))
    return channel.depth
