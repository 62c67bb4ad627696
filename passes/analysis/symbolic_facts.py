"""What is known about the values of an `onnx` module: shapes and small integer contents as expressions over symbols.

The state that rules (`symbolic_rules*.py`, `symbolic_contents.py`) read and the sweep (`symbolic_sweep.py`) fills. A
shape is a tuple of `Dim`, None where a dim is unknown; an unknown rank is None. Contents are numpy arrays of `Dim`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, TensorType
from xdsl.ir import Operation, SSAValue

from neuc.dialects.dims import Dim
from neuc.dialects.locations import node_names
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.store import ConstantOp, DimsAttr, constant_array
from neuc.dialects.weight_store import WeightStore
from neuc.errors import NodeRef

Shape = tuple[Dim | None, ...]
Contents = np.ndarray

MAX_CONTENTS = 256
"""Integer tensors with more elements than this are data, not sizes."""


class Contradiction(ValueError):
    """Operand shapes that cannot be; the text says why."""


@dataclass
class Facts:
    """Knowledge about values, by SSA value.

    Attributes:
        store: the weight store, for the contents of constants.
        shapes: shapes found by the sweep; values not in it have the shape their type says.
        contents: contents of integer tensors whose elements are all known.
        conflicts: operations whose operands contradict each other.
        taken: symbols in use.
    """

    store: WeightStore
    shapes: dict[SSAValue, Shape | None] = field(default_factory=dict)
    contents: dict[SSAValue, Contents] = field(default_factory=dict)
    conflicts: list[NodeRef] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def shape(self, value: SSAValue | None) -> Shape | None:
        """The shape of a value; None for an absent one and for unknown rank."""
        if value is None:
            return None
        if value in self.shapes:
            return self.shapes[value]
        return type_shape(value)

    def rank(self, value: SSAValue | None) -> int | None:
        """The number of dims, if known."""
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def content(self, value: SSAValue | None) -> Contents | None:
        """The elements of a small integer tensor, if all are known."""
        if value is None:
            return None
        known = self.contents.get(value)
        if known is None and isinstance(value.owner, ConstantOp):
            known = constant_contents(value.owner, self.store)
            if known is not None:
                self.contents[value] = known
        return known

    def dims(self, value: SSAValue | None) -> list[Dim] | None:
        """The elements of a 0- or 1-dimensional integer tensor."""
        known = self.content(value)
        return None if known is None else [Dim.of(v) for v in known.reshape(-1)]

    def ints(self, value: SSAValue | None) -> list[int] | None:
        """The elements of an integer tensor if they are all plain numbers."""
        known = self.dims(value)
        if known is None or not all(dim.is_static for dim in known):
            return None
        return [dim.value for dim in known]

    def array(self, value: SSAValue | None) -> np.ndarray | None:
        """The array of a constant."""
        if value is None or not isinstance(value.owner, ConstantOp):
            return None
        return constant_array(value.owner, self.store)

    def fresh(self) -> Dim:
        """A new symbol for a dim that only running the model tells."""
        count = len(self.taken)
        while f"u{count}" in self.taken:
            count += 1
        self.taken.add(f"u{count}")
        return Dim.symbol(f"u{count}")

    def conflict(self, op: Operation, reason: str) -> None:
        """Note that `op` cannot be."""
        names = node_names(op)
        op_type = op.full_name if isinstance(op, OnnxOp) else op.name
        self.conflicts.append(NodeRef(names[0] if names else op.name, op_type, reason))


def type_shape(value: SSAValue) -> Shape | None:
    """The shape a value's type tells."""
    type_ = value.type
    if not isinstance(type_, TensorType):
        return None
    if isinstance(type_.encoding, DimsAttr):
        return type_.encoding.dims()
    return tuple(Dim.of(size) if size >= 0 else None for size in type_.get_shape())


def constant_contents(op: ConstantOp, store: WeightStore) -> Contents | None:
    """The elements of a small constant of integers (or of floats that are integers)."""
    type_ = op.result.type
    assert isinstance(type_, TensorType)
    count = 1
    for size in type_.get_shape():
        count *= size
    if not 0 <= count <= MAX_CONTENTS:
        return None
    if isinstance(op.value, DenseIntOrFPElementsAttr) and count == 0:
        return None
    array = constant_array(op, store)
    if array.dtype.kind == "f" and not bool(np.all(np.isfinite(array) & (array == np.trunc(array)))):
        return None
    if array.dtype.kind not in "iubf":
        return None
    return object_array([Dim.of(int(v)) for v in array.reshape(-1)], array.shape)


def object_array(items: Sequence[Dim], shape: Sequence[int]) -> Contents:
    """A numpy array of dims."""
    array = np.empty(len(items), dtype=object)
    array[:] = list(items)
    return array.reshape(tuple(shape))


Interval = tuple[float, float]


def bounds(dim: Dim, least: int = 0) -> Interval:
    """An interval that holds the value of `dim` whenever every symbol is at least `least`."""
    if dim.is_static:
        return dim.value, dim.value
    return _interval(ast.parse(str(dim), mode="eval").body, least)


def _interval(node: ast.expr, least: int) -> Interval:
    match node:
        case ast.Constant(value=int(value)):
            return value, value
        case ast.Name():
            return least, float("inf")
        case ast.UnaryOp(operand=operand):
            low, high = _interval(operand, least)
            return -high, -low
        case ast.BinOp(left=left, op=op, right=right):
            return _combined(_interval(left, least), op, _interval(right, least))
        case ast.Call(func=ast.Name(id=name), args=[left, right]):
            a, b = _interval(left, least), _interval(right, least)
            pick: Callable[[float, float], float] = max if name == "max" else min
            return pick(a[0], b[0]), pick(a[1], b[1])
        case _:
            return float("-inf"), float("inf")


def _combined(a: Interval, op: ast.operator, b: Interval) -> Interval:
    match op:
        case ast.Add():
            return a[0] + b[0], a[1] + b[1]
        case ast.Sub():
            return a[0] - b[1], a[1] - b[0]
        case ast.Mult():
            products = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
            return min(products), max(products)
        case ast.FloorDiv() if b[0] > 0:
            quotients = [_quotient(x, y) for x in a for y in b]
            return min(quotients), max(quotients)
        case _:
            return float("-inf"), float("inf")


def _quotient(x: float, y: float) -> float:
    if y == float("inf"):
        return -1.0 if x < 0 else 0.0
    return x if x in (float("inf"), float("-inf")) else x // y


def not_negative(dim: Dim, least: int = 1) -> bool:
    """Whether `dim` is provably at least 0 when every symbol is at least `least`."""
    return bounds(dim, least)[0] >= 0
