"""Building @main of a spiking network: operations before the loop, its body with states, and operations behind it.

Which operations those are is decided in the files beside this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects.builtin import ModuleOp, TensorType, f32
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from neuc.dialects import spike
from neuc.dialects.dense import BroadcastOp
from neuc.dialects.interp.core import Env
from neuc.dialects.store import dims_of, make_constant, tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.passes import scalar_builder as sb
from neuc.passes.map_building import map_of
from neuc.passes.scalar_builder import Scalar
from neuc.passes.spiking.values import Array, Value


@dataclass
class LoopBuilder:
    """A function with one `spike.loop` in the making.

    Attributes:
        module: the module, whose store has the constants.
        store: the weights.
        block: the function's new body: what is before the loop, then the loop, then what is behind it.
        differential: whether spikes carry changes.
    """

    module: ModuleOp
    store: WeightStore
    block: Block
    differential: bool
    body: Block = field(default_factory=lambda: Block(arg_types=[spike.STEP_TYPE]))
    _initial: list[SSAValue] = field(default_factory=list[SSAValue])
    _next: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    _after: list[Operation] = field(default_factory=list[Operation])
    _finals: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    _zeros: dict[Attribute, SSAValue] = field(default_factory=dict[Attribute, SSAValue])
    _weight: SSAValue | None = None
    _steps_done: SSAValue | None = None
    source: Operation | None = None
    """The operation of the float network that is being converted: new ones get its location."""

    @property
    def env(self) -> Env:
        """What interpreters need to run operations on arrays."""
        return Env(self.module, self.store)

    @property
    def step(self) -> SSAValue:
        """The step number inside the loop, i64, from 0."""
        return self.body.args[0]

    def _located(self, op: Operation) -> SSAValue:
        if self.source is not None:
            op.location = self.source.location
        return op.results[0]

    def before(self, op: Operation) -> SSAValue:
        """Add an operation before the loop; its first result."""
        self.block.add_op(op)
        return self._located(op)

    def inside(self, op: Operation) -> SSAValue:
        """Add an operation to the body of the loop; its first result."""
        self.body.add_op(op)
        return self._located(op)

    def behind(self, op: Operation) -> SSAValue:
        """Add an operation behind the loop; its first result."""
        self._after.append(op)
        return self._located(op)

    def constant(self, array: Array, name: str) -> SSAValue:
        """A constant."""
        return self.before(make_constant(name, np.array(array, order="C"), self.store))

    def broadcast(self, array: Array, type_: Attribute, name: str) -> SSAValue:
        """A tensor of type `type_` from an array that broadcasts to it."""
        value = self.constant(array.astype(np.float32), name)
        return value if value.type == type_ else self.before(BroadcastOp(value, type_))

    def zeros(self, type_: Attribute) -> SSAValue:
        """Zeros of an f32 type; the same value each time."""
        if type_ not in self._zeros:
            self._zeros[type_] = self.broadcast(np.zeros((), np.float32), type_, "zero")
        return self._zeros[type_]

    def state(self, initial: SSAValue) -> SSAValue:
        """A new state of the loop, as a step finds it; `set_next` says what it becomes."""
        self._initial.append(initial)
        return self.body.insert_arg(initial.type, len(self.body.args))

    def set_next(self, state: SSAValue, value: SSAValue) -> None:
        """Say what a state becomes in each step."""
        self._next[state] = value

    def final(self, state: SSAValue) -> SSAValue:
        """What a state is behind the loop: a stand-in until `finish`."""
        if state not in self._finals:
            self._finals[state] = Block(arg_types=[state.type]).args[0]
        return self._finals[state]

    def static(self, value: Value, like: SSAValue) -> SSAValue:
        """The static part of a value as a tensor outside the loop, of the type that `like` has."""
        if isinstance(value.static, SSAValue):
            return value.static
        type_ = f32_like(like)
        return self.zeros(type_) if value.static is None else self.broadcast(value.static, type_, "static")

    def current(self, value: Value) -> SSAValue | None:
        """What changes of a value as f32 inside the loop, in the unit of the float network."""
        if value.inner is None or (not value.spikes and value.scale is None):
            return value.inner
        scale = np.ones((), np.float32) if value.scale is None else value.scale
        return self.inside(spike.ScaleOp(value.inner, self.constant(scale.astype(np.float32), "scale")))

    def per_step(self, value: Value, like: SSAValue) -> SSAValue:
        """The tensor of one step in rate coding, f32."""
        found = self.current(value)
        return self.static(value, like) if found is None else found

    def weight(self) -> SSAValue:
        """1 / (step + 1), f32 scalar, inside the loop: the weight of a change."""
        if self._weight is None:
            count = map_of([self.step], lambda t: 1.0 / (_float(t) + 1.0), [])
            first = self.body.first_op
            if first is None:
                self.body.add_op(count)
            else:
                self.body.insert_op_before(count, first)
            self._weight = count.result
        return self._weight

    def count(self, start: int) -> SSAValue:
        """How many steps from `start` on there were, at least 1: f32 scalar, a state."""
        if self._steps_done is None:
            state = self.state(self.zeros(TensorType(f32, [])))
            self.set_next(state, self.inside(map_of([self.step], lambda t: _counted(t, start), [])))
            self._steps_done = state
        return self._steps_done

    def finish(self, steps: int, results: Sequence[SSAValue]) -> list[SSAValue]:
        """Put the loop and what is behind it into the function.

        Args:
            steps: the most steps.
            results: values behind the loop.

        Returns:
            `results`, with the loop's own in the place of stand-ins.
        """
        states: Sequence[SSAValue] = self.body.args[1:]
        self.body.add_op(spike.YieldOp([], [self._next[state] for state in states]))
        loop = spike.LoopOp([], self._initial, steps, [], Region(self.body))
        self.block.add_op(loop)
        self.block.add_ops(self._after)
        finals: dict[SSAValue, SSAValue] = dict(zip(states, loop.final))
        real = {stand_in: finals[state] for state, stand_in in self._finals.items()}
        for stand_in, final in real.items():
            stand_in.replace_all_uses_with(final)
        return [real.get(value, value) for value in results]


def f32_like(value: SSAValue) -> TensorType[Attribute]:
    """The f32 tensor type of `value`'s shape."""
    return tensor_type(f32, dims_of(value))


def _counted(t: Scalar, start: int) -> Scalar:
    done = _float(t) + (1.0 - start)
    return sb.maximum(done, 1.0) if start else done


def _float(t: Scalar) -> Scalar:
    found = sb.cast(t, f32)
    assert found is not None
    return found
