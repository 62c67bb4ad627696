"""The legend of an array's picture: what is drawn how, and every channel by its line and name."""

from __future__ import annotations

from html import escape

from neuc.backends.npu.export.svg_layout import LEFT, TOP, Layout, fitted, text_width
from neuc.backends.npu.export.svg_styles import ARROWS, FILL, Style
from neuc.runtime.npu.machine import SIDES

HOST = (14, 20)
"""Host memory's distance below the array, and its height."""
_WIDTH, _ROW, _MARGIN = 212, 15, 24
_GREY = "#333333"


def hops_said(count: int) -> str:
    """Ways between two tiles, in words."""
    return "1 hop" if count == 1 else f"{count} hops"


def _beside(place: Layout) -> bool:
    """Whether the legend stands to the right of the array, not below it."""
    return place.machine.cols <= 2


def _columns(place: Layout) -> int:
    return 1 if _beside(place) else max(1, int((place.right - LEFT) // _WIDTH))


def _entries(place: Layout) -> int:
    return len(_signs()) + 1 + len(place.design.channels)


def legend_size(place: Layout) -> tuple[float, float]:
    """Width and height of the whole picture."""
    bottom = place.bottom + sum(HOST)
    rows = -(-_entries(place) // _columns(place))
    if _beside(place):
        return place.right + _MARGIN + _WIDTH + 10, max(bottom, TOP + rows * _ROW) + 14
    return place.right + 14, bottom + _MARGIN + rows * _ROW + 14


def legend(place: Layout, colours: dict[str, Style]) -> list[str]:
    """The legend's elements."""
    left = place.right + _MARGIN if _beside(place) else LEFT
    top = TOP if _beside(place) else place.bottom + sum(HOST) + _MARGIN
    rows = -(-_entries(place) // _columns(place))
    entries = [(sign, name, "") for sign, name in _signs()] + [("", "channels: bytes of a token, hops", "")]
    for channel in place.design.channels:
        hops = sum(
            c.target[0] in SIDES for r in place.design.routes if r.channel == channel.name for c in r.connections
        )
        how = "memory" if channel.name in place.design.shared else hops_said(hops) if hops else "not routed"
        tail = f" · {channel.nbytes} B · {how}"
        whole = f"{channel.name}: {channel.producer} to {', '.join(channel.consumers)}"
        style = colours[channel.name]
        name = fitted(channel.name, _WIDTH - 38 - text_width(tail, 9), 9) + tail
        entries.append((_line(style, 4 if channel.name in place.design.shared else 2), name, whole))
    parts = ['<g class="legend" font-size="9" fill="#333">']
    for i, (sign, name, whole) in enumerate(entries):
        x, y = left + i // rows * _WIDTH, top + i % rows * _ROW
        title = f"<title>{escape(whole)}</title>" if whole else ""
        indent = 34 if sign else 0
        parts.append(
            f'<g transform="translate({x:g} {y:g})">{title}{sign}'
            f'<text x="{indent}" y="10">{escape(fitted(name, _WIDTH - indent - 4, 9))}</text></g>'
        )
    return [*parts, "</g>"]


def _line(style: Style, width: int) -> str:
    dashes = f' stroke-dasharray="{style.dashes}"' if style.dashes else ""
    head = ARROWS[style.colour]
    return (
        f'<path d="M2 7H28" stroke="{style.colour}" stroke-width="{width}"{dashes} '
        f'marker-end="url(#{"w" if width > 2 else ""}{head})"/>'
    )


def _signs() -> list[tuple[str, str]]:
    """Symbols and what they mean."""
    tiles = [
        (f'<rect x="2" y="1" width="26" height="11" rx="3" fill="{FILL[kind]}" stroke="#777"/>', name)
        for kind, name in (("core", "compute tile"), ("mem", "memory tile"), ("shim", "shim tile: host memory"))
    ]
    grey = Style(_GREY, "")
    square = '<rect x="{}" y="3" width="8" height="8" stroke="#333" stroke-width="1.5" fill="{}"/>'
    return [
        *tiles,
        ('<rect x="9" y="1" width="12" height="12" rx="2" fill="#fff" stroke="#777"/>', "switch box of a tile"),
        (_line(grey, 2), "circuit in a lane of its own"),
        (_line(grey, 2) + f'<circle cx="12" cy="7" r="3.2" fill="{_GREY}"/>', "broadcast: the circuit forks"),
        (_line(grey, 4), "through shared memory"),
        (square.format(5, _GREY) + square.format(16, "#fff"), "buffers (ping, pong)"),
    ]
