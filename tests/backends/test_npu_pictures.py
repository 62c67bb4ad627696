"""Pictures of NPU programs: labels have room, circuits have lanes, every channel is drawn, and the legend names it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from example_files import load_example
from neuc.backends.npu.emit import block_program
from neuc.backends.npu.export.svg import to_svg
from neuc.backends.npu.export.svg_layout import fitted, text_width
from neuc.backends.npu.known_machines import find_machine
from neuc.compiler import npu
from neuc.runtime.npu.gemm_plan import GemmPlan
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import Design
from npu_designs import routed_example

SVG = "{http://www.w3.org/2000/svg}"
# Advances of DejaVu Sans, the widest of common sans-serif fonts, in hundredths of an em: from its hmtx table.
PLAIN = dict(
    zip(
        map(chr, range(32, 127)),
        map(
            int,
            """32 40 46 84 64 95 78 27 39 39 50 84 32 36 32 34 64 64 64 64 64 64 64 64 64 64 34 34 84 84 84 53 100 68 69
            70 77 63 58 77 75 29 29 66 56 86 75 79 60 79 69 63 61 73 68 99 69 61 69 39 34 39 84 50 50 61 63 55 63 62 35
            63 63 28 28 58 28 97 63 61 63 63 41 52 39 63 59 82 59 59 52 64 34 64 84""".split(),
        ),
    )
) | {"…": 100, "→": 84, "·": 32, "×": 84}


class Chain(npu.App):
    """More kernels one after the other than a column has, neighbours through shared memory."""

    def __init__(self) -> None:
        params = {"threshold": 1, "max": 255, "kind": 0}
        self.kernels = [npu.Kernel("threshold", cycles=90, params=params, name=f"t{i}") for i in range(9)]

    def callgraph(self, x: npu.HostArray, y: npu.HostArray) -> None:
        for row in range(len(x)):
            token = x[row]
            for kernel in self.kernels:
                token = kernel(token)
            y[row] = token


def _products(machine: str) -> tuple[Design, Machine]:
    """A product over the whole array."""
    found = find_machine(machine)
    return block_program(machine, GemmPlan.on(found, (8, 16, 16), "int8")), found


RIALLTO = ("pass-through", "inverse", "threshold-pipeline", "edge-detect", "colour-detect")
CASES = (*RIALLTO, "chain", "example", "npu-xdna1", "npu-xdna2")


@cache
def _case(name: str) -> tuple[Design, Machine]:
    """Riallto's applications on a column, a chain over several, the exports' example, products over whole arrays."""
    if name == "chain":
        image = np.zeros((4, 64), np.uint8)
        design = Chain().compile({"x": image}, {"y": ("u8", image.shape)}, "npu-xdna1").design
        assert {a for a in design.shared.values() if a[0] > 0}, "memory links go to other columns, too"
        return design, find_machine("npu-xdna1")
    if name == "example":
        machine = find_machine("npu-xdna1")
        return routed_example(machine), machine
    if name not in RIALLTO:
        return _products(name)
    app, image = load_example("npu/riallto.py").applications(6, 32)[name]
    column = find_machine("npu-xdna1-1col")
    return app.compile({"x": image}, {"y": ("u8", image.shape)}, column.name).design, column


def _renamed(design: Design, prefix: str) -> Design:
    """The design with long names, and ones that XML has to escape."""
    names = {part.name: f"{prefix}_{part.name}" for part in (*design.nodes, *design.channels)}

    def new(name: str) -> str:
        head, at, end = name.partition("@")
        return names[head] + at + names.get(end, "")

    return replace(
        design,
        name=prefix,
        kernels=tuple(
            replace(k, name=new(k.name), inputs=tuple(map(new, k.inputs)), outputs=tuple(map(new, k.outputs)))
            for k in design.kernels
        ),
        links=tuple(
            replace(k, name=new(k.name), inputs=tuple(map(new, k.inputs)), outputs=tuple(map(new, k.outputs)))
            for k in design.links
        ),
        ports=tuple(replace(p, name=new(p.name), channel=new(p.channel)) for p in design.ports),
        channels=tuple(
            replace(c, name=new(c.name), producer=new(c.producer), consumers=tuple(map(new, c.consumers)))
            for c in design.channels
        ),
        sequence=(),
        params=(),
        shared={new(name): tile for name, tile in design.shared.items()},
        pools=tuple(replace(p, name=new(p.name)) for p in design.pools),
        dmas=(),
        routes=tuple(replace(r, channel=new(r.channel)) for r in design.routes),
    )


def _boxes(root: ElementTree.Element, css: str) -> list[tuple[float, float, float, float]]:
    found = [node for node in root.iter(f"{SVG}rect") if node.get("class", "").startswith(css)]
    return [tuple(float(node.get(key, "")) for key in ("x", "y", "width", "height")) for node in found]  # type: ignore[misc]


def _labels(root: ElementTree.Element) -> list[tuple[str, float, float, float]]:
    """Text outside the legend and moved groups: text, left, right, baseline."""
    found: list[tuple[str, float, float, float]] = []
    for node in root.iter(f"{SVG}text"):
        if node.get("x") is None or node.get("y") == "10":
            continue
        text = "".join([node.text or "", *(child.tail or "" for child in node)])
        wide = 1.18 if node.get("font-weight") == "bold" else 1.0  # the bold face's mean advance
        width = sum(PLAIN[c] for c in text) / 100 * float(node.get("font-size", "")) * wide
        left = float(node.get("x", "")) - (width if node.get("text-anchor") == "end" else 0)
        found.append((text, left, left + width, float(node.get("y", ""))))
    return found


def _points(path: ElementTree.Element) -> list[tuple[float, float]]:
    """Corners of a path of straight lines."""
    points: list[tuple[float, float]] = []
    for letter, numbers in re.findall(r"([MLHV])([^MLHV]+)", path.get("d", "")):
        values = [float(n) for n in numbers.split()]
        x, y = points[-1] if points else (0.0, 0.0)
        points.append((values[0], y) if letter == "H" else (x, values[0]) if letter == "V" else (values[0], values[1]))
    return points


def _lines(root: ElementTree.Element) -> list[tuple[str, float, float, float, float]]:
    """Straight lines of channels: whose, and their box."""
    lines: list[tuple[str, float, float, float, float]] = []
    for group in root.iter(f"{SVG}g"):
        if group.get("class") != "channel":
            continue
        name = (group.findtext(f"{SVG}title") or "").split(":")[0]
        for path in group.iter(f"{SVG}path"):
            if path.get("class") in ("route", "end", "memory"):
                (ax, ay), (bx, by) = _points(path)
                lines.append((name, min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)))
    return lines


@pytest.mark.parametrize("prefix", ["", "a_very_long_name_of_Which_nobody_made_room", "<&\"'>"])
@pytest.mark.parametrize("case", CASES)
def test_labels_fit_what_they_stand_in(case: str, prefix: str):
    design, machine = _case(case)
    root = ElementTree.fromstring(to_svg(_renamed(design, prefix) if prefix else design, machine))
    width = float(root.get("viewBox", "").split()[2])
    bodies = _boxes(root, "body")
    labels = _labels(root)
    inside = 0
    for text, left, right, y in labels:
        around = [(bx, bw) for bx, by, bw, bh in bodies if bx <= left < bx + bw and by < y < by + bh]
        edge = sum(around[0]) if around else width
        inside += bool(around)
        assert right <= edge, f"{text!r} ends at {right:.0f}, its tile at {edge:.0f}"
    assert inside > 2 * len(design.nodes)
    for i, (text, left, right, y) in enumerate(labels):  # nor does one lie on another
        for other, left2, right2, y2 in labels[i + 1 :]:
            assert abs(y - y2) > 6 or right <= left2 or right2 <= left, f"{text!r} on {other!r}"
    if prefix:
        titles = "".join(title.text or "" for title in root.iter(f"{SVG}title"))
        assert all(f"{prefix}_{node.name}" in titles for node in design.nodes)


@pytest.mark.parametrize("case", CASES)
def test_no_two_circuits_lie_on_one_line_or_on_a_name(case: str):
    design, machine = _case(case)
    root = ElementTree.fromstring(to_svg(design, machine))
    lines = _lines(root)
    assert len(lines) >= len(design.channels)
    for i, (name, ax, ay, bx, by) in enumerate(lines):
        assert ax == bx or ay == by, f"{name} runs aslant"
        for other, cx, cy, dx, dy in lines[i + 1 :]:
            if name == other:
                continue
            upright = ax == bx and cx == dx and abs(ax - cx) < 3 and min(by, dy) > max(ay, cy)
            level = ay == by and cy == dy and abs(ay - cy) < 3 and min(bx, dx) > max(ax, cx)
            together = upright or level
            assert not together, f"{name} and {other} lie on one line"
        for text, left, right, y in _labels(root):
            assert right < ax or left > bx or y < ay or y - 8 > by, f"{name} runs over {text!r}"
    turns = {  # curves within switches have beginnings of their own, or are one channel's
        (group.findtext(f"{SVG}title"), begin)
        for group in root.iter(f"{SVG}g")
        for path in group.iter(f"{SVG}path")
        if path.get("class") == "turn"
        for begin in re.findall(r"M([\d. ]+)C", path.get("d", ""))
    }
    assert len({begin for _, begin in turns}) == len(turns)


@pytest.mark.parametrize("case", CASES)
def test_every_channel_is_drawn_and_in_the_legend(case: str):
    design, machine = _case(case)
    root = ElementTree.fromstring(to_svg(design, machine))
    groups = {
        (group.findtext(f"{SVG}title") or "").split(":")[0]: group
        for group in root.iter(f"{SVG}g")
        if group.get("class") == "channel"
    }
    assert set(groups) == {channel.name for channel in design.channels}
    for name, group in groups.items():
        said = group.findtext(f"{SVG}title") or ""
        assert f"{design.channel(name).nbytes} bytes" in said
        kinds = [path.get("class") for path in group.iter(f"{SVG}path")]
        assert ("memory" in kinds) == (name in design.shared)
        # one circle for each port that feeds several: the tree forks there
        feeds = [(c.tile, c.source) for r in design.routes if r.channel == name for c in r.connections]
        forks = sum(feeds.count(feed) > 1 for feed in set(feeds))
        assert len(group.findall(f"{SVG}circle")) == forks
    (legend,) = (group for group in root.iter(f"{SVG}g") if group.get("class") == "legend")
    text = "\n".join("".join(node.itertext()) for node in legend.iter(f"{SVG}text"))
    for word in ("compute tile", "memory tile", "shim tile", "switch box", "shared memory", "broadcast", "buffers"):
        assert word in text
    assert all(f"{channel.name} · {channel.nbytes} B" in text for channel in design.channels)
    written = [label[0] for label in _labels(root)]
    assert [f"column {i}" for i in range(machine.cols)] == [t for t in written if t.startswith("column")]
    assert [f"row {i}" for i in range(machine.rows)] == [t for t in written if t.startswith("row ")]


def test_buffers_show_their_depth():
    design, machine = _case("inverse")
    for depth in (1, 2, 3):
        pools = tuple(replace(pool, addresses=tuple(range(depth))) for pool in design.pools)
        root = ElementTree.fromstring(to_svg(replace(design, pools=pools), machine))
        assert len(_boxes(root, "ping-pong")) == depth * len(pools)


def test_channels_that_meet_look_different():
    design, machine = _case("npu-xdna2")
    root = ElementTree.fromstring(to_svg(design, machine))
    looks = {
        (group.findtext(f"{SVG}title") or "").split(":")[0]: (group.get("stroke"), group.get("stroke-dasharray"))
        for group in root.iter(f"{SVG}g")
        if group.get("class") == "channel"
    }
    for col in range(machine.cols):
        for row in range(machine.rows):
            here = [r.channel for r in design.routes if any(c.tile == (col, row) for c in r.connections)]
            assert len({looks[name] for name in here}) == len(here)


def test_a_placed_design_without_circuits_shows_its_channels():
    design, machine = _case("inverse")
    root = ElementTree.fromstring(to_svg(replace(design, routes=(), dmas=(), pools=()), machine))
    paths = [path for path in root.iter(f"{SVG}path") if path.get("class") == "unrouted"]
    assert len(paths) == sum(len(channel.consumers) for channel in design.channels)


def test_text_is_shortened_to_its_room():
    assert fitted("short", 100, 9) == "short"
    assert fitted("threshold_0@threshold", 60, 9).endswith("…")
    assert text_width(fitted("threshold_0@threshold", 60, 9), 9) <= 60
    for text in ("threshold", "MWQ", "a_0 · 64 B", "x → y", "%#&<>"):
        assert sum(PLAIN[c] for c in text) / 100 * 9 <= text_width(text, 9)
