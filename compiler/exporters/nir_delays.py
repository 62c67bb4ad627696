"""Where a step passes in a NIR graph: what a network means beside what a reader of the edges takes it to mean.

NIR has no steps. `order.py` of the importer says which edges of a graph close its cycles; a network's other delays have
to be written out as Delay nodes. Delays move along nodes without memory, so paths between nodes with one are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from neuc.compiler.exporters.nir_neurons import NirNode
from neuc.compiler.importers.nir.graph import Node
from neuc.compiler.importers.nir.order import is_carrier, order_of
from neuc.errors import Error

Edge = tuple[str, str]
_MOST_PATHS = 100_000


def unread_delays(nodes: Mapping[str, NirNode], edges: Sequence[Edge], late: Iterable[Edge]) -> list[Edge]:
    """Those of the edges `late`, on which a step passes, on which a reader would let none pass."""
    meant, read = set(late), _closing(nodes, edges) or set()
    unread: dict[Edge, None] = {}
    for path in _paths(nodes, edges):
        if any(edge in meant for edge in path) and not any(edge in read for edge in path):
            unread |= dict.fromkeys(edge for edge in path if edge in meant)
    return list(unread)


def misread(nodes: Mapping[str, NirNode], edges: Sequence[Edge], late: Iterable[Edge]) -> bool:
    """Whether a reader would let steps pass elsewhere than on the edges `late`."""
    meant, read = set(late), _closing(nodes, edges)
    if read is None:
        return True
    return any(sum(e in meant for e in path) != sum(e in read for e in path) for path in _paths(nodes, edges))


def _closing(nodes: Mapping[str, NirNode], edges: Sequence[Edge]) -> set[Edge] | None:
    """The edges that close cycles, as the importer reads them; None if there is a cycle without any delay."""
    plain = {name: Node(name, node.kind, {}) for name, node in nodes.items()}
    try:
        order = order_of(plain, edges, [name for name, node in nodes.items() if node.kind == "Delay"])
    except Error:
        return None
    return {(source, target) for target, sources in order.sources.items() for source, back in sources if back}


def _paths(nodes: Mapping[str, NirNode], edges: Sequence[Edge]) -> list[tuple[Edge, ...]]:
    """All ways from a node that remembers its last output to the next one, or to an output."""
    after: dict[str, list[str]] = {}
    for source, target in edges:
        after.setdefault(source, []).append(target)
    carriers = {name for name, node in nodes.items() if is_carrier(Node(name, node.kind, {}))}
    found: list[tuple[Edge, ...]] = []
    left: list[tuple[Edge, ...]] = [((c, t),) for c in sorted(carriers) for t in after.get(c, [])]
    while left and len(found) < _MOST_PATHS:
        path = left.pop()
        end = path[-1][1]
        if end in carriers or end not in after:
            found.append(path)
        else:
            left += [(*path, (end, target)) for target in after[end]]
    return found
