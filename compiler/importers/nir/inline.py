"""Nested NIR graphs made flat: the nodes of an inner graph are called ``outer.inner``.

An edge to an inner graph goes to its Input nodes, one from it comes from its Output nodes; inner Input and Output
nodes vanish, what they connected is connected.
"""

from __future__ import annotations

from neuc.compiler.importers.nir.graph import Graph, Node, structure_error


def flatten(graph: Graph) -> tuple[dict[str, Node], tuple[tuple[str, str], ...]]:
    """All primitives by full name and the edges between them.

    Raises:
        Error: NEUC-E501, an inner graph with several inputs or outputs, which an edge cannot tell apart, or with none.
    """
    nodes: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []
    _collect(graph, "", nodes, edges)
    for name in [name for name, node in nodes.items() if "." in name and node.kind in ("Input", "Output")]:
        _bypass(name, nodes, edges)
    for kind in ("Input", "Output"):
        if not any(node.kind == kind for node in nodes.values()):
            raise structure_error(f"the graph has no {kind} node", "add one; nir.NIRGraph.from_list does")
    return nodes, tuple(dict.fromkeys(edges))


def _collect(graph: Graph, prefix: str, nodes: dict[str, Node], edges: list[tuple[str, str]]) -> None:
    for key, item in graph.nodes.items():
        if isinstance(item, Graph):
            _collect(item, f"{prefix}{key}.", nodes, edges)
        else:
            nodes[f"{prefix}{key}"] = item
    for source, target in graph.edges:
        edges.append((_port(graph, prefix, source, "Output"), _port(graph, prefix, target, "Input")))


def _port(graph: Graph, prefix: str, key: str, kind: str) -> str:
    """The primitive that an edge's end at `key` means: inside an inner graph, its one node of `kind`."""
    item = graph.nodes[key]
    if isinstance(item, Node):
        return f"{prefix}{key}"
    ports = [name for name, node in item.nodes.items() if isinstance(node, Node) and node.kind == kind]
    if len(ports) != 1:
        raise structure_error(
            f"graph {prefix}{key} has {len(ports)} {kind} nodes, and the edges at it do not say which is meant",
            "give inner graphs one Input and one Output",
        )
    return f"{prefix}{key}.{ports[0]}"


def _bypass(name: str, nodes: dict[str, Node], edges: list[tuple[str, str]]) -> None:
    before = [a for a, b in edges if b == name]
    after = [b for a, b in edges if a == name]
    edges[:] = [edge for edge in edges if name not in edge]
    edges += [(a, b) for a in before for b in after]
    del nodes[name]
