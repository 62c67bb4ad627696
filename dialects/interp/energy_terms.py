"""Energies of the terms, their gradients by variables and by parameters, and curvatures: one class a kind of term.

All values are [C, …]; energies are [C]. Signs and formulas are those of the operations' docstrings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from xdsl.ir import SSAValue

from neuc.dialects import energy as e
from neuc.dialects.energy_factors import edge_weights, finite, stencil_neighbours, symmetric_if_same
from neuc.dialects.energy_types import EnergyOp, Space, var_type
from neuc.dialects.interp.energy_values import Array, Term, flat, pull, read

Values = dict[SSAValue, Array]
Gradients = list[tuple[SSAValue, Array]]
_MEANINGS: dict[type[EnergyOp], Callable[[Term], TermMeaning]] = {}


class TermMeaning:
    """What a term is worth; subclasses say the rest."""

    def __init__(self, term: Term) -> None:
        self.op = term.op
        self.parameters = term.parameters

    def p(self, operand: SSAValue, name: str = "a parameter") -> Array:
        """A parameter as f64."""
        return finite(self.parameters[operand].astype(np.float64), name)

    def energy(self, v: Values) -> Array:
        """F [C]."""
        raise KeyError

    def gradient(self, v: Values) -> Gradients:
        """(operand, dF/dρ(operand)) for every variable operand, shaped as it or flat."""
        raise KeyError

    def slopes(self, v: Values) -> Gradients:
        """(parameter, mean over chains of dF/dθ)."""
        return []

    def curvature(self, variable: SSAValue) -> Array | float | None:
        """d²F/dx² of a variable whose Hessian is diagonal; None where it is not."""
        return 0.0


def meaning(term: Term) -> TermMeaning:
    """What a term means."""
    return _MEANINGS[type(term.op)](term)


def means(op: type[EnergyOp]) -> Callable[[type[TermMeaning]], type[TermMeaning]]:
    """Register a class as the meaning of a term."""

    def register(cls: type[TermMeaning]) -> type[TermMeaning]:
        _MEANINGS[op] = cls
        return cls

    return register


def variable_gradients(term: Term, v: Values) -> Gradients:
    """(variable, dF/dx), through ρ."""
    pulled = ((view, pull(view, v, np.asarray(g))) for view, g in meaning(term).gradient(v))
    return [(e.variable_of(view), g.reshape(v[e.variable_of(view)].shape)) for view, g in pulled]


def _total(x: Array) -> Array:
    return x.reshape(len(x), -1).sum(1)


def mean(x: Array) -> Array:
    """Over chains."""
    return x.mean(0)


@means(e.QuadOp)
class _Quad(TermMeaning):
    op: e.QuadOp

    def _parts(self, v: Values) -> tuple[Array, Array]:
        mean = 0.0 if self.op.mean is None else self.p(self.op.mean)
        return self.p(self.op.precision), read(self.op.x, v) - mean

    def energy(self, v: Values) -> Array:
        p, d = self._parts(v)
        return _total(0.5 * p * d * d)

    def gradient(self, v: Values) -> Gradients:
        p, d = self._parts(v)
        return [(self.op.x, p * d)]

    def curvature(self, variable: SSAValue) -> Array | float | None:
        return self.p(self.op.precision) if self.op.x is variable else 0.0


@means(e.LinearOp)
class _Linear(TermMeaning):
    op: e.LinearOp

    def energy(self, v: Values) -> Array:
        b, x = self.p(self.op.b, "b"), read(self.op.x, v)
        if var_type(self.op.x).space is Space.CAT:
            return -_total(np.take_along_axis(b[None], x[..., None], -1))
        return -_total(b * x)

    def gradient(self, v: Values) -> Gradients:
        b, x = self.p(self.op.b, "b"), read(self.op.x, v)
        return [] if var_type(self.op.x).space is Space.CAT else [(self.op.x, np.broadcast_to(-b, x.shape))]

    def slopes(self, v: Values) -> Gradients:
        x = read(self.op.x, v)
        if var_type(self.op.x).space is Space.CAT:
            x = (x[..., None] == np.arange(var_type(self.op.x).levels)).astype(np.float64)
        return [(self.op.b, -mean(x))]


@means(e.BilinearOp)
class _Bilinear(TermMeaning):
    op: e.BilinearOp

    def _parts(self, v: Values) -> tuple[Array, Array, Array, float]:
        w = symmetric_if_same(self.p(self.op.w, "W"), self.op)
        return flat(self.op.x, v), w, flat(self.op.y, v), 0.5 if self.op.x is self.op.y else 1.0

    def energy(self, v: Values) -> Array:
        x, w, y, factor = self._parts(v)
        return -factor * ((x @ w) * y).sum(1)

    def gradient(self, v: Values) -> Gradients:
        x, w, y, factor = self._parts(v)
        return [(self.op.x, -factor * (y @ w.T)), (self.op.y, -factor * (x @ w))]

    def slopes(self, v: Values) -> Gradients:
        x, _, y, factor = self._parts(v)
        return [(self.op.w, -factor * (x.T @ y) / len(x))]

    def curvature(self, variable: SSAValue) -> Array | float | None:
        if not self.op.x is self.op.y is variable:
            return 0.0
        w = self.p(self.op.w, "W")
        return -w.diagonal() if not (w - np.diag(w.diagonal())).any() else None


@means(e.EdgesOp)
class _Edges(TermMeaning):
    op: e.EdgesOp

    def _parts(self, v: Values) -> tuple[Array, Array, Array]:
        i, j = self.parameters[self.op.i], self.parameters[self.op.j]
        weights = edge_weights(self.op, lambda value: self.parameters[value]).astype(np.float64)
        return weights, flat(self.op.x, v)[:, i], flat(self.op.y, v)[:, j]

    def energy(self, v: Values) -> Array:
        w, x, y = self._parts(v)
        return -(w * x * y).sum(1)

    def gradient(self, v: Values) -> Gradients:
        w, x, y = self._parts(v)
        gx, gy = np.zeros_like(flat(self.op.x, v)), np.zeros_like(flat(self.op.y, v))
        np.add.at(gx.T, self.parameters[self.op.i], -(w * y).T)
        np.add.at(gy.T, self.parameters[self.op.j], -(w * x).T)
        return [(self.op.x, gx), (self.op.y, gy)]

    def slopes(self, v: Values) -> Gradients:
        _, x, y = self._parts(v)
        each = -mean(x * y)
        if self.op.k is None:
            return [(self.op.w, each)]
        shared = np.zeros(self.parameters[self.op.w].shape, each.dtype)
        np.add.at(shared, self.parameters[self.op.k], each)
        return [(self.op.w, shared)]

    def curvature(self, variable: SSAValue) -> Array | float | None:
        return None if self.op.x is self.op.y is variable else 0.0


@means(e.StencilOp)
class _Stencil(TermMeaning):
    op: e.StencilOp

    def _neighbour_sum(self, v: Values) -> Array:
        near = stencil_neighbours(var_type(self.op.x).shape, self.op.steps(), periodic=self.op.periodic is not None)
        x = flat(self.op.x, v)
        return np.where(near >= 0, x[:, near], 0.0).sum(-1)

    def energy(self, v: Values) -> Array:
        return -0.5 * self.p(self.op.coupling)[0] * (flat(self.op.x, v) * self._neighbour_sum(v)).sum(1)

    def gradient(self, v: Values) -> Gradients:
        return [(self.op.x, -self.p(self.op.coupling)[0] * self._neighbour_sum(v))]

    def slopes(self, v: Values) -> Gradients:
        each = -0.5 * (flat(self.op.x, v) * self._neighbour_sum(v)).sum(1)
        return [(self.op.coupling, each.mean(keepdims=True))]

    def curvature(self, variable: SSAValue) -> Array | float | None:
        return None if self.op.x is variable else 0.0


@means(e.TableOp)
class _Table(TermMeaning):
    op: e.TableOp

    def _factors(self, v: Values) -> tuple[list[Array], Array, list[Array]]:
        """Spins [C, F] each, the table [F, K…], and for each category axis its weights [C, F, K]."""
        sites = [self.parameters[s] for s in self.op.sites]
        spins, weights = list[Array](), list[Array]()
        for variable, site in zip(self.op.variables, sites):
            type_ = var_type(variable)
            x = v[variable]
            match type_.space:
                case Space.SPIN:
                    spins.append(x.reshape(len(x), -1)[:, site].astype(np.float64))
                case Space.CAT:
                    chosen = x.reshape(len(x), -1)[:, site]
                    weights.append((chosen[..., None] == np.arange(type_.levels)).astype(np.float64))
                case _:
                    weights.append(x.reshape(len(x), -1, type_.levels)[:, site])
        table = self.p(self.op.table, "the table")
        return spins, np.broadcast_to(table, (len(sites[0]), *table.shape[1:])), weights

    def _contract(self, spins: list[Array], table: Array, weights: list[Array], keep: int | None = None) -> Array:
        """Π spins · T summed with weights: [C, F], or [C, F, K] with axis `keep` left."""
        chains = len((spins + weights)[0])
        out = np.broadcast_to(table, (chains, *table.shape))
        for axis in reversed(range(len(weights))):
            if axis == keep:
                out = np.moveaxis(out, 2 + axis, -1)
                continue
            shape = [1] * out.ndim
            shape[:2], shape[2 + axis] = weights[axis].shape[:2], weights[axis].shape[2]
            out = (out * weights[axis].reshape(shape)).sum(2 + axis)
        product = np.ones(out.shape[:2])
        for spin in spins:
            product = product * spin
        return out * product.reshape(*product.shape, *[1] * (out.ndim - 2))

    def energy(self, v: Values) -> Array:
        return -self._contract(*self._factors(v)).sum(1)

    def gradient(self, v: Values) -> Gradients:
        spins, table, weights = self._factors(v)
        found: Gradients = []
        for slot, (variable, site) in enumerate(zip(self.op.variables, self.op.sites)):
            type_, index = var_type(variable), self.parameters[site]
            if type_.space is Space.CAT:
                continue
            if type_.space is Space.SPIN:
                values = self._contract(
                    [s for k, s in enumerate(spins) if k != slot] or [np.ones_like(spins[slot])], table, weights
                )
                total = np.zeros((len(values), type_.sites))
                np.add.at(total.T, index, -values.T)
            else:
                values = self._contract(spins, table, weights, keep=slot - len(spins))
                total = np.zeros((len(values), type_.sites, type_.levels))
                np.add.at(np.moveaxis(total, 0, 1), index, -np.moveaxis(values, 0, 1))
            found.append((variable, total))
        return found

    def slopes(self, v: Values) -> Gradients:
        spins, _, weights = self._factors(v)
        out = np.ones((*(spins + weights)[0].shape[:2],))
        for spin in spins:
            out = out * spin
        for weight in weights:
            out = out[..., None] * weight.reshape(*weight.shape[:2], *[1] * (out.ndim - 2), weight.shape[2])
        each = -mean(out)
        shared = self.parameters[self.op.table].shape[0] == 1
        return [(self.op.table, each.sum(0, keepdims=True) if shared else each)]


def softmax(scores: Array) -> Array:
    """Over the last axis; of complex numbers, too."""
    exponentials = np.exp(scores - np.real(scores).max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
