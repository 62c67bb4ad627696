"""A NIR graph as plain data: nodes with arrays, edges, metadata; checked for what is missing and for bad numbers.

Made from what `hdf5.py` reads, or from a graph of the package `nir`. Shapes are not looked at here (`shapes.py`), and
the types that `nir` infers are never used: it gets grouped and non-square convolutions wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from neuc.errors import Error, NodeRef

FIELDS: dict[str, tuple[str, ...]] = {
    "Input": ("shape",),
    "Output": ("shape",),
    "Linear": ("weight",),
    "Affine": ("weight", "bias"),
    "Scale": ("scale",),
    "Conv1d": ("weight", "stride", "padding", "dilation", "groups", "bias"),
    "Conv2d": ("weight", "stride", "padding", "dilation", "groups", "bias"),
    "SumPool2d": ("kernel_size", "stride", "padding"),
    "AvgPool2d": ("kernel_size", "stride", "padding"),
    "Flatten": ("start_dim", "end_dim"),
    "Delay": ("delay",),
    "Threshold": ("threshold",),
    "I": ("r",),
    "IF": ("r", "v_threshold"),
    "LI": ("tau", "r", "v_leak"),
    "LIF": ("tau", "r", "v_leak", "v_threshold"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak"),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold"),
}
"""The primitives of NIR 1.0 beside the graph itself, with the fields each must have."""

NEURONS = frozenset({"IF", "LIF", "CubaLIF"})
"""What spikes and resets."""
STATEFUL = frozenset({"I", "LI", "CubaLI", "Delay"}) | NEURONS
"""What remembers earlier steps."""
_UNBOUNDED = frozenset({"v_threshold", "threshold"})
"""Fields in which an infinity has a meaning: a neuron that never fires."""
NUMBERS_OF_METADATA = ("v0", "reset_value")
"""What neuc writes of neurons as metadata, since NIR has no field for it: numbers as those of fields."""

Value = np.ndarray | str


@dataclass(frozen=True)
class Node:
    """A primitive.

    Attributes:
        name: its name; in a nested graph ``outer.inner``.
        kind: a key of `FIELDS`.
        fields: its parameters; numbers are arrays, also single ones.
        metadata: what else the file says of it.
    """

    name: str
    kind: str
    fields: Mapping[str, Value]
    metadata: Mapping[str, object] = field(default_factory=dict[str, object])

    def numbers(self, name: str) -> np.ndarray:
        """A parameter as float64.

        Raises:
            Error: NEUC-E501, it is text.
        """
        value = self.fields[name]
        if isinstance(value, str):
            raise structure_error(f"{name} of {self.kind} {self.name} is {value!r}, not numbers")
        return value.astype(np.float64)

    def integers(self, name: str, count: int | None = None) -> tuple[int, ...]:
        """A parameter as integers; a single one stands for `count` equal ones.

        Raises:
            Error: NEUC-E501, it is something else.
        """
        value = self.numbers(name).reshape(-1)
        whole = value.astype(np.int64)
        if (whole != value).any():
            raise structure_error(f"{name} of {self.kind} {self.name} is {value.tolist()}, not integers")
        if count is not None and len(whole) == 1:
            whole = np.repeat(whole, count)
        if count is not None and len(whole) != count:
            raise structure_error(f"{name} of {self.kind} {self.name} has {len(whole)} numbers, should have {count}")
        return tuple(int(v) for v in whole)

    @property
    def ref(self) -> NodeRef:
        """The node for error messages."""
        return NodeRef(self.name, self.kind)


@dataclass(frozen=True)
class Graph:
    """Nodes by name, in the order of the file, and edges between them; nested graphs stand among the nodes."""

    nodes: Mapping[str, Node | Graph]
    edges: tuple[tuple[str, str], ...]
    metadata: Mapping[str, object] = field(default_factory=dict[str, object])


def structure_error(message: str, hint: str = "write the graph again with nir.write") -> Error:
    """The error for a graph that is put together wrongly."""
    return Error("NEUC-E501", message, hint=hint)


def graph_from_dict(data: Mapping[str, object], name: str = "") -> Graph:
    """The graph in the nested dictionaries that `nir`'s `to_dict` gives and `hdf5.py` reads.

    Raises:
        Error: NEUC-E501, something is missing or unknown; NEUC-E502, NaN or infinite numbers.
    """
    nodes, edges = data.get("nodes"), data.get("edges")
    where = f"graph {name!r}" if name else "the graph"
    if not isinstance(nodes, Mapping) or edges is None:
        raise structure_error(f"{where} has no {'edges' if isinstance(nodes, Mapping) else 'nodes'}")
    made: dict[str, Node | Graph] = {}
    for key, item in cast("Mapping[str, object]", nodes).items():
        if not isinstance(item, Mapping):
            raise structure_error(f"{where}: {key!r} is no node")
        plain = cast("Mapping[str, object]", item)
        full = f"{name}.{key}" if name else key
        made[key] = graph_from_dict(plain, full) if plain.get("type") == "NIRGraph" else _node(full, plain)
    pairs = tuple(_edge(edge, where, made) for edge in cast("list[object]", edges))
    if len(set(pairs)) != len(pairs):
        twice = next(pair for pair in pairs if pairs.count(pair) > 1)
        raise structure_error(f"{where} has the edge {twice[0]} -> {twice[1]} twice")
    _refuse_outer_sides(pairs, where, made)
    return Graph(made, pairs, _metadata(data))


def _edge(edge: object, where: str, nodes: Mapping[str, object]) -> tuple[str, str]:
    if not isinstance(edge, list | tuple | np.ndarray) or len(edge) != 2:
        raise structure_error(f"{where} has an edge that is no pair")
    source, target = (item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in edge)
    for end in (source, target):
        if end not in nodes:
            raise structure_error(f"{where}: the edge {source} -> {target} names {end!r}, which is no node")
    return source, target


def _refuse_outer_sides(edges: Sequence[tuple[str, str]], where: str, nodes: Mapping[str, Node | Graph]) -> None:
    """Refuse edges into an Input and out of an Output: what comes there comes from outside, or goes there."""
    for source, target in edges:
        for end, kind, side in ((target, "Input", "into"), (source, "Output", "out of")):
            node = nodes[end]
            if isinstance(node, Node) and node.kind == kind:
                hint = "connect the nodes themselves; what feeds back goes to the node behind the Input"
                raise structure_error(f"{where}: the edge {source} -> {target} goes {side} the {kind} {end}", hint)


def _metadata(data: Mapping[str, object]) -> Mapping[str, object]:
    found = data.get("metadata")
    return cast("Mapping[str, object]", found) if isinstance(found, Mapping) else {}


def _node(name: str, data: Mapping[str, object]) -> Node:
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in FIELDS:
        known = ", ".join(FIELDS)
        raise structure_error(f"node {name} has the type {kind!r}, which NIR 1.0 does not have", f"it has {known}")
    fields: dict[str, Value] = {}
    for key, value in data.items():
        if key in ("type", "metadata", "input_type", "output_type") or value is None:
            continue
        fields[key] = value if isinstance(value, str) else _numbers(name, kind, key, value)
    missing = [key for key in FIELDS[kind] if key not in fields]
    if missing:
        raise structure_error(f"{kind} {name} has no {' and no '.join(missing)}")
    return Node(name, kind, fields, _checked(name, kind, _metadata(data)))


def _checked(name: str, kind: str, metadata: Mapping[str, object]) -> Mapping[str, object]:
    """Metadata whose numbers are arrays of finite numbers."""
    numbers = {key: _numbers(name, kind, key, metadata[key]) for key in NUMBERS_OF_METADATA if key in metadata}
    return {**metadata, **numbers}


def _numbers(name: str, kind: str, key: str, value: object) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise structure_error(f"{key} of {kind} {name} holds {array.dtype}, not numbers")
    if array.dtype.kind == "f":
        bad = np.isnan(array) if key in _UNBOUNDED else ~np.isfinite(array)
        if bad.any():
            raise Error(
                "NEUC-E502",
                f"{key} of {kind} {name} has {int(bad.sum())} of {array.size} numbers that are NaN or infinite",
                hint="look at the training run that made them",
                nodes=[NodeRef(name, kind)],
            )
    return array
