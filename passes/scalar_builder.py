"""Writing the scalar bodies of `dense.map` as Python expressions: `x / (1 + absolute(x))` becomes arith and math ops.

A `Scalar` wraps an SSA value of the body; operators and the functions below append operations to the body's block.
"""

from __future__ import annotations

from collections.abc import Callable

from xdsl.dialects import arith, math
from xdsl.dialects.builtin import AnyFloat, FloatAttr, IntegerAttr, IntegerType, Signedness, i1
from xdsl.ir import Attribute, Block, Operation, SSAValue

Number = int | float


class Scalar:
    """A scalar being computed in a body; numbers on either side of an operator become constants of its type."""

    __slots__ = ("block", "value")

    def __init__(self, value: SSAValue, block: Block) -> None:
        self.value = value
        self.block = block

    @property
    def type(self) -> Attribute:
        """Its element type."""
        return self.value.type

    @property
    def is_float(self) -> bool:
        """Whether it is a floating-point number."""
        return isinstance(self.value.type, AnyFloat)

    def emit(self, op: Operation) -> Scalar:
        """Append `op`, whose first result is the new scalar."""
        self.block.add_op(op)
        return Scalar(op.results[0], self.block)

    def constant(self, number: Number, type_: Attribute | None = None) -> Scalar:
        """`number` as a constant of `type_`, by default of this scalar's type."""
        type_ = type_ or self.type
        if isinstance(type_, AnyFloat):
            return self.emit(arith.ConstantOp(FloatAttr(float(number), type_)))
        assert isinstance(type_, IntegerType)
        return self.emit(arith.ConstantOp(IntegerAttr(int(number), type_)))

    def like(self, other: Scalar | Number) -> Scalar:
        """`other`, as a constant of this scalar's type if it is a number."""
        return other if isinstance(other, Scalar) else self.constant(other)

    def _binary(self, other: Scalar | Number, floats: Binary, ints: Binary) -> Scalar:
        return self.emit((floats if self.is_float else ints)(self.value, self.like(other).value))

    def __add__(self, other: Scalar | Number) -> Scalar:
        return self._binary(other, arith.AddfOp, arith.AddiOp)

    def __radd__(self, other: Number) -> Scalar:
        return self.like(other) + self

    def __sub__(self, other: Scalar | Number) -> Scalar:
        return self._binary(other, arith.SubfOp, arith.SubiOp)

    def __rsub__(self, other: Number) -> Scalar:
        return self.like(other) - self

    def __mul__(self, other: Scalar | Number) -> Scalar:
        return self._binary(other, arith.MulfOp, arith.MuliOp)

    def __rmul__(self, other: Number) -> Scalar:
        return self.like(other) * self

    def __truediv__(self, other: Scalar | Number) -> Scalar:
        """Division; of integers, truncated."""
        return self._binary(other, arith.DivfOp, arith.DivSIOp)

    def __rtruediv__(self, other: Number) -> Scalar:
        return self.like(other) / self

    def __neg__(self) -> Scalar:
        return self.emit(arith.NegfOp(self.value)) if self.is_float else 0 - self

    def _compare(self, other: Scalar | Number, floats: str, ints: str) -> Scalar:
        other = self.like(other)
        if self.is_float:
            return self.emit(arith.CmpfOp(self.value, other.value, floats))
        return self.emit(arith.CmpiOp(self.value, other.value, ints))

    def __lt__(self, other: Scalar | Number) -> Scalar:
        return self._compare(other, "olt", "slt")

    def __le__(self, other: Scalar | Number) -> Scalar:
        return self._compare(other, "ole", "sle")

    def __gt__(self, other: Scalar | Number) -> Scalar:
        return self._compare(other, "ogt", "sgt")

    def __ge__(self, other: Scalar | Number) -> Scalar:
        return self._compare(other, "oge", "sge")

    def equals(self, other: Scalar | Number) -> Scalar:
        """Whether they are equal (NaN is not)."""
        return self._compare(other, "oeq", "eq")

    def differs(self, other: Scalar | Number) -> Scalar:
        """Whether they are different (NaN is)."""
        return self._compare(other, "une", "ne")

    def __and__(self, other: Scalar) -> Scalar:
        return self.emit(arith.AndIOp(self.value, other.value))

    def __or__(self, other: Scalar) -> Scalar:
        return self.emit(arith.OrIOp(self.value, other.value))

    def __xor__(self, other: Scalar) -> Scalar:
        return self.emit(arith.XOrIOp(self.value, other.value))


Binary = Callable[[SSAValue, SSAValue], Operation]
Body = Callable[..., Scalar]


def _unary(op_class: Callable[[SSAValue], Operation]) -> Callable[[Scalar], Scalar]:
    return lambda x: x.emit(op_class(x.value))


exp = _unary(math.ExpOp)
log = _unary(math.LogOp)
log1p = _unary(math.Log1pOp)
sqrt = _unary(math.SqrtOp)
erf = _unary(math.ErfOp)
tanh = _unary(math.TanhOp)
floor = _unary(math.FloorOp)
ceil = _unary(math.CeilOp)
truncate = _unary(math.TruncOp)
round_even = _unary(math.RoundEvenOp)
sin = _unary(math.SinOp)
cos = _unary(math.CosOp)
tan = _unary(math.TanOp)
asin = _unary(math.AsinOp)
acos = _unary(math.AcosOp)
atan = _unary(math.AtanOp)
sinh = _unary(math.SinhOp)
cosh = _unary(math.CoshOp)
asinh = _unary(math.AsinhOp)
acosh = _unary(math.AcoshOp)
atanh = _unary(math.AtanhOp)


def absolute(x: Scalar) -> Scalar:
    """|x|."""
    return x.emit((math.AbsFOp if x.is_float else math.AbsIOp)(x.value))


def power(x: Scalar, y: Scalar) -> Scalar:
    """Float x to the power of float y."""
    return x.emit(math.PowFOp(x.value, y.value))


def remainder(x: Scalar, y: Scalar) -> Scalar:
    """Remainder of truncated integer division."""
    return x.emit(arith.RemSIOp(x.value, y.value))


def maximum(x: Scalar, y: Scalar | Number) -> Scalar:
    """The larger; NaN if one is."""
    return x.emit((arith.MaximumfOp if x.is_float else arith.MaxSIOp)(x.value, x.like(y).value))


def minimum(x: Scalar, y: Scalar | Number) -> Scalar:
    """The smaller; NaN if one is."""
    return x.emit((arith.MinimumfOp if x.is_float else arith.MinSIOp)(x.value, x.like(y).value))


def where(condition: Scalar, x: Scalar | Number, y: Scalar | Number) -> Scalar:
    """`x` where the condition holds, else `y`; one of them must be a Scalar."""
    typed = x if isinstance(x, Scalar) else y
    assert isinstance(typed, Scalar)
    return condition.emit(arith.SelectOp(condition.value, typed.like(x).value, typed.like(y).value))


def is_nan(x: Scalar) -> Scalar:
    """Whether float x is NaN."""
    return x.emit(arith.CmpfOp(x.value, x.value, "uno"))


def invert(x: Scalar) -> Scalar:
    """Every bit of x flipped; for i1, not x."""
    return x ^ x.constant(-1 if x.type != i1 else 1)


def sigmoid(x: Scalar) -> Scalar:
    """1 / (1 + exp(−x))."""
    return 1.0 / (1.0 + exp(-x))


def cast(x: Scalar, to: Attribute) -> Scalar | None:
    """X as a `to`, with ONNX's meaning of Cast; None where arith has none."""
    if x.type == to:
        return x
    if isinstance(x.type, IntegerType) and x.type.signedness.data is Signedness.UNSIGNED:
        # arith has no unsigned arithmetic types, but converts from them.
        return x.emit(arith.UIToFPOp(x.value, to)) if isinstance(to, AnyFloat) else None
    if not _castable(x.type) or not _castable(to):
        return None
    if to == i1:
        return x.differs(0)
    return x.emit(_cast_op(x, to))


def _castable(type_: Attribute) -> bool:
    return isinstance(type_, AnyFloat) or (
        isinstance(type_, IntegerType) and type_.signedness.data is Signedness.SIGNLESS
    )


def _cast_op(x: Scalar, to: Attribute) -> Operation:
    if isinstance(to, AnyFloat):
        if isinstance(x.type, AnyFloat):
            return (arith.ExtFOp if to.bitwidth > x.type.bitwidth else arith.TruncFOp)(x.value, to)
        return (arith.UIToFPOp if x.type == i1 else arith.SIToFPOp)(x.value, to)
    assert isinstance(to, IntegerType)
    if isinstance(x.type, AnyFloat):
        return arith.FPToSIOp(x.value, to)
    assert isinstance(x.type, IntegerType)
    if to.width.data < x.type.width.data:
        return arith.TruncIOp(x.value, to)
    return (arith.ExtUIOp if x.type == i1 else arith.ExtSIOp)(x.value, to)
