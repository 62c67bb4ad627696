"""Neurons of the `spike` dialect: one step of a membrane, from its current and states to events and next states.

Operands are the current, the states and then the parameters, which broadcast to the current's shape. Everything is
f32; or everything is i32, and then exact: thresholds are integers and decays and gains are in units of 1/4096.
Meaning: `interp/spike_neurons.py`. Neurons with several levels are in `spike_levels.py`.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import TensorType, f32, i32
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Attribute, Operation, SpacedOpaqueSyntaxAttribute, SSAValue
from xdsl.irdl import (
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.str_enum import StrEnum

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense_attrs import DenseOp
from neuc.dialects.dims import Dim
from neuc.dialects.spike_types import BINARY
from neuc.dialects.store import dims_of, tensor_type

DECAY_ONE = 4096
"""What a decay or gain of 1 is in integer neurons."""


class Reset(StrEnum):
    """What a spike does to the membrane: takes a value off it, or puts it to a value."""

    SOFT = "soft"
    HARD = "hard"


class Fire(StrEnum):
    """Which potentials make a spike: those at the threshold, or only those above it."""

    GE = "ge"
    GT = "gt"


class Reads(StrEnum):
    """Which synaptic current a membrane reads: with this step's input, or the one of the step before."""

    NEW = "new"
    OLD = "old"


@irdl_attr_definition
class ResetAttr(EnumAttribute[Reset], SpacedOpaqueSyntaxAttribute):
    """`#spike<reset soft>`."""

    name = "spike.reset"


@irdl_attr_definition
class FireAttr(EnumAttribute[Fire], SpacedOpaqueSyntaxAttribute):
    """`#spike<fire ge>`."""

    name = "spike.fire"


@irdl_attr_definition
class ReadsAttr(EnumAttribute[Reads], SpacedOpaqueSyntaxAttribute):
    """`#spike<reads new>`."""

    name = "spike.reads"


class MembraneOp(DenseOp, ABC):
    """What all neurons share: a current, `STATES` and their next values, `PARAMETERS` that broadcast."""

    traits = traits_def(Pure())

    STATES: ClassVar[tuple[str, ...]] = ()
    PARAMETERS: ClassVar[tuple[str, ...]] = ()

    # Operands of a base class come after those of the class itself, so each class declares all of its own.

    @property
    def current_value(self) -> SSAValue:
        """The current operand."""
        return self.operands[0]

    @property
    def states(self) -> tuple[SSAValue, ...]:
        """The operands that are states, in order."""
        return tuple(self.operands[1 : 1 + len(self.STATES)])

    @property
    def parameters(self) -> tuple[SSAValue, ...]:
        """The operands that are parameters, in order; an optional last one may be missing."""
        return tuple(self.operands[1 + len(self.STATES) :])

    @property
    def next_states(self) -> tuple[SSAValue, ...]:
        """The results that are states, in the order of `states`."""
        return tuple(self.results[len(self.results) - len(self.STATES) :])

    def verify_(self) -> None:
        element = shapes.element(self.current_value)
        if element not in (f32, i32):
            raise VerifyException(f"current holds {element}, should hold f32 or i32")
        dims = shapes.dims(self.current_value)
        for name, value in zip(self.STATES, self.states, strict=True):
            shapes.check(name, value, dims, element)
        for name, value in zip(self.STATES, self.next_states, strict=True):
            shapes.check(f"next {name}", value, dims, element)
        for i, value in enumerate(self.parameters):
            name = self.PARAMETERS[i] if i < len(self.PARAMETERS) else "reset_value"
            shapes.check_broadcastable(name, shapes.dims(value), dims)
            shapes.check_element(name, value, element)


class LeakyOp(MembraneOp, ABC):
    """A membrane that does not spike; the first result is its potential."""

    def __init__(
        self,
        current: SSAValue | Operation,
        states: Sequence[SSAValue],
        parameters: Sequence[SSAValue] = (),
        *,
        properties: dict[str, Attribute] | None = None,
    ) -> None:
        super().__init__(
            operands=[current, *states, *parameters],
            result_types=[state.type for state in states],
            properties=properties or {},
        )


class NeuronOp(MembraneOp, ABC):
    """A membrane that spikes; the events are the first result.

    `reset_value`: what a soft reset takes off (the threshold if it is not there), or where a hard one goes (0).
    """

    reset = prop_def(ResetAttr, default_value=ResetAttr(Reset.SOFT))
    fire = prop_def(FireAttr, default_value=FireAttr(Fire.GE))
    ENUMS: ClassVar[dict[str, type[EnumAttribute]]] = {"reset": ResetAttr, "fire": FireAttr}

    def __init__(
        self,
        current: SSAValue | Operation,
        states: Sequence[SSAValue],
        parameters: Sequence[SSAValue],
        *,
        reset: Reset | str = Reset.SOFT,
        fire: Fire | str = Fire.GE,
        properties: dict[str, Attribute] | None = None,
    ) -> None:
        """`parameters` in the order of `PARAMETERS`, then perhaps the reset value."""
        given: list[SSAValue | Operation | None] = [current, *states, *parameters]
        given += [None] * (len(self.get_irdl_definition().operands) - len(given))
        events = tensor_type(BINARY, dims_of(SSAValue.get(current)))
        super().__init__(
            operands=given,
            result_types=[events, *(state.type for state in states)],
            properties={
                "reset": ResetAttr(Reset(reset)),
                "fire": FireAttr(Fire(fire)),
                **(properties or {}),
            },
        )

    @property
    def is_soft(self) -> bool:
        """Whether a spike takes something off the membrane instead of putting it somewhere."""
        return self.reset.data is Reset.SOFT

    @property
    def reset_operand(self) -> SSAValue | None:
        """The reset value, if there is one."""
        return self.parameters[-1] if len(self.parameters) > len(self.PARAMETERS) else None

    def verify_(self) -> None:
        super().verify_()
        shapes.check("events", self.results[0], shapes.dims(self.current_value), BINARY)


@irdl_op_definition
class IfOp(NeuronOp):
    """Integrate and fire: u = potential + current; events = [u ≥ threshold]; next = u reset where there is an event."""

    name = "spike.if"
    current = operand_def(TensorType)
    potential = operand_def(TensorType)
    threshold = operand_def(TensorType)
    reset_value = opt_operand_def(TensorType)
    events = result_def(TensorType)
    next_potential = result_def(TensorType)
    STATES: ClassVar = ("potential",)
    PARAMETERS: ClassVar = ("threshold",)


@irdl_op_definition
class LifOp(NeuronOp):
    """Leaky integrate and fire: u = decay·potential + current, then as `spike.if`."""

    name = "spike.lif"
    current = operand_def(TensorType)
    potential = operand_def(TensorType)
    decay = operand_def(TensorType)
    threshold = operand_def(TensorType)
    reset_value = opt_operand_def(TensorType)
    events = result_def(TensorType)
    next_potential = result_def(TensorType)
    STATES: ClassVar = ("potential",)
    PARAMETERS: ClassVar = ("decay", "threshold")


@irdl_op_definition
class CubaLifOp(NeuronOp):
    """LIF behind a synapse with a memory: c = synapse_decay·synapse + current; u = decay·potential + gain·c.

    With `reads = old`, u takes the synaptic current as it was before this step.
    """

    name = "spike.cuba_lif"
    current = operand_def(TensorType)
    synapse = operand_def(TensorType)
    potential = operand_def(TensorType)
    synapse_decay = operand_def(TensorType)
    decay = operand_def(TensorType)
    gain = operand_def(TensorType)
    threshold = operand_def(TensorType)
    reset_value = opt_operand_def(TensorType)
    reads = prop_def(ReadsAttr, default_value=ReadsAttr(Reads.NEW))
    events = result_def(TensorType)
    next_synapse = result_def(TensorType)
    next_potential = result_def(TensorType)
    STATES: ClassVar = ("synapse", "potential")
    PARAMETERS: ClassVar = ("synapse_decay", "decay", "gain", "threshold")
    ENUMS: ClassVar = {**NeuronOp.ENUMS, "reads": ReadsAttr}


@irdl_op_definition
class AlphaOp(NeuronOp):
    """Alpha synapse: e = excitation_decay·excitation + current; h = inhibition_decay·inhibition + current;
    u = gain·(e − h), a difference of exponentials in answer to each input.

    A soft reset takes reset_value/gain off e, so that u falls by reset_value; a hard one puts e to reset_value/gain and
    h to 0. f32 only.
    """

    name = "spike.alpha"
    current = operand_def(TensorType)
    excitation = operand_def(TensorType)
    inhibition = operand_def(TensorType)
    excitation_decay = operand_def(TensorType)
    inhibition_decay = operand_def(TensorType)
    gain = operand_def(TensorType)
    threshold = operand_def(TensorType)
    reset_value = opt_operand_def(TensorType)
    events = result_def(TensorType)
    next_excitation = result_def(TensorType)
    next_inhibition = result_def(TensorType)
    STATES: ClassVar = ("excitation", "inhibition")
    PARAMETERS: ClassVar = ("excitation_decay", "inhibition_decay", "gain", "threshold")

    def verify_(self) -> None:
        super().verify_()
        shapes.check_element("current", self.current_value, f32)


@irdl_op_definition
class AdaptiveOp(NeuronOp):
    """Adaptive LIF: u = decay·potential + current; θ = threshold + adaptation_gain·adaptation; events = [u ≥ θ];
    next adaptation = adaptation_decay·adaptation + events (4096·events in integers).

    A soft reset takes θ off if there is no reset value.
    """

    name = "spike.adaptive"
    current = operand_def(TensorType)
    potential = operand_def(TensorType)
    adaptation = operand_def(TensorType)
    decay = operand_def(TensorType)
    adaptation_decay = operand_def(TensorType)
    adaptation_gain = operand_def(TensorType)
    threshold = operand_def(TensorType)
    reset_value = opt_operand_def(TensorType)
    events = result_def(TensorType)
    next_potential = result_def(TensorType)
    next_adaptation = result_def(TensorType)
    STATES: ClassVar = ("potential", "adaptation")
    PARAMETERS: ClassVar = ("decay", "adaptation_decay", "adaptation_gain", "threshold")


@irdl_op_definition
class IntegratorOp(LeakyOp):
    """next = potential + current."""

    name = "spike.integrator"
    current = operand_def(TensorType)
    potential = operand_def(TensorType)
    next_potential = result_def(TensorType)
    STATES: ClassVar = ("potential",)


@irdl_op_definition
class LiOp(LeakyOp):
    """Leaky integrator: next = decay·potential + current."""

    name = "spike.li"
    current = operand_def(TensorType)
    potential = operand_def(TensorType)
    decay = operand_def(TensorType)
    next_potential = result_def(TensorType)
    STATES: ClassVar = ("potential",)
    PARAMETERS: ClassVar = ("decay",)


@irdl_op_definition
class CubaLiOp(LeakyOp):
    """Leaky integrator behind a synapse with a memory, as `spike.cuba_lif` without the spikes."""

    name = "spike.cuba_li"
    current = operand_def(TensorType)
    synapse = operand_def(TensorType)
    potential = operand_def(TensorType)
    synapse_decay = operand_def(TensorType)
    decay = operand_def(TensorType)
    gain = operand_def(TensorType)
    reads = prop_def(ReadsAttr, default_value=ReadsAttr(Reads.NEW))
    next_synapse = result_def(TensorType)
    next_potential = result_def(TensorType)
    STATES: ClassVar = ("synapse", "potential")
    PARAMETERS: ClassVar = ("synapse_decay", "decay", "gain")
    ENUMS: ClassVar = {"reads": ReadsAttr}


@irdl_op_definition
class ThresholdOp(DenseOp):
    """events = [x ≥ threshold], without a state."""

    name = "spike.threshold"
    x = operand_def(TensorType)
    threshold = operand_def(TensorType)
    fire = prop_def(FireAttr, default_value=FireAttr(Fire.GE))
    events = result_def(TensorType)
    traits = traits_def(Pure())
    ENUMS: ClassVar = {"fire": FireAttr}

    def __init__(self, x: SSAValue, threshold: SSAValue, *, fire: Fire | str = Fire.GE) -> None:
        super().__init__(
            operands=[x, threshold],
            result_types=[tensor_type(BINARY, dims_of(x))],
            properties={"fire": FireAttr(Fire(fire))},
        )

    def verify_(self) -> None:
        dims: tuple[Dim, ...] = shapes.dims(self.x)
        element = shapes.element(self.x)
        if element not in (f32, i32):
            raise VerifyException(f"x holds {element}, should hold f32 or i32")
        shapes.check_broadcastable("threshold", shapes.dims(self.threshold), dims)
        shapes.check_element("threshold", self.threshold, element)
        shapes.check("events", self.events, dims, BINARY)


NEURONS = (IfOp, LifOp, CubaLifOp, AlphaOp, AdaptiveOp, IntegratorOp, LiOp, CubaLiOp, ThresholdOp)
