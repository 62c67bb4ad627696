"""Neurons of the `spike` dialect with several signed levels: `spike.multi_threshold` and `spike.differential`.

Spikes are powers of two of the operand `unit`, the smallest level; how many levels there are, the type of the events
says. Equations: differential coding with graded units (Huang et al., ICML 2025). Meaning: `interp/spike_neurons.py`.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import Float32Type, FloatAttr, TensorType, UnitAttr, f32, i32, i64
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, opt_prop_def, prop_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense_attrs import DenseOp, flag
from neuc.dialects.spike_types import EventType, event_of
from neuc.dialects.store import dims_of, tensor_type

FIRE_AT = 0.75
"""Potentials from 3/4 of a level on fire it: the nearest power of two, in the sense of the ratio's mean."""


class LevelsOp(DenseOp, ABC):
    """What both share. `fire_at` is a multiple of 1/4, so that integers decide exactly.

    With `relu`, a negative spike needs a cumulative output of at least its size, so that outputs never sum below 0.
    """

    # Operands of a base class come after those of the class itself, so each class declares all of its own.
    fire_at = prop_def(FloatAttr[Float32Type], default_value=FloatAttr(FIRE_AT, f32))
    relu = opt_prop_def(UnitAttr)
    traits = traits_def(Pure())

    STATES: ClassVar[tuple[str, ...]]

    @property
    def current_value(self) -> SSAValue:
        """The current operand."""
        return self.operands[0]

    @property
    def unit_value(self) -> SSAValue:
        """The smallest level; broadcasts to the current's shape."""
        return self.operands[-1]

    @property
    def event(self) -> EventType:
        """What kind of spikes it makes."""
        found = event_of(self.results[0])
        assert found is not None
        return found

    @property
    def states(self) -> tuple[SSAValue, ...]:
        """The operands that are states, in order."""
        return tuple(self.operands[1 : 1 + len(self.STATES)])

    @property
    def next_states(self) -> tuple[SSAValue, ...]:
        """The results that are states, in the order of `states`."""
        return tuple(self.results[1:])

    def _verify_levels(self, elements: tuple[object, ...]) -> None:
        dims, element = shapes.dims(self.current_value), shapes.element(self.current_value)
        if element not in elements:
            raise VerifyException(f"current holds {element}, should hold {' or '.join(map(str, elements))}")
        event = event_of(self.results[0])
        if event is None or event.is_binary:
            raise VerifyException(f"events are {event or self.results[0].type}, should be signed or graded")
        shapes.check_dims("events", shapes.dims(self.results[0]), dims)
        for name, state, after in zip(self.STATES, self.states, self.next_states, strict=True):
            shapes.check(name, state, dims, element)
            shapes.check(f"next {name}", after, dims, element)
        shapes.check_broadcastable("unit", shapes.dims(self.unit_value), dims)
        shapes.check_element("unit", self.unit_value, element)
        quarters = self.fire_at.value.data * 4
        if quarters != int(quarters) or quarters < 1:
            raise VerifyException(f"fire_at = {self.fire_at.value.data} is no positive multiple of 1/4")


@irdl_op_definition
class MultiThresholdOp(LevelsOp):
    """Signed neuron with levels unit·2^k, soft reset.

    m = membrane + current; the largest level L with m ≥ fire_at·L fires as +L, or with m ≤ −fire_at·L (and, with
    `relu`, output ≥ L) as −L; next membrane = m − spike, next output = output + spike. Events are the spike over unit.
    """

    name = "spike.multi_threshold"
    current = operand_def(TensorType)
    membrane = operand_def(TensorType)
    output = operand_def(TensorType)
    unit = operand_def(TensorType)
    events = result_def(TensorType)
    next_membrane = result_def(TensorType)
    next_output = result_def(TensorType)
    STATES: ClassVar = ("membrane", "output")

    def __init__(
        self,
        current: SSAValue,
        states: Sequence[SSAValue],
        unit: SSAValue,
        event: EventType,
        *,
        relu: bool = False,
        fire_at: float = FIRE_AT,
    ) -> None:
        """`states`: membrane, output."""
        super().__init__(
            operands=[current, *states, unit],
            result_types=[tensor_type(event, dims_of(current)), *(state.type for state in states)],
            properties={"fire_at": FloatAttr(fire_at, f32), "relu": flag(relu)},
        )

    def verify_(self) -> None:
        self._verify_levels((f32, i32))


@irdl_op_definition
class DifferentialOp(LevelsOp):
    """`spike.multi_threshold` on changes: what it sends is how much its mean input and output differ from before.

    With n = step + 1: m = membrane + current + mean_in − mean_out; c = output + mean_out; a spike s of m and c as in
    `spike.multi_threshold`; next: m − s, c + s, mean_in + current/n, mean_out + s/n. f32 only. `mean_in` begins as the
    bias of the layer before, everything else as 0.
    """

    name = "spike.differential"
    current = operand_def(TensorType)
    membrane = operand_def(TensorType)
    output = operand_def(TensorType)
    mean_in = operand_def(TensorType)
    mean_out = operand_def(TensorType)
    step = operand_def(TensorType)
    unit = operand_def(TensorType)
    events = result_def(TensorType)
    next_membrane = result_def(TensorType)
    next_output = result_def(TensorType)
    next_mean_in = result_def(TensorType)
    next_mean_out = result_def(TensorType)
    STATES: ClassVar = ("membrane", "output", "mean_in", "mean_out")

    def __init__(
        self,
        current: SSAValue,
        states: Sequence[SSAValue],
        step: SSAValue,
        unit: SSAValue,
        event: EventType,
        *,
        relu: bool = False,
        fire_at: float = FIRE_AT,
    ) -> None:
        """`states`: membrane, output, mean_in, mean_out; `step`: the loop's step number."""
        super().__init__(
            operands=[current, *states, step, unit],
            result_types=[tensor_type(event, dims_of(current)), *(state.type for state in states)],
            properties={"fire_at": FloatAttr(fire_at, f32), "relu": flag(relu)},
        )

    def verify_(self) -> None:
        self._verify_levels((f32,))
        shapes.check("step", self.step, (), i64)


LEVEL_NEURONS = (MultiThresholdOp, DifferentialOp)
