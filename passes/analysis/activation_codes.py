"""Finds the integers in quantised activations: x = codes · scale, as fake-quantising graphs of any exporter have it.

What has to be there is a value that is provably an integer within eight bits (rounded and clipped, or read from an
integer tensor), times or divided by scales that the layer's columns share. How the rounding came about does not matter:
the operations before it stay as they are, so that codes are those of the model to the last tie. Nothing is rewritten
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdsl.dialects import arith
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from neuc.dialects.dense import MapOp, ReshapeOp, TransposeOp
from neuc.dialects.dims import Dim
from neuc.dialects.store import dims_of
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.scalar_points import MOVEMENTS, Movement, Point, Range, Ranges

LOWEST, HIGHEST = -128, 127
"""What int8 holds; ternary kernels are exact for all of it."""

FLOAT = "its activations are float"

_MAX_STEPS = 64
"""Most factors and straight-through estimators between codes and a layer; models have two or three."""


@dataclass(frozen=True)
class Factor:
    """A scale that codes are multiplied with, or divided by."""

    point: Point
    divides: bool


@dataclass(frozen=True)
class Frame:
    """What happens to codes of one shape: factors, then perhaps a movement of elements into another shape.

    Attributes:
        dims: the shape.
        shared: how many of the last axes share a scale.
        factors: scales, the first to be applied first.
        movement: what changes the shape.
    """

    dims: tuple[Dim, ...]
    shared: int
    factors: tuple[Factor, ...]
    movement: Movement | None = None

    @property
    def lead(self) -> tuple[Dim, ...]:
        """The shape of the scales."""
        return self.dims[: len(self.dims) - self.shared]


@dataclass(frozen=True)
class Codes:
    """Activations as codes and scales.

    Attributes:
        point: the codes: integers as f32, or of an integer type.
        low: the least they can be.
        high: the most they can be; at most 255 above `low`.
        frames: what becomes of them, in order.
    """

    point: Point
    low: int
    high: int
    frames: tuple[Frame, ...]

    @property
    def offset(self) -> int:
        """What to subtract so that they fit into int8."""
        return 0 if self.low >= LOWEST and self.high <= HIGHEST else self.low - LOWEST


@dataclass(frozen=True)
class _Found:
    point: Point
    range: Range
    factors: tuple[Factor, ...]


@dataclass
class CodeFinder:
    """Finds codes, and remembers what it found about every value on the way.

    Attributes:
        store: the constants.
    """

    store: WeightStore
    _ranges: Ranges = field(init=False)
    _seen: dict[tuple[SSAValue, int], _Found | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ranges = Ranges(self.store)

    def learn(self, module: ModuleOp) -> None:
        """Find the ranges of all values in program order, so that long chains are no deep recursions later."""
        for op in module.walk():
            if isinstance(op, MapOp):
                self._ranges.of(Point.of(op.result))

    def find(self, tensor: SSAValue, shared: int) -> Codes | str:
        """The codes in `tensor`, or why there are none.

        Args:
            tensor: activations, f32.
            shared: how many of the last axes must share a scale: 1 for a matrix product, all but the first for a
                convolution.
        """
        point, dims = Point.of(tensor), dims_of(tensor)
        found = self._split(point, shared)
        if isinstance(found, _Found):
            if found.point.dims() != dims:  # sizes that are equal only at times, too
                return "its activations are broadcast"
            return Codes(
                found.point, int(found.range.low), int(found.range.high), (Frame(dims, shared, found.factors),)
            )
        source = point.value.owner
        if point.map is not None or not isinstance(source, MOVEMENTS):
            return found
        inner = self.find(source.operands[0], _shared_before(source, shared))
        if isinstance(inner, str):
            return inner
        *before, last = inner.frames
        moved = Frame(last.dims, last.shared, last.factors, source)
        return Codes(inner.point, inner.low, inner.high, (*before, moved, Frame(dims, shared, ())))

    def _split(self, point: Point, shared: int, depth: int = 0) -> _Found | str:
        if depth == _MAX_STEPS:
            return FLOAT
        key = (point.value, shared)
        if key not in self._seen:
            self._seen[key] = FLOAT  # for a value that depends on itself, which there is none
            self._seen[key] = self._compute(point, shared, depth)
        return self._seen[key]

    def _compute(self, point: Point, shared: int, depth: int) -> _Found | str:
        known = self._ranges.of(point)
        if known.integer and known.bounded and known.high - known.low <= HIGHEST - LOWEST:
            return _Found(point, known, ())
        op = point.op
        reason = "its activations are rounded, but not clipped to eight bits" if known.integer else FLOAT
        if op is None:
            return reason
        for inner, factor in self._inner(op, point.operands()):
            if factor is not None and not _uniform(factor.point, shared):
                if self._ranges.of(inner).integer:
                    reason = "the scale of its activations is not the same along a row"
                continue
            found = self._split(inner, shared, depth + 1)
            if isinstance(found, _Found):
                return _Found(found.point, found.range, (*found.factors, *(() if factor is None else (factor,))))
            reason = found if found != FLOAT else reason
        return reason

    @staticmethod
    def _inner(op: Operation, operands: Sequence[Point]) -> list[tuple[Point, Factor | None]]:
        """What `op` scales, with the factor; a straight-through estimator x + (y - x) is y."""
        match op:
            case arith.MulfOp():
                a, b = operands
                return [(a, Factor(b, False)), (b, Factor(a, False))]
            case arith.DivfOp():
                return [(operands[0], Factor(operands[1], True))]
            case arith.AddfOp():
                pairs = (operands, operands[::-1])
                return [(d.operands()[0], None) for x, d in pairs if _subtracts(d, x)]
            case _:
                return []


def _subtracts(difference: Point, x: Point) -> bool:
    return isinstance(difference.op, arith.SubfOp) and difference.operands()[1] == x


def _uniform(point: Point, shared: int) -> bool:
    """Whether it is one number along the last `shared` axes."""
    dims = point.dims()
    return dims is not None and all(dim == 1 for dim in dims[max(0, len(dims) - shared) :])


def _shared_before(op: Operation, shared: int) -> int:
    """How many axes must share a scale before a movement so that the last `shared` do after it."""
    before, after = dims_of(op.operands[0]), dims_of(op.results[0])
    rows, images = shared == 1, shared == len(after) - 1
    if not before or not after:
        return len(before)
    match op:
        case ReshapeOp() if rows and before[-1] == after[-1]:
            return 1
        case ReshapeOp() if images and before[0] == after[0]:
            return len(before) - 1
        case TransposeOp() if rows and op.perm.get_values()[-1] == len(before) - 1:
            return 1
        case TransposeOp() if images and op.perm.get_values()[0] == 0:
            return shared
        case _:
            return len(before)
