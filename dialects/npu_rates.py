"""Balance of a dataflow graph: how often each node fires so that every channel ends as it began.

Cyclo-static dataflow (Bilsen et al. 1996): a node's rates repeat with a period; over whole periods what is produced on
an edge equals what is consumed. Plain Python on names and numbers; nothing of IR here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import lcm


@dataclass(frozen=True)
class Edge:
    """Tokens a period of `producer` gives and a period of `consumer` takes, on one channel."""

    channel: str
    producer: str
    consumer: str
    produced: int
    consumed: int


class Unbalanced(ValueError):
    """No number of firings empties every channel again; the message names the channel."""


def repetitions(nodes: Iterable[str], edges: Iterable[Edge]) -> Mapping[str, int]:
    """Periods of each node in one iteration of the graph, the smallest whole numbers.

    Raises:
        Unbalanced: an edge has a rate of zero at one end only, or rates contradict each other.
    """
    neighbours: dict[str, list[tuple[str, Fraction, Edge]]] = {name: [] for name in nodes}
    for edge in edges:
        if not edge.produced or not edge.consumed:
            ends = f"{edge.producer} gives {edge.produced}, {edge.consumer} takes {edge.consumed}"
            raise Unbalanced(f"channel {edge.channel} never balances: {ends} a period")
        ratio = Fraction(edge.produced, edge.consumed)
        neighbours[edge.producer].append((edge.consumer, ratio, edge))
        neighbours[edge.consumer].append((edge.producer, 1 / ratio, edge))
    rates: dict[str, Fraction] = {}
    for start in neighbours:
        if start in rates:
            continue
        component, todo = {start: Fraction(1)}, [start]
        while todo:
            name = todo.pop()
            for other, ratio, edge in neighbours[name]:
                wanted = component[name] * ratio
                if other not in component:
                    component[other] = wanted
                    todo.append(other)
                elif component[other] != wanted:
                    raise Unbalanced(
                        f"channel {edge.channel} never balances: {edge.producer} gives {edge.produced} and "
                        f"{edge.consumer} takes {edge.consumed} a period, but other channels fix how often they fire"
                    )
        scale = lcm(*(rate.denominator for rate in component.values()))
        rates |= {name: rate * scale for name, rate in component.items()}
    return {name: int(rate) for name, rate in rates.items()}
