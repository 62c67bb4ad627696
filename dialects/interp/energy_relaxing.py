"""Meaning of `energy.relax`: flow, exact block minimisation, mean-field and message passing, simulated bifurcation."""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from neuc.dialects import energy as e
from neuc.dialects.energy_types import Method, Space, var_type
from neuc.dialects.interp.energy_messages import Messages
from neuc.dialects.interp.energy_sampling import gradient_of
from neuc.dialects.interp.energy_terms import meaning, softmax
from neuc.dialects.interp.energy_values import Array, Model, State, checked
from neuc.errors import Error


def relax(op: e.RelaxOp, model: Model, state: State) -> State:
    """The state after the steps.

    Raises:
        Error: NEUC-E610, the method does not fit the model's energy.
    """
    nudge: complex = op.nudge.value.data
    if op.nudge_imag.value.data:
        nudge = complex(op.nudge.value.data, op.nudge_imag.value.data)
    steps, dt = op.steps.value.data, op.dt.value.data
    match op.method.data:
        case Method.FLOW:
            for t in range(steps):
                state = checked(state, _flow(model, state, dt, nudge), t, f"the flow, dt = {dt:g}")
        case Method.BLOCK_MIN:
            for t in range(steps):
                for variable in model.free:
                    new = state.replaced({variable: minimum(model, state, variable, nudge)})
                    state = checked(state, new, t, "block minimisation")
        case Method.MEAN_FIELD:
            for _ in range(steps):
                state = mean_field(model, state)
        case Method.BIFURCATION:
            state = _bifurcation(model, state, steps, dt, op.scale.value.data)
        case Method.MESSAGES:
            messages = Messages(model, dt)
            for _ in range(steps):
                state = messages.step(state)
    return state


def _boxed(variable: SSAValue, x: Array) -> Array:
    return x if np.iscomplexobj(x) else np.clip(x, *var_type(variable).box)


def _flow(model: Model, state: State, dt: float, nudge: complex) -> State:
    gradients = gradient_of(model, state, nudge)
    return state.replaced({v: _boxed(v, state.values[v] - dt * g) for v, g in gradients.items()})


def minimum(model: Model, state: State, variable: SSAValue, nudge: complex) -> Array:
    """The exact minimum of F over one variable, the others held."""
    gradient, x = gradient_of(model, state, nudge)[variable], state.values[variable]
    curvature: Array | complex = np.zeros(x.shape[1:])
    for term in model.terms:
        found = meaning(term).curvature(variable)
        if found is None:
            raise Error(
                "NEUC-E610",
                f"{term.op.name} couples the sites of one variable: its minimum has no closed form",
                hint="split the variable into independent ones, or use method = flow",
            )
        factor = nudge if isinstance(term.op, e.CostOp) else 1.0
        curvature = curvature + factor * np.reshape(found, (-1,) if np.ndim(found) else ()).reshape(
            x.shape[1:] if np.ndim(found) else ()
        )
    if var_type(variable).space is Space.SPIN:
        return np.where(gradient == 0, x, np.where(gradient < 0, 1, -1))
    if not (np.real(curvature) > 0).all():
        raise Error("NEUC-E610", "the energy has no minimum over a variable", hint="give it an energy.quad term")
    return _boxed(variable, x - gradient / curvature)


def mean_field(model: Model, state: State) -> State:
    """Q ← softmax(−∂F/∂q) of all beliefs at once."""
    if any(var_type(v).space is not Space.SIMPLEX for v in model.free):
        raise Error("NEUC-E610", "mean_field is of beliefs alone", hint="clamp the other variables")
    return state.replaced({v: softmax(-g) for v, g in gradient_of(model, state).items()})


def _bifurcation(model: Model, state: State, steps: int, dt: float, scale: float) -> State:
    """Ballistic simulated bifurcation: positions and momenta, inelastic walls at ±1."""
    momenta = {v: np.zeros(state.values[v].shape) for v in model.free}
    for t in range(steps):
        gradients, changed = gradient_of(model, state), dict[SSAValue, Array]()
        for variable in model.free:
            x = state.values[variable]
            y = momenta[variable] + dt * (-(1.0 - t / steps) * x - scale * gradients[variable])
            x = x + dt * y
            outside = np.abs(x) > 1.0
            momenta[variable] = np.where(outside, 0.0, y)
            changed[variable] = np.where(outside, np.sign(x), x)
        state = state.replaced(changed)
    return state
