"""Integers that give the codes of a sum of two tensors' codes as a CPU computes them in f32, proven for all pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects import arith
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, i8
from xdsl.ir import Block, SSAValue

from neuc.backends.npu.code_chains import ALL_CODES, exact_between, is_all, line_after, scalars_of
from neuc.dialects.dense import MapOp
from neuc.dialects.interp.core import Env
from neuc.runtime.npu.requantize import MOST_SHIFT
from neuc.runtime.npu.residual import MOST_PAIRS, Residual

_BITS = 30


@dataclass(frozen=True)
class Addition:
    """How codes are added, and the scalar of a map's body that is the code of the sum, or a function of it."""

    residual: Residual
    code: SSAValue


@dataclass(frozen=True)
class Plane:
    """What codes are but for rounding and clipping: a · slopes[0] + b · slopes[1] + constant, rounded, + zero."""

    slopes: NDArray[np.float64]
    constant: float
    zero: int


def addition_of(op: MapOp, first: int, env: Env) -> Addition | str:
    """What a map of two tensors of codes does to their sum, input `first` being the product's; or why it has none."""
    body = op.body.block
    a, b = body.args[first], body.args[1 - first]
    casts = [
        inner.results[0] for inner in body.ops if isinstance(inner, arith.FPToSIOp) and inner.results[0].type == i8
    ]
    points = [point for point in casts if is_all(body, a, point) and is_all(body, b, point)]
    if not points:
        return "its results are no int8 codes"
    if not exact_between((a, b), points[0]):
        return "its arithmetic is not rounded one way everywhere"
    plane = _plane(body, (a, b), points[0])
    if isinstance(plane, str):
        return plane
    wanted = scalars_of(body, {a: ALL_CODES[:, None], b: ALL_CODES[None]}, env)[points[0]].astype(np.int64)
    found = fit_sum(np.broadcast_to(wanted, (256, 256)), plane)
    if isinstance(found, str):
        return found
    last = next((p for p in reversed(points) if exact_between([points[0]], p)), points[0])
    made = np.asarray(scalars_of(body, {points[0]: ALL_CODES}, env).get(last, ALL_CODES), np.int8)
    table = None if np.array_equal(made, ALL_CODES) else made
    multipliers, addend, limits, corrections = found
    return Addition(Residual(multipliers, addend, limits, corrections, table), last)


def fit_sum(
    wanted: NDArray[np.int64], plane: Plane
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int8], NDArray[np.int32]] | str:
    """Multipliers, addend, limits and corrections that give all pairs the codes `wanted` [256, 256], or why none do."""
    low, high = int(wanted.min()), int(wanted.max())
    steepest = float(np.abs(plane.slopes).max())
    if not (np.isfinite(steepest) and steepest > 0 and np.isfinite(plane.constant)):
        return "its codes do not change with its operands"
    if not -128 <= plane.zero <= 127:
        return "its codes are no int8"
    shift = min(_BITS - int(np.frexp(steepest)[1]), MOST_SHIFT)
    addend = np.rint(np.ldexp(plane.constant, shift))
    if shift < 1 or abs(addend) >= 2.0**61:
        return "its scales are out of the range of integers"
    multipliers = np.rint(np.ldexp(plane.slopes, shift)).astype(np.int64)
    codes = np.arange(-128, 128)
    wide = codes[:, None] * multipliers[0] + codes * multipliers[1] + int(addend)
    near = (wide + (np.int64(1) << (shift - 1)) - 1 + (wide >> shift & 1)) >> shift
    made = np.clip(near + plane.zero, low, high)
    wrong = np.argwhere(made != wanted)
    if len(wrong) > MOST_PAIRS:
        return f"float rounding differs from integers for {len(wrong)} of 65536 pairs of codes ({MOST_PAIRS} fit)"
    change = (wanted - made)[tuple(wrong.T)]
    limits = np.array([shift, plane.zero, low, high], np.int8)
    corrections = np.concatenate([wrong - 128, change[:, None]], 1).astype(np.int32)
    return multipliers.astype(np.int32), np.array([addend]).astype(np.int64), limits, corrections


def _plane(body: Block, operands: tuple[SSAValue, SSAValue], code: SSAValue) -> Plane | str:
    """The plane that `code` is of two operands; or what stands between them. It need not be exact: pairs are tried."""
    constants: dict[SSAValue, float] = {}
    lines = {value: (np.eye(2)[i], 0.0, None) for i, value in enumerate(operands)}
    known: dict[SSAValue, tuple[NDArray[np.float64], float, int | None]] = dict(lines)
    for op in body.ops:
        if isinstance(op, arith.ConstantOp):
            if isinstance(op.value, FloatAttr | IntegerAttr):
                constants[op.result] = float(op.value.value.data)
            continue
        moving = [known[operand] for operand in op.operands if operand in known]
        if not moving:
            continue
        fixed = [constants[operand] for operand in op.operands if operand in constants]
        if len(moving) == 2 and isinstance(op, arith.AddfOp | arith.SubfOp) and moving[0][2] is moving[1][2] is None:
            sign = 1.0 if isinstance(op, arith.AddfOp) else -1.0
            made = (moving[0][0] + sign * moving[1][0], moving[0][1] + sign * moving[1][1], None)
        elif len(moving) == 1 and len(fixed) + 1 == len(op.operands):
            made = line_after(op, op.operands[0] in known, moving[0], fixed[0] if fixed else 0.0)
        else:
            return f"{op.name} of two tensors comes before its codes"
        if made is None:
            return f"{op.name} comes before its codes"
        known[op.results[0]] = (np.asarray(made[0]), float(made[1]), made[2])
        if op.results[0] is code:
            slopes, constant, zero = known[code]
            return "its codes are not rounded to even" if zero is None else Plane(slopes, constant, zero)
    return "its results are no int8 codes"
