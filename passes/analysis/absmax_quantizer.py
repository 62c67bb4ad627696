"""The quantiser of activations that BitNet's models write out, found as a whole: it is `ternary.quantize`, bit for bit.

a = 127 / max(max|x|, 1e-5), or its reciprocal times 127; codes = clip(round(x·a)); scale 1 / a. Anything that rounds in
another order is no match here, and stays as the model has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.dialects import arith
from xdsl.dialects import math as math_dialect
from xdsl.dialects.builtin import FloatAttr
from xdsl.ir import Operation

from neuc.dialects.dense import ReduceOp
from neuc.dialects.dense_attrs import ReduceKind
from neuc.dialects.store import constant_value, dims_of
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.activation_codes import Codes
from neuc.passes.analysis.scalar_points import Point

_TOP = 127.0
_LEAST = float(np.float32(1e-5))
_CASTS = (arith.SIToFPOp, arith.FPToSIOp)


@dataclass(frozen=True)
class AbsMaxQuantizer:
    """What codes are made from.

    Attributes:
        x: the activations.
        reciprocal: a is (1 / max) · 127, each step rounded, and not 127 / max.
    """

    x: Point
    reciprocal: bool


def absmax_quantizer(codes: Codes, store: WeightStore) -> AbsMaxQuantizer | None:
    """The quantiser that makes these codes and their scale, if it is the one `ternary.quantize` is."""
    if len(codes.frames) != 1 or len(codes.frames[0].factors) != 1:
        return None
    (frame,) = codes.frames
    (factor,) = frame.factors
    rounded = _clipped(codes.point, store)
    product = None if rounded is None or not isinstance(rounded.op, math_dialect.RoundEvenOp) else rounded.operands()[0]
    if product is None or not isinstance(product.op, arith.MulfOp) or not factor.divides:
        return None
    for x, a in (product.operands(), product.operands()[::-1]):
        if a != factor.point:
            continue
        found = _inverse(a, store)
        if found is not None and _is_largest(found[0], x, frame.shared, store) and x.dims() == frame.dims:
            return AbsMaxQuantizer(x, found[1])
    return None


def _clipped(point: Point, store: WeightStore) -> Point | None:
    """What is clipped to at least -127 … 127, and then perhaps cast to integers and back; that changes nothing here."""
    while isinstance(point.op, _CASTS):
        (point,) = point.operands()
    for kind, bounds in ((arith.MinimumfOp, (_TOP,)), (arith.MaximumfOp, (-_TOP, -_TOP - 1))):
        found = _with_constant(point, kind, store)
        if found is None or found[1] not in bounds:
            return None
        point = found[0]
    return point


def _with_constant(point: Point, kind: type[Operation], store: WeightStore) -> tuple[Point, float] | None:
    """The operands of a commutative operation of which one is a constant number."""
    if not isinstance(point.op, kind):
        return None
    for value, other in (point.operands(), point.operands()[::-1]):
        number = _number(other, store)
        if number is not None:
            return value, number
    return None


def _number(point: Point, store: WeightStore) -> float | None:
    if isinstance(point.op, arith.ConstantOp):
        return float(point.op.value.value.data) if isinstance(point.op.value, FloatAttr) else None
    array = constant_value(point.value, store) if point.op is None else None
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def _inverse(a: Point, store: WeightStore) -> tuple[Point, bool] | None:
    """The m of 127 / m, or of (1 / m) · 127 and True."""
    scaled = _with_constant(a, arith.MulfOp, store)
    top, point = (_TOP, a) if scaled is None else (1.0, scaled[0])
    if scaled is not None and scaled[1] != _TOP:
        return None
    if not isinstance(point.op, arith.DivfOp) or _number(point.operands()[0], store) != top:
        return None
    return point.operands()[1], scaled is not None


def _is_largest(m: Point, x: Point, shared: int, store: WeightStore) -> bool:
    """Whether m is max(max|x|, 1e-5) over the last `shared` axes."""
    bounded = _with_constant(m, arith.MaximumfOp, store)
    if bounded is None or bounded[1] != _LEAST or bounded[0].op is not None:
        return False
    reduce = bounded[0].value.owner
    if not isinstance(reduce, ReduceOp) or reduce.kind.data is not ReduceKind.MAX or reduce.keepdims is None:
        return False
    rank = len(dims_of(reduce.x))
    size = Point.of(reduce.x)
    same = isinstance(size.op, math_dialect.AbsFOp) and size.operands()[0] == x
    return same and list(reduce.axes.get_values()) == list(range(rank - shared, rank))
