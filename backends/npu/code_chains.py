"""What follows a product's int32 sums up to int8 codes, read from the IR as functions on arrays; or why nothing does.

Only operations that IEEE 754 rounds one way count: the codes of exponentials would depend on who computes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, i8
from xdsl.ir import Block, Operation, SSAValue

from neuc.backends.npu.array_products import Integers, pack_of
from neuc.backends.npu.requantize_fit import Line, Staircase
from neuc.dialects.dense import BroadcastOp, MapOp, ReshapeOp, TransposeOp, YieldOp
from neuc.dialects.dense_attrs import ActivationKind
from neuc.dialects.interp.core import Env, implementation_of
from neuc.dialects.interp.dense import activate
from neuc.dialects.interp.scalar import run_body
from neuc.dialects.store import ConstantOp, constant_value, dims_of
from neuc.dialects.ternary import DequantizeOp
from neuc.dialects.ternary_weights import defining_weight, weight_arrays
from neuc.runtime.npu.requantize import MOST_STAGES

AT_RUN_TIME = "the scale of its activations is found at run time"
"""Why no codes can be made of most sums where calibration data fix no scales."""
_RISING = (ActivationKind.NONE, ActivationKind.RELU, ActivationKind.CLIP)
_CLAMPS = (arith.MaximumfOp, arith.MinimumfOp, arith.MaxnumfOp, arith.MinnumfOp)
_EXACT = (
    arith.ConstantOp,
    arith.AddfOp,
    arith.SubfOp,
    arith.MulfOp,
    arith.DivfOp,
    arith.NegfOp,
    *_CLAMPS,
    arith.FPToSIOp,
    arith.SIToFPOp,
    arith.CmpfOp,
    arith.SelectOp,
    math.RoundEvenOp,
    math.FloorOp,
    math.CeilOp,
    math.AbsFOp,
)
ALL_CODES = np.arange(-128, 128, dtype=np.int8)
"""Every int8 code."""


@dataclass(frozen=True)
class Stage:
    """From sums, or from codes, to codes: a rising line, rounded and clipped, and the table that may follow.

    Attributes:
        codes: what sums int64 [N, T] become, in the CPU's operations and order; before the table.
        line: what that is but for rounding and clipping.
        reach: the largest magnitude of a sum of each column [N].
        table: int8 [256], or None for the same codes.
        code: the scalar of the map's body that this stage ends with.
    """

    codes: Staircase
    line: Line
    reach: np.ndarray
    table: np.ndarray | None
    code: SSAValue


@dataclass(frozen=True)
class Chain:
    """Sums, their dequantisation, movements, and the map that makes codes of the floats, in one stage or more."""

    acc: Integers
    dequantize: DequantizeOp
    moves: tuple[Operation, ...]
    map: MapOp
    stages: tuple[Stage, ...]


def chain_of(acc: Integers, env: Env) -> Chain | str:
    """What makes int8 codes of these sums, or why nothing of that form does."""
    pack = pack_of(acc)
    if pack.packed.plane_count != 1 or pack.packed.columns > pack.packed.group_size:
        return "several sums make one number"
    user = only_user(acc.result)
    added = user if isinstance(user, MapOp) else None
    if added is not None:
        user = only_user(added.result)
    if not isinstance(user, DequantizeOp):
        return "its sums are read by others"
    start = _sums(user, added, env)
    if isinstance(start, str):
        return start
    moves, last = list[Operation](), only_user(user.result)
    while isinstance(last, TransposeOp | ReshapeOp):
        moves.append(last)
        last = only_user(last.results[0])
    x = moves[-1].results[0] if moves else user.result
    if not isinstance(last, MapOp) or list(last.inputs).count(x) != 1:
        return "its results are no int8 codes"
    reader = _Reader(last, x, _channel_axis(user, moves), env)
    stages = reader.stages(*start)
    return stages if isinstance(stages, str) else Chain(acc, user, tuple(moves), last, stages)


def _sums(op: DequantizeOp, added: MapOp | None, env: Env) -> tuple[Staircase, Line, np.ndarray] | str:
    """The floats of sums [N, T], the line they are, and how large sums get."""
    shared = _one_value(op.s, env)
    if shared is None:
        return AT_RUN_TIME
    if op.activation.kind not in _RISING:
        return f"its activation is {op.activation.kind.value}"
    trits, scales = weight_arrays(defining_weight(op.weight), env.store)
    rows, scale = trits[0].astype(np.int64), scales[0, :, 0]
    offset, bias = np.zeros(len(rows), np.int64), None
    if op.bias is not None:
        bias = constant_value(op.bias, env.store)
        if bias is None:
            return "its bias is no constant"
    if added is not None:
        found = _added(added, env)
        if found is None:
            return "something unknown is added to its sums"
        offset = found.reshape(-1).astype(np.int64)

    def floats(sums: np.ndarray) -> np.ndarray:
        y = (sums + offset[:, None]).astype(np.float32) * scale[:, None] * shared
        return activate(y if bias is None else y + bias[:, None], op.activation)

    slope = scale.astype(np.float64) * float(shared)
    return floats, Line(slope, slope * offset + (0.0 if bias is None else bias), 0), 128 * np.abs(rows).sum(1)


@dataclass(frozen=True)
class _Reader:
    """Reads the body of the map behind `x`, whose channels lie along `axis` (None: nobody knows)."""

    map: MapOp
    x: SSAValue
    axis: int | None
    env: Env

    def stages(self, floats: Staircase, line: Line, reach: np.ndarray) -> tuple[Stage, ...] | str:
        """All stages there are, at least one."""
        body, inputs = self.map.body.block, list(self.map.inputs)
        given: dict[SSAValue, np.ndarray] = {
            body.args[i]: array for i in range(len(inputs)) if (array := self._per_channel(inputs[i])) is not None
        }
        begin: SSAValue = body.args[inputs.index(self.x)]
        casts: list[SSAValue] = [
            op.results[0] for op in body.ops if isinstance(op, arith.FPToSIOp) and op.results[0].type == i8
        ]
        points = [point for point in casts if is_all(body, begin, point)]
        if not points:
            if any(isinstance(op, math.RoundEvenOp) for op in body.ops):
                return "its results are rounded, but not to int8 codes (uint8? give QuantizeLinear an int8 zero point)"
            return "its results are no int8 codes"
        found: list[Stage] = []
        while points and len(found) < MOST_STAGES:
            made = _line_of(body, begin, points[0], given)
            if isinstance(made, str):
                return tuple(found) or made
            factor, constant, zero = made
            own = Line(line.slope * factor, line.intercept * factor + constant, zero)
            codes = self._codes(begin, points[0], given, floats)
            table, end = self._table(points)
            found.append(Stage(codes, own, reach, table, end))
            points, begin, floats = points[points.index(end) + 1 :], end, lambda sums: sums
            line, reach = Line(np.ones(len(reach)), np.zeros(len(reach)), 0), np.full(len(reach), 128)
        return tuple(found)

    def _codes(
        self, begin: SSAValue, end: SSAValue, given: Mapping[SSAValue, np.ndarray], floats: Staircase
    ) -> Staircase:
        def codes(sums: np.ndarray) -> np.ndarray:
            known = {value: array[:, None] for value, array in given.items()}
            found = scalars_of(self.map.body.block, {**known, begin: floats(sums)}, self.env)[end]
            return np.broadcast_to(found, sums.shape).astype(np.int64)

        return codes

    def _table(self, points: Sequence[SSAValue]) -> tuple[np.ndarray | None, SSAValue]:
        """The farthest codes that are a function of the first ones alone, and that function."""
        body = self.map.body.block
        last = next((p for p in reversed(points) if exact_between([points[0]], p)), points[0])
        made = np.asarray(scalars_of(body, {points[0]: ALL_CODES}, self.env).get(last, ALL_CODES), np.int8)
        return None if np.array_equal(made, ALL_CODES) else made, last

    def _per_channel(self, value: SSAValue) -> np.ndarray | None:
        """A constant with one value a channel, f32 [N]."""
        array = constant_value(value, self.env.store) if isinstance(value.owner, ConstantOp) else None
        if array is None or self.axis is None or array.dtype != np.float32:
            return None
        rank = len(dims_of(self.map.result))
        shape = (1,) * (rank - array.ndim) + array.shape
        channels = dims_of(self.x)[self.axis]
        own = channels.is_static and shape[self.axis] == channels.value == array.size
        return array.reshape(-1) if own else None


def function_of_codes(op: MapOp, env: Env) -> tuple[np.ndarray, SSAValue] | None:
    """The last int8 codes of a body that its one operand's codes alone make, int8 [256], and all of it reads; or None.

    The operand's own codes, through a float and back, are such codes, too.
    """
    body = op.body.block
    begin = body.args[0]
    casts = [
        inner.results[0] for inner in body.ops if isinstance(inner, arith.FPToSIOp) and inner.results[0].type == i8
    ]
    whole = [code for code in casts if is_all(body, begin, code) and exact_between([begin], code)]
    if not whole:
        return None
    made = scalars_of(body, {begin: ALL_CODES}, env).get(whole[-1])
    return None if made is None else (np.asarray(made, np.int8), whole[-1])


def _channel_axis(op: DequantizeOp, moves: Sequence[Operation]) -> int | None:
    """Where the last axis of sums lies after movements; None where they take it apart."""
    axis, value = len(dims_of(op.result)) - 1, op.result
    for move in moves:
        before, after = dims_of(value), dims_of(move.results[0])
        if isinstance(move, TransposeOp):
            axis = list(move.perm.get_values()).index(axis)
        elif [str(d) for d in before[: axis + 1]] != [str(d) for d in after[: axis + 1]]:
            return None
        value = move.results[0]
    return axis


def only_user(value: SSAValue) -> Operation | None:
    """The one operation that reads a value, if it is one."""
    users = {use.operation for use in value.uses}
    return users.pop() if len(users) == 1 else None


def _one_value(value: SSAValue, env: Env) -> np.float32 | None:
    """The single number a constant holds, looked at through what only repeats or reshapes it."""
    while isinstance(value.owner, BroadcastOp | ReshapeOp):
        value = value.owner.operands[0]
    if isinstance(value.owner, MapOp) and not value.owner.inputs:
        array: np.ndarray | None = run_body(value.owner.body.block, [], env)
    else:
        array = constant_value(value, env.store)
    if array is None or array.size == 0 or not (array == array.reshape(-1)[0]).all():
        return None
    return np.float32(array.reshape(-1)[0])


def _added(op: MapOp, env: Env) -> np.ndarray | None:
    """The constant of `sums + constant`."""
    first, last = op.body.block.first_op, op.body.block.last_op
    plain = isinstance(first, arith.AddiOp) and first.next_op is last and len(op.inputs) == 2
    return constant_value(op.inputs[1], env.store) if plain else None


def is_all(body: Block, argument: SSAValue, point: SSAValue) -> bool:
    """Whether what the body yields depends on `argument` through `point` alone."""
    last = body.last_op
    assert isinstance(last, YieldOp)
    seen, stack = set[SSAValue](), [last.value]
    while stack:
        value = stack.pop()
        if value is point or value in seen:
            continue
        seen.add(value)
        if value is argument:
            return False
        if not isinstance(value.owner, Operation):
            continue
        stack.extend(value.owner.operands)
    return True


def scalars_of(body: Block, given: Mapping[SSAValue, np.ndarray], env: Env) -> dict[SSAValue, np.ndarray]:
    """Every scalar of a body that follows from constants and those given, for all elements at once."""
    values = dict(given)
    for op in body.ops:
        run = implementation_of(op)
        if run is None or op.results[0] in values or not all(operand in values for operand in op.operands):
            continue
        values[op.results[0]] = np.asarray(run(op, [values[operand] for operand in op.operands], env)[0])
    return values


def exact_between(firsts: Sequence[SSAValue], last: SSAValue) -> bool:
    """Whether all that leads from codes to another one is rounded one way."""
    stack, seen = [last], set[SSAValue]()
    while stack:
        value = stack.pop()
        if value in firsts or value in seen:
            continue
        seen.add(value)
        if not isinstance(value.owner, _EXACT):
            return False
        stack.extend(value.owner.operands)
    return True


Factor: TypeAlias = float | NDArray[np.float64]


def _line_of(
    body: Block, begin: SSAValue, code: SSAValue, given: Mapping[SSAValue, np.ndarray]
) -> tuple[Factor, Factor, int] | str:
    """`begin` · factor + constant, rounded, + zero: what `code` is but for clamps; or what stands between them."""
    constants: dict[SSAValue, Factor] = {value: array.astype(np.float64) for value, array in given.items()}
    lines: dict[SSAValue, tuple[Factor, Factor, int | None]] = {begin: (1.0, 0.0, None)}
    for op in body.ops:
        if isinstance(op, arith.ConstantOp):
            if isinstance(op.value, FloatAttr | IntegerAttr):
                constants[op.result] = float(op.value.value.data)
            continue
        moving = [operand for operand in op.operands if operand in lines]
        if not moving:
            continue
        fixed = [constants[operand] for operand in op.operands if operand in constants]
        if len(moving) + len(fixed) != len(op.operands) or len(moving) != 1:
            return f"{op.name} of two changing values comes before its codes"
        made = line_after(op, moving[0] is op.operands[0], lines[moving[0]], fixed[0] if fixed else 0.0)
        if made is None:
            return f"{op.name} comes before its codes"
        lines[op.results[0]] = made
        if op.results[0] is code:
            factor, constant, zero = made
            return "its codes are not rounded to even" if zero is None else (factor, constant, zero)
    return "its results are no int8 codes"


def line_after(
    op: Operation, first: bool, line: tuple[Factor, Factor, int | None], value: Factor
) -> tuple[Factor, Factor, int | None] | None:
    """A line after one operation that never falls; None after any other. Once rounded, only integers may be added."""
    factor, constant, zero = line
    match op:
        case arith.AddfOp() | arith.SubfOp():
            if isinstance(op, arith.SubfOp):
                if not first:
                    return None
                value = -value
            if zero is None:
                return factor, constant + value, None
            return (factor, constant, zero + int(value)) if isinstance(value, float) and value.is_integer() else None
        case arith.MulfOp() if zero is None and np.all(np.asarray(value) > 0):
            return factor * value, constant * value, None
        case arith.DivfOp() if zero is None and first and np.all(np.asarray(value) > 0):
            return factor / value, constant / value, None
        case math.RoundEvenOp():
            return factor, constant, 0 if zero is None else zero
        case arith.MaximumfOp() | arith.MinimumfOp() | arith.MaxnumfOp() | arith.MinnumfOp() | arith.SIToFPOp():
            return line
        case arith.FPToSIOp() if zero is not None:
            return line
        case _:
            return None
