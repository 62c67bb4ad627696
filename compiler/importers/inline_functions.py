"""Replaces calls of a model's local functions by their bodies; nodes keep their names and know their call sites.

Own code rather than onnx's inliner because that one drops node names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto

from neuc.compiler.importers.structure import Origin, all_nodes, reference, subgraphs
from neuc.dialects.onnx_schema import raw_schema
from neuc.errors import Error

MAX_NODES = 200_000
"""Functions that call functions can grow a model exponentially; nothing real comes near this."""

Key = tuple[str, str, str]


def inline_functions(model: ModelProto, found: dict[str, Origin]) -> None:
    """Inline every call in the main graph and its subgraphs, and drop the functions.

    Args:
        model: changed in place.
        found: origins by first output name; those of inlined nodes are added.

    Raises:
        Error: NEUC-E110 for recursion, growth without bound, operators that mean something else at the model's opset.
    """
    if not model.functions:
        return
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    _check_opsets(model, functions)
    _check_size(model.graph, functions)
    inliner = _Inliner(functions, _all_names(model.graph), found)
    inliner.graph(model.graph)
    del model.functions[:]


def _check_opsets(model: ModelProto, functions: Mapping[Key, FunctionProto]) -> None:
    opsets = {o.domain: o.version for o in model.opset_import}
    for function in functions.values():
        own = {o.domain: o.version for o in function.opset_import}
        for domain, version in own.items():
            if domain not in opsets:
                opsets[domain] = version
                model.opset_import.add(domain=domain, version=version)
        differing = [
            reference(node)
            for node in all_nodes(function.node)
            if node.domain in own and own[node.domain] != opsets[node.domain] and _differs(node, own, opsets)
        ]
        if differing:
            raise Error(
                "NEUC-E110",
                f"function {function.name!r} uses {differing[0].op_type} of opset {own.get('', 0)}, "
                f"which means something else at the model's opset {opsets.get('', 0)}",
                hint="export the model with one opset for the graph and its functions",
                nodes=differing,
            )


def _check_size(graph: GraphProto, functions: Mapping[Key, FunctionProto]) -> None:
    """Refuse recursion, and models whose expansion would not end, before expanding anything."""
    sizes: dict[Key, int] = {}

    def size(nodes: Iterable[NodeProto], active: tuple[Key, ...]) -> int:
        total = 0
        for node in all_nodes(nodes):
            key = (node.domain, node.op_type, node.overload)
            if key in active:
                raise Error(
                    "NEUC-E110",
                    f"function {key[1]!r} calls itself",
                    hint="ONNX has no recursion; export the model again",
                    nodes=[reference(node)],
                )
            if key in functions and key not in sizes:
                sizes[key] = size(functions[key].node, (*active, key))
            total += sizes.get(key, 1)
        return total

    if size(graph.node, ()) > MAX_NODES:
        raise Error("NEUC-E110", f"inlining functions gives more than {MAX_NODES} nodes", hint="export a simpler model")


def _differs(node: NodeProto, own: Mapping[str, int], opsets: Mapping[str, int]) -> bool:
    ours = raw_schema(node.op_type, node.domain, own[node.domain])
    theirs = raw_schema(node.op_type, node.domain, opsets[node.domain])
    if ours is None or theirs is None:
        return ours is not theirs
    return ours.since_version != theirs.since_version


def _all_names(graph: GraphProto) -> set[str]:
    names = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    for node in graph.node:
        names.update(node.output)
        for _, inner in subgraphs(node):
            names |= _all_names(inner)
    return names


class _Inliner:
    def __init__(self, functions: Mapping[Key, FunctionProto], names: set[str], found: dict[str, Origin]) -> None:
        self.functions, self.names, self.found = functions, names, found

    def graph(self, graph: GraphProto) -> None:
        """Expand calls in a graph."""
        for node in graph.node:
            for _, inner in subgraphs(node):
                self.graph(inner)
        if any(self._key(node) in self.functions for node in graph.node):
            nodes = [out for node in graph.node for out in self.expand(node)]
            del graph.node[:]
            graph.node.extend(nodes)

    @staticmethod
    def _key(node: NodeProto) -> Key:
        return node.domain, node.op_type, node.overload

    def expand(self, call: NodeProto) -> list[NodeProto]:
        """The nodes that stand for `call`: itself if it calls no local function."""
        key = self._key(call)
        function = self.functions.get(key)
        if function is None:
            copy = NodeProto()
            copy.CopyFrom(call)
            return [copy]
        return self._body(call, function)

    def _body(self, call: NodeProto, function: FunctionProto) -> list[NodeProto]:
        first = next((name for name in call.output if name), "")
        origin = self.found.get(first, Origin(call.name, 0))
        callers = ((origin.name, origin.index), *origin.callers)
        actual = dict(zip(function.input, [*call.input, *[""] * len(function.input)]))
        renamed = dict(actual)
        given = {a.name: a for a in call.attribute}
        attributes = {**{a.name: a for a in function.attribute_proto}, **given}
        result: list[NodeProto] = []
        for formal, name in zip(function.output, call.output):
            if not name:
                continue
            if formal in actual:
                result.append(NodeProto(op_type="Identity", input=[actual[formal]], output=[name], name=call.name))
                self.found[name] = Origin(call.name, origin.index, origin.callers)
            else:
                renamed[formal] = name
        for index, node in enumerate(function.node):
            inner = self._copy(node, renamed, attributes, call.name)
            inner.name = f"{call.name}/{node.name or f'{node.op_type}#{index}'}"
            out = next((name for name in inner.output if name), None)
            if out is not None:
                self.found[out] = Origin(inner.name, index, callers)
            for _, graph in subgraphs(inner):
                self.graph(graph)
            result.extend(self.expand(inner))
        return result

    def _copy(
        self, node: NodeProto, renamed: dict[str, str], attributes: Mapping[str, AttributeProto], prefix: str
    ) -> NodeProto:
        """A copy of a body node with names mapped; new names for its outputs enter `renamed`."""
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [renamed.get(name, name) for name in node.input]
        for index, name in enumerate(node.output):
            if name and name not in renamed:
                renamed[name] = self._fresh(f"{prefix}/{name}")
            copy.output[index] = renamed.get(name, "")
        del copy.attribute[:]
        for attribute in node.attribute:
            value = attribute
            if attribute.ref_attr_name:
                value = attributes.get(attribute.ref_attr_name)
                if value is None:
                    continue  # the call leaves it out, so the operator's default holds
            added = copy.attribute.add()
            added.CopyFrom(value)
            added.name = attribute.name
            if added.type == AttributeProto.GRAPH and not attribute.ref_attr_name:
                self._rename_graph(added.g, dict(renamed), attributes, prefix)
        return copy

    def _rename_graph(
        self, graph: GraphProto, renamed: dict[str, str], attributes: Mapping[str, AttributeProto], prefix: str
    ) -> None:
        for value in [*graph.input, *graph.initializer]:
            renamed[value.name] = self._fresh(f"{prefix}/{value.name}")
            value.name = renamed[value.name]
        nodes: Sequence[NodeProto] = [self._copy(node, renamed, attributes, prefix) for node in graph.node]
        for value in graph.output:
            value.name = renamed.get(value.name, value.name)
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.value_info[:]

    def _fresh(self, name: str) -> str:
        unique, count = name, 1
        while unique in self.names:
            count += 1
            unique = f"{name}_{count}"
        self.names.add(unique)
        return unique
