"""Where everything of an array's picture is: tiles, switches, lanes between them; and the room a label takes.

A tile has its switch at the lower left; lanes up and down run in a strip above it, lanes left and right in a strip
beside it, under the tile's body. What is written stands in bodies, so that no lane crosses it. Each lane of a switch
that a route uses has its own place, and carries one circuit: no two routes lie on one line. What is drawn there is
`svg.py`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from neuc.runtime.npu.machine import OPPOSITE, SIDES, Machine, Tile
from neuc.runtime.npu.program import Design, Node, Pool

Point = tuple[float, float]

PITCH = 7
"""Pixels between neighbouring lanes."""
LEFT, TOP, GAP, PAD, HEADER, STUB = 64, 58, 14, 6, 18, 18
BOX, ROW = 32, 15
"""Heights of a node's box and of a row of buffers."""
_MOST = 10
"""Buffers shown on a tile; more are counted."""
_NARROW, _WIDE = 132, 210
_THIN, _BROAD, _FAT = frozenset(" .,:;'|!ijl()[]·"), frozenset("+<>=~^#&×→"), frozenset("mwMW@%—…")


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Pixels a text takes at most, in the wider of common sans-serif fonts."""
    ems = 0.0
    for c in text:
        broad = c in _BROAD or c.isupper()
        ems += 0.42 if c in _THIN else 1.02 if c in _FAT or ord(c) > 0x2E7F else 0.85 if broad else 0.66
    return ems * size * (1.1 if bold else 1)


def fitted(text: str, room: float, size: float, bold: bool = False) -> str:
    """The text, or as much of it as there is room for and an ellipsis."""
    if text_width(text, size, bold) <= room:
        return text
    while text and text_width(text + "…", size, bold) > room:
        text = text[:-1]
    return text + "…"


@dataclass(frozen=True)
class Layout:
    """Places of a design's picture."""

    design: Design
    machine: Machine

    @cached_property
    def nodes(self) -> dict[Tile, list[Node]]:
        """What stands on each tile."""
        found: dict[Tile, list[Node]] = {}
        for node in self.design.nodes:
            assert node.tile is not None, "the form is for placed designs"
            found.setdefault(node.tile, []).append(node)
        return found

    @cached_property
    def pools(self) -> dict[Tile, list[Pool]]:
        """Buffers to list on each tile; those of memory tiles' links stand in the links' boxes."""
        links = {link.name for link in self.design.links}
        found: dict[Tile, list[Pool]] = {}
        for pool in self.design.pools:
            if pool.name not in links:
                found.setdefault(pool.tile, []).append(pool)
        return found

    def shown(self, tile: Tile) -> tuple[list[Pool], int]:
        """The buffers listed on a tile, and how many are not."""
        pools = self.pools.get(tile, [])
        return (pools, 0) if len(pools) <= _MOST else (pools[: _MOST - 1], len(pools) - _MOST + 1)

    @cached_property
    def _producers(self) -> dict[str, str]:
        return {channel.name: channel.producer for channel in self.design.channels}

    def row_label(self, pool: Pool) -> tuple[str, str]:
        """What a row of buffers says: into the kernel, out of it or shared, and of which channel; bytes of a buffer."""
        name, _, end = pool.name.partition("@")
        way = "shared" if not end else "out" if self._producers.get(name) == end else "in"
        return f"{way} {name}", f"{pool.nbytes} B"

    @cached_property
    def body_width(self) -> float:
        """Width of a tile's body: the longest name's, within limits."""
        names = [(node.name, True) for node in self.design.nodes]
        names += [(node.function, False) for node in self.design.kernels]
        room = max((text_width(name, 11 if bold else 9, bold) for name, bold in names), default=0)
        rows = (self.row_label(pool) for pools in self.pools.values() for pool in pools)
        room = max([room, *(30 + text_width(label, 9) + text_width(size, 8) for label, size in rows)])
        return round(min(_WIDE, max(_NARROW, room + 24)))

    @cached_property
    def _lanes(self) -> dict[tuple[str, int], int]:
        """Place of each lane in its strip: by where it goes and its index."""
        used = {
            (way, index)
            for route in self.design.routes
            for c in route.connections
            for way, index in (c.target, (OPPOSITE.get(c.source[0], ""), c.source[1]))
            if way in SIDES
        }
        upright = sorted(lane for lane in used if lane[0] in ("North", "South"))
        level = sorted(lane for lane in used if lane[0] in ("East", "West"))
        return {lane: i + 1 for lanes in (upright, level) for i, lane in enumerate(lanes)}

    def _count(self, ways: tuple[str, str]) -> int:
        return sum(lane[0] in ways for lane in self._lanes)

    @cached_property
    def _locals(self) -> list[dict[tuple[str, str, int], int]]:
        """For each row, places of ports between switches and their tiles: into the tile or out of it."""
        rows: list[set[tuple[str, str, int]]] = [set() for _ in self.machine.row_classes]
        for route in self.design.routes:
            for c in route.connections:
                for way, port in (("in", c.target), ("out", c.source)):
                    if port[0] not in SIDES:
                        rows[c.tile[1]].add((way, *port))
        return [{port: i + 1 for i, port in enumerate(sorted(row))} for row in rows]

    @cached_property
    def switch_width(self) -> float:
        """Width of a switch."""
        return max(24, (self._count(("North", "South")) + 1) * PITCH)

    def _body_height(self, row: int) -> float:
        """Room for the fullest tile of a row, and beside its switch for the DMA's ports."""
        fullest = 0
        for tile in ((col, row) for col in range(self.machine.cols)):
            listed, left = self.shown(tile)
            fullest = max(fullest, len(self.nodes.get(tile, [])) * (BOX + 4) + (len(listed) + (left > 0)) * ROW)
        return max(40, fullest + 2 * PAD, (len(self._locals[row]) + 1) * PITCH)

    def _strip(self, row: int) -> float:
        """Height of the strip of lanes to the left and right."""
        kind = self.machine.classes[self.machine.row_classes[row]]
        lanes = self._count(("East", "West")) if "East" in kind.ports else 0
        return (lanes + 1) * PITCH if lanes else 4

    def _tile_height(self, row: int) -> float:
        return HEADER + self._body_height(row) + self._strip(row) + PAD

    @cached_property
    def tops(self) -> list[float]:
        """Upper edge of each row; the last row is the highest."""
        tops, y = [0.0] * self.machine.rows, float(TOP)
        for row in reversed(range(self.machine.rows)):
            tops[row], y = y, y + self._tile_height(row) + GAP
        return tops

    @cached_property
    def tile_width(self) -> float:
        """Width of every tile."""
        return PAD + self.switch_width + STUB + self.body_width + PAD

    @property
    def right(self) -> float:
        """Right edge of the array."""
        return LEFT + self.machine.cols * (self.tile_width + GAP) - GAP

    @property
    def bottom(self) -> float:
        """Lower edge of the array."""
        return self.tops[0] + self._tile_height(0)

    def tile(self, tile: Tile) -> tuple[float, float, float, float]:
        """A tile's left, top, width, height."""
        return (
            LEFT + tile[0] * (self.tile_width + GAP),
            self.tops[tile[1]],
            self.tile_width,
            self._tile_height(tile[1]),
        )

    def body(self, tile: Tile) -> tuple[float, float, float, float]:
        """The part of a tile where names and buffers are."""
        x, y, _, _ = self.tile(tile)
        return (x + PAD + self.switch_width + STUB, y + HEADER, self.body_width, self._body_height(tile[1]))

    def switch(self, tile: Tile) -> tuple[float, float, float, float]:
        """A tile's switch."""
        x, y, _, height = self.tile(tile)
        tall = max(20, (len(self._locals[tile[1]]) + 1) * PITCH) + self._strip(tile[1])
        return (x + PAD, y + height - PAD - tall, self.switch_width, tall)

    def port(self, tile: Tile, port: tuple[str, int], leaves: bool) -> Point:
        """Where a circuit leaves a tile's switch by a port, or comes in."""
        x, y, width, height = self.switch(tile)
        side = port[0]
        if side not in SIDES:
            place = self._locals[tile[1]]["in" if leaves else "out", side, port[1]]
            return (x + width, y + place * PITCH)
        place = self._lanes[side if leaves else OPPOSITE[side], port[1]]
        if side in ("North", "South"):
            return (x + place * PITCH, y if side == "North" else y + height)
        lowest = y + height - self._strip(tile[1])
        return (x if side == "West" else x + width, lowest + place * PITCH)
