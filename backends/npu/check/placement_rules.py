"""Rules of places: which node may stand on which tile, and what pools neighbours can share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from neuc.backends.npu.check.facts import Facts, Violation


def has_tile(facts: Facts) -> Iterator[Violation]:
    """Every node has a tile, inside the array."""
    for name, tile in facts.tiles.items():
        if tile is None:
            yield Violation("has-tile", f"{name} has no tile")
        elif not facts.machine.contains(tile):
            yield Violation("tile-in-array", f"{name} is on {tile}, outside {facts.machine.name}")


def tile_kind(facts: Facts) -> Iterator[Violation]:
    """Kernels stand on cores, links on memory tiles, ports on shim tiles."""
    for nodes, kind in ((facts.kernels, "core"), (facts.links, "mem"), (facts.ports, "shim")):
        for name in nodes:
            tile = facts.tile(name)
            if tile is not None and facts.machine.tile_class(tile).kind != kind:
                yield Violation(f"{kind}-tile", f"{name} is on {tile}, a {facts.machine.tile_class(tile).kind} tile")


def one_kernel_a_core(facts: Facts) -> Iterator[Violation]:
    """A core runs one kernel."""
    for tile, count in Counter(facts.tile(name) for name in facts.kernels).items():
        if tile is not None and count > 1:
            yield Violation("one-kernel", f"{count} kernels are on core {tile}")


def program_memory(facts: Facts) -> Iterator[Violation]:
    """A kernel's code fits the core's program memory."""
    for kernel in facts.kernels.values():
        tile = facts.tile(kernel.name)
        if tile is not None and kernel.program_bytes > facts.machine.tile_class(tile).program_bytes:
            have = facts.machine.tile_class(tile).program_bytes
            yield Violation(
                "program-memory", f"{kernel.name} has {kernel.program_bytes} bytes of code, core {tile} holds {have}"
            )


def shared_memory(facts: Facts) -> Iterator[Violation]:
    """A shared pool joins one kernel with one other, and both see the tile it stands on."""
    for name, where in facts.design.shared.items():
        channel = facts.channels.get(name)
        if channel is None:
            yield Violation("shared-channel", f"{name} is shared, but no channel")
            continue
        if len(channel.consumers) != 1 or any(
            node not in facts.kernels for node in (channel.producer, *channel.consumers)
        ):
            yield Violation("shared-ends", f"{name} is shared, but does not join one kernel with one other")
            continue
        if channel.layout:
            yield Violation("shared-layout", f"{name} is shared, so no DMA puts its elements into another order")
        for node in (channel.producer, channel.consumers[0]):
            tile = facts.tile(node)
            if tile is None:
                continue
            step = (where[0] - tile[0], where[1] - tile[1])
            own_kind = facts.machine.contains(where) and facts.machine.tile_class(where).kind == "core"
            if step not in facts.machine.tile_class(tile).shared_memory or not own_kind:
                yield Violation("shared-visible", f"{name} is shared on {where}, which {node} on {tile} cannot reach")


RULES = (has_tile, tile_kind, one_kernel_a_core, program_memory, shared_memory)
