"""Lowerings of `energy.relax` by mean_field and messages, for beliefs of any number of sites and tables of any size.

Factors are written out one by one, each as small products; what clamped variables contribute is summed up once. Small
models of one-site beliefs have a kernel of their own (`relax_beliefs.py`).
"""

from __future__ import annotations

import math

import numpy as np
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.relax_rows_code import Code, Outer, Rows, Softmax, Then
from neuc.backends.cpu.kernels.relax_rows_products import Dense, Mixed, Product
from neuc.backends.cpu.lowering import SegmentLowering
from neuc.backends.cpu.lowerings.relax import constant_parameter, pieces
from neuc.backends.cpu.lowerings.relax_plan import Plan, width
from neuc.dialects import energy as e
from neuc.dialects.energy_types import EnergyOp, Method, Space, var_type
from neuc.errors import Error

Array = np.ndarray
MOST_JOINT = 1 << 16
"""States of a table's other variables together, which lie in scratch memory."""
_LEAST = float(np.finfo(np.float64).eps)
"""What a probability is at least where its logarithm is taken, as in the interpreter."""


def beliefs_unsupported(op: e.RelaxOp) -> str | None:
    """Why a mean field or messages have no CPU kernel."""
    model = e.model_of(op.model)
    for variable in model.variables:
        assert isinstance(variable.owner, e.VarOp)
        space = var_type(variable).space
        if space is not Space.SIMPLEX and not (variable.owner.clamped and space is Space.CAT):
            return f"{op.method.data.value} with {space.value} variables has no CPU kernel"
    for term in model.terms:
        if not isinstance(term.owner, e.TableOp | e.LinearOp):
            return f"{op.method.data.value} of other terms than tables and fields has no CPU kernel"
        if isinstance(term.owner, e.LinearOp) and var_type(term.owner.x).space is not Space.SIMPLEX:
            return "fields on categories have no CPU kernel here"
        if isinstance(term.owner, e.TableOp) and len(set(term.owner.variables)) < len(term.owner.variables):
            if op.method.data is not Method.MESSAGES:
                return "a table that reads one variable twice has no CPU kernel"
    return None


def relax_beliefs(op: e.RelaxOp, s: SegmentLowering) -> None:
    """One launch over agents."""
    model = e.model_of(op.model)
    terms = [t.owner for t in model.terms if isinstance(t.owner, EnergyOp)]
    beliefs = _Beliefs(Plan(s, model, pieces(s, op.state), e.chains_of(op.state), terms))
    beliefs.step(op)
    state = beliefs.plan.finish()
    beliefs.plan.launch(steps=op.steps.value.data)
    s.remember(op.result, state)


class _Beliefs:
    """Scores of all beliefs, added up factor by factor."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.totals = {v: plan.space(width(v)) for v in plan.free}
        for variable in plan.model.variables:
            plan.row(variable)

    def step(self, op: e.RelaxOp) -> None:
        """One step: all scores, then all beliefs."""
        plan, messages = self.plan, op.method.data is Method.MESSAGES
        for total in self.totals.items():
            plan.sums(width(total[0]), (), (Then("store", total[1]),))
        links = [t for t in plan.terms if messages and _is_link(t)]
        for term in plan.terms:
            if isinstance(term, e.LinearOp) and term.x in self.totals:
                self._score(term.x, 0, width(term.x), (), (Then("parameter", 0, plan.parameter(term.b)),))
            elif isinstance(term, e.TableOp) and term not in links:
                self._table(term)
        sends = {v: np.zeros(var_type(v).sites, bool) for v in plan.free}
        for link in links:
            assert isinstance(link, e.TableOp)
            if link.variables[1] in sends:
                sends[link.variables[1]][constant_parameter(plan.s, link.sites[1])] = True
        for link in links:
            assert isinstance(link, e.TableOp)
            self._link(link, sends)
        for variable, total in self.totals.items():
            type_, q = var_type(variable), plan.row(variable)
            if messages:
                dt = op.dt.value.data
                blend = (Then("load", q), Then("log", low=_LEAST), Then("scaled", scale=1.0 - dt))
                plan.sums(width(variable), (), (*blend, Then("add", total, scale=dt), Then("store", total)))
            plan.body.append(Softmax(total, q, type_.sites, type_.levels))

    def _score(
        self, v: SSAValue, site: int, size: int, products: tuple[Product, ...], then: tuple[Then, ...] = ()
    ) -> None:
        """Add to the scores of a site, or of all of them."""
        total = self.totals[v] + site * var_type(v).levels
        self.plan.sums(size, products, (*then, Then("add", total), Then("store", total)))

    def _weights(self, v: SSAValue, site: int) -> int:
        """Rows of a belief, or of a category as a belief that is sure."""
        plan, levels = self.plan, var_type(v).levels
        if var_type(v).space is Space.SIMPLEX:
            return plan.row(v) + site * levels
        key = (v, site, "hot")
        known, made = plan.has(key), plan.space(levels, key)
        if not known:
            numbers = plan.array("relax.levels", np.arange(levels, dtype=np.float32))
            then = (Then("load_first", plan.row(v) + site), Then("equals", 0, numbers), Then("store", made))
            plan.before.append(Rows(levels, (), then))
        return made

    def _joint(self, axes: list[tuple[SSAValue, int]], where: list[Code]) -> tuple[int, int]:
        """Rows of the products of several beliefs, the last changing fastest; the first row, and how many."""
        row, count = self._weights(*axes[0]), var_type(axes[0][0]).levels
        for v, site in axes[1:]:
            size = var_type(v).levels
            if count * size > MOST_JOINT:
                raise Error("NEUC-E615", "the tables of these beliefs are too large for a kernel", hint="interpret it")
            made = self.plan.space(count * size)
            where.append(Outer(made, row, count, self._weights(v, site), size))
            row, count = made, count * size
        return row, count

    def _table(self, op: e.TableOp) -> None:
        """Every factor, to every free belief it reads."""
        plan, variables = self.plan, list(op.variables)
        places = [constant_parameter(plan.s, place) for place in op.sites]
        table = constant_parameter(plan.s, op.table)
        free = [k for k, v in enumerate(variables) if v in self.totals]
        held = [k for k in range(len(variables)) if k not in free]
        for factor in range(len(places[0])):
            values = table[factor if len(table) > 1 else 0]
            axes = [(v, int(place[factor])) for v, place in zip(variables, places)]
            given = self._joint([axes[k] for k in held], plan.before) if held else None
            for k in free:
                others = [other for other in free if other != k]
                v, site = axes[k]
                levels, joint = var_type(v).levels, math.prod(values.shape[o] for o in others)
                matrix = np.ascontiguousarray(values.transpose([k, *others, *held]), np.float32)
                slot = plan.array("relax.table", matrix)
                first, count = (0, 0) if not others else self._joint([axes[o] for o in others], plan.body)
                if given is None and others:
                    self._score(v, site, levels, (Dense(slot, first, count, count, 1),))
                    continue
                if given is None:
                    self._score(v, site, levels, (), (Then("parameter", 0, slot),))
                    continue
                seen = plan.space(levels * joint)
                held_row, held_count = given
                contraction = Dense(slot, held_row, held_count, held_count, 1)
                plan.before.append(Rows(levels * joint, (contraction,), (Then("store", seen),)))
                if others:
                    self._score(v, site, levels, (Mixed(seen, first, count, count),))
                else:
                    self._score(v, site, levels, (), (Then("add", seen),))

    def _link(self, op: e.TableOp, sends: dict[SSAValue, Array]) -> None:
        """Messages along a chain, forward and backward."""
        plan, (after, before) = self.plan, op.variables
        to, sender = (constant_parameter(plan.s, place) for place in op.sites)
        table = np.exp(constant_parameter(plan.s, op.table).astype(np.float64))
        for factor in range(len(to)):
            forward = table[factor if len(table) > 1 else 0]
            backward = (forward / np.maximum(forward.sum(1, keepdims=True), _LEAST)).T
            ends = ((after, to, before, sender, forward), (before, sender, after, to, backward))
            for v, place, other, source, matrix in ends:
                if v not in self.totals:
                    continue
                site, levels = int(place[factor]), matrix.shape[1]
                share = 0.5 if (v is before and matrix is backward) or sends[v][site] else 1.0
                slot = plan.array("relax.link", np.ascontiguousarray(matrix, np.float32))
                product = Dense(slot, self._weights(other, int(source[factor])), levels, levels, 1)
                self._score(v, site, len(matrix), (product,), (Then("log", low=_LEAST), Then("scaled", scale=share)))


def _is_link(term: EnergyOp) -> bool:
    """Whether a term is a table of two beliefs."""
    return (
        isinstance(term, e.TableOp)
        and len(term.variables) == 2
        and all(var_type(v).space is Space.SIMPLEX for v in term.variables)
    )
