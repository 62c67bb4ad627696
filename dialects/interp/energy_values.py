"""What the `energy` interpreters pass from operation to operation: terms, models, states; and how they box them.

Values of all variables are f64 (complex where the model is), spins and categories integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from xdsl.ir import SSAValue

from neuc.dialects.energy_model import ModelOp, variable_of
from neuc.dialects.energy_terms import RhoOp, VarOp
from neuc.dialects.energy_types import EnergyOp, RhoKind, Space, var_type
from neuc.errors import Error

Array = np.ndarray
MOST = float(np.finfo(np.float32).max)
"""What states hold, compiled or read."""
_T = TypeVar("_T", "Model", "State", "Trajectory", "Term")


@dataclass(frozen=True)
class Term:
    """A term with the arrays of its parameters, by operand."""

    op: EnergyOp
    parameters: dict[SSAValue, Array]


@dataclass(frozen=True)
class Model:
    """A model whose terms have arrays; `order` and `blocks` once it is coloured."""

    op: ModelOp
    terms: tuple[Term, ...]
    order: Array | None = None
    blocks: tuple[int, ...] = ()

    @property
    def variables(self) -> Sequence[SSAValue]:
        return self.op.variables

    @property
    def free(self) -> list[SSAValue]:
        """The variables that dynamics change."""
        return [v for v in self.variables if isinstance(v.owner, VarOp) and not v.owner.clamped]

    def parameter(self, value: SSAValue) -> Array:
        """The array of a parameter of some term."""
        return next(term.parameters[value] for term in self.terms if value in term.parameters)


@dataclass(frozen=True)
class State:
    """The values of every variable, [C, …]; beliefs have a last axis of K, complex numbers are complex."""

    values: dict[SSAValue, Array]

    def replaced(self, changed: dict[SSAValue, Array]) -> State:
        """The state with other values of some variables."""
        return State({**self.values, **changed})

    @property
    def chains(self) -> int:
        return len(next(iter(self.values.values())))


def checked(old: State, new: State, t: int, method: str) -> State:
    """The new state of step t.

    Raises:
        Error: NEUC-E621, a variable of it has left what f32 holds, and had not before.
    """
    for variable, values in new.values.items():
        if values is old.values[variable] or (np.abs(values) <= MOST).all():
            continue
        if (np.abs(old.values[variable]) <= MOST).all():
            name = variable.name_hint or f"variable {list(new.values).index(variable)}"
            what = f"{name} diverges at step {t + 1} of {method}"
            raise Error("NEUC-E621", what, hint="a smaller dt, a box for the variable, or an energy.quad of it")
    return new


@dataclass
class Trajectory:
    """The state it begins from, and those after the kept sweeps."""

    model: Model
    first: State
    states: list[State] = field(default_factory=list[State])

    @property
    def chains(self) -> int:
        return self.first.chains


def box(value: object) -> Array:
    """An object as the array that interpreters hand on."""
    boxed = np.empty((), object)
    boxed[()] = value
    return boxed


def unbox(array: Array, kind: type[_T]) -> _T:
    """The object `box` was given."""
    value = array.item()
    assert isinstance(value, kind)
    return value


def to_state(variable: SSAValue, array: Array) -> Array:
    """A tensor as a state has it."""
    match var_type(variable).space:
        case Space.SPIN | Space.CAT:
            return array.astype(np.int64)
        case Space.COMPLEX:
            return array[..., 0] + 1j * array[..., 1].astype(np.float64)
        case _:
            return array.astype(np.float64)


def to_tensor(variable: SSAValue, array: Array, dtype: np.dtype) -> Array:
    """The values of a state as a tensor."""
    if var_type(variable).space is Space.COMPLEX:
        array = np.stack([np.real(array), np.imag(array)], -1)
    return array.astype(dtype)


def read(view: SSAValue, values: dict[SSAValue, Array]) -> Array:
    """ρ(x) of an operand [C, …]; numbers, not integers, except for categories."""
    x = values[variable_of(view)]
    if isinstance(view.owner, RhoOp):
        return rho(view.owner.fn.data, read(view.owner.x, values))
    return x.astype(np.float64) if var_type(view).space is Space.SPIN else x


def flat(view: SSAValue, values: dict[SSAValue, Array]) -> Array:
    """`read` with the sites in one axis: [C, N]."""
    array = read(view, values)
    return array.reshape(len(array), -1)


def pull(view: SSAValue, values: dict[SSAValue, Array], gradient: Array) -> Array:
    """From dF/dρ(x) to dF/dx."""
    if isinstance(view.owner, RhoOp):
        x = read(view.owner.x, values)
        return pull(view.owner.x, values, gradient.reshape(x.shape) * rho_slope(view.owner.fn.data, x))
    return gradient


def rho(kind: RhoKind, x: Array) -> Array:
    """The functions of `energy.rho`."""
    match kind:
        case RhoKind.HARDSIGMOID:
            return np.clip(x, 0.0, 1.0)
        case RhoKind.TANH:
            return np.tanh(x)
        case RhoKind.SIGMOID:
            return 1.0 / (1.0 + np.exp(-x))
        case RhoKind.RELU:
            return np.maximum(x, 0.0)
        case RhoKind.COS:
            return np.cos(x)
        case RhoKind.SIN:
            return np.sin(x)


def rho_slope(kind: RhoKind, x: Array) -> Array:
    """Their derivatives; one-sided where they have kinks."""
    match kind:
        case RhoKind.HARDSIGMOID:
            return ((x >= 0.0) & (x <= 1.0)).astype(np.float64)
        case RhoKind.TANH:
            return 1.0 - np.tanh(x) ** 2
        case RhoKind.SIGMOID:
            y = rho(kind, x)
            return y * (1.0 - y)
        case RhoKind.RELU:
            return (x > 0.0).astype(np.float64)
        case RhoKind.COS:
            return -np.sin(x)
        case RhoKind.SIN:
            return np.cos(x)
