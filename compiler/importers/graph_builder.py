"""Builds the `onnx` module from a prepared model: nodes to operations, tensors to the weight store, names to locations.

The model has been checked and sorted before (`structure.py`); preparation steps live in `onnx_file.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, ValueInfoProto
from xdsl.dialects.builtin import (
    ArrayAttr,
    BytesAttr,
    CallSiteLoc,
    DenseIntOrFPElementsAttr,
    DictionaryAttr,
    FileLineColLoc,
    FunctionType,
    IntAttr,
    NameLoc,
    StringAttr,
    TensorType,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, OpResult, Region, SSAValue

from neuc.compiler.importers.attributes import attribute_from_proto, payload_attribute, sparse_attribute
from neuc.compiler.importers.structure import Origin, display_type, subgraphs
from neuc.compiler.importers.symbols import Symbols
from neuc.compiler.importers.tensors import Payload, read_tensor
from neuc.dialects.onnx import NAME, CustomOp, NoneOp, YieldOp, encode_name, op_class
from neuc.dialects.onnx_proto import type_from_proto
from neuc.dialects.onnx_schema import DOMAIN_PREFIX
from neuc.dialects.onnx_types import (
    NoneType,
    SparseAttr,
    StoredAttr,
    StringsAttr,
    StringType,
    UnknownType,
)
from neuc.dialects.store import make_constant
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, Exit, NodeRef


@dataclass
class GraphBuilder:
    """Builds one function.

    Attributes:
        file: name of the model file, for locations.
        store: where tensors go.
        symbols: the model's dimension symbols.
        found: origins of nodes by first output name.
        folder: where external data of subgraphs' tensors may be.
        problems: nodes the IR cannot express; all are reported together.
    """

    file: str
    store: WeightStore
    symbols: Symbols
    found: Mapping[str, Origin]
    folder: Path | None
    problems: list[NodeRef] = field(default_factory=list)

    def function(self, graph: GraphProto, inputs: Mapping[str, Attribute], weights: Mapping[str, Payload]) -> FuncOp:
        """The entry function of a prepared main graph.

        Args:
            graph: sorted nodes, inferred `value_info`; its inputs may include placeholders for weights.
            inputs: names and types of the real inputs, in order.
            weights: all initializers of the main graph.

        Raises:
            Error: NEUC-E107 naming all nodes the IR has no form for.
        """
        block = Block(arg_types=list(inputs.values()))
        scope: dict[str, SSAValue] = {}
        for name, argument in zip(inputs, block.args):
            scope[name] = argument
            _set_hint(argument, name)
        self._nodes(graph, block, scope, weights)
        results = [scope[output.name] for output in graph.output]
        block.add_op(ReturnOp(*results))
        func = FuncOp("main", FunctionType.from_lists(list(inputs.values()), [v.type for v in results]), Region(block))
        func.properties["arg_attrs"] = _name_attrs(inputs)
        func.properties["res_attrs"] = _name_attrs(output.name for output in graph.output)
        if self.problems:
            raise Error(
                "NEUC-E107",
                f"{len(self.problems)} nodes cannot be represented: {self.problems[0].name}: {self.problems[0].reason}",
                hint="rewrite these nodes in the model",
                nodes=self.problems,
                exit_code=Exit.UNSUPPORTED,
            )
        return func

    def _nodes(
        self, graph: GraphProto, block: Block, scope: dict[str, SSAValue], weights: Mapping[str, Payload]
    ) -> None:
        types = {info.name: info for info in [*graph.value_info, *graph.output] if info.type.WhichOneof("value")}
        needed = {name for node in graph.node for name in _reads(node)} | {o.name for o in graph.output}
        for name, payload in weights.items():
            if name in needed:
                scope[name] = self._append(block, self._constant(payload, name), name)
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            attr = sparse_attribute(sparse, self.folder, name, self.store)
            scope[name] = self._append(block, self._constant_op("sparse_value", attr), name)
        none: SSAValue | None = None
        for node in graph.node:
            if none is None and "" in node.input:
                none = self._append(block, NoneOp(), "")
            op = self._node(node, scope, none, types)
            if op is None:
                for name in filter(None, node.output):  # so that users of it are not reported too
                    scope.setdefault(name, NoneOp().result)
                continue
            first = next((name for name in node.output if name), "")
            op.location = self._location(self.found.get(first), node)
            block.add_op(op)
            for name, result in zip(node.output, op.results):
                if name:
                    scope[name] = result
                    _set_hint(result, name)

    def _node(
        self,
        node: NodeProto,
        scope: dict[str, SSAValue],
        none: SSAValue | None,
        types: Mapping[str, ValueInfoProto],
    ) -> Operation | None:
        if node.op_type == "Constant" and node.domain == "":
            return self._constant_node(node)
        operands = [scope[name] if name else none for name in node.input]
        result_types = [self._type(types.get(name)) if name else NoneType() for name in node.output]
        attributes: dict[str, Attribute] = {}
        graphs: dict[str, Region] = {}
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                continue
            value = attribute_from_proto(attribute, self.folder, node.name, self.store)
            if value is None:
                kind = AttributeProto.AttributeType.Name(attribute.type)
                reason = f"attribute {attribute.name} of kind {kind} has no form in the IR"
                self.problems.append(NodeRef(node.name, display_type(node), reason))
                return None
            attributes[attribute.name] = value
        for name, graph in subgraphs(node):
            graphs[name] = self._region(graph, scope)
        values = [value for value in operands if value is not None]
        if node.domain not in DOMAIN_PREFIX:
            return CustomOp.of(node.domain, node.op_type, values, result_types, attributes, graphs)
        cls = op_class(node.op_type, node.domain)
        assert cls is not None, node.op_type
        return cls(values, result_types, attributes, graphs)

    def _region(self, graph: GraphProto, outer: dict[str, SSAValue]) -> Region:
        types = [self._type(info) for info in graph.input]
        block = Block(arg_types=types)
        scope = dict(outer)
        for info, argument in zip(graph.input, block.args):
            scope[info.name] = argument
            _set_hint(argument, info.name)
        weights = {t.name: read_tensor(t, self.folder, t.name) for t in graph.initializer}
        self._nodes(graph, block, scope, weights)
        block.add_op(YieldOp([scope[output.name] for output in graph.output]))
        return Region(block)

    def _constant_node(self, node: NodeProto) -> Operation | None:
        if len(node.attribute) != 1:
            self.problems.append(NodeRef(node.name, "Constant", f"it has {len(node.attribute)} values"))
            return None
        (attribute,) = node.attribute
        name = node.output[0]
        match attribute.name:
            case "value":
                return self._constant(read_tensor(attribute.t, self.folder, node.name), name)
            case "value_int":
                return self._constant(np.array(attribute.i, np.int64), name)
            case "value_float":
                return self._constant(np.array(attribute.f, np.float32), name)
            case "value_ints":
                return self._constant(np.array(attribute.ints, np.int64), name)
            case "value_floats":
                return self._constant(np.array(attribute.floats, np.float32), name)
            case _:
                value = attribute_from_proto(attribute, self.folder, node.name, self.store)
                assert value is not None, attribute.name
                return self._constant_op(attribute.name, value)

    def _constant(self, payload: Payload, name: str) -> Operation:
        if isinstance(payload, np.ndarray):
            return make_constant(encode_name(name), payload, self.store)
        return self._constant_op("value", payload_attribute(payload, encode_name(name), self.store))

    def _constant_op(self, attribute: str, value: Attribute) -> Operation:
        cls = op_class("Constant")
        assert cls is not None
        return cls([], [_constant_type(value)], {attribute: value})

    def _type(self, info: ValueInfoProto | None) -> Attribute:
        return UnknownType() if info is None else type_from_proto(info.type, self.symbols.inner_dim)

    @staticmethod
    def _append(block: Block, op: Operation, name: str) -> OpResult:
        block.add_op(op)
        _set_hint(op.results[0], name)
        return op.results[0]

    def _location(self, origin: Origin | None, node: NodeProto) -> NameLoc | CallSiteLoc:
        if origin is None:
            return self._name(node.name, 0)
        location: NameLoc | CallSiteLoc = self._name(origin.name, origin.index)
        for name, index in origin.callers:
            location = CallSiteLoc(location, self._name(name, index))
        return location

    def _name(self, name: str, index: int) -> NameLoc:
        place = FileLineColLoc(StringAttr(encode_name(self.file)), IntAttr(index), IntAttr(0))
        return NameLoc(StringAttr(encode_name(name)), place)


def _reads(node: NodeProto) -> set[str]:
    names = {name for name in node.input if name}
    for _, graph in subgraphs(node):
        names |= {o.name for o in graph.output}
        for inner in graph.node:
            names |= _reads(inner)
    return names


def _constant_type(value: Attribute) -> Attribute:
    match value:
        case StoredAttr() | StringsAttr():
            return value.type
        case SparseAttr():
            dense = value.values.type if isinstance(value.values, StoredAttr | DenseIntOrFPElementsAttr) else None
            if isinstance(dense, TensorType):
                dims = [int(d) for d in value.dims.iter_values()]  # pyright: ignore[reportAttributeAccessIssue]
                return TensorType(dense.element_type, dims)  # only the stored form is sparse
            return UnknownType()
        case StringAttr() | BytesAttr():
            return TensorType(StringType(), [])
        case ArrayAttr():
            return TensorType(StringType(), [len(value)])
        case _:
            return UnknownType()


def _name_attrs(names: Iterable[str]) -> ArrayAttr[DictionaryAttr]:
    return ArrayAttr([DictionaryAttr({NAME: StringAttr(encode_name(name))}) for name in names])


def _set_hint(value: SSAValue, name: str) -> None:
    """Keep the model's name readable in IR text; `x_7` becomes `x.7` because printers number names with `_7`."""
    hint = re.sub(r"_(\d+)\Z", r".\1", name)
    if hint.isascii() and SSAValue.is_valid_name(hint):
        value.name_hint = hint
