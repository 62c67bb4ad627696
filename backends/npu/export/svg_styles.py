"""How a picture's channels look: a colour of a colour-blind palette each, dashes where colours run out nearby."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from neuc.runtime.npu.machine import Tile
from neuc.runtime.npu.program import Design

FILL = {"core": "#D3EDFB", "mem": "#E4F6D0", "shim": "#EBDDFA"}
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#4B0092", "#8C510A", "#333333")
_DASHES = ("", "7 2", "2 2")
ARROWS = {colour: f"a{i}" for i, colour in enumerate(_PALETTE)}
"""Name of the arrow head of each colour; with w before it, the one of broad lines."""


@dataclass(frozen=True)
class Style:
    """A channel's colour and its dashes, as SVG writes them."""

    colour: str
    dashes: str


def styles(design: Design) -> dict[str, Style]:
    """A style for each channel; channels that meet on a tile differ as long as there are styles."""
    choices = [Style(colour, dashes) for dashes in _DASHES for colour in _PALETTE]
    where: dict[str, set[Tile]] = {}
    for channel in design.channels:
        nodes = (design.node(name).tile for name in (channel.producer, *channel.consumers))
        where[channel.name] = {tile for tile in nodes if tile is not None}
    for route in design.routes:
        where[route.channel] |= {c.tile for c in route.connections}
    at: Counter[tuple[Tile, Style]] = Counter()
    uses: Counter[Style] = Counter()
    found: dict[str, Style] = {}
    for name, tiles in where.items():
        meets = {style: sum(at[tile, style] for tile in tiles) for style in choices}
        best = min(choices, key=lambda s: (meets[s], _DASHES.index(s.dashes), uses[s]))
        found[name] = best
        uses[best] += 1
        at.update((tile, best) for tile in tiles)
    return found


def arrow_marks() -> str:
    """Definitions of the arrow heads."""
    heads = [
        f'<marker id="{wide}{name}" viewBox="0 0 6 6" refX="5.5" refY="3" markerUnits="userSpaceOnUse" '
        f'markerWidth="{size}" markerHeight="{size}" orient="auto"><path d="M0 0L6 3L0 6Z" fill="{colour}" '
        'stroke="none"/></marker>'
        for colour, name in ARROWS.items()
        for wide, size in (("", 7), ("w", 11))
    ]
    return f"<defs>{''.join(heads)}</defs>"
