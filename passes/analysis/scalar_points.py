"""Numbers followed through `dense.map` bodies and from map to map, and the integers they provably are.

A point is one number for each element of some tensor. Passes walk from point to operand point without caring where one
map ends and the next begins. Nothing is rewritten here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects import arith
from xdsl.dialects import math as math_dialect
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, IntegerType, Signedness
from xdsl.ir import Block, Operation, SSAValue
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense import BroadcastOp, GatherOp, MapOp, ReshapeOp, SliceOp, TransposeOp, YieldOp
from neuc.dialects.dims import Dim
from neuc.dialects.store import constant_value, dims_of, element_of
from neuc.dialects.weight_store import WeightStore

Movement = ReshapeOp | TransposeOp | SliceOp | BroadcastOp | GatherOp
"""Operations whose result holds elements of their first operand and nothing else."""
MOVEMENTS = (ReshapeOp, TransposeOp, SliceOp, BroadcastOp, GatherOp)


@dataclass(frozen=True)
class Point:
    """A scalar in the body of `map`, or (map is None) a tensor that no map computes.

    Attributes:
        value: the scalar or the tensor.
        map: the map whose body the scalar is in.
    """

    value: SSAValue
    map: MapOp | None

    @staticmethod
    def of(tensor: SSAValue) -> Point:
        """The point that gives `tensor` its elements."""
        while isinstance(tensor.owner, MapOp):
            last = tensor.owner.body.block.last_op
            assert isinstance(last, YieldOp)
            if not isinstance(last.value.owner, Block):
                return Point(last.value, tensor.owner)
            tensor = tensor.owner.inputs[_index(last.value)]
        return Point(tensor, None)

    @property
    def op(self) -> Operation | None:
        """The scalar operation that computes it; None for a tensor."""
        owner = self.value.owner
        return owner if self.map is not None and isinstance(owner, Operation) else None

    def operands(self) -> list[Point]:
        """What the scalar operation reads."""
        assert self.op is not None
        return [self._at(value) for value in self.op.operands]

    def _at(self, value: SSAValue) -> Point:
        assert self.map is not None
        return Point.of(self.map.inputs[_index(value)]) if isinstance(value.owner, Block) else Point(value, self.map)

    def dims(self) -> tuple[Dim, ...] | None:
        """The shape it has where it is computed: that of the tensors its map reads for it; None if unknown."""
        if self.map is None:
            return dims_of(self.value)
        try:
            inputs, _ = slice_of(self.map, self.value)
            return shapes.broadcast([dims_of(self.map.inputs[i]) for i in inputs])
        except VerifyException:
            return None


def slice_of(source: MapOp, value: SSAValue) -> tuple[list[int], list[Operation]]:
    """What a scalar in the body of a map is computed from: which of the map's inputs, and operations in their order."""
    needed, ops = {value}, list[Operation]()
    for op in reversed(list(source.body.block.ops)):
        if op.results and op.results[0] in needed:
            needed.update(op.operands)
            ops.append(op)
    return [arg.index for arg in source.body.block.args if arg in needed], ops[::-1]


def _index(argument: SSAValue) -> int:
    index = getattr(argument, "index", None)
    assert isinstance(index, int)
    return index


@dataclass(frozen=True)
class Range:
    """What values a point can have: low ≤ value ≤ high, and whether it is always an integer."""

    low: float = -math.inf
    high: float = math.inf
    integer: bool = False

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def union(self, other: Range) -> Range:
        """What holds whichever of the two it is."""
        return Range(min(self.low, other.low), max(self.high, other.high), self.integer and other.integer)

    def within(self, other: Range) -> Range:
        """What holds if both do; a range of one integer is an integer."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Range(low, high, self.integer or other.integer or (low == high and float(low).is_integer()))


UNKNOWN = Range()
_GREATER, _LESS = (2, 3, 9, 10), (4, 5, 11, 12)
"""Predicates of arith.cmpf: > and ≥, < and ≤, ordered and unordered."""
_NARROWING_DEPTH = 6
"""How far what a comparison says is followed: nested selects are a few deep, and every step may double the work."""


class Ranges:
    """Ranges of points, found from the operations that compute them; NaN is left out of account."""

    def __init__(self, store: WeightStore) -> None:
        self._store = store
        self._known: dict[SSAValue, Range] = {}

    def of(self, point: Point, given: Mapping[SSAValue, Range] | None = None, depth: int = 0) -> Range:
        """The range of a point.

        Args:
            point: the point.
            given: what is known besides, by the values of points.
            depth: how many operations lie between here and the select where that is known.
        """
        if given and point.value in given:
            return self.of(point).within(given[point.value])
        if given and depth < _NARROWING_DEPTH:  # of use to this select only: not worth remembering
            return self._compute(point, given, depth)
        if point.value not in self._known:
            self._known[point.value] = self._compute(point, {}, 0)
        return self._known[point.value]

    def _compute(self, point: Point, given: Mapping[SSAValue, Range], depth: int) -> Range:
        op = point.op
        if op is None:
            return self._tensor(point.value)
        if isinstance(op, arith.ConstantOp):
            assert isinstance(op.value, FloatAttr | IntegerAttr)
            return _of_numbers(np.array(float(op.value.value.data)))
        operands = point.operands()
        if isinstance(op, arith.SelectOp):
            return self._select(operands, given, depth + 1)
        rule = _RULES.get(type(op))
        return UNKNOWN if rule is None else rule(op, [self.of(operand, given, depth + 1) for operand in operands])

    def _tensor(self, value: SSAValue) -> Range:
        array = constant_value(value, self._store)
        if array is not None:
            return _of_numbers(array)
        element = element_of(value)
        if isinstance(element, IntegerType):
            return _of_type(element)
        return self.of(Point.of(value.owner.operands[0])) if isinstance(value.owner, MOVEMENTS) else UNKNOWN

    def _select(self, operands: Sequence[Point], given: Mapping[SSAValue, Range], depth: int) -> Range:
        """Either value, where a comparison of it with a number narrows the range it can have there."""
        condition, then, other = operands
        test = condition.op
        if not isinstance(test, arith.CmpfOp):
            return self.of(then, given, depth).union(self.of(other, given, depth))
        left, right = condition.operands()
        bound = self.of(right, given, depth)
        if bound.low != bound.high:
            return self.of(then, given, depth).union(self.of(other, given, depth))
        below, above = Range(high=bound.high), Range(low=bound.low)
        predicate = test.predicate.value.data
        if predicate not in (*_GREATER, *_LESS):
            return self.of(then, given, depth).union(self.of(other, given, depth))
        true, false = (above, below) if predicate in _GREATER else (below, above)
        known = given.get(left.value, UNKNOWN)
        return self.of(then, {**given, left.value: known.within(true)}, depth).union(
            self.of(other, {**given, left.value: known.within(false)}, depth)
        )


def _of_numbers(array: np.ndarray) -> Range:
    if array.size == 0 or not np.isfinite(array).all():
        return UNKNOWN
    return Range(float(array.min()), float(array.max()), bool((array == np.trunc(array)).all()))


def _of_type(type_: IntegerType) -> Range:
    width = type_.width.data
    if width == 1 or type_.signedness.data is Signedness.UNSIGNED:
        return Range(0, 2**width - 1, integer=True)
    return Range(-(2 ** (width - 1)), 2 ** (width - 1) - 1, integer=True)


Rule = Callable[[Operation, Sequence[Range]], Range]


def _computed(low: float, high: float, parts: Sequence[Range]) -> Range:
    """The result of arithmetic on `parts`: an integer if they are, as floats too large to be exact are integers."""
    if math.isnan(low) or math.isnan(high):
        return UNKNOWN
    return Range(low, high, all(part.integer for part in parts))


def _add(op: Operation, v: Sequence[Range]) -> Range:
    return _computed(v[0].low + v[1].low, v[0].high + v[1].high, v)


def _subtract(op: Operation, v: Sequence[Range]) -> Range:
    return _computed(v[0].low - v[1].high, v[0].high - v[1].low, v)


def _multiply(op: Operation, v: Sequence[Range]) -> Range:
    ends = [0.0 if 0 in (a, b) else a * b for a in (v[0].low, v[0].high) for b in (v[1].low, v[1].high)]
    return _computed(min(ends), max(ends), v)


def _negate(op: Operation, v: Sequence[Range]) -> Range:
    return Range(-v[0].high, -v[0].low, v[0].integer)


def _absolute(op: Operation, v: Sequence[Range]) -> Range:
    low = 0.0 if v[0].low <= 0 <= v[0].high else min(abs(v[0].low), abs(v[0].high))
    return Range(low, max(abs(v[0].low), abs(v[0].high)), v[0].integer)


def _maximum(op: Operation, v: Sequence[Range]) -> Range:
    return Range(max(v[0].low, v[1].low), max(v[0].high, v[1].high), v[0].integer and v[1].integer)


def _minimum(op: Operation, v: Sequence[Range]) -> Range:
    return Range(min(v[0].low, v[1].low), min(v[0].high, v[1].high), v[0].integer and v[1].integer)


def _rounded(function: Callable[[float], float]) -> Rule:
    def rule(op: Operation, v: Sequence[Range]) -> Range:
        low, high = (function(end) if math.isfinite(end) else end for end in (v[0].low, v[0].high))
        return Range(low, high, integer=True)

    return rule


def _half_away(value: float) -> float:
    return math.copysign(math.floor(abs(value) + 0.5), value)


def _to_integer(op: Operation, v: Sequence[Range]) -> Range:
    """A conversion to an integer type: of what fits, the value itself; of anything else, anything."""
    type_ = op.results[0].type
    assert isinstance(type_, IntegerType)
    all_ = _of_type(type_)
    whole = Range(math.trunc(v[0].low), math.trunc(v[0].high), integer=True) if v[0].bounded else UNKNOWN
    return whole if whole.bounded and all_.low <= whole.low and whole.high <= all_.high else all_


def _same(op: Operation, v: Sequence[Range]) -> Range:
    return v[0]


def _to_float(op: Operation, v: Sequence[Range]) -> Range:
    return _computed(v[0].low, v[0].high, v)


_RULES: dict[type[Operation], Rule] = {
    arith.AddfOp: _add,
    arith.SubfOp: _subtract,
    arith.MulfOp: _multiply,
    arith.NegfOp: _negate,
    arith.MaximumfOp: _maximum,
    arith.MinimumfOp: _minimum,
    arith.MaxnumfOp: _maximum,
    arith.MinnumfOp: _minimum,
    arith.MaxSIOp: _maximum,
    arith.MinSIOp: _minimum,
    arith.ExtFOp: _same,
    arith.ExtSIOp: _same,
    arith.ExtUIOp: _same,
    arith.TruncIOp: _to_integer,
    arith.FPToSIOp: _to_integer,
    arith.SIToFPOp: _to_float,
    arith.UIToFPOp: _to_float,
    math_dialect.AbsFOp: _absolute,
    math_dialect.FloorOp: _rounded(math.floor),
    math_dialect.CeilOp: _rounded(math.ceil),
    math_dialect.TruncOp: _rounded(math.trunc),
    math_dialect.RoundEvenOp: _rounded(round),
    math_dialect.RoundOp: _rounded(_half_away),
}
