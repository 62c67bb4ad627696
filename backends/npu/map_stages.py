"""A `dense.map` behind a bf16 product as stages that a core does: columns scaled and shifted, an activation.

Steps with numbers or vectors of columns, and ReLU and its kin, are exact; any other function of one value is a table
(`curves.py`). Whether the cores do it is decided in `finish_floats.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from xdsl.dialects import arith
from xdsl.dialects.builtin import f32
from xdsl.ir import Operation, SSAValue

from neuc.backends.npu.curves import Curve, fit_curve
from neuc.backends.npu.element_chains import scalar_function
from neuc.dialects.dense import MapOp, YieldOp
from neuc.dialects.interp.core import Env
from neuc.runtime.npu.float_finish import MOST_STAGES, MOST_VECTORS

Vector = np.ndarray | SSAValue
"""One f32 number a column, or one for all: a constant, or a tensor known at run time."""
Column = Callable[[SSAValue], "Vector | None"]
"""What of an operand is a vector of columns; None if it is a tensor of more."""
_OPEN = float("inf")
_BELOW = ("olt", "ult", "ole", "ule")


@dataclass(frozen=True)
class MapStage:
    """As `npu.finish` does it."""

    scale: Vector | None = None
    shift: Vector | None = None
    slope: float | None = None
    low: float = -_OPEN
    high: float = _OPEN
    curve: Curve | None = None

    @property
    def limits(self) -> tuple[float, float] | None:
        """The lowest and the highest result; None if there are neither."""
        return None if (self.low, self.high) == (-_OPEN, _OPEN) else (self.low, self.high)

    @property
    def is_linear(self) -> bool:
        """Whether there is no activation in it."""
        return self.slope is None and self.limits is None and self.curve is None

    @property
    def vectors(self) -> int:
        """Scales and shifts in it."""
        return (self.scale is not None) + (self.shift is not None)


@dataclass
class MapStages:
    """Stages from a map's operand to the scalar ``value`` of its body; what follows that is for the CPU.

    ``functions``: how many, such as exponentials, a CPU would compute up to there.
    """

    op: MapOp
    value: SSAValue
    stages: list[MapStage] = field(default_factory=list[MapStage])
    functions: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing follows."""
        last = self.op.body.block.last_op
        return isinstance(last, YieldOp) and last.value is self.value


class _Refused(Exception):
    """Why a map is no stages."""


def map_stages(op: MapOp, index: int, env: Env, column: Column) -> MapStages | str:
    """The stages at the front of a map whose operand `index` is a product; why there are none otherwise."""
    last = op.body.block.last_op
    assert isinstance(last, YieldOp)
    if any(value.type != f32 for value in (op.body.block.args[index], last.value)):
        return "its numbers are no floats"
    try:
        return _Reader(op, index, env, column).read()
    except _Refused as refused:
        return str(refused)


class _Reader:
    """Walks a map's body from the product's scalar to the last one that depends on columns and numbers besides."""

    def __init__(self, op: MapOp, index: int, env: Env, column: Column) -> None:
        self._op, self._env = op, env
        self._sum = op.body.block.args[index]
        self._vector: dict[SSAValue, Vector | None] = {
            arg: column(v) for arg, v in zip(op.body.block.args, op.inputs) if arg is not self._sum
        }
        self._own = self._closure({self._sum}, {arg for arg, vector in self._vector.items() if vector is not None})
        self._numbers = self._closure(set(), set())

    def _closure(self, begin: set[SSAValue], also: set[SSAValue]) -> set[SSAValue]:
        """Scalars that depend on `begin`, and else on numbers and `also` alone; numbers, if it is empty."""
        found, known = set(begin), {*begin, *also}
        for inner in self._op.body.block.ops:
            if isinstance(inner, YieldOp) or not all(v in known for v in inner.operands):
                continue
            known.update(inner.results)
            if not begin or any(v in found for v in inner.operands):
                found.update(inner.results)
        return found

    def _users(self, value: SSAValue) -> list[Operation]:
        return list(dict.fromkeys(use.operation for use in value.uses))

    def _frontier(self, inside: set[SSAValue]) -> list[SSAValue]:
        """Values of a set that are read outside of it."""
        return [v for v in inside if any(not u.results or u.results[0] not in inside for u in self._users(v))]

    def read(self) -> MapStages:
        """The stages."""
        ends = self._frontier(self._own)
        if len(ends) != 1 or ends[0].type != f32:
            raise _Refused("several values of it are combined with other tensors")
        if ends[0] is self._sum:
            raise _Refused("it is combined with another tensor at once")
        functions = sum(v.owner.name.startswith("math.") for v in self._own if isinstance(v.owner, Operation))
        made, value = MapStages(self._op, ends[0], functions=functions), self._sum
        while value is not made.value:
            stage, after = self._stage(value, made.value)
            if after is value:
                raise _Refused("a step of it is none of scales, shifts and functions of one value")
            made.stages.append(stage)
            value = after
        if len(made.stages) > MOST_STAGES or sum(stage.vectors for stage in made.stages) > MOST_VECTORS:
            raise _Refused(f"it has more than {MOST_STAGES} activations or {MOST_VECTORS} vectors of columns")
        return made

    def _stage(self, value: SSAValue, end: SSAValue) -> tuple[MapStage, SSAValue]:
        """One stage from `value` on, and the value that it ends at."""
        stage = MapStage()
        while value is not end:
            alone = self._frontier(self._closure({value}, self._numbers))
            if len(alone) == 1 and alone[0] is not value and alone[0].type == f32:
                exact = self._exact(stage, value, alone[0])
                if exact is None and stage.vectors and self._exact(MapStage(), value, alone[0]) is not None:
                    return stage, value  # exact, in a stage of its own
                stage = replace(stage, curve=self._table(value, alone[0])) if exact is None else exact
                value = alone[0]
                if not stage.is_linear:
                    return stage, value
                continue
            users = self._users(value)
            added = self._linear(stage, value, users[0]) if len(users) == 1 else None
            if added is None:
                return stage, value
            stage, value = added, users[0].results[0]
        return stage, value

    def _table(self, value: SSAValue, end: SSAValue) -> Curve:
        curve = fit_curve(lambda x: scalar_function(self._op, self._env, end, value, x))
        if curve is None:
            raise _Refused("a function in it needs a larger table than a core holds")
        return curve

    def _exact(self, stage: MapStage, value: SSAValue, end: SSAValue) -> MapStage | None:
        """The stage with all steps from `value` to `end`, which depends on `value` alone; None if it needs a table."""
        while value is not end:
            users = self._users(value)
            leaky = self._leaky(value, users)
            if leaky is not None:
                if not stage.is_linear:
                    return None
                stage, value = replace(stage, slope=leaky[0]), leaky[1]
                continue
            if len(users) != 1:
                return None
            limited = self._limited(stage, value, users[0]) or self._linear(stage, value, users[0])
            if limited is None:
                return None
            stage, value = limited, users[0].results[0]
        return stage

    def _leaky(self, value: SSAValue, users: list[Operation]) -> tuple[float, SSAValue] | None:
        """The slope and the result where x < 0 ? slope · x : x is all that reads `value`."""
        select = next((user for user in users if isinstance(user, arith.SelectOp)), None)
        if select is None or select.rhs is not value:
            return None
        condition, scaled = select.cond.owner, select.lhs.owner
        if not isinstance(condition, arith.CmpfOp) or not isinstance(scaled, arith.MulfOp):
            return None
        kind = arith.CMPF_COMPARISON_OPERATIONS[condition.predicate.value.data]
        below = kind in _BELOW and condition.lhs is value and self._number(condition.rhs) == 0
        slope = [self._number(v) for v in scaled.operands if v is not value]
        if not below or len(slope) != 1 or slope[0] is None or {*users} != {condition, scaled, select}:
            return None
        return slope[0], select.result

    def _limited(self, stage: MapStage, value: SSAValue, user: Operation) -> MapStage | None:
        """The stage with a lowest or highest result."""
        if not isinstance(user, arith.MaximumfOp | arith.MinimumfOp) or stage.curve is not None:
            return None
        number = next((self._number(v) for v in user.operands if v is not value), None)
        if number is None:
            return None
        if isinstance(user, arith.MaximumfOp):
            made = replace(stage, low=max(stage.low, number))
        else:
            made = replace(stage, high=min(stage.high, number))
        return made if made.low <= made.high else None

    def _linear(self, stage: MapStage, value: SSAValue, user: Operation) -> MapStage | None:
        """The stage with a scale or a shift; None if `user` is neither, or has no place in it any more."""
        if not stage.is_linear or not isinstance(user, arith.AddfOp | arith.SubfOp | arith.MulfOp | arith.DivfOp):
            return None
        others = [v for v in user.operands if v is not value]
        other = self._other(others[0]) if len(others) == 1 else None
        if other is None:
            return None
        if isinstance(user, arith.AddfOp):
            return replace(stage, shift=other) if stage.shift is None else None
        if isinstance(user, arith.MulfOp):
            return replace(stage, scale=other) if not stage.vectors else None
        if not isinstance(other, np.ndarray):
            return None
        if isinstance(user, arith.DivfOp):
            inverse = np.float32(1) / other
            exact = user.lhs is value and not stage.vectors and np.isfinite(inverse).all()
            return replace(stage, scale=inverse) if exact else None
        return replace(stage, shift=-other) if user.lhs is value and stage.shift is None else None

    def _other(self, value: SSAValue) -> Vector | None:
        number = self._number(value)
        return self._vector.get(value) if number is None else np.array([number], np.float32)

    def _number(self, value: SSAValue) -> float | None:
        """A scalar that depends on nothing."""
        if value not in self._numbers:
            return None
        return float(scalar_function(self._op, self._env, value, None, np.zeros(1, np.float32))[0])
