"""Lowerings of `energy.grad` and `energy.contrast`: what terms need of a state in one launch, then one a parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects.builtin import f64
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.relax_rows_code import PairSums, Softmax, Then, Total
from neuc.backends.cpu.kernels.relax_slopes import ROWS, SlopesKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.relax import constant_parameter, pieces
from neuc.backends.cpu.lowerings.relax_edges import edge_rows, edges_of
from neuc.backends.cpu.lowerings.relax_plan import Plan, rho_name
from neuc.backends.cpu.lowerings.relax_predictions import Region, prediction_force, prediction_unsupported, size_of
from neuc.backends.cpu.lowerings.relax_terms import edge_error, matrix, prediction_error, sites
from neuc.dialects import dense
from neuc.dialects import energy as e
from neuc.dialects.dims import Dim, product
from neuc.dialects.energy_prediction import moves
from neuc.dialects.energy_types import EnergyOp, Space, var_type
from neuc.dialects.store import dims_of, element_of

Array = np.ndarray
_WITH_SLOPES = (
    e.LinearOp,
    e.BilinearOp,
    e.EdgesOp,
    e.PredOp,
    e.PredEdgesOp,
    e.PredictionOp,
    e.LocalOp,
    e.LseOp,
    e.ResistorOp,
)


@dataclass(frozen=True)
class Outer:
    """factor · Σ_c A[c, i]·B[c, j]; without A, factor · Σ_c B[c, j]."""

    factor: float
    a: SSAValue | None
    b: SSAValue


@dataclass
class Sums:
    """What parameters' slopes add up from."""

    of: dict[SSAValue, list[Outer]] = field(default_factory=dict[SSAValue, list[Outer]])

    def add(self, parameter: SSAValue | None, factor: float, a: SSAValue | None, b: SSAValue) -> None:
        """Note a product."""
        if parameter is not None:
            self.of.setdefault(parameter, []).append(Outer(factor, a, b))


def _unsupported(op: e.GradOp | e.ContrastOp) -> str | None:
    model = e.model_of(op.model)
    asked = set(op.parameters)
    for term in model.terms:
        owner = term.owner
        assert isinstance(owner, EnergyOp)
        if not asked & set(owner.operands):
            continue
        if not isinstance(owner, _WITH_SLOPES):
            return f"slopes of {owner.name} have no CPU kernel"
        if isinstance(owner, e.PredictionOp):
            found = prediction_unsupported(owner) or _prediction_unsupported(owner, asked)
            if found is not None:
                return found
        if any(var_type(v).space not in (Space.REAL, Space.PHASE, Space.SPIN) for v in _variables(owner)):
            return "slopes with other variables than real ones and spins have no CPU kernel"
        if any(isinstance(v.owner, e.RhoOp) and isinstance(v.owner.x.owner, e.RhoOp) for v in _variables(owner)):
            return "ρ of ρ has no CPU kernel"
    if any(element_of(p) == f64 for p in asked):
        return "parameters in f64 have no CPU kernels"
    return None


def _variables(op: EnergyOp) -> list[SSAValue]:
    return [v for v in op.operands if isinstance(v.type, e.VarType)]


@lowers(e.GradOp, supports=_unsupported)
def _grad(op: e.GradOp, s: SegmentLowering) -> None:
    sums = Sums()
    _at_state(op, s, op.states[0], 1.0, sums)
    _launch(op, s, sums, e.chains_of(op.states[0]))


@lowers(e.ContrastOp, supports=_unsupported)
def _contrast(op: e.ContrastOp, s: SegmentLowering) -> None:
    sums = Sums()
    for number, state in enumerate(op.states):
        turn = math.cos(2.0 * math.pi * number / op.count)
        _at_state(op, s, state, op.scale.value.data / op.count * turn, sums)
    _launch(op, s, sums, e.chains_of(op.states[0]))


def _launch(op: e.GradOp | e.ContrastOp, s: SegmentLowering, sums: Sums, chains: Dim) -> None:
    for parameter, result in zip(op.parameters, op.gradients):
        found, dims = sums.of[parameter], dims_of(parameter)
        vector = found[0].a is None
        rows, columns = (Dim.of(1), product(dims)) if vector else (dims[0], dims[1])
        kernel = SlopesKernel(tuple(float(np.float32(outer.factor)) for outer in found), vector)
        buffers = [buffer for outer in found for buffer in (outer.a, outer.b) if buffer is not None]
        s.launch(kernel, [s.buffer(result), chains, rows, columns, *buffers], work=rows.ceildiv(ROWS))


def _at_state(op: e.GradOp | e.ContrastOp, s: SegmentLowering, state: SSAValue, factor: float, sums: Sums) -> None:
    """Note the slopes of all terms at one state."""
    model, asked = e.model_of(op.model), set(op.parameters)
    owners = [t.owner for t in model.terms if isinstance(t.owner, EnergyOp)]
    terms = [owner for owner in owners if asked & set(owner.operands)]
    plan = Plan(s, model, pieces(s, state), e.chains_of(state), terms)
    for term in plan.terms:
        match term:
            case e.LinearOp():
                sums.add(term.b, -factor, None, _values(plan, term.x))
            case e.BilinearOp():
                share = -0.5 * factor if term.x is term.y else -factor
                sums.add(term.w, share, _values(plan, term.x), _values(plan, term.y))
            case e.PredOp():
                error = plan.output(prediction_error(plan, term), sites(term.x))
                sums.add(term.w, -factor, error, _values(plan, term.z))
                sums.add(term.bias, -factor, None, error)
            case e.PredictionOp():
                _prediction(plan, term, factor, asked, sums)
            case e.EdgesOp():
                each = _pairs(plan, term, plan.row(term.x), plan.row(term.y))
                sums.add(term.w, -factor, None, each)
            case e.PredEdgesOp():
                error = edge_error(plan, term)
                sums.add(term.w, -factor, None, _pairs(plan, term, error, plan.row(term.z)))
                if term.bias in asked:
                    sums.add(term.bias, -factor, None, plan.output(error, sites(term.x)))
            case e.LocalOp():
                slope = _local(plan, term)
                sums.add(term.w, factor, slope, _values(plan, term.x))
                sums.add(term.b, factor, None, slope)
            case e.LseOp():
                count = dims_of(term.patterns)[0].value
                made = plan.space(count)
                scores = matrix(plan, term.patterns, term.x, term.sharpness.value.data)
                plan.sums(count, (scores,), (Then("store", made),))
                plan.body.append(Softmax(made, made, 1, count))
                sums.add(term.patterns, -factor, plan.output(made, count), _values(plan, term.x))
            case e.ResistorOp():
                _resistor(plan, term, factor, sums)
            case _:
                pass
    if plan.has_outputs:
        plan.launch(steps=1)


def _pairs(plan: Plan, op: e.EdgesOp | e.PredEdgesOp, x: int, y: int) -> SSAValue:
    """Σ x[i]·y[j] over the edges of each weight."""
    i, j = (constant_parameter(plan.s, v) for v in (op.i, op.j))
    k, size = np.arange(len(i)) if op.k is None else constant_parameter(plan.s, op.k), dims_of(op.w)[0].value
    return pair_sums(plan, i, j, k, size, x, y)


def pair_sums(plan: Plan, i: Array, j: Array, k: Array, size: int, x: int, y: int) -> SSAValue:
    """A buffer [C, size] of Σ row[x + i[e]]·row[y + j[e]] over the edges e with k[e] = n, for each n."""
    order, start, place = edge_rows(k, size)
    ends = [np.full(int(start[-1]), plan.zeros() - row, np.int32) for row in (x, y)]
    for end, index in zip(ends, (i, j)):
        end[place] = index[order]
    made = plan.space(size)
    slots = [plan.array(f"relax.{n}", a) for n, a in (("start", start), ("ends", ends[0]), ("ends", ends[1]))]
    plan.body.append(PairSums(made, size, slots[0], slots[1], slots[2], x, y))
    return plan.output(made, size)


def _prediction(plan: Plan, op: e.PredictionOp, factor: float, asked: set[SSAValue], sums: Sums) -> None:
    """Outer products at matrices, sums over edges at kernels, sums over chains at what maps and biases read."""
    region = Region(plan, op)
    region.backward(prediction_force(region)[1], asked)
    operands = dict[SSAValue, SSAValue](zip(op.block.args, op.args))
    for user, g in region.weighted:
        weight, source = user.operands[1], user.operands[0]
        if operands.get(weight) not in asked:
            continue
        parameter, x = operands[weight], region.row(source)
        if isinstance(user, dense.MatMulOp) and len(dims_of(user.a)) == 2:
            ends = plan.output(x, size_of(source)), plan.output(g, size_of(user.result))
            a, b = ends if user.transpose_b is None else ends[::-1]
            sums.add(parameter, factor * user.alpha.value.data, a, b)
        else:
            edges = edges_of(user)
            each = pair_sums(plan, edges.source, edges.target, edges.weight, size_of(weight), x, g)
            sums.add(parameter, factor * edges.scale, None, each)
    for argument, parameter in operands.items():
        if parameter in asked and argument in region.back:
            sums.add(parameter, factor, None, plan.output(region.gradient_rows(argument), size_of(argument)))


def _prediction_unsupported(op: e.PredictionOp, asked: set[SSAValue]) -> str | None:
    """Why slopes by parameters of a prediction have no CPU kernel."""
    for argument, parameter in zip(op.block.args, op.args):
        if parameter not in asked:
            continue
        users = [use.operation for use in argument.uses]
        if not all(any(moves(v) for v in user.operands) for user in users):
            return "slopes by what a prediction computes from parameters alone have no CPU kernel"
        if any(isinstance(u, dense.MatMulOp) and u.b is argument for u in users) and len(users) > 1:
            return "slopes by a matrix that a prediction reads twice have no CPU kernel"
    return None


def _values(plan: Plan, view: SSAValue) -> SSAValue:
    """The values of a variable or view, f32 [C, n]: where they lie, or computed."""
    count, piece = sites(view), plan.known.of[e.variable_of(view)]
    if not rho_name(view) and (piece.offset, piece.stride, piece.size) == (0, count, 4):
        return piece.buffer
    return plan.output(plan.row(view), count)


def _local(plan: Plan, op: e.LocalOp) -> SSAValue:
    """dF/d(W x + b) of a layer that judges itself."""
    size, sign = dims_of(op.b)[0].value, 1.0 if op.negative is not None else -1.0
    h, push, slope = plan.space(size), plan.space(1), plan.space(size)
    bias = Then("parameter", 0, plan.parameter(op.b))
    plan.sums(size, (matrix(plan, op.w, op.x, 1.0),), (bias, Then("rho_relu"), Then("store", h)))
    plan.body.append(Total(push, h, size, h, sign / size))
    theta = plan.array("relax.theta", np.array([-sign * op.theta.value.data], np.float32))
    force = (Then("scaled", scale=2.0 * sign / size), Then("store", push))
    plan.sums(1, (), (Then("load", push), Then("parameter", 0, theta, 0), Then("rho_sigmoid"), *force))
    plan.sums(size, (), (Then("load", h), Then("times_first", push), Then("store", slope)))
    return plan.output(slope, size)


def _resistor(plan: Plan, op: e.ResistorOp, factor: float, sums: Sums) -> None:
    """½ (x_i − y_j)² as ½ x_i² + ½ y_j² − x_i y_j."""
    ends = list[tuple[SSAValue, SSAValue]]()
    for view in (op.x, op.y):
        count, row = sites(view), plan.row(view)
        square, one = plan.space(count), plan.space(count)
        plan.sums(count, (), (Then("load", row), Then("times", row), Then("store", square)))
        ones = Then("parameter", 0, plan.array("relax.one", np.ones(1, np.float32)), 0)
        plan.sums(count, (), (ones, Then("store", one)))
        ends.append((plan.output(square, count), plan.output(one, count)))
    (x_square, x_one), (y_square, y_one) = ends
    sums.add(op.g, 0.5 * factor, x_square, y_one)
    sums.add(op.g, 0.5 * factor, x_one, y_square)
    sums.add(op.g, -factor, _values(plan, op.x), _values(plan, op.y))
