"""A picture of the whole array: tiles in Riallto's colours, kernels and ping-pong buffers on them, routes between them.

Everything drawn is read from the design and the machine; text is escaped. The palette tells tile kinds apart for
colour-blind readers, too.
"""

from __future__ import annotations

from html import escape

from neuc.runtime.npu.machine import Machine, Tile
from neuc.runtime.npu.program import Design, Kernel

_WIDTH, _HEIGHT, _GAP, _SWITCH = 180, 140, 20, 40
_FILL = {"core": "#C2E9FF", "mem": "#E0FFC2", "shim": "#E0C2FF"}
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A", "#000000")
_STEPS = {"North": (0, 1), "South": (0, -1), "East": (1, 0), "West": (-1, 0)}


def to_svg(design: Design, machine: Machine) -> str:
    """The picture, as SVG text."""
    width = machine.cols * (_WIDTH + _GAP) + _GAP
    height = machine.rows * (_HEIGHT + _GAP) + _GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="11">',
        f"<title>{escape(design.name)} on {escape(machine.name)}</title>",
    ]
    for col in range(machine.cols):
        for row in range(machine.rows):
            parts += _tile((col, row), design, machine)
    for i, route in enumerate(design.routes):
        colour = _PALETTE[i % len(_PALETTE)]
        for c in route.connections:
            parts += _hop(c.tile, c.target, machine, colour, route.channel)
    return "\n".join([*parts, "</svg>", ""])


def _corner(tile: Tile, machine: Machine) -> tuple[int, int]:
    return (_GAP + tile[0] * (_WIDTH + _GAP), _GAP + (machine.rows - 1 - tile[1]) * (_HEIGHT + _GAP))


def _tile(tile: Tile, design: Design, machine: Machine) -> list[str]:
    x, y = _corner(tile, machine)
    kind = machine.tile_class(tile).kind
    parts = [
        _box(f"tile {kind}", x, y, _WIDTH, _HEIGHT, _FILL[kind]),
        _box("switch", x + 6, y + _HEIGHT - _SWITCH - 6, _SWITCH, _SWITCH, "#fff"),
        f'<text x="{x + 8}" y="{y + 14}" fill="#555">{kind} ({tile[0]}, {tile[1]})</text>',
    ]
    line = y + 30
    for node in design.nodes:
        if node.tile != tile:
            continue
        label = f"{node.name}: {node.function}" if isinstance(node, Kernel) else node.name
        css = "kernel" if isinstance(node, Kernel) else "buffer"
        parts.append(f'<text class="{css}" x="{x + 12}" y="{line}" font-weight="bold">{escape(label[:26])}</text>')
        line += 13
    for pool in design.pools:
        if pool.tile != tile or line > y + _HEIGHT - 10:
            continue
        for i, address in enumerate(pool.addresses[:4]):
            shade = _PALETTE[i % 2]
            parts.append(
                f'<rect class="ping-pong" x="{x + 54 + 10 * i}" y="{line - 8}" width="8" height="8" fill="{shade}">'
                f"<title>{escape(pool.name)} at {address:#x}, {pool.nbytes} bytes</title></rect>"
            )
        parts.append(f'<text x="{x + 98}" y="{line}" font-size="9">{escape(pool.name[:16])}</text>')
        line += 11
    return parts


def _hop(tile: Tile, target: tuple[str, int], machine: Machine, colour: str, name: str) -> list[str]:
    x, y = _corner(tile, machine)
    centre = (x + 6 + _SWITCH // 2, y + _HEIGHT - 6 - _SWITCH // 2)
    step = _STEPS.get(target[0])
    shift = 4 * (target[1] - 2)
    if step is None:
        end = (x + 54, y + _HEIGHT - 20 - shift)
        dots = f"<title>{escape(name)} into {target[0]} {target[1]} of {tile}</title>"
        return [f"{_line('end', centre, end, colour)}{dots}</line>"]
    dx, dy = step[0] * (_WIDTH + _GAP), -step[1] * (_HEIGHT + _GAP)
    ox, oy = (shift, 0) if dx == 0 else (0, shift)
    begin = (centre[0] + ox, centre[1] + oy)
    line = _line("route", begin, (begin[0] + dx, begin[1] + dy), colour)
    return [f"{line}<title>{escape(name)}: {target[0]} {target[1]} of {tile}</title></line>"]


def _box(css: str, x: int, y: int, width: int, height: int, fill: str) -> str:
    return f'<rect class="{css}" x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}" stroke="#888"/>'


def _line(css: str, begin: tuple[int, int], end: tuple[int, int], colour: str) -> str:
    """An SVG line, left open for its title."""
    ends = f'x1="{begin[0]}" y1="{begin[1]}" x2="{end[0]}" y2="{end[1]}"'
    return f'<line class="{css}" {ends} stroke="{colour}" stroke-width="2" stroke-opacity="0.8">'
