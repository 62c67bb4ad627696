"""The `energy` operations around states: block partitions, states and their values, energies, schedules."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import (
    DenseArrayBase,
    Float32Type,
    FloatAttr,
    IntegerAttr,
    TensorType,
    f32,
    f64,
    i64,
)
from xdsl.ir import SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.dense_attrs import int_attr, ints
from neuc.dialects.dims import Dim
from neuc.dialects.energy_model import ModelOp, variable_of
from neuc.dialects.energy_networks import VectorFieldOp
from neuc.dialects.energy_terms import StencilOp, check_shape, shape_of
from neuc.dialects.energy_types import (
    EnergyOp,
    ModelType,
    Ramp,
    RampAttr,
    StateType,
    VarType,
    var_type,
)
from neuc.dialects.store import dims_of, element_of, tensor_type

POSITIONS = 16
"""Every block of `energy.color` begins at a multiple of so many positions: the lanes of the widest vectors."""


class Dynamics(EnergyOp, ABC):
    """An operation that makes a state of a model (its first operand) from a state (its second)."""


def model_of(value: SSAValue) -> ModelOp:
    """The model behind a model value, through `energy.color`.

    Raises:
        VerifyException: it comes from outside, as a function argument.
    """
    owner = value.owner
    if isinstance(owner, ColorOp):
        return model_of(owner.model)
    if not isinstance(owner, ModelOp):
        raise VerifyException("a model must be made by energy.model in the same function")
    return owner


def state_model(state: SSAValue) -> ModelOp:
    """The model a state belongs to."""
    owner = state.owner
    if isinstance(owner, StateOp | InitOp):
        return model_of(owner.model)
    if isinstance(owner, Dynamics):
        return model_of(owner.operands[0])
    if isinstance(owner, ClampOp):
        return state_model(owner.state)
    raise VerifyException("a state must be made by an energy operation in the same function")


def chains_of(state: SSAValue) -> Dim:
    """How many chains a state holds."""
    owner = state.owner
    match owner:
        case InitOp():
            return Dim.of(owner.chains.value.data)
        case StateOp():
            return dims_of(owner.args[1])[0]
        case ClampOp():
            return chains_of(owner.state)
        case Dynamics():
            return chains_of(owner.operands[1])
        case _:
            raise VerifyException("a state must be made by an energy operation in the same function")


def _check_value(value: SSAValue, type_: VarType, chains: Dim | None, name: str) -> None:
    dims = dims_of(value)
    if dims[1:] != tuple(Dim.of(n) for n in type_.value_shape) or (chains is not None and dims[0] != chains):
        wanted = ", ".join(str(d) for d in (chains or "C", *type_.value_shape))
        raise VerifyException(f"{name} has shape [{', '.join(map(str, dims))}], should have [{wanted}]")
    if element_of(value) not in type_.elements:
        elements = " or ".join(str(e) for e in type_.elements)
        raise VerifyException(f"{name} holds {element_of(value)}, a {type_.space.value} variable holds {elements}")


@irdl_op_definition
class ColorOp(EnergyOp):
    """The model with its sites cut into blocks that may be updated at once: no term joins two sites of one block.

    `order` i32 [P] lists sites (numbered through the discrete variables, in the model's order), -1 where a position
    stays empty; block k is the positions blocks[k] … blocks[k + 1] − 1, each beginning at a multiple of 16. The random
    number of a site at a sweep is that of its position. Interpreters and lowerings refuse dependent sites (NEUC-E603).
    """

    name = "energy.color"
    model = operand_def(ModelType)
    order = operand_def(TensorType)
    blocks = prop_def(DenseArrayBase.constr(i64))
    result = result_def(ModelType)
    traits = traits_def(Pure())

    def __init__(self, model: SSAValue, order: SSAValue, blocks: Sequence[int]) -> None:
        super().__init__(operands=[model, order], result_types=[ModelType()], properties={"blocks": ints(blocks)})

    def verify_(self) -> None:
        bounds = [int(v) for v in self.blocks.get_values()]
        (positions,) = shape_of(self.order, "order")
        if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != positions or sorted(set(bounds)) != bounds:
            raise VerifyException(f"blocks {bounds} do not cut 0 … {positions} into pieces")
        if any(bound % POSITIONS for bound in bounds):
            raise VerifyException(f"blocks begin at multiples of {POSITIONS} positions")
        if isinstance(self.model.owner, ModelOp):
            for term in self.model.owner.terms:
                if isinstance(term.owner, StencilOp) and len(bounds) == 2:
                    raise VerifyException("one block for a stencil joins neighbours: every site of it has some")


@irdl_op_definition
class StateOp(EnergyOp):
    """A state from tensors [C, …], one for each variable of the model."""

    name = "energy.state"
    args = var_operand_def()
    result = result_def(StateType)
    traits = traits_def(Pure())

    def __init__(self, model: SSAValue, values: Sequence[SSAValue]) -> None:
        super().__init__(operands=[[model, *values]], result_types=[StateType()])

    @property
    def model(self) -> SSAValue:
        return self.args[0]

    def verify_(self) -> None:
        variables = model_of(self.model).variables
        if len(self.args) != len(variables) + 1:
            raise VerifyException(f"{len(self.args) - 1} values for {len(variables)} variables")
        chains = dims_of(self.args[1])[0]
        for index, (value, variable) in enumerate(zip(self.args[1:], variables)):
            _check_value(value, var_type(variable), chains, f"value {index}")


@irdl_op_definition
class InitOp(EnergyOp):
    """A random state: spins and categories uniform from the seed; reals 0 within their box, beliefs uniform."""

    name = "energy.init"
    model = operand_def(ModelType)
    seed = operand_def(TensorType)
    chains = prop_def(IntegerAttr.constr(i64))
    result = result_def(StateType)
    traits = traits_def(Pure())

    def __init__(self, model: SSAValue, seed: SSAValue, chains: int) -> None:
        super().__init__(operands=[model, seed], result_types=[StateType()], properties={"chains": int_attr(chains)})

    def verify_(self) -> None:
        model_of(self.model)
        check_shape(self.seed, "the seed", (), i64)
        if self.chains.value.data < 1:
            raise VerifyException("there is at least one chain")


@irdl_op_definition
class ClampOp(EnergyOp):
    """The state with other values of one variable."""

    name = "energy.clamp"
    state = operand_def(StateType)
    variable = operand_def(VarType)
    value = operand_def(TensorType)
    result = result_def(StateType)
    traits = traits_def(Pure())

    def __init__(self, state: SSAValue, variable: SSAValue, value: SSAValue) -> None:
        super().__init__(operands=[state, variable, value], result_types=[StateType()])

    def verify_(self) -> None:
        _check_value(self.value, var_type(self.variable), chains_of(self.state), "the value")


@irdl_op_definition
class ReadOp(EnergyOp):
    """The values of one variable: a tensor [C, …]."""

    name = "energy.read"
    state = operand_def(StateType)
    variable = operand_def(VarType)
    result = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, state: SSAValue, variable: SSAValue, element: object = None) -> None:
        type_ = var_type(variable)
        chosen = element or type_.elements[0]
        result = tensor_type(chosen, (chains_of(state), *type_.value_shape))  # pyright: ignore[reportArgumentType]
        super().__init__(operands=[state, variable], result_types=[result])

    def verify_(self) -> None:
        if variable_of(self.variable) not in state_model(self.state).variables:
            raise VerifyException("the state's model has no such variable")
        _check_value(self.result, var_type(self.variable), chains_of(self.state), "the result")


@irdl_op_definition
class EvaluateOp(EnergyOp):
    """F of every chain, f64 [C]; costs count `nudge` times."""

    name = "energy.evaluate"
    model = operand_def(ModelType)
    state = operand_def(StateType)
    nudge = prop_def(FloatAttr[Float32Type], default_value=FloatAttr(0.0, f32))
    result = result_def(TensorType)
    traits = traits_def(Pure())
    FLOATS: ClassVar = frozenset({"nudge"})

    def __init__(self, model: SSAValue, state: SSAValue, nudge: float = 0.0) -> None:
        result = tensor_type(f64, (chains_of(state),))
        super().__init__(operands=[model, state], result_types=[result], properties={"nudge": FloatAttr(nudge, f32)})

    def verify_(self) -> None:
        refuse_vector_fields(self.model, "has no energy")


@irdl_op_definition
class ScheduleOp(EnergyOp):
    """f32 [steps] from `first` to `last`, linear or geometric; what `energy.sample` takes as β of its sweeps."""

    name = "energy.schedule"
    kind = prop_def(RampAttr, default_value=RampAttr(Ramp.LINEAR))
    first = prop_def(FloatAttr[Float32Type])
    last = prop_def(FloatAttr[Float32Type])
    steps = prop_def(IntegerAttr.constr(i64))
    result = result_def(TensorType)
    traits = traits_def(Pure())
    ENUMS: ClassVar = {"kind": RampAttr}
    FLOATS: ClassVar = frozenset({"first", "last"})

    def __init__(self, kind: Ramp, first: float, last: float, steps: int) -> None:
        bounds = {"first": FloatAttr(first, f32), "last": FloatAttr(last, f32)}
        properties = {"kind": RampAttr(kind), **bounds, "steps": int_attr(steps)}
        super().__init__(result_types=[tensor_type(f32, (steps,))], properties=properties)

    def verify_(self) -> None:
        if self.steps.value.data < 1:
            raise VerifyException("a schedule has at least one step")
        if not (self.first.value.data > 0 and self.last.value.data > 0):
            raise VerifyException("inverse temperatures are above 0")
        check_shape(self.result, "the schedule", (self.steps.value.data,), f32)


def refuse_vector_fields(model: SSAValue, what: str) -> None:
    """Raise a VerifyException if the model has non-conservative forces."""
    if any(isinstance(term.owner, VectorFieldOp) for term in model_of(model).terms):
        raise VerifyException(f"a model with energy.vector_field {what}: its forces need come from no energy")


STATE_OPS: tuple[type[EnergyOp], ...] = (ColorOp, StateOp, InitOp, ClampOp, ReadOp, EvaluateOp, ScheduleOp)
