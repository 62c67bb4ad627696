"""Predictions as Python functions: what `Model.prediction` hands to its function, and the region that comes of it.

An `Expression` is an array, the axes of one sample; every operator and method appends one `dense` operation to the
region. Shapes do not have the axis of chains.
"""

from __future__ import annotations

import math as pymath
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import FloatAttr, f32
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from neuc.compiler.energy.terms import Parameter, Terms
from neuc.compiler.energy.unsupported import Unsupported, explained
from neuc.compiler.energy.usage import usage_error
from neuc.dialects import dense
from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dims import Dim, DimLike
from neuc.dialects.energy_prediction import CHAINS, PredictedOp, argument_type, moves
from neuc.dialects.store import dims_of, tensor_type

Sizes: TypeAlias = "int | Sequence[int]"

_SIGNS = {"AddfOp": "+", "SubfOp": "-", "MulfOp": "*", "DivfOp": "/", "MaximumfOp": "maximum", "MinimumfOp": "minimum"}
_MOST = 8
"""The largest exponent: powers are written out as products."""


class Tracer:
    """The region of one prediction, and the term's operands it has arguments for."""

    def __init__(self, model: Terms) -> None:
        self.model, self.block, self.operands = model, Block(), list[SSAValue]()

    def argument(self, operand: SSAValue) -> Expression:
        """The region's argument for an operand of the term, made once."""
        if operand not in self.operands:
            self.operands.append(operand)
            self.block.insert_arg(argument_type(operand), len(self.block.args))
        return Expression(self, self.block.args[self.operands.index(operand)])

    def add(self, op: Operation) -> Expression:
        """Append an operation.

        Raises:
            Error: NEUC-E614, its operands do not go together.
        """
        try:
            op.verify()
        except VerifyException as error:
            what = f"{op.name.removeprefix('dense.')}: {str(error).splitlines()[0]}"
            raise usage_error(what, "sizes and axes are those of one sample: without the chains") from error
        self.block.add_op(op)
        return Expression(self, op.results[0])

    def expression(self, value: Operand) -> Expression:
        """An operand of an operator: an expression, or a parameter or an array, which the term then reads."""
        if isinstance(value, Expression):
            if value.tracer is not self:
                raise usage_error("an expression of another prediction is used", "write each as a function of its own")
            return value
        if isinstance(value, Parameter):
            return self.argument(value.value)
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError) as error:
            what = f"an operand in a prediction is a {type(value).__name__}"
            raise usage_error(what, "numbers, arrays, parameters, and what the function was given") from error
        return self.argument(self.model.weights(array))


class Expression(Unsupported):
    """An array inside a prediction."""

    __slots__ = ("tracer", "value")

    def __init__(self, tracer: Tracer, value: SSAValue) -> None:
        self.tracer, self.value = tracer, value

    @property
    def shape(self) -> tuple[int, ...]:
        """Its axes but for the chains."""
        return tuple(d.value for d in self._dims[moves(self.value) :])

    # ---------------------------------------------------------------- element by element

    def __add__(self, other: Operand) -> Expression:
        return self._map(arith.AddfOp, other)

    def __radd__(self, other: Operand) -> Expression:
        return self._map(arith.AddfOp, other)

    def __sub__(self, other: Operand) -> Expression:
        return self._map(arith.SubfOp, other)

    def __rsub__(self, other: Operand) -> Expression:
        return -self + other

    def __mul__(self, other: Operand) -> Expression:
        return self._map(arith.MulfOp, other)

    def __rmul__(self, other: Operand) -> Expression:
        return self._map(arith.MulfOp, other)

    def __truediv__(self, other: Operand) -> Expression:
        return self._map(arith.DivfOp, other)

    def __rtruediv__(self, other: Operand) -> Expression:
        if isinstance(other, int | float):
            return self._map(arith.DivfOp, other, reflected=True)
        return self.tracer.expression(other) / self

    def __pow__(self, power: float) -> Expression:
        """Whole powers of 1 to 8 in size, and square roots."""
        if not isinstance(power, int | float | np.number) or float(abs(power)) not in (0.5, *range(1, _MOST + 1)):
            what = f"power {power} of an expression" if np.isscalar(power) else "an array as a power"
            raise usage_error(
                what, f"0.5 or a whole number of 1 to {_MOST}, or less 0; of numbers above 0, (z.log() * p).exp()"
            )
        if power < 0:
            return 1.0 / self**-power
        if power == 0.5:
            return self.sqrt()
        half = self if power < 4 else self ** (power // 2)
        whole = half if power == 1 else half * half
        return whole * self if power > 1 and power % 2 else whole

    def __neg__(self) -> Expression:
        return self._map(arith.NegfOp)

    def maximum(self, other: Operand) -> Expression:
        """The larger of two."""
        return self._map(arith.MaximumfOp, other)

    def minimum(self, other: Operand) -> Expression:
        """The smaller of two."""
        return self._map(arith.MinimumfOp, other)

    def relu(self) -> Expression:
        """max(x, 0)."""
        return self.maximum(0.0)

    def clip(self, low: float, high: float) -> Expression:
        """Within bounds."""
        return self.maximum(low).minimum(high)

    def tanh(self) -> Expression:
        """Hyperbolic tangent."""
        return self._map(math.TanhOp)

    def sigmoid(self) -> Expression:
        """½ + ½ tanh(x/2)."""
        return (self * 0.5).tanh() * 0.5 + 0.5

    def exp(self) -> Expression:
        """Exponential."""
        return self._map(math.ExpOp)

    def log(self) -> Expression:
        """Natural logarithm."""
        return self._map(math.LogOp)

    def sqrt(self) -> Expression:
        """Square root."""
        return self._map(math.SqrtOp)

    def sin(self) -> Expression:
        """Sine."""
        return self._map(math.SinOp)

    def cos(self) -> Expression:
        """Cosine."""
        return self._map(math.CosOp)

    def abs(self) -> Expression:
        """Absolute value."""
        return self._map(math.AbsFOp)

    # ---------------------------------------------------------------- products

    def __matmul__(self, w: Operand) -> Expression:
        """X [in] times W [in, out]."""
        weights = self.tracer.expression(w)
        if not self.shape or len(weights.shape) != 2 or self.shape[-1] != weights.shape[0]:
            raise _shapes("@", self, weights)
        result = self._like((*self._dims[:-1], weights.shape[1]))
        return self.tracer.add(dense.MatMulOp(self.value, weights.value, None, result))

    def conv(
        self,
        w: Operand,
        bias: Operand | None = None,
        *,
        stride: Sizes = 1,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
    ) -> Expression:
        """A convolution of [channels, …] with w [out, channels / groups, …]; `padding` on both sides."""
        weights = self.tracer.expression(w)
        rank = len(self.shape) - 1
        strides, pads, dilations = (_sizes(s, rank) for s in (stride, padding, dilation))
        if rank < 1 or len(weights.shape) != rank + 2:
            raise _shapes("conv", self, weights)
        out = _windows(self.shape[1:], weights.shape[2:], strides, pads, dilations)
        args = [
            None if bias is None else self.tracer.expression(bias).value,
            self._like((CHAINS, *weights.shape[:1], *out)),
        ]
        op = dense.ConvOp(
            self.value, weights.value, *args, strides=strides, pads=pads * 2, dilations=dilations, group=groups
        )
        return self.tracer.add(op)

    def max_pool(self, size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> Expression:
        """The largest of each window of [channels, …]; `stride` is the window's size by default."""
        return self._pool("max", size, stride, padding)

    def mean_pool(self, size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> Expression:
        """The mean of each window of [channels, …]; padding does not count."""
        return self._pool("avg", size, stride, padding)

    def _pool(self, kind: str, size: Sizes, stride: Sizes | None, padding: Sizes) -> Expression:
        rank = len(self.shape) - 1
        kernel, pads = _sizes(size, rank), _sizes(padding, rank)
        strides, ones = kernel if stride is None else _sizes(stride, rank), [1] * rank
        out = _windows(self.shape[1:], kernel, strides, pads, ones)
        result = self._like((CHAINS, self.shape[0], *out))
        op = dense.PoolOp(self.value, kind, result, kernel=kernel, strides=strides, pads=pads * 2, dilations=ones)
        return self.tracer.add(op)

    # ---------------------------------------------------------------- sums and moves

    def sum(self, axis: int | None = None) -> Expression:
        """Over an axis."""
        return self._reduce("sum", axis)

    def mean(self, axis: int | None = None) -> Expression:
        """Over an axis."""
        return self._reduce("mean", axis)

    def reshape(self, *shape: int) -> Expression:
        """The same elements in other axes; one size may be -1."""
        known = pymath.prod(size for size in shape if size != -1)
        sizes = [pymath.prod(self.shape) // max(known, 1) if size == -1 else size for size in shape]
        return self.tracer.add(dense.ReshapeOp(self.value, self._like((*self._first, *sizes))))

    def transpose(self, *axes: int) -> Expression:
        """The axes in another order."""
        first = len(self._first)
        order = [*range(first), *(first + axis for axis in axes)]
        result = self._like([self._dims[axis] for axis in order])
        return self.tracer.add(dense.TransposeOp(self.value, order, result))

    def __getitem__(self, places: slice | tuple[slice, ...]) -> Expression:
        """Slices, one an axis."""
        given = places if isinstance(places, tuple) else (places,)
        if len(given) > len(self.shape) or not all(isinstance(place, slice) for place in given):
            what = f"an expression of shape {list(self.shape)} is indexed otherwise than by one slice an axis"
            raise usage_error(what, "z[1:2] for z[1], then reshape; sum, mean and maximum need no loop")
        ranges = [range(size)[cut] for cut, size in zip((*given, *[slice(None)] * len(self.shape)), self.shape)]
        starts, steps = [r.start for r in ranges], [r.step for r in ranges]
        one = [1] * len(self._first)
        result = self._like((*self._first, *(len(r) for r in ranges)))
        return self.tracer.add(dense.SliceOp(self.value, [*(0 for _ in one), *starts], [*one, *steps], result))

    def joined(self, *others: Operand, axis: int = 0) -> Expression:
        """With others one after another along an axis."""
        parts = [self, *(self.tracer.expression(other) for other in others)]
        total = sum(part.shape[axis] for part in parts)
        place = axis % len(self.shape)
        sizes = [*self.shape[:place], total, *self.shape[place + 1 :]]
        at = len(self._first) + place
        return self.tracer.add(dense.ConcatOp([p.value for p in parts], at, self._like((*self._first, *sizes))))

    # ---------------------------------------------------------------- inside

    @property
    def _dims(self) -> tuple[Dim, ...]:
        return dims_of(self.value)

    @property
    def _first(self) -> tuple[Dim, ...]:
        return self._dims[: int(moves(self.value))]

    def _like(self, dims: Sequence[DimLike]) -> Attribute:
        return tensor_type(f32, dims)

    def _reduce(self, kind: str, axis: int | None) -> Expression:
        if axis is None or not -len(self.shape) <= axis < len(self.shape):
            what = f"{kind} of shape {list(self.shape)} over " + ("no axis" if axis is None else f"axis {axis}")
            raise usage_error(what, f"one axis, {kind}(0) the first of a sample; reshape(-1).{kind}(0) takes all")
        at = len(self._first) + axis % len(self.shape)
        result = self._like([d for k, d in enumerate(self._dims) if k != at])
        return self.tracer.add(dense.ReduceOp(self.value, kind, [at], False, result))

    def _map(
        self, op: Callable[..., Operation], other: Operand | None = None, *, reflected: bool = False
    ) -> Expression:
        """A map of one operation; numbers become constants of its body, the first operand of it if `reflected`."""
        number = isinstance(other, int | float)
        inputs = [self] if other is None or number else [self, self.tracer.expression(other)]
        try:
            dims = shapes.broadcast([e._dims for e in inputs])
        except VerifyException as error:
            raise _shapes(_SIGNS.get(op.__name__, op.__name__), *inputs) from error
        made = dense.MapOp([e.value for e in inputs], self._like(dims))
        args: list[SSAValue] = list(made.body.block.args)
        if number:
            constant = arith.ConstantOp(FloatAttr(float(other), f32))
            made.body.block.add_op(constant)
            args.append(constant.result)
        scalar = op(*(reversed(args) if reflected else args))
        made.body.block.add_ops([scalar, dense.YieldOp(scalar.results[0])])
        return self.tracer.add(made)


Operand: TypeAlias = "Expression | Parameter | ArrayLike"


def traced(
    model: Terms, function: Callable[..., object], reads: Sequence[SSAValue], shape: Sequence[int]
) -> tuple[list[SSAValue], Region]:
    """The operands and the region of a prediction of something of a shape.

    Raises:
        Error: NEUC-E614, the function gives no expression, uses what expressions do not have, or shapes that do not
            go together.
    """
    if not callable(function):
        raise usage_error(f"the function of a prediction is {function!r}", "lambda z: z.tanh() @ w + b")
    tracer = Tracer(model)
    inputs = [tracer.argument(value) for value in reads]
    try:
        found = function(*inputs)
    except (AttributeError, TypeError, IndexError) as error:
        raise explained(error, len(inputs)) from error
    if not isinstance(found, Expression) or found.tracer is not tracer:
        raise usage_error("the function of a prediction gives no expression of it", "lambda z: z.tanh() @ w + b")
    if found.shape != tuple(shape):
        what = f"the function of a prediction gives shape {list(found.shape)}, x has shape {list(shape)}"
        raise usage_error(what, "end it with what gives x's shape: @ w with w [in, out], sum(axis) or reshape")
    if not moves(found.value):
        raise usage_error("the result of a prediction's function depends on no variable", "use what `reads` gives it")
    tracer.block.add_op(PredictedOp(found.value))
    return tracer.operands, Region(tracer.block)


def _sizes(value: Sizes, rank: int) -> list[int]:
    return [value] * rank if isinstance(value, int) else list(value)


def _windows(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """How many windows there are along each axis."""
    places = zip(sizes, kernel, strides, pads, dilations)
    return [(size + 2 * pad - (k - 1) * d - 1) // step + 1 for size, k, step, pad, d in places]


def _shapes(what: str, *operands: Expression) -> Exception:
    named = " and ".join(str(list(e.shape)) for e in operands)
    return usage_error(f"{what} of shapes {named}", "shapes of one sample: without the chains")
