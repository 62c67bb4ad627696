"""Meaning of the network terms of `energy`: predictions, resistors, memories, local losses, costs, free forces."""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from neuc.dialects import energy as e
from neuc.dialects.energy_types import CostKind
from neuc.dialects.interp.energy_terms import Gradients, TermMeaning, Values, mean, means, softmax
from neuc.dialects.interp.energy_values import Array, flat
from neuc.errors import Error


@means(e.PredOp)
class _Pred(TermMeaning):
    op: e.PredOp

    def _error(self, v: Values) -> tuple[Array, Array, Array]:
        """The error x − μ, ρ(z) and W."""
        z, w = flat(self.op.z, v), self.p(self.op.w, "W")
        mu = z @ w.T + self.op.skip.value.data * (flat(e.variable_of(self.op.z), v) if self.op.skip.value.data else 0.0)
        if self.op.bias is not None:
            mu = mu + self.p(self.op.bias, "b").reshape(-1)
        return flat(self.op.x, v) - mu, z, w

    def energy(self, v: Values) -> Array:
        return 0.5 * self.op.precision.value.data * (self._error(v)[0] ** 2).sum(1)

    def gradient(self, v: Values) -> Gradients:
        error, _, w = self._error(v)
        error = self.op.precision.value.data * error
        found = [(self.op.x, error), (self.op.z, -(error @ w))]
        if self.op.skip.value.data:
            found.append((e.variable_of(self.op.z), -self.op.skip.value.data * error))
        return found

    def slopes(self, v: Values) -> Gradients:
        error, z, _ = self._error(v)
        error = self.op.precision.value.data * error
        bias = [] if self.op.bias is None else [(self.op.bias, -mean(error).reshape(self.p(self.op.bias).shape))]
        return [(self.op.w, -(error.T @ z) / len(z)), *bias]

    def curvature(self, variable: SSAValue) -> Array | float | None:
        if e.variable_of(self.op.z) is variable:
            return None
        return self.op.precision.value.data if self.op.x is variable else 0.0


@means(e.PredEdgesOp)
class _PredEdges(TermMeaning):
    op: e.PredEdgesOp

    def _error(self, v: Values) -> tuple[Array, Array, Array]:
        """The error times p, and ρ(z) and the weight of each edge."""
        i, j, k = (self.parameters[s] for s in (self.op.i, self.op.j, self.op.k))
        x, z, w = flat(self.op.x, v), flat(self.op.z, v)[:, j], self.p(self.op.w, "w")[k]
        mu = np.zeros(x.shape, np.result_type(x, z))
        np.add.at(mu.T, i, (w * z).T)
        if self.op.bias is not None:
            mu = mu + self.p(self.op.bias, "b").reshape(-1)
        return self.op.precision.value.data * (x - mu), z, w

    def energy(self, v: Values) -> Array:
        error = self._error(v)[0]
        return 0.5 * (error**2).sum(1) / self.op.precision.value.data

    def gradient(self, v: Values) -> Gradients:
        error, _, w = self._error(v)
        back = np.zeros(flat(self.op.z, v).shape, error.dtype)
        np.add.at(back.T, self.parameters[self.op.j], -(w * error[:, self.parameters[self.op.i]]).T)
        return [(self.op.x, error), (self.op.z, back)]

    def slopes(self, v: Values) -> Gradients:
        error, z, _ = self._error(v)
        bias = [] if self.op.bias is None else [(self.op.bias, -mean(error).reshape(self.p(self.op.bias).shape))]
        each = -mean(error[:, self.parameters[self.op.i]] * z)
        shared = np.zeros(self.parameters[self.op.w].shape, each.dtype)
        np.add.at(shared, self.parameters[self.op.k], each)
        return [(self.op.w, shared), *bias]

    def curvature(self, variable: SSAValue) -> Array | float | None:
        if e.variable_of(self.op.z) is variable:
            return None
        return self.op.precision.value.data if self.op.x is variable else 0.0


@means(e.ResistorOp)
class _Resistor(TermMeaning):
    op: e.ResistorOp

    def _parts(self, v: Values) -> tuple[Array, Array]:
        g = self.p(self.op.g, "g")
        if (g < 0).any():
            raise Error(
                "NEUC-E608", "a conductance is negative", hint="g is at least 0: use two nodes of opposite sign"
            )
        return g, flat(self.op.x, v)[:, :, None] - flat(self.op.y, v)[:, None, :]

    def energy(self, v: Values) -> Array:
        g, drop = self._parts(v)
        return 0.5 * (g * drop**2).sum((1, 2))

    def gradient(self, v: Values) -> Gradients:
        g, drop = self._parts(v)
        return [(self.op.x, (g * drop).sum(2)), (self.op.y, -(g * drop).sum(1))]

    def slopes(self, v: Values) -> Gradients:
        return [(self.op.g, 0.5 * mean(self._parts(v)[1] ** 2))]

    def curvature(self, variable: SSAValue) -> Array | float | None:
        if self.op.x is self.op.y is variable:
            return None
        g = self.p(self.op.g)
        ends = ((self.op.x, 1), (self.op.y, 0))
        return next((g.sum(axis) for end, axis in ends if end is variable), 0.0)


@means(e.LseOp)
class _Lse(TermMeaning):
    op: e.LseOp

    def _scores(self, v: Values) -> tuple[Array, Array, Array, float]:
        x, patterns, b = flat(self.op.x, v), self.p(self.op.patterns, "patterns"), self.op.sharpness.value.data
        return x, patterns, b * (x @ patterns.T), b

    def energy(self, v: Values) -> Array:
        x, _, scores, b = self._scores(v)
        top = scores.max(1)
        return 0.5 * (x**2).sum(1) - (top + np.log(np.exp(scores - top[:, None]).sum(1))) / b

    def gradient(self, v: Values) -> Gradients:
        x, patterns, scores, _ = self._scores(v)
        return [(self.op.x, x - softmax(scores) @ patterns)]

    def slopes(self, v: Values) -> Gradients:
        x, _, scores, _ = self._scores(v)
        return [(self.op.patterns, -(softmax(scores).T @ x) / len(x))]

    def curvature(self, variable: SSAValue) -> Array | float | None:
        # The step x ← Xᵀ softmax(β X x) minimises an upper bound of curvature 1 (the concave-convex procedure).
        return 1.0 if self.op.x is variable else 0.0


@means(e.LocalOp)
class _Local(TermMeaning):
    op: e.LocalOp

    def _forward(self, v: Values) -> tuple[Array, Array, Array, float]:
        """x, h = relu(W x + b), the argument of the softplus, and its sign."""
        x = flat(self.op.x, v)
        h = np.maximum(x @ self.p(self.op.w, "W").T + self.p(self.op.b, "b"), 0.0)
        sign = 1.0 if self.op.negative is not None else -1.0
        return x, h, sign * ((h * h).mean(1) - self.op.theta.value.data), sign

    def energy(self, v: Values) -> Array:
        return np.logaddexp(0.0, self._forward(v)[2])

    def _by_preactivation(self, v: Values) -> tuple[Array, Array]:
        x, h, u, sign = self._forward(v)
        return x, (sign / (1.0 + np.exp(-u)))[:, None] * 2.0 * h / h.shape[1]

    def gradient(self, v: Values) -> Gradients:
        return [(self.op.x, self._by_preactivation(v)[1] @ self.p(self.op.w, "W"))]

    def slopes(self, v: Values) -> Gradients:
        x, d = self._by_preactivation(v)
        return [(self.op.w, d.T @ x / len(x)), (self.op.b, d.mean(0))]


@means(e.CostOp)
class _Cost(TermMeaning):
    op: e.CostOp

    def energy(self, v: Values) -> Array:
        x, y = flat(self.op.x, v), flat(self.op.target, v)
        if self.op.kind.data is CostKind.MSE:
            return 0.5 * ((x - y) ** 2).sum(1)
        return -(y * np.log(softmax(x))).sum(1)

    def gradient(self, v: Values) -> Gradients:
        x, y = flat(self.op.x, v), flat(self.op.target, v)
        return [(self.op.x, x - y if self.op.kind.data is CostKind.MSE else softmax(x) * y.sum(1, keepdims=True) - y)]

    def curvature(self, variable: SSAValue) -> Array | float | None:
        if self.op.x is not variable:
            return 0.0
        return 1.0 if self.op.kind.data is CostKind.MSE else None


@means(e.VectorFieldOp)
class _Force(TermMeaning):
    op: e.VectorFieldOp

    def gradient(self, v: Values) -> Gradients:
        return [(self.op.x, -(flat(self.op.y, v) @ self.p(self.op.w, "W").T))]
