"""The graph of an IR module of any level: operations of @main and of the segments it calls, or their launches.

Constants are no nodes but attributes of what reads them. Bodies of `dense.map` are attributes, too; those of ONNX's
control flow are nodes within the scope of their operation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from xdsl.dialects import func
from xdsl.dialects.builtin import (
    ArrayAttr,
    ModuleOp,
    TensorType,
    UnitAttr,
    UnrankedTensorType,
)
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Attribute, Block, Operation, SSAValue

from neuc.compiler.inspection.graph import INPUT, OUTPUT, BufferFlow, Graph, Node, Source, kernel_words
from neuc.compiler.signature import ENTRY
from neuc.dialects.cpu import CallOp, ProgramOp
from neuc.dialects.cpu_launch import BufferOp, LaunchOp
from neuc.dialects.dense import MapOp
from neuc.dialects.locations import node_names
from neuc.dialects.onnx import NoneOp, OnnxOp, YieldOp, decode_name, function_names
from neuc.dialects.onnx_base import attribute_value
from neuc.dialects.store import ConstantOp, dims_of

_LONGEST = 400
"""Characters of an attribute that are shown."""
_CALLS = 64
"""Calls within calls that are followed."""

Sources = tuple[Source, ...]
Functions = dict[str, "func.FuncOp | ProgramOp"]


def module_graph(module: ModuleOp) -> Graph:
    """The graph of `module`: of @main, or of all functions where there is no @main."""
    functions: Functions = {op.sym_name.data: op for op in module.ops if isinstance(op, func.FuncOp | ProgramOp)}
    calls = {_callee(op) for op in module.walk() if isinstance(op, func.CallOp | CallOp)}
    walk = _Walk(functions, scoped=len(calls) > 1 or ENTRY not in functions)
    for name, function in functions.items():
        if name != ENTRY and ENTRY in functions:
            continue
        walk.whole(function, () if name == ENTRY else (name,))
    return walk.graph


@dataclass
class _Walk:
    functions: Functions
    scoped: bool
    graph: Graph = field(default_factory=Graph)
    _made: dict[SSAValue, Sources] = field(default_factory=dict[SSAValue, Sources])
    _constants: dict[SSAValue, str] = field(default_factory=dict[SSAValue, str])

    def whole(self, function: func.FuncOp | ProgramOp, scope: tuple[str, ...]) -> None:
        """A function with nodes for its inputs and outputs."""
        if isinstance(function, ProgramOp):
            inputs = [f"in{i}" for i in range(len(function.inputs))]
            outputs = [f"out{i}" for i in range(len(function.outputs))]
            types, made = function.inputs.data, function.outputs.data
        else:
            inputs, outputs = function_names(function)
            types, made = function.function_type.inputs.data, function.function_type.outputs.data
        given = [
            self.graph.add(INPUT, names=[name], scope=scope, outputs=[type_text(type_)])
            for name, type_ in zip(inputs, types, strict=True)
        ]
        results = self._called(function, [(Source(node.id, 0),) for node in given], scope, 0)
        for name, type_, sources in zip(outputs, made, results):
            self.graph.add(OUTPUT, names=[name], scope=scope, attributes={"type": type_text(type_)}, inputs=sources)

    def _called(
        self, function: func.FuncOp | ProgramOp, arguments: Sequence[Sources], scope: tuple[str, ...], depth: int
    ) -> list[Sources]:
        if isinstance(function, ProgramOp):
            return self._program(function, arguments, scope)
        self._made.update(zip(function.body.block.args, arguments))
        return self._block(function.body.block, scope, depth)

    def _block(self, block: Block, scope: tuple[str, ...], depth: int) -> list[Sources]:
        """Nodes of a block; returns where the values it returns come from."""
        returned: list[Sources] = []
        for op in block.ops:
            match op:
                case ConstantOp():
                    name = "" if op.entry is None else f"{decode_name(op.entry.data)}: "
                    self._constants[op.result] = name + type_text(op.result.type)
                case NoneOp():
                    pass
                case func.ReturnOp() | YieldOp():
                    returned = [self._sources(value) for value in op.operands]
                case func.CallOp() | CallOp() if _callee(op) in self.functions and depth < _CALLS:
                    name = _callee(op)
                    inner = (*scope, name) if self.scoped else scope
                    arguments = [self._sources(value) for value in op.operands]
                    results = self._called(self.functions[name], arguments, inner, depth + 1)
                    self._made.update(zip(op.results, results))
                case _:
                    self._operation(op, scope, depth)
        return returned

    def _operation(self, op: Operation, scope: tuple[str, ...], depth: int) -> None:
        names = _names(op)
        attributes = dict(_attributes(op))
        constants = {f"operand {i}": self._constants[v] for i, v in enumerate(op.operands) if v in self._constants}
        node = self.graph.add(
            op.name,
            names=names,
            scope=scope,
            attributes={**attributes, **constants},
            inputs=[source for value in op.operands for source in self._sources(value)],
            outputs=[type_text(value.type) for value in op.results],
        )
        self._made.update((value, (Source(node.id, i),)) for i, value in enumerate(op.results))
        if isinstance(op, OnnxOp):
            for name, region in op.graphs.items():
                inner = (*scope, node.name or f"{op.op_type} {node.id}", name)
                self._made.update((argument, (Source(node.id, 0),)) for argument in region.block.args)
                self._block(region.block, inner, depth)

    def _program(self, program: ProgramOp, arguments: Sequence[Sources], scope: tuple[str, ...]) -> list[Sources]:
        flow = BufferFlow[SSAValue]()
        outputs: dict[int, SSAValue] = {}
        for op in program.body.block.ops:
            if isinstance(op, BufferOp) and op.index is not None:
                index = op.index.value.data
                if op.kind.data == "output":
                    outputs[index] = op.result
                elif index < len(arguments):
                    flow.given(op.result, arguments[index])
            elif isinstance(op, LaunchOp):
                self._launch(op, flow, scope)
        return [flow.sources(outputs[i]) if i in outputs else () for i in range(len(program.outputs))]

    def _launch(self, op: LaunchOp, flow: BufferFlow[SSAValue], scope: tuple[str, ...]) -> Node:
        buffers = [b.owner for b in op.buffers if isinstance(b.owner, BufferOp)]
        weights = {b.entry.data: f"{b.nbytes.data} bytes" for b in buffers if b.entry is not None}
        read, written = flow.split([b.result for b in buffers if b.entry is None])
        kernel = op.kernel.string_value()
        sizes: dict[SSAValue, str] = {b.result: f"{b.nbytes.data} bytes" for b in buffers}
        node = self.graph.add(
            kernel_words(kernel),
            names=_names(op),
            scope=scope,
            attributes={
                "kernel": kernel,
                "work": op.work.data,
                "grain": str(op.grain.value.data),
                **{f"weight {decode_name(name)}": size for name, size in weights.items()},
            },
            inputs=[source for buffer in read for source in flow.sources(buffer)],
            outputs=[sizes[buffer] for buffer in written],
        )
        flow.wrote(node, written)
        return node

    def _sources(self, value: SSAValue) -> Sources:
        return self._made.get(value, ())


def type_text(type_: Attribute) -> str:
    """`f32[B, 16, 384]`; types that are no tensors as the IR prints them."""
    if isinstance(type_, UnrankedTensorType):
        return f"{type_.element_type}[of any rank]"
    if not isinstance(type_, TensorType):
        return _short(str(type_))
    try:
        dims = [str(dim) for dim in dims_of(type_)]
    except ValueError:  # dims without names
        dims = [str(size) if size >= 0 else "?" for size in type_.get_shape()]
    return f"{type_.get_element_type()}[{', '.join(dims)}]"


def _callee(op: func.CallOp | CallOp) -> str:
    return op.callee.string_value()


def _names(op: Operation) -> list[str]:
    return [decode_name(name) for name in node_names(op)]


def _attributes(op: Operation) -> Iterator[tuple[str, str]]:
    for name, value in {**op.properties, **op.attributes}.items():
        if name not in ("operandSegmentSizes", "graph_names"):
            yield name, _short(_value(value))
    if isinstance(op, MapOp):
        yield "body", _short(", ".join(inner.name for inner in op.body.block.ops if inner is not op.body.block.last_op))


def _value(attribute: Attribute) -> str:
    """An attribute for people."""
    match attribute:
        case ArrayAttr():
            return f"[{', '.join(_value(item) for item in attribute)}]"
        case EnumAttribute():
            return str(attribute.data)
        case UnitAttr():
            return "yes"
        case _:
            value = attribute_value(attribute)
            text = f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
            return decode_name(text)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
