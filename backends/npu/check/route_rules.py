"""Rules of routes: each is a tree of legal connections from one DMA to the others, and circuits are used once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from neuc.backends.npu.check.facts import Facts, Violation
from neuc.runtime.npu.program import Connection, Route

_STEPS = {"North": (0, 1, "South"), "South": (0, -1, "North"), "East": (1, 0, "West"), "West": (-1, 0, "East")}


def routes_exist(facts: Facts) -> Iterator[Violation]:
    """Each channel with DMAs has one route, the others none."""
    found = Counter(route.channel for route in facts.design.routes)
    for channel in facts.channels.values():
        if channel.name in facts.design.shared:
            if found[channel.name]:
                yield Violation("route-shared", f"{channel.name} is in shared memory and has a route")
        elif not found[channel.name]:
            yield Violation("route-missing", f"{channel.name} has no route")
    for name, count in found.items():
        if name not in facts.channels:
            yield Violation("route-unknown", f"a route for {name}, which is no channel")
        elif count > 1:
            yield Violation("route-twice", f"{name} has {count} routes")


def ports_exist(facts: Facts) -> Iterator[Violation]:
    """Connections join ports that the tile's switch has."""
    for route in facts.design.routes:
        for c in route.connections:
            if not facts.machine.contains(c.tile):
                yield Violation("switch-tile", f"{route.channel} runs through {c.tile}, outside the array")
                continue
            ports = facts.machine.tile_class(c.tile).ports
            for (bundle, index), way, place in ((c.target, "out of", 0), (c.source, "into", 1)):
                if bundle not in ports:
                    yield Violation("switch-bundle", f"{route.channel}: {c.tile} has no ports {bundle}")
                elif not 0 <= index < ports[bundle][place]:
                    rule = "switch-master" if place == 0 else "switch-slave"
                    have = ports[bundle][place]
                    yield Violation(rule, f"{route.channel}: {bundle} {index} {way} {c.tile}, which has {have}")


def edges(facts: Facts) -> Iterator[Violation]:
    """No circuit leaves or enters the array where it ends, or where the neighbour has no port for it."""
    for route in facts.design.routes:
        for c in route.connections:
            for (bundle, index), out in ((c.target, True), (c.source, False)):
                if bundle not in _STEPS:
                    continue
                dc, dr, opposite = _STEPS[bundle]
                other = (c.tile[0] + dc, c.tile[1] + dr)
                if not facts.machine.contains(other):
                    yield Violation("switch-edge", f"{route.channel}: {bundle} of {c.tile} is the array's edge")
                    continue
                masters, slaves = facts.machine.tile_class(other).ports.get(opposite, (0, 0))
                if index >= (slaves if out else masters):
                    yield Violation(
                        "switch-neighbour", f"{route.channel}: {bundle} {index} of {c.tile} meets no port of {other}"
                    )


def turns(facts: Facts) -> Iterator[Violation]:
    """Memory tiles pass North and South at equal numbers alone; elsewhere a turn back keeps its number."""
    for route in facts.design.routes:
        for c in route.connections:
            if not facts.machine.contains(c.tile):
                continue
            straight = facts.machine.tile_class(c.tile).straight_only
            (a, i), (b, j) = c.source, c.target
            if straight and {a, b} == {"North", "South"} and i != j:
                yield Violation("turn-straight", f"{route.channel}: {a} {i} to {b} {j} in memory tile {c.tile}")
            elif straight and a == b and a != "DMA":
                yield Violation("turn-back", f"{route.channel}: {a} to {b} in memory tile {c.tile}")
            elif straight and a == b == "DMA" and i != j:
                yield Violation("turn-dma", f"{route.channel}: DMA {i} to DMA {j} in memory tile {c.tile}")
            elif not straight and a == b and a in _STEPS and i != j:
                yield Violation("turn-bundle", f"{route.channel}: {a} {i} to {b} {j} in {c.tile}")


def circuits_once(facts: Facts) -> Iterator[Violation]:
    """A port into the next tile carries one circuit, and a port out of a switch is driven once."""
    masters: Counter[tuple[tuple[int, int], tuple[str, int]]] = Counter()
    slaves: dict[tuple[tuple[int, int], tuple[str, int]], str] = {}
    for route in facts.design.routes:
        for c in route.connections:
            masters[c.tile, c.target] += 1
            other = slaves.setdefault((c.tile, c.source), route.channel)
            if other != route.channel:
                yield Violation("slave-twice", f"{c.source} into {c.tile} carries {other} and {route.channel}")
    for (tile, port), count in masters.items():
        if count > 1:
            yield Violation("master-twice", f"{port} out of {tile} is driven {count} times")


def connected(facts: Facts) -> Iterator[Violation]:
    """Following a route from its producer's DMA gets to all its consumers' DMAs, to nothing else, and everywhere."""
    for route in facts.design.routes:
        ends = [end for end in facts.design.dmas if end.channel == route.channel]
        sources = {(end.tile, ("DMA", end.index)) for end in ends if end.direction == "mm2s"}
        sinks = {(end.tile, ("DMA", end.index)) for end in ends if end.direction == "s2mm"}
        reached, used = _follow(route, sources)
        if not used and route.connections:
            yield Violation("route-source", f"{route.channel} does not begin at its producer's DMA")
            continue
        for tile, port in sorted(sinks - reached):
            yield Violation("route-sink", f"{route.channel} does not get to DMA {port[1]} of {tile}")
        for tile, port in sorted(reached - sinks):
            yield Violation("route-stray", f"{route.channel} ends at {port} of {tile}, where nobody takes it")
        for c in set(route.connections) - used:
            yield Violation("route-apart", f"{route.channel}: nothing arrives at {c.source} of {c.tile}")


def _follow(route: Route, sources: set[tuple[tuple[int, int], tuple[str, int]]]):
    """Ports where the signal leaves the fabric, and the connections it ran through."""
    reached: set[tuple[tuple[int, int], tuple[str, int]]] = set()
    used: set[Connection] = set()
    todo = list(sources)
    while todo:
        tile, port = todo.pop()
        for c in route.connections:
            if (c.tile, c.source) != (tile, port) or c in used:
                continue
            used.add(c)
            step = _STEPS.get(c.target[0])
            if step is None:
                reached.add((c.tile, c.target))
            else:
                todo.append(((tile[0] + step[0], tile[1] + step[1]), (step[2], c.target[1])))
    return reached, used


RULES = (routes_exist, ports_exist, edges, turns, circuits_once, connected)
