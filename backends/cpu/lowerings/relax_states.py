"""Lowerings of `energy.relax`, and of `energy.sample` by langevin and ou_exact: which steps each method takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from xdsl.dialects.builtin import f64
from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.kernels.relax_rows_code import Noise, Then
from neuc.backends.cpu.kernels.relax_rows_products import Dense
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.relax import constant_parameter, pieces
from neuc.backends.cpu.lowerings.relax_beliefs import mean_field, mean_field_unsupported
from neuc.backends.cpu.lowerings.relax_messages import beliefs_unsupported, relax_beliefs
from neuc.backends.cpu.lowerings.relax_plan import Plan
from neuc.backends.cpu.lowerings.relax_predictions import prediction_unsupported
from neuc.backends.cpu.lowerings.relax_terms import SUPPORTED, Part, gradient, parts, sites, touches
from neuc.dialects import energy as e
from neuc.dialects.dims import Dim
from neuc.dialects.energy_types import EnergyOp, Method, Rule, Space, var_type
from neuc.dialects.interp.energy_sampling import ou_transition, quadratic_form
from neuc.dialects.interp.energy_terms import meaning
from neuc.dialects.interp.energy_values import Model, State, Term
from neuc.dialects.store import dims_of, element_of
from neuc.errors import Error

Array = np.ndarray
_SPACES = (Space.REAL, Space.PHASE, Space.SPIN)


def terms_unsupported(model: e.ModelOp) -> str | None:
    """Why dynamics of a model's gradients have no CPU kernel."""
    for variable in model.variables:
        if var_type(variable).space not in _SPACES:
            return f"gradients by {var_type(variable).space.value} variables have no CPU kernel"
    for term in model.terms:
        op = term.owner
        if not isinstance(op, SUPPORTED):
            return f"gradients of {op.name if isinstance(op, Operation) else 'a term'} have no CPU kernel"
        if isinstance(op, e.PredictionOp) and (reason := prediction_unsupported(op)) is not None:
            return reason
        for operand in op.operands:
            if isinstance(operand.type, e.VarType):
                if isinstance(operand.owner, e.RhoOp) and isinstance(operand.owner.x.owner, e.RhoOp):
                    return "ρ of ρ has no CPU kernel"
            elif element_of(operand) == f64:
                return "parameters in f64 have no CPU kernels"
    return None


def _unsupported(op: e.RelaxOp) -> str | None:
    if op.method.data in (Method.MEAN_FIELD, Method.MESSAGES):
        small = op.method.data is Method.MEAN_FIELD and mean_field_unsupported(op) is None
        return None if small else beliefs_unsupported(op)
    if op.nudge_imag.value.data:
        return "complex nudges have no CPU kernel"
    model = e.model_of(op.model)
    if op.method.data is Method.BIFURCATION and any(var_type(v).space is not Space.REAL for v in model.variables):
        return "bifurcation of other variables than real ones has no CPU kernel"
    return terms_unsupported(model)


def make_plan(s: SegmentLowering, state: SSAValue, model: e.ModelOp, nudge: float) -> Plan:
    """A plan of the terms that count at this nudge."""
    terms = [t.owner for t in model.terms if nudge or not isinstance(t.owner, e.CostOp)]
    ops = [t for t in terms if isinstance(t, EnergyOp)]
    plan = Plan(s, model, pieces(s, state), e.chains_of(state), ops)
    plan.use_views()
    return plan


@lowers(e.RelaxOp, supports=_unsupported)
def _relax(op: e.RelaxOp, s: SegmentLowering) -> None:
    if op.method.data in (Method.MEAN_FIELD, Method.MESSAGES):
        small = op.method.data is Method.MEAN_FIELD and mean_field_unsupported(op) is None
        if not (small and mean_field(op, s)):
            relax_beliefs(op, s)
        return
    nudge, dt, steps = op.nudge.value.data, op.dt.value.data, op.steps.value.data
    plan = make_plan(s, op.state, e.model_of(op.model), nudge)
    match op.method.data:
        case Method.BLOCK_MIN:
            for variable in plan.free:
                _minimise(plan, variable, nudge)
        case Method.FLOW:
            found = parts(plan, plan.terms, nudge)
            _all_at_once(plan, found, lambda v: (Then("scaled", scale=-dt), Then("add", plan.row(v)), _boxed(v)))
        case _:
            _bifurcate(plan, dt, op.scale.value.data)
    state = plan.finish()
    plan.launch(steps=steps)
    s.remember(op.result, state)


def _boxed(variable: SSAValue) -> Then:
    low, high = var_type(variable).box
    return Then("clip", low=low, high=high)


def _all_at_once(plan: Plan, found: list[Part], steps: Callable[[SSAValue], tuple[Then, ...]]) -> None:
    """Every variable's new value from the old values of all; `steps` says what follows its gradient."""
    moved: list[tuple[SSAValue, int]] = []
    for variable in plan.free:
        products, then = gradient(plan, variable, found)
        made = plan.space(sites(variable), (variable, "new"))
        plan.sums(sites(variable), products, (*then, *steps(variable), Then("store", made)))
        moved.append((variable, made))
    for variable, made in moved:
        plan.sums(sites(variable), (), (Then("load", made), *plan.updates(variable)))


def _minimise(plan: Plan, variable: SSAValue, nudge: float) -> None:
    """The minimum over one variable, the others held: x − ∇F/F''."""
    products, then = gradient(plan, variable, parts(plan, [t for t in plan.terms if touches(t, variable)], nudge))
    x = plan.row(variable)
    if var_type(variable).space is Space.SPIN:
        curvature(plan, variable, nudge)
        last: tuple[Then, ...] = (Then("scaled", scale=-1.0), Then("sign", x))
    else:
        step = plan.array("relax.step", (-1.0 / curvature(plan, variable, nudge)).astype(np.float32))
        last = (Then("by_parameter", 0, step), Then("add", x), _boxed(variable))
    plan.sums(sites(variable), products, (*then, *last, *plan.updates(variable)))


def curvature(plan: Plan, variable: SSAValue, nudge: float) -> Array:
    """d²F/dx² of a variable's sites, f64 [n].

    Raises:
        Error: NEUC-E610, F has no closed minimum over it; NEUC-E612, it depends on parameters of run time.
    """
    total = np.zeros(sites(variable))
    for op in plan.terms:
        needed = isinstance(op, e.QuadOp | e.ResistorOp) or (isinstance(op, e.BilinearOp) and op.x is op.y)
        values = {}
        if needed and touches(op, variable):
            values = {v: constant_parameter(plan.s, v) for v in op.operands if not isinstance(v.type, e.VarType)}
        elif needed:
            continue
        found = meaning(Term(op, values)).curvature(variable)
        if found is None:
            raise Error(
                "NEUC-E610",
                f"{op.name} couples the sites of one variable: its minimum has no closed form",
                hint="split the variable into independent ones, or use method = flow",
            )
        total = total + (nudge if isinstance(op, e.CostOp) else 1.0) * np.reshape(found, -1)
    if var_type(variable).space is not Space.SPIN and not (total > 0).all():
        raise Error("NEUC-E610", "the energy has no minimum over a variable", hint="give it an energy.quad term")
    return total


def _bifurcate(plan: Plan, dt: float, scale: float) -> None:
    """Ballistic simulated bifurcation, momenta from 0."""
    momenta = {v: plan.space(sites(v)) for v in plan.free}
    for variable, first in momenta.items():
        plan.sums(sites(variable), (), (Then("store", first),), plan.before)

    def steps(v: SSAValue) -> tuple[Then, ...]:
        x, y = plan.row(v), momenta[v]
        kick = (Then("scaled", scale=-dt * scale), Then("pump", x, scale=dt), Then("add", y), Then("store", y))
        return (*kick, Then("scaled", scale=dt), Then("add", x), Then("wall", y))

    _all_at_once(plan, parts(plan, plan.terms, 0.0), steps)


def sample_unsupported(op: e.SampleOp) -> str | None:
    """Why a continuous sampler has no CPU kernel."""
    model = e.model_of(op.model)
    if op.exchange.value.data:
        return "exchanges of replicas of real numbers have no CPU kernel"
    if op.trajectory.first_use is not None:
        return f"energies on the way of {op.rule.data.value} have no CPU kernel"
    clamped = any(isinstance(v.owner, e.VarOp) and v.owner.clamped for v in model.variables)
    if op.rule.data is Rule.OU_EXACT and clamped:
        return "ou_exact with clamped variables has no CPU kernel"
    return terms_unsupported(model)


def sample_states(op: e.SampleOp, s: SegmentLowering) -> None:
    """Langevin's steps, or exact Ornstein-Uhlenbeck transitions: noise of all free variables, then their rows."""
    plan = make_plan(s, op.state, e.model_of(op.model), 0.0)
    total = sum(sites(v) for v in plan.free)
    noise = plan.space(total + total % 2)
    plan.body.append(Noise(noise, (total + 1) // 2))
    first = dict(zip(plan.free, np.cumsum([0, *(sites(v) for v in plan.free)]).tolist()))
    if op.rule.data is Rule.LANGEVIN:
        dt = op.dt.value.data

        def steps(v: SSAValue) -> tuple[Then, ...]:
            kick = Then("noise", noise + first[v], scale=2.0 * dt)
            return (Then("scaled", scale=-dt), Then("add", plan.row(v)), kick, _boxed(v))

        _all_at_once(plan, parts(plan, plan.terms, 0.0), steps)
    else:
        _transitions(plan, op, noise, first)
    state, own = plan.finish(), len(dims_of(op.beta)) == 2
    ladder = plan.chains if own else Dim.of(0)
    plan.launch(sampled=[s.buffer(op.beta), ladder, s.buffer(op.seed), dims_of(op.beta)[0]])
    s.remember(op.last, state)


def _transitions(plan: Plan, op: e.SampleOp, noise: int, first: dict[SSAValue, int]) -> None:
    """One transition: μ + D (x − μ) + S ξ/√β."""
    total = sum(sites(v) for v in plan.free)
    terms = tuple(
        Term(t, {v: constant_parameter(plan.s, v) for v in t.operands if not isinstance(v.type, e.VarType)})
        for t in plan.terms
    )
    zero = State({v: np.zeros((1, *var_type(v).shape)) for v in plan.free})
    matrix, offset = quadratic_form(Model(plan.model, terms), zero)
    decay, spread = ou_transition(matrix, op.dt.value.data)
    center = np.linalg.solve(matrix, -offset).astype(np.float32)
    mean = plan.array("relax.mean", center)
    moves = [plan.array(f"relax.{n}", a.astype(np.float32)) for n, a in (("decay", decay), ("spread", spread))]
    away, new = plan.space(total), plan.space(total)
    for v, at in first.items():
        own = plan.array("relax.mean", center[at : at + sites(v)])
        gap = Then("parameter", 0, own, scale=-1.0)
        plan.sums(sites(v), (), (Then("load", plan.row(v)), gap, Then("store", away + at)))
    plan.sums(total, (), (Then("noise", noise, scale=1.0), Then("store", noise)))
    products = [Dense(slot, row, total, total, 1) for slot, row in zip(moves, (away, noise))]
    plan.sums(total, products, (Then("parameter", 0, mean), Then("store", new)))
    for v, at in first.items():
        plan.sums(sites(v), (), (Then("load", new + at), *plan.updates(v)))
