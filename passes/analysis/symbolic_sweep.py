"""One forward sweep over a module that finds shapes, types and contents: rules first, ONNX's inference for the rest.

Fills `Facts`; writing types into the IR is the pass's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects.builtin import ModuleOp, TensorType, UnrankedTensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, SSAValue

from neuc.dialects.dims import Dim
from neuc.dialects.onnx import OnnxOp, YieldOp
from neuc.dialects.onnx_inference import infer_result_types
from neuc.dialects.onnx_proto import partial_tensor_type
from neuc.dialects.onnx_types import NoneType, UnknownType
from neuc.dialects.store import ConstantOp, DimsAttr
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.symbolic_contents import find_contents
from neuc.passes.analysis.symbolic_facts import MAX_CONTENTS, Contradiction, Facts, Shape, type_shape
from neuc.passes.analysis.symbolic_rules import RULES
from neuc.passes.analysis.symbolic_rules_movement import MOVEMENT_RULES
from neuc.passes.analysis.symbolic_rules_window import WINDOW_RULES

SHAPE_RULES = {**RULES, **MOVEMENT_RULES, **WINDOW_RULES}

Types = dict[SSAValue, Attribute]


@dataclass
class Sweep:
    """Shapes and types of all values of a module.

    Attributes:
        facts: what is known.
        types: the type each value should have.
    """

    facts: Facts
    types: Types = field(default_factory=Types)
    _visible: set[str] = field(default_factory=set[str])
    """Symbols in the types of values that can be read where the sweep is, and so known when it runs there."""

    def function(self, func: FuncOp) -> None:
        """Sweep one function; argument types are taken as they are, unknown dims become symbols."""
        self._visible = set()
        for block in func.body.blocks:
            for argument in block.args:
                self._settle(argument, argument.type, type_shape(argument))
            self._block(block)

    def _block(self, block: Block) -> None:
        for op in block.ops:
            if isinstance(op, OnnxOp):
                self._operation(op)
            else:
                for value in op.results:
                    self.types[value] = value.type

    def _operation(self, op: OnnxOp) -> None:
        if op.bodies:
            self._with_bodies(op)
            return
        shapes: Sequence[Shape | None] | None = None
        rule = SHAPE_RULES.get(op.op_type) if not op.domain else None
        try:
            shapes = rule(op, self.facts) if rule is not None else None
        except Contradiction as error:
            self.facts.conflict(op, str(error))
            for value in op.results:
                self._settle(value, value.type, type_shape(value))
            return
        elements = [_element(value.type) for value in op.results]
        inferred: list[Attribute] | None = None
        if shapes is None or any(e is None for e in elements) or any(s is None for s in shapes):
            inferred = self._ask_onnx(op)
        for index, value in enumerate(op.results):
            type_ = value.type if inferred is None or isinstance(inferred[index], UnknownType) else inferred[index]
            shape = shapes[index] if shapes is not None and index < len(shapes) else None
            if shape is None:
                shape = _shape_of(type_)
            self._settle(value, type_, shape)
        found = find_contents(op, self.facts)
        for value, contents in zip(op.results, found or ()):
            if contents is not None:
                self.facts.contents[value] = contents

    def _ask_onnx(self, op: OnnxOp) -> list[Attribute] | None:
        types = [self.types.get(value, value.type) for value in op.operands]
        constants: dict[int, np.ndarray] = {}
        for index, value in enumerate(op.operands):
            if isinstance(value.owner, ConstantOp):
                array = self.facts.array(value)
                if array is not None and array.size <= MAX_CONTENTS:
                    constants[index] = array
        try:
            return infer_result_types(op, types, constants, self.facts.store)
        except ValueError as error:
            self.facts.conflict(op, str(error))
            return None

    def _settle(self, value: SSAValue, type_: Attribute, shape: Shape | None) -> None:
        """Fix the type of `value`: known dims, then what its type said before, then a new symbol."""
        if isinstance(value.type, NoneType):  # an output the model does not want
            self.types[value] = value.type
            return
        element = _element(type_)
        if element is None or shape is None:
            self.types[value] = type_
            self.facts.shapes[value] = shape
            return
        before = type_shape(value)
        if before is None or len(before) != len(shape):
            before = (None,) * len(shape)
        dims = tuple(_first(dim, old) or self.facts.fresh() for dim, old in zip(shape, before))
        self.facts.shapes[value] = dims
        self.types[value] = partial_tensor_type(element, dims)
        self._visible.update(symbol for dim in dims for symbol in dim.symbols)

    def _settle_outside(self, value: SSAValue, type_: Attribute, shape: Shape | None) -> None:
        """Fix the type of a result of an operation with bodies: sizes that only a body knows are unknown out here."""
        known = shape and tuple(dim if dim is not None and dim.symbols <= self._visible else None for dim in shape)
        self._settle(value, type_, known)

    def _with_bodies(self, op: OnnxOp) -> None:
        outside = set(self._visible)
        graphs = {name: region.block for name, region in op.graphs.items()}
        outer = list(op.operands)
        if op.op_type == "Loop" and len(outer) >= 2:
            body = graphs["body"]
            self._argument(body.args[0], ())
            self._argument(body.args[1], ())
            states = len(outer) - 2
            self._carried(body, body.args[2:], outer[2:], first_output=1)
            self._visible = outside
            self._results(op, _yielded(body)[1:], states)
        elif op.op_type == "Scan" and op.opset >= 9:  # before, it had a batch dim of its own
            self._scan(op, graphs["body"], outside)
        else:
            for block in graphs.values():
                for argument in block.args:
                    self._settle(argument, argument.type, type_shape(argument))
                self._block(block)
            self._visible = outside
            if op.op_type == "If":
                self._branches(op, graphs)
            else:
                for value in op.results:
                    self._settle(value, value.type, type_shape(value))

    def _argument(self, argument: SSAValue, shape: Shape) -> None:
        self._settle(argument, argument.type, shape)

    def _carried(self, body: Block, arguments: Iterable[SSAValue], initial: list[SSAValue], first_output: int) -> None:
        """Sweep a loop body; carried values keep a dim only if every round does."""
        arguments = list(arguments)
        shapes = [self.facts.shape(value) for value in initial]
        for _ in range(3):  # a dim that changes becomes unknown, which may make others change; ranks settle at once
            for argument, value, shape in zip(arguments, initial, shapes):
                type_ = _with_element(argument.type, self.types.get(value, value.type))
                self._settle(argument, type_, shape)
            self._block(body)
            outputs = _yielded(body)[first_output : first_output + len(arguments)]
            after = [self.facts.shape(value) for value in outputs]
            merged = [_merge(a, b) for a, b in zip(shapes, after)]
            if merged == shapes:
                return
            shapes = merged

    def _results(self, op: OnnxOp, outputs: list[SSAValue], states: int) -> None:
        """Types of a loop's results: final states, then stacked outputs of every round."""
        for index, (result, value) in enumerate(zip(op.results, outputs)):
            shape = self.facts.shape(value)
            if index < states:
                carried = self.facts.shape(op.operands[2 + index])
                shape = _merge(shape, carried)
            elif shape is not None:
                shape = (None, *shape)
            type_ = _with_element(result.type, self.types.get(value, value.type))
            self._settle_outside(result, type_, shape)

    def _scan(self, op: OnnxOp, body: Block, outside: set[str]) -> None:
        scanned = op.int_attribute("num_scan_inputs", 0)
        states = len(op.operands) - scanned
        length: Dim | None = None
        plain = not any(op.attributes.get(f"scan_{kind}_axes") for kind in ("input", "output"))
        for argument, value in zip(body.args[states:], op.operands[states:]):
            shape = self.facts.shape(value) if plain else None
            if shape:
                length = shape[0] if length is None else length
            type_ = _with_element(argument.type, self.types.get(value, value.type))
            self._settle(argument, type_, shape[1:] if shape else type_shape(argument))
        self._carried(body, body.args[:states], list(op.operands[:states]), first_output=0)
        self._visible = outside
        for index, (result, value) in enumerate(zip(op.results, _yielded(body))):
            shape = self.facts.shape(value)
            if index >= states:
                shape = (length, *shape) if shape is not None and plain else type_shape(result)
            self._settle_outside(result, _with_element(result.type, self.types.get(value, value.type)), shape)

    def _branches(self, op: OnnxOp, graphs: dict[str, Block]) -> None:
        first, second = (_yielded(block) for block in graphs.values())
        for result, a, b in zip(op.results, first, second):
            shape = _merge(self.facts.shape(a), self.facts.shape(b))
            types = (self.types.get(a, a.type), self.types.get(b, b.type))
            type_ = _with_element(result.type, types[0])
            if shape is None and types[0] == types[1]:
                type_ = types[0]  # not tensors, or both of unknown rank
            elif shape is None and (element := _element(type_)) is not None:
                type_ = UnrankedTensorType(element)
            self._settle_outside(result, type_, shape)


def sweep(module: ModuleOp, store: WeightStore) -> Sweep:
    """Find types, shapes and contents of everything in `module`."""
    facts = Facts(store)
    for type_ in _types_in(module):
        if isinstance(type_, TensorType) and isinstance(type_.encoding, DimsAttr):
            for dim in type_.encoding.dims():
                facts.taken |= dim.symbols
    result = Sweep(facts)
    for op in module.walk():
        if isinstance(op, FuncOp):
            result.function(op)
    return result


def _types_in(module: ModuleOp) -> Iterable[Attribute]:
    for op in module.walk():
        yield from op.result_types
        for region in op.regions:
            for block in region.blocks:
                yield from block.arg_types


def _yielded(block: Block) -> list[SSAValue]:
    last: Operation | None = block.last_op
    return list(last.operands) if isinstance(last, YieldOp) else []


def _element(type_: Attribute) -> Attribute | None:
    if isinstance(type_, TensorType | UnrankedTensorType):
        return type_.element_type
    return None


def _shape_of(type_: Attribute) -> Shape | None:
    if not isinstance(type_, TensorType):
        return None
    if isinstance(type_.encoding, DimsAttr):
        return type_.encoding.dims()
    return tuple(Dim.of(n) if n >= 0 else None for n in type_.get_shape())


def _with_element(own: Attribute, other: Attribute) -> Attribute:
    """`own`, or `other` where `own` does not say what the elements are."""
    return other if isinstance(own, UnknownType) and not isinstance(other, NoneType) else own


def _first(dim: Dim | None, old: Dim | None) -> Dim | None:
    return old if dim is None else dim


def _merge(a: Shape | None, b: Shape | None) -> Shape | None:
    """What two shapes have in common."""
    if a is None or b is None or len(a) != len(b):
        return None
    return tuple(x if x == y else None for x, y in zip(a, b))
