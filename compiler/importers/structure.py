"""Names every node and checks that a graph is one: names defined once, before use, without cycles.

Works on ONNX messages before any library step sees them, so that errors can name nodes. Types and attributes are left
to onnx's checker.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from neuc.dialects.onnx_schema import DOMAIN_PREFIX, HOST_DOMAINS, newest_opset, raw_schema
from neuc.errors import Error, Exit, NodeRef

MAX_DEPTH = 16
"""How deep subgraphs may nest: real models have three or four levels."""


@dataclass(frozen=True)
class Origin:
    """Where a node comes from: name and index in the file, and the calls it was inlined through, innermost first."""

    name: str
    index: int
    callers: tuple[tuple[str, int], ...] = ()


def subgraphs(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    """The subgraphs of a node, by attribute name."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.name, attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from ((f"{attribute.name}[{i}]", graph) for i, graph in enumerate(attribute.graphs))


def display_type(node: NodeProto) -> str:
    """Operator name with its domain."""
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def reference(node: NodeProto, reason: str = "") -> NodeRef:
    """The node as errors name it."""
    return NodeRef(node.name, display_type(node), reason)


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes and those in their subgraphs."""
    for node in nodes:
        yield node
        for _, graph in subgraphs(node):
            yield from all_nodes(graph.node)


def check_text(message: Message) -> None:
    """Check that all names in a model are text: protobuf lets damaged ones through as bytes.

    Raises:
        Error: NEUC-E103 naming the field.
    """
    for descriptor, value in message.ListFields():
        if descriptor.type == FieldDescriptor.TYPE_STRING:
            texts = [value] if isinstance(value, str | bytes) else value
            if any(isinstance(text, bytes) for text in texts):
                kind = message.DESCRIPTOR.name
                raise Error("NEUC-E103", f"{descriptor.name} of a {kind} is not valid text", hint=_HINT)
        elif descriptor.type == FieldDescriptor.TYPE_MESSAGE:
            for part in [value] if isinstance(value, Message) else value:
                check_text(part)


def name_nodes(nodes: Sequence[NodeProto], prefix: str = "", depth: int = 0) -> None:
    """Name unnamed nodes ``Op#index``, in subgraphs ``If#3/then_branch/Op#index``; spell the default domain "".

    Raises:
        Error: NEUC-E104, subgraphs nest too deep.
    """
    if depth > MAX_DEPTH:
        raise Error("NEUC-E104", f"subgraphs nest deeper than {MAX_DEPTH} levels at {prefix[:80]!r}", hint=_HINT)
    for index, node in enumerate(nodes):
        if node.domain == "ai.onnx":
            node.domain = ""
        if not node.name:
            node.name = f"{prefix}{node.op_type}#{index}"
        for name, graph in subgraphs(node):
            name_nodes(graph.node, f"{node.name}/{name}/", depth + 1)


def origins(nodes: Sequence[NodeProto]) -> dict[str, Origin]:
    """Origins of all nodes by the name of their first output, subgraphs included."""
    found: dict[str, Origin] = {}
    for index, node in enumerate(nodes):
        first = next((name for name in node.output if name), None)
        if first is not None:
            found.setdefault(first, Origin(node.name, index))
        for _, graph in subgraphs(node):
            for name, origin in origins(graph.node).items():
                found.setdefault(name, origin)
    return found


def check_operators(model: ModelProto) -> None:
    """Check opsets, and that every operator of a domain onnx knows exists there.

    Raises:
        Error: NEUC-E109 for missing or too new versions; NEUC-E107 naming all unknown operators.
    """
    opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in model.opset_import}
    functions = {(f.domain, f.name) for f in model.functions}
    nodes = list(all_nodes(model.graph.node)) + [n for f in model.functions for n in all_nodes(f.node)]
    for domain in DOMAIN_PREFIX:
        version = opsets.get(domain)
        if version is None:
            if any(node.domain == domain for node in nodes):
                raise Error(
                    "NEUC-E109",
                    f"the model uses operators of domain {domain or 'ai.onnx'!r} but imports no version of it",
                    hint="add it to opset_import, or export the model again",
                )
        elif version < 1 or version > newest_opset(domain):
            newest = newest_opset(domain)
            raise Error(
                "NEUC-E109",
                f"the model uses version {version} of domain {domain or 'ai.onnx'!r}; versions 1 to {newest} are known",
                hint=f"export the model for opset {newest} or older",
            )
    unknown = [
        reference(node)
        for node in nodes
        if node.domain in DOMAIN_PREFIX
        and (node.domain, node.op_type) not in functions
        and raw_schema(node.op_type, node.domain, opsets.get(node.domain, 1)) is None
    ]
    if unknown:
        # Nodes of foreign domains are no reason to refuse a model here, but whoever mends it wants the whole list.
        unknown += [
            reference(node)
            for node in nodes
            if node.domain not in HOST_DOMAINS and (node.domain, node.op_type) not in functions
        ]
        kinds = sorted({node.op_type for node in unknown})
        raise Error(
            "NEUC-E107",
            f"{len(unknown)} nodes use operators that do not exist in the model's opset: {', '.join(kinds)[:300]}",
            hint="check the operators' names and domains, or the model's opset_import",
            nodes=unknown,
            exit_code=Exit.UNSUPPORTED,
        )


def sort_graph(graph: GraphProto, outer: frozenset[str] = frozenset(), where: str = "the graph") -> None:
    """Check names and put nodes in an order where everything is defined before it is used.

    Raises:
        Error: NEUC-E104 for a name defined twice (also by an initializer in a subgraph), used but never defined, or
            defined by itself.
    """
    defined: dict[str, int] = {}
    given = [i.name for i in graph.input]
    initial = [t.name for t in graph.initializer] + [s.values.name for s in graph.sparse_initializer]
    for kind, names in (("input", given), ("initializer", initial)):
        repeated = next((n for n in names if names.count(n) > 1), None) if len(set(names)) != len(names) else None
        if repeated is not None:
            raise _malformed(f"{kind} {repeated!r} of {where} is defined twice")
        if "" in names:
            raise _malformed(f"{where} has an {kind} without a name")
    hiding = next((name for name in initial if name in outer), None)
    if hiding is not None:  # onnxruntime takes the outer one in some cases, the inner one in others
        raise _malformed(f"initializer {hiding!r} of {where} has the name of a value outside of it")
    fixed = set(given) | set(initial)
    for index, node in enumerate(graph.node):
        for name in node.output:
            if name and (name in fixed or name in defined):
                raise _malformed(f"value {name!r} of {where} is defined twice", graph.node[index])
            if name:
                defined[name] = index
    known = outer | fixed | defined.keys()
    needs = [_needs(node, known) for node in graph.node]
    missing = [reference(n, f"input {name!r}") for n, names in zip(graph.node, needs) for name in names - known]
    if missing:
        first = missing[0]
        raise Error(
            "NEUC-E104",
            (
                f"{len(missing)} inputs of nodes are defined nowhere, the first is {first.reason} of {first.name}"
                if len(missing) > 1
                else f"{first.reason} of {first.name} is defined nowhere"
            ),
            hint=_HINT,
            nodes=missing,
        )
    lost = next((o.name for o in graph.output if o.name not in known), None)
    if lost is not None:
        raise _malformed(f"output {lost!r} of {where} is defined nowhere")
    order = _order([{defined[n] for n in names if n in defined and n not in fixed} for names in needs], graph, where)
    if order != list(range(len(order))):
        nodes = [NodeProto.FromString(graph.node[i].SerializeToString()) for i in order]
        del graph.node[:]
        graph.node.extend(nodes)
    for node in graph.node:
        for name, inner in subgraphs(node):
            sort_graph(inner, frozenset(known), f"subgraph {name} of {node.name}")


def _needs(node: NodeProto, known: set[str] | frozenset[str]) -> set[str]:
    """Names a node reads: its inputs, and what its subgraphs capture from this level or above."""
    names = {name for name in node.input if name}
    for _, graph in subgraphs(node):
        names |= captures(graph) & known
    return names


def captures(graph: GraphProto) -> set[str]:
    """Names a subgraph uses but does not define."""
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    own |= {s.values.name for s in graph.sparse_initializer} | {name for n in graph.node for name in n.output}
    used = {o.name for o in graph.output}
    for node in graph.node:
        used |= {name for name in node.input if name}
        for _, inner in subgraphs(node):
            used |= captures(inner)
    return used - own


def _order(needs: list[set[int]], graph: GraphProto, where: str) -> list[int]:
    waiting = [len(need) for need in needs]
    users: list[list[int]] = [[] for _ in needs]
    for index, need in enumerate(needs):
        for other in need:
            users[other].append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users[index]:
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, user)
    if len(order) != len(needs):
        stuck = sorted(set(range(len(needs))) - set(order))
        raise Error(
            "NEUC-E104",
            f"{where} has a cycle through {len(stuck)} nodes, among them {graph.node[stuck[0]].name}",
            hint=_HINT,
            nodes=[reference(graph.node[i]) for i in stuck[:50]],
        )
    return order


_HINT = "the file is damaged or was written wrongly; export the model again"


def _malformed(message: str, node: NodeProto | None = None) -> Error:
    return Error("NEUC-E104", message, hint=_HINT, nodes=[reference(node)] if node is not None else ())
