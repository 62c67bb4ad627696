"""Exports graph-level IR as an ONNX model: a whole module, or one function such as a host segment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, numpy_helper
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.locations import node_names
from neuc.dialects.onnx import NoneOp, OnnxOp, YieldOp, decode_name, function_names, opsets_of
from neuc.dialects.onnx_base import verify_against
from neuc.dialects.onnx_proto import node_to_proto, type_to_proto
from neuc.dialects.onnx_schema import find_schema, newest_opset
from neuc.dialects.onnx_types import NoneType
from neuc.dialects.store import ConstantOp, constant_array
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, NodeRef

MAX_BYTES = 2**31 - 1
"""Protobuf's limit for a message."""

REDEFINED = frozenset(["BitShift", "Range"])
"""Operators of opsets 27 and 28 that compute something else than before where older ones take them."""


def export_onnx(
    source: ModuleOp | FuncOp,
    store: WeightStore,
    *,
    opsets: Mapping[str, int] | None = None,
    newest: int | None = None,
) -> ModelProto:
    """The ONNX model of a module's `main` function, or of one function.

    Args:
        source: only `onnx` operations and constants may be in the function.
        store: where its constants are.
        opsets: versions by domain; those of the module by default.
        newest: the opset to declare if the module's is newer and `source` does not depend on it.

    Raises:
        Error: NEUC-E113 naming what has no ONNX form.
    """
    func = _main(source) if isinstance(source, ModuleOp) else source
    versions = dict(opsets_of(func) if opsets is None else opsets) or {"": newest_opset()}
    if newest is not None and versions.get("", 0) > newest and _valid_in(func, newest):
        versions[""] = newest
    input_names, output_names = function_names(func)
    exporter = _Exporter(store, set(input_names) | set(output_names))
    graph = exporter.main(func, input_names, output_names)
    if exporter.problems:
        first = exporter.problems[0]
        raise Error(
            "NEUC-E113",
            f"{len(exporter.problems)} operations have no ONNX form, the first is {first.op_type}: {first.reason}",
            hint="export at the graph level",
            nodes=exporter.problems,
        )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in sorted(versions.items())]
    model = onnx.helper.make_model(graph, opset_imports=imports, producer_name="neuc")
    model.ir_version = onnx.helper.find_min_ir_version_for(imports, ignore_unknown=True)
    return model


def _valid_in(func: FuncOp, version: int) -> bool:
    """Whether all of ONNX's own operators in `func` exist in an older opset and mean the same there."""
    for op in func.walk():
        if not isinstance(op, OnnxOp) or op.domain or (op.schema and op.schema.since_version <= version):
            continue
        older = find_schema(op.op_type, "", version)
        if older is None or op.op_type in REDEFINED:
            return False
        try:
            verify_against(op, older)  # most new versions only take more types
        except VerifyException:
            return False
    return True


def _main(module: ModuleOp) -> FuncOp:
    functions = [op for op in module.body.block.ops if isinstance(op, FuncOp)]
    main = next((f for f in functions if f.sym_name.data == "main"), functions[0] if functions else None)
    if main is None:
        raise Error("NEUC-E113", "the module has no function to export", hint="import a model first")
    return main


@dataclass
class _Exporter:
    store: WeightStore
    taken: set[str]
    names: dict[SSAValue, str] = field(default_factory=dict)
    node_names: set[str] = field(default_factory=set)
    problems: list[NodeRef] = field(default_factory=list)
    nbytes: int = 0

    def main(self, func: FuncOp, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> GraphProto:
        """The main graph."""
        graph = GraphProto(name=func.sym_name.data)
        block = func.body.block
        for argument, name in zip(block.args, inputs):
            self.names[argument] = name
            graph.input.append(self._info(argument))
        self._fill(graph, block, outputs)
        return graph

    def _region(self, name: str, region: Region) -> GraphProto:
        graph = GraphProto(name=name)
        block = region.block
        for argument in block.args:
            self.names[argument] = self._unique(argument.name_hint or "arg")
            graph.input.append(self._info(argument))
        self._fill(graph, block, ())
        return graph

    def _fill(self, graph: GraphProto, block: Block, outputs: tuple[str, ...]) -> None:
        """Write a block; `outputs` are the names the results must have, if any."""
        last = block.last_op
        results = list(last.operands) if isinstance(last, ReturnOp | YieldOp) else []
        wanted = outputs or tuple("" for _ in results)
        extra: list[tuple[SSAValue, str]] = []
        for value, name in zip(results, wanted):
            # A graph's outputs must be made by its own nodes and have different names.
            if value in self.names or value.owner.parent_block() is not block or not _is_node(value.owner):
                extra.append((value, name))
            else:
                self.names[value] = name or self._unique(value.name_hint or "out")
        for op in block.ops:
            if isinstance(op, OnnxOp):
                graph.node.append(self._node(op))
            elif isinstance(op, ConstantOp):
                self._constant(graph, op)
            elif not isinstance(op, NoneOp | ReturnOp | YieldOp):
                self.problems.append(_reference(op, "it is not of the onnx dialect"))
        produced = {name for node in graph.node for name in node.output if name}
        for value, name in zip(results, wanted):
            made = self.names.get(value)
            if (value, name) in extra or made not in produced:
                made = name or self._unique(value.name_hint or "out")
                source = self.names.get(value, "")
                graph.node.append(NodeProto(op_type="Identity", input=[source], output=[made]))
            info = self._info(value)
            info.name = made
            graph.output.append(info)

    def _node(self, op: OnnxOp) -> NodeProto:
        inputs = ["" if isinstance(value.type, NoneType) else self.names[value] for value in op.operands]
        hint = (node_names(op) or (op.op_type,))[0]
        outputs: list[str] = []
        for index, value in enumerate(op.results):
            if isinstance(value.type, NoneType):
                outputs.append("")
                continue
            if value not in self.names:
                default = hint if index == 0 else f"{hint}_{index}"
                self.names[value] = self._unique(value.name_hint or decode_name(default))
            outputs.append(self.names[value])
        name, count = decode_name(hint), 1
        while name in self.node_names:  # onnxruntime refuses two nodes of one name
            count += 1
            name = f"{decode_name(hint)}.{count}"
        self.node_names.add(name)
        try:
            return node_to_proto(op, inputs, outputs, self.store, name=name, graph=self._region)
        except ValueError as error:
            self.problems.append(_reference(op, str(error)))
            return NodeProto()

    def _constant(self, graph: GraphProto, op: ConstantOp) -> None:
        entry = op.entry.data if isinstance(op.entry, StringAttr) else None
        name = self._unique(op.result.name_hint or (decode_name(entry) if entry else "constant"))
        self.names[op.result] = name
        array = constant_array(op, self.store)
        self.nbytes += array.nbytes
        if self.nbytes > MAX_BYTES:
            raise Error(
                "NEUC-E113",
                "the model is larger than 2 GiB, which an ONNX file without external data cannot be",
                hint="export a part of it",
            )
        graph.initializer.append(numpy_helper.from_array(array, name))

    def _info(self, value: SSAValue) -> ValueInfoProto:
        info = ValueInfoProto(name=self.names.get(value, ""))
        try:
            info.type.CopyFrom(type_to_proto(value.type))
        except ValueError as error:
            owner = value.owner
            reference = _reference(owner, str(error)) if isinstance(owner, Operation) else NodeRef("", "", str(error))
            self.problems.append(reference)
        return info

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self.taken:
            count += 1
            unique = f"{name}_{count}"
        self.taken.add(unique)
        return unique


def _is_node(owner: Operation | Block) -> bool:
    return isinstance(owner, OnnxOp)


def _reference(op: Operation, reason: str) -> NodeRef:
    names = node_names(op)
    return NodeRef(names[0] if names else op.name, op.full_name if isinstance(op, OnnxOp) else op.name, reason)
