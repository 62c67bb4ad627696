"""A `dense.map` as a chain for cores: steps on two values, and whatever depends on one value alone as a table.

How a table is made is `curves.py`'s business, whether a chain runs on the array `use_rows.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects import arith
from xdsl.dialects.builtin import f32
from xdsl.ir import Block, BlockArgument, Operation, SSAValue

from neuc.backends.npu.curves import Curve, fit_curve
from neuc.dialects.dense import MapOp, YieldOp
from neuc.dialects.interp.core import Env
from neuc.dialects.interp.npu_bf16 import bf16
from neuc.dialects.interp.scalar import run_body
from neuc.dialects.npu_rows import ChainStep

MOST_OPERANDS = 4
"""Operands whose lines a token holds at most."""
MOST_CURVES = 2
"""Tables a core has room for beside its tokens."""
_STEPS: Mapping[type[Operation], str] = {
    arith.AddfOp: "add",
    arith.SubfOp: "sub",
    arith.MulfOp: "mul",
    arith.MaximumfOp: "max",
    arith.MinimumfOp: "min",
}


@dataclass
class MapChain:
    """A chain's steps and tables; steps name the map's operands first, as `npu.chain` does."""

    steps: list[ChainStep] = field(default_factory=list[ChainStep])
    curves: list[Curve] = field(default_factory=list[Curve])


class _Refused(Exception):
    """Why a map is no chain."""


def map_chain(op: MapOp, env: Env) -> MapChain | str:
    """The chain of a map; why there is none otherwise."""
    last = op.body.block.last_op
    assert isinstance(last, YieldOp)
    if any(value.type != f32 for value in (*op.body.block.args, last.value)):
        return "its numbers are no floats"
    if len(op.inputs) > MOST_OPERANDS:
        return f"it has more than {MOST_OPERANDS} operands"
    try:
        return _Builder(op, env).built(last.value)
    except _Refused as refused:
        return str(refused)


class _Builder:
    """Walks a map's body from its result; a scalar's source is the one value it depends on, itself if on several."""

    def __init__(self, op: MapOp, env: Env) -> None:
        self._op, self._env = op, env
        self._chain = MapChain()
        self._number: dict[SSAValue, int] = {arg: i for i, arg in enumerate(op.body.block.args)}
        self._source: dict[SSAValue, SSAValue | None] = {arg: arg for arg in op.body.block.args}
        for inner in op.body.block.ops:
            for result in inner.results:
                found = {s for v in inner.operands if (s := self._source[v]) is not None}
                self._source[result] = None if not found else found.pop() if len(found) == 1 else result

    def built(self, result: SSAValue) -> MapChain:
        """The whole chain."""
        if self._source[result] is None:
            raise _Refused("it depends on no tensor")
        if not isinstance(result, BlockArgument):
            self._value(result)
        if not self._chain.steps:
            raise _Refused("it computes nothing")
        return self._chain

    def _value(self, value: SSAValue) -> int:
        """The number of a value, after adding the steps that make it."""
        if value in self._number:
            return self._number[value]
        source = self._source[value]
        if source is None:
            return self._add(value, ChainStep("constant", (), float(bf16(np.asarray(self._constant(value))))))
        owner = value.owner
        assert isinstance(owner, Operation)
        if source is value or self._is_step(owner, source):
            if type(owner) not in _STEPS:
                raise _Refused(f"{owner.name} of two tensors is no step of a core")
            a, b = (self._value(v) for v in owner.operands)
            return self._add(value, ChainStep(_STEPS[type(owner)], (a, b)))
        before = self._value(source)
        curve = fit_curve(lambda x: self._function(value, source, x))
        if curve is None:
            raise _Refused("a function in it needs a larger table than a core holds")
        if len(self._chain.curves) == MOST_CURVES:
            raise _Refused(f"it has more than {MOST_CURVES} functions with tables")
        self._chain.curves.append(curve)
        return self._add(value, ChainStep("curve", (before,), 0.0, len(self._chain.curves) - 1))

    def _add(self, value: SSAValue, step: ChainStep) -> int:
        self._number[value] = len(self._op.inputs) + len(self._chain.steps)
        self._chain.steps.append(step)
        return self._number[value]

    def _is_step(self, op: Operation, source: SSAValue) -> bool:
        """Whether one step on `source` and a number that bf16 holds does it, without a table."""
        if type(op) not in _STEPS:
            return False
        return all(v is source or (self._source[v] is None and _is_bf16(self._constant(v))) for v in op.operands)

    def _constant(self, value: SSAValue) -> np.float32:
        """The value of a scalar that depends on nothing."""
        return np.float32(self._function(value, None, np.zeros(1, np.float32))[0])

    def _function(self, value: SSAValue, source: SSAValue | None, x: np.ndarray) -> np.ndarray:
        return scalar_function(self._op, self._env, value, source, x)


def scalar_function(op: MapOp, env: Env, value: SSAValue, source: SSAValue | None, x: np.ndarray) -> np.ndarray:
    """`value`, a scalar of a map's body that depends on `source` alone, or on nothing, for all values x of `source`."""
    block = Block(arg_types=[f32])
    mapping: dict[SSAValue, SSAValue] = {} if source is None else {source: block.args[0]}
    for inner in op.body.block.ops:
        if isinstance(inner, YieldOp) or inner.results[0] in mapping:
            continue
        if all(v in mapping for v in inner.operands):
            block.add_op(inner.clone(value_mapper=mapping))
    block.add_op(YieldOp(mapping[value]))
    made = run_body(block, [x], env)
    return np.broadcast_to(np.asarray(made, np.float32), x.shape)


def _is_bf16(number: np.float32) -> bool:
    return bool(bf16(np.asarray(number)) == number)
