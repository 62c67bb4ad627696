"""What exporters of NIR graphs are known to get wrong, and graphs that mean more than they say.

`fix_flattens` shifts Flatten axes that count torch's batch axis; `recognize_soft_resets` finds the subgraph that says
"soft reset" in plain NIR, I -> Threshold -> Linear or Scale -> I, and makes one IF of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from neuc.compiler.importers.nir.graph import Node

_SAME = 1e-6
"""Relative difference up to which the value a reset takes off counts as the threshold: some f32 roundings."""

Edges = tuple[tuple[str, str], ...]


def fix_flattens(nodes: Mapping[str, Node], edges: Edges, notes: list[str]) -> dict[str, Node]:
    """Flattens whose result fits the layer behind them only if their axes count a batch axis, shifted by one."""
    fixed = dict(nodes)
    for name, node in nodes.items():
        if node.kind != "Flatten":
            continue
        (start,), (end,) = node.integers("start_dim", 1), node.integers("end_dim", 1)
        takes = {
            nodes[b].numbers("weight").shape[-1]
            for a, b in edges
            if a == name and nodes[b].kind in ("Linear", "Affine")
        }
        given = _shape_before(name, nodes, edges)
        if start < 1 or len(takes) != 1 or given is None or end not in (-1, len(given) - 1, len(given)):
            continue
        (width,) = takes
        if prod(given[start:]) != width and prod(given[start - 1 :]) == width:
            fields = {**node.fields, "start_dim": np.array(start - 1), "end_dim": np.array(-1)}
            fixed[name] = dataclasses.replace(node, fields=fields)
            notes.append(
                f"Flatten {name}: axes count torch's batch axis, which NIR's shapes do not have; "
                f"read as start_dim = {start - 1}, which is what the layer behind it takes"
            )
    return fixed


def _shape_before(name: str, nodes: Mapping[str, Node], edges: Edges) -> tuple[int, ...] | None:
    """The shape of a node's input, where the nodes before it tell; None where they do not."""
    from neuc.compiler.importers.nir.order import order_of
    from neuc.compiler.importers.nir.shapes import shapes_of
    from neuc.errors import Error

    wanted, grown = {name}, True
    while grown:
        more = {a for a, b in edges if b in wanted} - wanted
        wanted |= more
        grown = bool(more)
    part = {n: node for n, node in nodes.items() if n in wanted - {name}}
    inside = tuple((a, b) for a, b in edges if a in part and b in part)
    try:
        shapes = shapes_of(part, order_of(part, inside))
    except Error:
        return None
    return next((shapes[a] for a, b in edges if b == name and a in shapes), None)


def recognize_soft_resets(nodes: Mapping[str, Node], edges: Edges, dt: float) -> tuple[dict[str, Node], Edges]:
    """The graph with each soft-reset subgraph as one IF node, with the metadata that says so.

    Its name is the threshold's. What the feedback takes off is ``reset_value``, if it is not the threshold.
    """
    kept, links = dict(nodes), list(edges)
    for name in nodes:
        if nodes[name].kind != "I":
            continue
        found = _subgraph(name, nodes, edges)
        if found is None:
            continue
        threshold, feedback, taken = found
        theta = nodes[threshold].numbers("threshold")
        off = taken * nodes[name].numbers("r") * dt
        fields = {"r": nodes[name].fields["r"], "v_threshold": nodes[threshold].fields["threshold"]}
        metadata: dict[str, object] = {"reset": "subtract"}
        if not np.allclose(off, theta, rtol=_SAME, atol=0):
            metadata["reset_value"] = off
        kept[threshold] = Node(threshold, "IF", fields, metadata)
        links = [(a, threshold if b == name else b) for a, b in links if a != name and feedback not in (a, b)]
        del kept[name], kept[feedback]
    return kept, tuple(dict.fromkeys(links))


def _subgraph(name: str, nodes: Mapping[str, Node], edges: Edges) -> tuple[str, str, np.ndarray] | None:
    """Threshold, feedback node, and what comes back for a spike, if this integrator begins such a subgraph."""
    readers = [b for a, b in edges if a == name]
    if len(readers) != 1 or nodes[readers[0]].kind != "Threshold" or _sources(readers[0], edges) != [name]:
        return None
    (threshold,) = readers
    for feedback in [a for a, b in edges if b == name]:
        node = nodes[feedback]
        if _sources(feedback, edges) != [threshold] or [b for a, b in edges if a == feedback] != [name]:
            continue
        if node.kind == "Scale":
            taken = -node.numbers("scale")
        elif node.kind == "Linear" and _is_diagonal(node.numbers("weight")):
            taken = -np.diag(node.numbers("weight"))
        else:
            continue
        if (taken > 0).all():
            return threshold, feedback, taken
    return None


def _sources(name: str, edges: Sequence[tuple[str, str]]) -> list[str]:
    return [a for a, b in edges if b == name]


def _is_diagonal(weight: np.ndarray) -> bool:
    return weight.ndim == 2 and weight.shape[0] == weight.shape[1] and not (weight - np.diag(np.diag(weight))).any()
