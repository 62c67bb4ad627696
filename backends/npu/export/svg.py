"""A picture of the whole array: tiles with kernels and buffers, circuits in lanes of their own, links of memory.

Everything drawn is read from the design and the machine; text is escaped, shortened to its room, and whole in a
tooltip. Colours are told apart by colour-blind readers, too. Where things are is in `svg_layout.py`.
"""

from __future__ import annotations

from html import escape

from neuc.backends.npu.export.svg_layout import BOX, GAP, LEFT, PAD, ROW, STUB, Layout, Point, fitted, text_width
from neuc.backends.npu.export.svg_legend import HOST, hops_said, legend, legend_size
from neuc.backends.npu.export.svg_styles import ARROWS, FILL, Style, arrow_marks, styles
from neuc.runtime.npu.machine import SIDES, Machine, Tile
from neuc.runtime.npu.program import Design, Kernel, Link, Node, Pool, Route, Transfer

_NORMALS = {"North": (0, -1), "South": (0, 1), "East": (1, 0), "West": (-1, 0)}
_KINDS = {"core": "compute", "mem": "memory", "shim": "shim"}


def to_svg(design: Design, machine: Machine) -> str:
    """The picture, as SVG text; `design` is placed at least."""
    place = Layout(design, machine)
    colours = styles(design)
    width, height = legend_size(place)
    counts = f"{len(design.kernels)} kernels, {len(design.channels)} channels"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="Helvetica, Arial, sans-serif" font-size="11">',
        f"<title>{escape(design.name)} on {escape(machine.name)}</title>",
        arrow_marks(),
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
        _text(6, 20, f"{design.name} on {machine.name}: {counts}", width - 12, 13, bold=True),
    ]
    for col in range(machine.cols):
        x, _, wide, _ = place.tile((col, 0))
        parts.append(_text(x + wide / 2 - 28, 46, f"column {col}", 70, 12, "#555"))
    for row, name in enumerate(machine.row_classes):
        y = place.tops[row]
        kind = machine.classes[name].kind
        parts += [_text(6, y + 14, f"row {row}", 54, 12, "#555"), _text(6, y + 28, _KINDS[kind], 54, 10, "#777")]
        for col in range(machine.cols):
            parts += _tile((col, row), place, colours)
    parts += _host(place, colours)
    routed = {route.channel for route in design.routes}
    parts += [_circuit(route, place, colours[route.channel]) for route in design.routes]
    beside: dict[tuple[Tile, Tile], int] = {}
    for i, channel in enumerate(design.channels):
        if channel.name in design.shared:
            parts.append(_memory(channel.name, place, colours[channel.name], beside))
        elif channel.name not in routed:
            parts.append(_unrouted(channel.name, i, place, colours[channel.name]))
    return "\n".join([*parts, *legend(place, colours), "</svg>", ""])


def said(name: str, design: Design) -> str:
    """What a channel's tooltip says: its name, ends, bytes, depth and hops."""
    channel = design.channel(name)
    text = (
        f"{name}: {channel.producer} to {', '.join(channel.consumers)}, {channel.nbytes} bytes, depth {channel.depth}"
    )
    if name in design.shared:
        return f"{text}, in the memory of {design.shared[name]}"
    hops = [c.target[0] in SIDES for r in design.routes if r.channel == name for c in r.connections]
    return f"{text}, {hops_said(sum(hops))}" if hops else f"{text}, not routed"


def _tile(tile: Tile, place: Layout, colours: dict[str, Style]) -> list[str]:
    kind = place.machine.tile_class(tile).kind
    x, y, width, height = place.tile(tile)
    used = bool(place.nodes.get(tile) or place.pools.get(tile))
    left, top, wide, tall = place.body(tile)
    parts = [
        _box(f"tile {kind}", x, y, width, height, FILL[kind], 6, 1 if used else 0.35),
        _box("switch", *place.switch(tile), "#fff", 3),
        _text(left, y + 13, f"{kind} {tile[0]}, {tile[1]}", wide, 9, "#666"),
    ]
    if not used:
        return parts
    parts.append(_box("body", left, top, wide, tall, "#fff", 4, 0.55))
    line = top + PAD
    for node in place.nodes.get(tile, []):
        parts += _node(node, left + 4, line, wide - 8, place, colours)
        line += BOX + 4
    listed, more = place.shown(tile)
    for pool in listed:
        parts += _pool(pool, left + 8, line + 10, wide - 16, place, colours)
        line += ROW
    if more:
        names = ", ".join(pool.name for pool in place.pools[tile][len(listed) :])
        parts.append(f"<g><title>{escape(names)}</title>{_text(left + 8, line + 10, f'and {more} more', wide, 9)}</g>")
    return parts


def _node(node: Node, x: float, y: float, width: float, place: Layout, colours: dict[str, Style]) -> list[str]:
    """A kernel, link or port: a box with its name and what it does."""
    squares: list[str] = []
    room = width - 12
    if isinstance(node, Kernel):
        css, does = "kernel", node.function
        more = f"{node.name}: {does}, {sum(node.cycles)} cycles in {node.phases} phases, {', '.join(node.inputs)} to "
        more += ", ".join(node.outputs)
    elif isinstance(node, Link):
        css, does = "link", node.mode
        more = f"{node.name}: {node.mode} of {', '.join(node.inputs)} to {', '.join(node.outputs)}"
        for pool in place.design.pools:
            if pool.name == node.name:
                squares, taken = _squares(pool, x + 6, y + 27, colours[node.inputs[0]])
                squares = [f'<g transform="translate({width - taken - 8:g} 0)">{"".join(squares)}</g>']
                room -= taken + 4
    else:
        css = "port"
        arrays = {s.buffer for s in place.design.sequence if isinstance(s, Transfer) and s.port == node.name}
        array = ", ".join(sorted(arrays)) or "host memory"
        does = f"{array} → {node.channel}" if node.direction == "in" else f"{node.channel} → {array}"
        more = f"{node.name}: {does}"
    return [
        f'<g class="{css}"><title>{escape(more)}</title>',
        _box("node", x, y, width, BOX, "#fff", 4),
        _text(x + 6, y + 13, node.name, width - 12, 11, "#111", bold=True),
        _text(x + 6, y + 26, does, room, 9, "#444"),
        *squares,
        "</g>",
    ]


def _pool(pool: Pool, x: float, y: float, width: float, place: Layout, colours: dict[str, Style]) -> list[str]:
    """A row for the buffers of one end of a channel: a square each, the channel's name and one buffer's bytes."""
    name = pool.name.partition("@")[0]
    squares, taken = _squares(pool, x, y, colours.get(name, Style("#666", "")))
    text, size = place.row_label(pool)
    label = _text(x + taken + 2, y, text, width - taken - 4 - text_width(size, 8), 9, "#333")
    return [
        f"<g><title>{escape(pool.name)}: {len(pool.addresses)} x {pool.nbytes} bytes</title>",
        *squares,
        label,
        f'<text x="{x + width:g}" y="{y:g}" font-size="8" fill="#666" text-anchor="end">{size}</text></g>',
    ]


def _squares(pool: Pool, x: float, y: float, style: Style) -> tuple[list[str], float]:
    """A square for each buffer of a pool, every other one hollow; and the room they take."""
    shown = pool.addresses[:4]
    parts = [
        f'<rect class="ping-pong" x="{x + 11 * i + 1:g}" y="{y - 8:g}" width="8" height="8" stroke="{style.colour}" '
        f'stroke-width="1.5" fill="{style.colour if i % 2 == 0 else "#fff"}">'
        f"<title>{escape(pool.name)} {i} at {address:#x}, {pool.nbytes} bytes</title></rect>"
        for i, address in enumerate(shown)
    ]
    if len(pool.addresses) > len(shown):
        parts.append(_text(x + 46, y, f"×{len(pool.addresses)}", 24, 9, "#333"))
        return parts, 68
    return parts, 11 * len(shown) + 2


def _circuit(route: Route, place: Layout, style: Style) -> str:
    """A channel's tree: its way through each switch, a hop to each next one, ends at DMAs, dots where it forks."""
    turns: list[str] = []
    hops: list[str] = []
    dots: list[str] = []
    feeds: dict[tuple[Tile, str, int], int] = {}
    for c in route.connections:
        begin, end = place.port(c.tile, c.source, leaves=False), place.port(c.tile, c.target, leaves=True)
        turns.append(_turn(begin, end, c.source[0], c.target[0]))
        key = (c.tile, *c.source)
        feeds[key] = feeds.get(key, 0) + 1
        if feeds[key] == 1 and c.source[0] not in SIDES:
            hops.append(f'<path class="end" d="M{begin[0] + STUB:g} {begin[1]:g}H{begin[0]:g}"/>')
        elif feeds[key] == 2:
            dots.append(f'<circle class="fork" cx="{begin[0]:g}" cy="{begin[1]:g}" r="3.2" fill="{style.colour}"/>')
        if c.target[0] not in SIDES:
            hops.append(f'<path class="end" d="M{end[0]:g} {end[1]:g}H{end[0] + STUB:g}"/>')
            continue
        step = SIDES[c.target[0]]
        beyond = (c.tile[0] + step[0], c.tile[1] + step[1])
        side = {"North": "South", "South": "North", "East": "West", "West": "East"}[c.target[0]]
        if place.machine.contains(beyond):
            x, y = place.port(beyond, (side, c.target[1]), leaves=False)
        else:  # to what the machine does not name: off the edge
            x, y = end[0] + step[0] * GAP, end[1] - step[1] * GAP
        hops.append(f'<path class="route" d="M{end[0]:g} {end[1]:g}L{x:g} {y:g}"/>')
    dashes = f' stroke-dasharray="{style.dashes}"' if style.dashes else ""
    return (
        f'<g class="channel" fill="none" stroke="{style.colour}" stroke-width="2"{dashes} '
        f'marker-end="url(#{ARROWS[style.colour]})"><title>{escape(said(route.channel, place.design))}</title>'
        f'<path class="turn" marker-end="none" d="{"".join(turns)}"/>{"".join([*hops, *dots])}</g>'
    )


def _turn(begin: Point, end: Point, source: str, target: str) -> str:
    """A curve inside a switch, at right angles to its edges."""
    reach = 0.5 * max(abs(begin[0] - end[0]), abs(begin[1] - end[1]))
    a, b = (_NORMALS.get(side, (1, 0)) for side in (source, target))
    return (
        f"M{begin[0]:g} {begin[1]:g}C{begin[0] - reach * a[0]:g} {begin[1] - reach * a[1]:g} "
        f"{end[0] - reach * b[0]:g} {end[1] - reach * b[1]:g} {end[0]:g} {end[1]:g}"
    )


def _memory(name: str, place: Layout, style: Style, beside: dict[tuple[Tile, Tile], int]) -> str:
    """A channel through shared memory: a broad link between the tiles' bodies, over no switch."""
    design, home = place.design, place.design.shared[name]
    channel = design.channel(name)
    producer = design.node(channel.producer).tile
    assert producer is not None
    ends = [tile for node in channel.consumers if (tile := design.node(node).tile) is not None]
    legs = [(a, b) for a, b in [(producer, home), *((home, tile) for tile in ends)] if a != b]
    parts: list[str] = []
    for a, b in legs:
        pair = (min(a, b), max(a, b))
        beside[pair] = nth = beside.get(pair, 0) + 1
        (ax, ay, aw, ah), (bx, by, bw, bh) = place.body(a), place.body(b)
        if a[0] == b[0]:
            x = ax + aw - 14 * nth
            begin, end = ((x, ay), (x, by + bh)) if a[1] < b[1] else ((x, ay + ah), (x, by))
        else:
            y = max(ay, by) + 12 * nth
            begin, end = ((ax + aw, y), (bx, y)) if a[0] < b[0] else ((ax, y), (bx + bw, y))
        parts.append(f'<path class="memory" d="M{begin[0]:g} {begin[1]:g}L{end[0]:g} {end[1]:g}"/>')
    return (
        f'<g class="channel" fill="none" stroke="{style.colour}" stroke-width="4" '
        f'marker-end="url(#w{ARROWS[style.colour]})">'
        f"<title>{escape(said(name, design))}</title>{''.join(parts)}</g>"
    )


def _unrouted(name: str, nth: int, place: Layout, style: Style) -> str:
    """A channel that has no circuits yet: straight from switch to switch, a little beside the one before it."""
    design = place.design
    channel = design.channel(name)
    points: list[Point] = []
    for end in (channel.producer, *channel.consumers):
        tile = design.node(end).tile
        assert tile is not None
        x, y, width, height = place.switch(tile)
        points.append((x + width * (nth % 5 + 1) / 6, y + height * (nth % 7 + 1) / 8))
    (x, y), *ends = points
    lines = "".join(f'<path class="unrouted" d="M{x:g} {y:g}L{ex:g} {ey:g}"/>' for ex, ey in ends)
    return (
        f'<g class="channel" fill="none" stroke="{style.colour}" stroke-dasharray="1 3" '
        f'marker-end="url(#{ARROWS[style.colour]})"><title>{escape(said(name, design))}</title>{lines}</g>'
    )


def _host(place: Layout, colours: dict[str, Style]) -> list[str]:
    """Host memory under the array, and an arrow for each port."""
    y = place.bottom + HOST[0]
    parts = [_box("host", LEFT, y, place.right - LEFT, HOST[1], "#f3f3f3", 4), _text(6, y + 13, "host", 54, 12, "#555")]
    arrays = "; ".join(f"{b.name}: {b.role}, {b.nbytes} bytes" for b in place.design.buffers)
    label = f"host memory: {', '.join(b.name for b in place.design.buffers)}"
    text = _text(LEFT + 8, y + 14, label, place.right - LEFT - 16, 10, "#444")
    parts.append(f"<g><title>{escape(arrays)}</title>{text}</g>")
    nth: dict[Tile, int] = {}
    for port in place.design.ports:
        assert port.tile is not None
        nth[port.tile] = nth.get(port.tile, 0) + 1
        left, top, _, tall = place.body(port.tile)
        x, colour = left + 14 * nth[port.tile], colours[port.channel].colour
        ends = (y, top + tall) if port.direction == "in" else (top + tall, y)
        parts.append(
            f'<path class="host" stroke="{colour}" stroke-width="2" marker-end="url(#{ARROWS[colour]})" '
            f'd="M{x:g} {ends[0]:g}V{ends[1]:g}"><title>{escape(port.name)}: {port.direction}</title></path>'
        )
    return parts


def _box(
    css: str, x: float, y: float, width: float, height: float, fill: str, radius: float = 0, opacity: float = 1
) -> str:
    faint = f' fill-opacity="{opacity:g}"' if opacity != 1 else ""
    edge = "#bbb" if css in ("body", "host", "node") or opacity < 1 else "#777"
    return (
        f'<rect class="{css}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" '
        f'fill="{fill}"{faint} stroke="{edge}"/>'
    )


def _text(x: float, y: float, text: str, room: float, size: float, fill: str = "#333", bold: bool = False) -> str:
    """A label that fits its room, whole in a tooltip if it had to be shortened."""
    short = fitted(text, room, size, bold)
    weight = ' font-weight="bold"' if bold else ""
    whole = f"<title>{escape(text)}</title>" if short != text else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{fill}"{weight}>{whole}{escape(short)}</text>'
