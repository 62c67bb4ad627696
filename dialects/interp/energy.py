"""Meaning of the `energy` operations, the specification of what every backend computes.

Terms and models travel boxed (`energy_values.py`); what terms are worth is in `energy_terms.py`, sampling in
`energy_sampling.py`, relaxation in `energy_relaxing.py`.
"""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from neuc.dialects import energy as e
from neuc.dialects.energy_model import TERM_OPS
from neuc.dialects.energy_run import _Gradient
from neuc.dialects.energy_types import Ramp, Space, StateType, var_type
from neuc.dialects.interp import energy_beliefs as _beliefs  # noqa: F401 - registers energy.efe
from neuc.dialects.interp import energy_networks as _networks  # noqa: F401 - registers the meanings of its terms
from neuc.dialects.interp import energy_prediction as _prediction  # noqa: F401 - registers its meaning
from neuc.dialects.interp import energy_random as random
from neuc.dialects.interp import energy_rollout as _rollout  # noqa: F401 - registers energy.rollout
from neuc.dialects.interp.core import Env, implements
from neuc.dialects.interp.energy_relaxing import relax
from neuc.dialects.interp.energy_sampling import energy_of, observe, sample
from neuc.dialects.interp.energy_terms import meaning
from neuc.dialects.interp.energy_values import Array, Model, State, Term, Trajectory, box, to_state, to_tensor, unbox
from neuc.dialects.store import element_of, numpy_dtype


@implements(e.VarOp)
def _var(op: e.VarOp, args: list[Array], env: Env) -> list[Array]:
    return [box(None)]


@implements(e.RhoOp)
def _rho(op: e.RhoOp, args: list[Array], env: Env) -> list[Array]:
    return [box(None)]


for _op in TERM_OPS:

    @implements(_op)
    def _term(op: object, args: list[Array], env: Env) -> list[Array]:
        assert isinstance(op, TERM_OPS)
        parameters = {v: a for v, a in zip(op.operands, args) if not isinstance(v.type, e.VarType)}
        return [box(Term(op, parameters))]


@implements(e.ModelOp)
def _model(op: e.ModelOp, args: list[Array], env: Env) -> list[Array]:
    return [box(Model(op, tuple(unbox(a, Term) for a in args[op.arity.value.data :])))]


@implements(e.ColorOp)
def _color(op: e.ColorOp, args: list[Array], env: Env) -> list[Array]:
    model = unbox(args[0], Model)
    return [box(Model(model.op, model.terms, args[1], tuple(int(b) for b in op.blocks.get_values())))]


@implements(e.StateOp)
def _state(op: e.StateOp, args: list[Array], env: Env) -> list[Array]:
    variables = unbox(args[0], Model).variables
    return [box(State({v: to_state(v, a) for v, a in zip(variables, args[1:])}))]


@implements(e.InitOp)
def _init(op: e.InitOp, args: list[Array], env: Env) -> list[Array]:
    chains, values, first = op.chains.value.data, dict[SSAValue, Array](), 0
    variables = unbox(args[0], Model).variables
    total = sum(var_type(v).sites for v in variables if var_type(v).discrete)
    drawn = random.words(total, 0, chains, random.START, int(args[1]))
    for variable in variables:
        type_ = var_type(variable)
        if type_.discrete:
            part = drawn[:, first : first + type_.sites].reshape(chains, *type_.shape).astype(np.uint64)
            first += type_.sites
            levels = np.uint64(type_.levels)
            spin = np.where(part >> np.uint64(31), 1, -1)
            values[variable] = spin if type_.space is Space.SPIN else (part * levels >> np.uint64(32)).astype(np.int64)
        elif type_.space is Space.SIMPLEX:
            values[variable] = np.full((chains, *type_.value_shape), 1.0 / type_.levels)
        else:
            values[variable] = np.clip(np.zeros((chains, *type_.shape)), *type_.box)
    return [box(State(values))]


@implements(e.ClampOp)
def _clamp(op: e.ClampOp, args: list[Array], env: Env) -> list[Array]:
    return [box(unbox(args[0], State).replaced({op.variable: to_state(op.variable, args[2])}))]


@implements(e.ReadOp)
def _read(op: e.ReadOp, args: list[Array], env: Env) -> list[Array]:
    variable = e.variable_of(op.variable)
    dtype = numpy_dtype(element_of(op.result))
    assert dtype is not None
    return [to_tensor(variable, unbox(args[0], State).values[variable], dtype)]


@implements(e.EvaluateOp)
def _evaluate(op: e.EvaluateOp, args: list[Array], env: Env) -> list[Array]:
    return [energy_of(unbox(args[0], Model), unbox(args[1], State), op.nudge.value.data)]


@implements(e.ScheduleOp)
def _schedule(op: e.ScheduleOp, args: list[Array], env: Env) -> list[Array]:
    return [schedule_values(op)]


def schedule_values(op: e.ScheduleOp) -> Array:
    """f32 [steps]."""
    ends = op.first.value.data, op.last.value.data
    ramp = np.geomspace if op.kind.data is Ramp.GEOMETRIC else np.linspace
    return ramp(*ends, op.steps.value.data).astype(np.float32)


@implements(e.SampleOp)
def _sample(op: e.SampleOp, args: list[Array], env: Env) -> list[Array]:
    last, trajectory = sample(op, unbox(args[0], Model), unbox(args[1], State), args[2], int(args[3]))
    return [box(last), box(trajectory)]


@implements(e.ObserveOp)
def _observe(op: e.ObserveOp, args: list[Array], env: Env) -> list[Array]:
    return [observe(op, unbox(args[0], Trajectory), args[2:])]


@implements(e.RelaxOp)
def _relax(op: e.RelaxOp, args: list[Array], env: Env) -> list[Array]:
    return [box(relax(op, unbox(args[0], Model), unbox(args[1], State)))]


def _slopes(op: _Gradient, model: Model, state: State) -> list[Array]:
    """dF/dθ of every parameter at one state."""
    total: dict[SSAValue, Array] = {}
    for term in model.terms:
        for parameter, slope in meaning(term).slopes(state.values):
            total[parameter] = total.get(parameter, 0.0) + slope
    return [np.reshape(total[p], model.parameter(p).shape) for p in op.parameters]


@implements(e.GradOp)
def _grad(op: e.GradOp, args: list[Array], env: Env) -> list[Array]:
    found = _slopes(op, unbox(args[0], Model), unbox(args[1], State))
    return [np.real(f).astype(p.dtype) for f, p in zip(found, args[2:])]


@implements(e.ContrastOp)
def _contrast(op: e.ContrastOp, args: list[Array], env: Env) -> list[Array]:
    model, count = unbox(args[0], Model), op.count
    assert all(isinstance(s.type, StateType) for s in op.states)
    at = [_slopes(op, model, unbox(a, State)) for a in args[1 : 1 + count]]
    turns = np.exp(-2j * np.pi * np.arange(count) / count)
    if count == 2:
        turns = np.real(turns).round()
    summed = [sum(turn * slope for turn, slope in zip(turns, slopes)) for slopes in zip(*at)]
    factor = op.scale.value.data / count
    return [np.asarray(factor * np.real(s), p.dtype) for s, p in zip(summed, args[1 + count :])]
