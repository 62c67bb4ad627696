"""Lowering of `energy.evaluate`: F of every chain, added up in f32 term by term from sums of products."""

from __future__ import annotations

from collections.abc import Callable

from xdsl.dialects.builtin import f64

from neuc.backends.cpu.kernels.relax_rows_code import Then, Total
from neuc.backends.cpu.kernels.relax_rows_products import Product
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.relax_plan import Plan
from neuc.backends.cpu.lowerings.relax_predictions import Region
from neuc.backends.cpu.lowerings.relax_states import make_plan, terms_unsupported
from neuc.backends.cpu.lowerings.relax_terms import edge_error, matrix, parts, prediction_error, sites
from neuc.dialects import energy as e
from neuc.dialects.energy_types import CostKind, EnergyOp
from neuc.dialects.store import dims_of, element_of


def _unsupported(op: e.EvaluateOp) -> str | None:
    model = e.model_of(op.model)
    for term in model.terms:
        assert isinstance(term.owner, EnergyOp)
        entropy = isinstance(term.owner, e.CostOp) and term.owner.kind.data is CostKind.CE
        if type(term.owner) not in _ENERGIES or (entropy and op.nudge.value.data):
            return f"energies of {term.owner.name} have no CPU kernel"
    owners = [t.owner for t in model.terms if isinstance(t.owner, EnergyOp)]
    if any(element_of(v) == f64 for owner in owners for v in owner.operands if not isinstance(v.type, e.VarType)):
        return "parameters in f64 have no CPU kernels"
    return terms_unsupported(model)


@lowers(e.EvaluateOp, supports=_unsupported)
def _evaluate(op: e.EvaluateOp, s: SegmentLowering) -> None:
    plan = make_plan(s, op.state, e.model_of(op.model), op.nudge.value.data)
    sums = _Sums(plan)
    for term in plan.terms:
        sums.nudge = op.nudge.value.data if isinstance(term, e.CostOp) else 1.0
        _ENERGIES[type(term)](sums, term)
    plan.output_to(s.buffer(op.result), sums.total, 1, "f64")
    plan.launch(steps=1)


class _Sums:
    """The energy so far, in one row."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.total, self.nudge = plan, plan.space(1), 1.0
        plan.sums(1, (), (Then("store", self.total),))

    def add(self, a: int, size: int, b: int | None, scale: float) -> None:
        """Add scale · Σ a·b, or scale · Σ a."""
        self.plan.body.append(Total(self.total, a, size, b, scale * self.nudge, added=True))

    def row(self, size: int, products: tuple[Product, ...], *then: Then) -> int:
        """New rows."""
        made = self.plan.space(size)
        self.plan.sums(size, products, (*then, Then("store", made)))
        return made


def _quad(sums: _Sums, op: e.QuadOp) -> None:
    plan, count = sums.plan, sites(op.x)
    mean = []
    if op.mean is not None:
        mean = [Then("parameter", 0, plan.parameter(op.mean), 1 if dims_of(op.mean) else 0, scale=-1.0)]
    away = sums.row(count, (), Then("load", plan.row(op.x)), *mean)
    precision = Then("by_parameter", 0, plan.parameter(op.precision), 1 if dims_of(op.precision) else 0)
    sums.add(away, count, sums.row(count, (), Then("load", away), precision), 0.5)


def _linear(sums: _Sums, op: e.LinearOp) -> None:
    b = Then("by_parameter", 0, sums.plan.parameter(op.b))
    sums.add(sums.row(sites(op.x), (), Then("load", sums.plan.row(op.x)), b), sites(op.x), None, -1.0)


def _bilinear(sums: _Sums, op: e.BilinearOp) -> None:
    reached = sums.row(sites(op.x), (matrix(sums.plan, op.w, op.y, 1.0),))
    sums.add(sums.plan.row(op.x), sites(op.x), reached, -0.5 if op.x is op.y else -1.0)


def _half_of_gradient(sums: _Sums, op: e.StencilOp | e.ResistorOp) -> None:
    """½ Σ x·dF/dx over the operands, of what is of second order in them."""
    for part in parts(sums.plan, [op], 1.0):
        sums.add(sums.plan.row(part.view), sites(part.view), sums.row(sites(part.view), part.products, *part.then), 0.5)


def _edges(sums: _Sums, op: e.EdgesOp) -> None:
    part = parts(sums.plan, [op], 1.0)[0]
    sums.add(sums.plan.row(op.x), sites(op.x), sums.row(sites(op.x), part.products), 1.0)


def _pred(sums: _Sums, op: e.PredOp | e.PredEdgesOp) -> None:
    plan = sums.plan
    error = prediction_error(plan, op) if isinstance(op, e.PredOp) else edge_error(plan, op)
    sums.add(error, sites(op.x), error, 0.5 / op.precision.value.data)


def _prediction(sums: _Sums, op: e.PredictionOp) -> None:
    plan, count, p = sums.plan, sites(op.x), op.precision.value.data
    f, x = Region(plan, op).row(op.predicted), plan.row(op.x)
    if op.product is not None:
        sums.add(x, count, f, -p)
        return
    away = sums.row(count, (), Then("load", x), Then("add", f, scale=-1.0))
    sums.add(away, count, away, 0.5 * p)


def _cost(sums: _Sums, op: e.CostOp) -> None:
    plan, count = sums.plan, sites(op.x)
    away = sums.row(count, (), Then("load", plan.row(op.x)), Then("add", plan.row(op.target), scale=-1.0))
    sums.add(away, count, away, 0.5)


_ENERGIES: dict[type[EnergyOp], Callable[..., None]] = {
    e.QuadOp: _quad,
    e.LinearOp: _linear,
    e.BilinearOp: _bilinear,
    e.EdgesOp: _edges,
    e.StencilOp: _half_of_gradient,
    e.ResistorOp: _half_of_gradient,
    e.PredOp: _pred,
    e.PredEdgesOp: _pred,
    e.PredictionOp: _prediction,
    e.CostOp: _cost,
}
