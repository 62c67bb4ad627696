"""What each term adds to dF/dx, as products and what follows: the gradients of `dialects/interp/energy_terms.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.relax_rows_code import Softmax, Then, Total
from neuc.backends.cpu.kernels.relax_rows_products import Dense, Product
from neuc.backends.cpu.lowerings.relax import constant_parameter
from neuc.backends.cpu.lowerings.relax_edges import sparse
from neuc.backends.cpu.lowerings.relax_plan import Plan, rho_name
from neuc.backends.cpu.lowerings.relax_predictions import Region, prediction_force
from neuc.dialects import energy as e
from neuc.dialects.energy_factors import finite, stencil_neighbours, symmetric_if_same
from neuc.dialects.energy_types import CostKind, EnergyOp, var_type
from neuc.dialects.store import dims_of
from neuc.errors import Error

Array = np.ndarray


@dataclass(frozen=True)
class Part:
    """dF/dρ(x) of one operand: products, then what is added."""

    view: SSAValue
    products: tuple[Product, ...] = ()
    then: tuple[Then, ...] = ()


def sites(view: SSAValue) -> int:
    """Sites of a variable or view."""
    return var_type(view).sites


def matrix(plan: Plan, w: SSAValue, source: SSAValue, scale: float, *, transposed: bool = False) -> Dense:
    """scale·W ρ(source), or scale·Wᵀ ρ(source)."""
    rows, columns = (d.value for d in dims_of(w))
    slot, row = plan.parameter(w), plan.row(source)
    if transposed:
        return Dense(slot, row, rows, 1, columns, scale)
    return Dense(slot, row, columns, columns, 1, scale)


def _quad(plan: Plan, op: e.QuadOp) -> list[Part]:
    stride = 1 if dims_of(op.precision) else 0
    p = plan.parameter(op.precision)
    if op.mean is None:
        return [Part(op.x, (), (Then("weighted", plan.row(op.x), p, stride),))]
    # p (x − μ) on rows of its own, since sums have been begun where it is added.
    made = plan.space(sites(op.x), (op, "quad"))
    mean = Then("parameter", 0, plan.parameter(op.mean), 1 if dims_of(op.mean) else 0, scale=-1.0)
    then = (Then("load", plan.row(op.x)), mean, Then("by_parameter", 0, p, stride), Then("store", made))
    plan.sums(sites(op.x), (), then)
    return [Part(op.x, (), (Then("add", made),))]


def _linear(plan: Plan, op: e.LinearOp) -> list[Part]:
    return [Part(op.x, (), (Then("parameter", 0, plan.parameter(op.b), scale=-1.0),))]


def _bilinear(plan: Plan, op: e.BilinearOp) -> list[Part]:
    if op.x is op.y:
        array = plan.s.constant(op.w)
        if array is None:  # what only run time knows need not be symmetric, so both halves are computed
            halves = [matrix(plan, op.w, op.x, -0.5, transposed=t) for t in (False, True)]
            return [Part(op.x, tuple(halves))]
        symmetric_if_same(array, op)
        return [Part(op.x, (matrix(plan, op.w, op.x, -1.0),))]
    return [
        Part(op.x, (matrix(plan, op.w, op.y, -1.0),)),
        Part(op.y, (matrix(plan, op.w, op.x, -1.0, transposed=True),)),
    ]


def _force(plan: Plan, op: e.VectorFieldOp) -> list[Part]:
    return [Part(op.x, (matrix(plan, op.w, op.y, -1.0),))]


def _edges(plan: Plan, op: e.EdgesOp) -> list[Part]:
    i, j = (constant_parameter(plan.s, v) for v in (op.i, op.j))
    k = np.arange(len(i)) if op.k is None else constant_parameter(plan.s, op.k)
    return [
        Part(op.x, (sparse(plan, i, j, k, op.w, sites(op.x), plan.row(op.y)),)),
        Part(op.y, (sparse(plan, j, i, k, op.w, sites(op.y), plan.row(op.x)),)),
    ]


def _stencil(plan: Plan, op: e.StencilOp) -> list[Part]:
    near = stencil_neighbours(var_type(op.x).shape, op.steps(), periodic=op.periodic is not None)
    target, column = np.nonzero(near >= 0)
    coupling = finite(constant_parameter(plan.s, op.coupling), "the coupling").reshape(-1)
    alike = np.zeros(len(target), np.int64)
    return [Part(op.x, (sparse(plan, target, near[target, column], alike, coupling, sites(op.x), plan.row(op.x)),))]


def edge_error(plan: Plan, op: e.PredEdgesOp) -> int:
    """Rows of p (x − Σ w ρ(z) − b)."""
    i, j, k = (constant_parameter(plan.s, v) for v in (op.i, op.j, op.k))
    predicted = sparse(plan, i, j, k, op.w, sites(op.x), plan.row(op.z))
    return _error(plan, op, predicted, 0.0)


def _pred_edges(plan: Plan, op: e.PredEdgesOp) -> list[Part]:
    i, j, k = (constant_parameter(plan.s, v) for v in (op.i, op.j, op.k))
    error = edge_error(plan, op)
    back = sparse(plan, j, i, k, op.w, sites(op.z), error)
    return [Part(op.x, (), (Then("add", error),)), Part(op.z, (back,))]


def _error(plan: Plan, op: e.PredOp | e.PredEdgesOp, predicted: Product, skip: float) -> int:
    """Rows of p (x + predicted − b − g z)."""
    made = plan.space(sites(op.x), (op, "error"))
    then = [Then("add", plan.row(op.x))]
    if op.bias is not None:
        then.append(Then("parameter", 0, plan.parameter(op.bias), scale=-1.0))
    if skip:
        then.append(Then("add", plan.row(e.variable_of(op.z)), scale=-skip))
    if op.precision.value.data != 1.0:
        then.append(Then("scaled", scale=op.precision.value.data))
    plan.sums(sites(op.x), (predicted,), (*then, Then("store", made)))
    return made


def prediction_error(plan: Plan, op: e.PredOp) -> int:
    """Rows of p (x − W ρ(z) − b − g z)."""
    return _error(plan, op, matrix(plan, op.w, op.z, -1.0), op.skip.value.data)


def _pred(plan: Plan, op: e.PredOp) -> list[Part]:
    error, skip = prediction_error(plan, op), op.skip.value.data
    rows, columns = sites(op.x), sites(op.z)
    back = Dense(plan.parameter(op.w), error, rows, 1, columns, -1.0)
    found = [Part(op.x, (), (Then("add", error),)), Part(op.z, (back,))]
    if skip:
        found.append(Part(e.variable_of(op.z), (), (Then("add", error, scale=-skip),)))
    return found


def _prediction(plan: Plan, op: e.PredictionOp) -> list[Part]:
    """dF/dx, and what the region's backward way gives for each variable that it reads."""
    region = Region(plan, op)
    own, seed = prediction_force(region)
    region.backward(seed)
    arguments = zip(op.args, op.block.args)
    reads = [(o, region.back[a]) for o, a in arguments if isinstance(o.type, e.VarType) and a in region.back]
    return [Part(op.x, (), (own,)), *(Part(o, g.products, g.then) for o, g in reads)]


def _resistor(plan: Plan, op: e.ResistorOp) -> list[Part]:
    g = finite(constant_parameter(plan.s, op.g), "g")
    if (g < 0).any():
        raise Error("NEUC-E608", "a conductance is negative", hint="g is at least 0: use two nodes of opposite sign")
    found: list[Part] = []
    for axis, (here, there) in enumerate(((op.x, op.y), (op.y, op.x))):
        total = plan.array("relax.conductance", g.sum(1 - axis).astype(np.float32))
        flow = matrix(plan, op.g, there, -1.0, transposed=axis == 1)
        found.append(Part(here, (flow,), (Then("weighted", plan.row(here), total),)))
    return found


def _lse(plan: Plan, op: e.LseOp) -> list[Part]:
    patterns = dims_of(op.patterns)[0].value
    made = plan.space(patterns, (op, "scores"))
    plan.sums(patterns, (matrix(plan, op.patterns, op.x, op.sharpness.value.data),), (Then("store", made),))
    plan.body.append(Softmax(made, made, 1, patterns))
    recalled = Dense(plan.parameter(op.patterns), made, patterns, 1, sites(op.x), -1.0)
    return [Part(op.x, (recalled,), (Then("add", plan.row(op.x)),))]


def _cost(plan: Plan, op: e.CostOp) -> list[Part]:
    x, y, count = plan.row(op.x), plan.row(op.target), sites(op.x)
    if op.kind.data is CostKind.MSE:
        return [Part(op.x, (), (Then("add", x), Then("add", y, scale=-1.0)))]
    made, total = plan.space(count, (op, "softmax")), plan.space(1, (op, "total"))
    plan.body += [Softmax(x, made, 1, count), Total(total, y, count)]
    plan.sums(count, (), (Then("load", made), Then("times_first", total), Then("store", made)))
    return [Part(op.x, (), (Then("add", made), Then("add", y, scale=-1.0)))]


_PARTS: dict[type[EnergyOp], Callable[..., list[Part]]] = {
    e.QuadOp: _quad,
    e.LinearOp: _linear,
    e.BilinearOp: _bilinear,
    e.VectorFieldOp: _force,
    e.EdgesOp: _edges,
    e.StencilOp: _stencil,
    e.PredEdgesOp: _pred_edges,
    e.PredOp: _pred,
    e.PredictionOp: _prediction,
    e.ResistorOp: _resistor,
    e.LseOp: _lse,
    e.CostOp: _cost,
}
SUPPORTED = tuple(_PARTS)


def parts(plan: Plan, terms: Sequence[EnergyOp], nudge: float) -> list[Part]:
    """What these terms add to gradients; what they need beforehand goes to the body first."""
    found: list[Part] = []
    for term in terms:
        for part in _PARTS[type(term)](plan, term):
            found.append(_times(part, nudge) if isinstance(term, e.CostOp) else part)
    return found


def _times(part: Part, factor: float) -> Part:
    """A part times a number; costs are rows that are added."""
    return Part(part.view, (), tuple(dataclasses.replace(then, scale=then.scale * factor) for then in part.then))


def touches(term: EnergyOp, variable: SSAValue) -> bool:
    """Whether a term reads a variable or a view of it."""
    return any(isinstance(v.type, e.VarType) and e.variable_of(v) is variable for v in term.operands)


def gradient(plan: Plan, variable: SSAValue, found: Sequence[Part]) -> tuple[tuple[Product, ...], tuple[Then, ...]]:
    """Products and what follows them that make dF/dx of a variable."""
    plain = [part for part in found if part.view is variable]
    views: dict[str, list[Part]] = {}
    for part in found:
        if e.variable_of(part.view) is variable and part.view is not variable:
            views.setdefault(rho_name(part.view), []).append(part)
    products = tuple(p for part in plain for p in part.products)
    then = tuple(t for part in plain for t in part.then)
    for name, group in views.items():
        through = tuple(p for part in group for p in part.products)
        chain = (*(t for part in group for t in part.then), Then(f"slope_{name}", plan.row(variable)))
        if not products and len(views) == 1:
            return through, (*chain, *then)
        made = plan.space(sites(variable), (variable, name, "gradient"))
        plan.sums(sites(variable), through, (*chain, Then("store", made)))
        then = (*then, Then("add", made))
    return products, then
