"""What all rules look things up in, and what a broken rule is. No rule stands here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from neuc.runtime.npu.machine import Machine, Tile
from neuc.runtime.npu.program import Channel, Design, Kernel, Link, Port


@dataclass(frozen=True)
class Violation:
    """A rule that does not hold, and where."""

    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}"


class Facts:
    """A design and its machine, by name."""

    def __init__(self, design: Design, machine: Machine) -> None:
        self.design, self.machine = design, machine
        self.channels: dict[str, Channel] = {c.name: c for c in design.channels}
        self.kernels: dict[str, Kernel] = {k.name: k for k in design.kernels}
        self.links: dict[str, Link] = {link.name: link for link in design.links}
        self.ports: dict[str, Port] = {p.name: p for p in design.ports}
        self.tiles: dict[str, Tile | None] = {node.name: node.tile for node in design.nodes}

    def tile(self, node: str) -> Tile | None:
        """The tile of a node, if it has one that exists."""
        tile = self.tiles.get(node)
        return tile if tile is not None and self.machine.contains(tile) else None

    def ends(self, channel: Channel) -> list[tuple[str, str]]:
        """(node, direction of its DMA) for each end of a channel."""
        return [(channel.producer, "mm2s"), *((c, "s2mm") for c in channel.consumers)]

    def expected_pools(self) -> dict[str, tuple[str, int, int, int]]:
        """Pool name -> (node it stands with, bytes of a buffer, buffers, parts with locks of their own)."""
        wanted: dict[str, tuple[str, int, int, int]] = {}
        for channel in self.channels.values():
            if channel.name in self.design.shared:
                wanted[channel.name] = (channel.producer, channel.nbytes, channel.depth, 1)
                continue
            for node, _ in self.ends(channel):
                if node in self.kernels:
                    wanted[f"{channel.name}@{node}"] = (node, channel.nbytes, channel.depth, 1)
        for link in self.links.values():
            nbytes = sum(self.channels[c].nbytes for c in link.inputs)
            wanted[link.name] = (link.name, nbytes, link.depth, max(len(link.inputs), len(link.outputs)))
        return wanted


Rule: TypeAlias = Callable[[Facts], Iterator[Violation]]
