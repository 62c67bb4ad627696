"""Marginal message passing (Parr et al., Neuronal message passing using mean-field, Bethe, and marginal approximations,
2019) for `energy.relax {method = messages}`: beliefs along chains whose links are two-belief tables of ln B.
"""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from neuc.dialects import energy as e
from neuc.dialects.energy_types import Space, var_type
from neuc.dialects.interp.energy_terms import softmax, variable_gradients
from neuc.dialects.interp.energy_values import Array, Model, State, Term
from neuc.errors import Error

_LEAST = np.finfo(np.float64).eps


class Messages:
    """Steps of ln q ← ln q + dt·(likelihoods + messages − ln q).

    A link of a table (to, from) sends ln Σ exp(T)·q forward, with half its weight to a site that sends on itself, and
    half of ln Σ exp(T)·q, columns normalised over `from`, backward.
    """

    def __init__(self, model: Model, dt: float) -> None:
        self.model, self.dt = model, dt
        if any(var_type(v).space is not Space.SIMPLEX for v in model.free):
            raise Error("NEUC-E610", "messages are between beliefs alone", hint="clamp the other variables")
        self.links = [t for t in model.terms if _is_link(t)]
        self.others = [t for t in model.terms if not _is_link(t)]
        self.sends = {v: np.zeros(var_type(v).sites, bool) for v in model.free}
        for link in self.links:
            assert isinstance(link.op, e.TableOp)
            if link.op.variables[1] in self.sends:
                self.sends[link.op.variables[1]][link.parameters[link.op.sites[1]]] = True

    def step(self, state: State) -> State:
        """All beliefs at once."""
        total = {v: np.zeros(state.values[v].shape) for v in self.model.free}
        for term in self.others:
            for variable, g in variable_gradients(term, state.values):
                if variable in total:
                    total[variable] = total[variable] - g
        for link in self.links:
            self._pass(link, state, total)
        changed: dict[SSAValue, Array] = {}
        for variable, messages in total.items():
            log = np.log(np.maximum(state.values[variable], _LEAST))
            changed[variable] = softmax(log + self.dt * (messages - log))
        return state.replaced(changed)

    def _pass(self, term: Term, state: State, total: dict[SSAValue, Array]) -> None:
        op = term.op
        assert isinstance(op, e.TableOp)
        (after, before), (to, sender) = op.variables, (term.parameters[s] for s in op.sites)
        matrix = np.exp(term.parameters[op.table].astype(np.float64))
        matrix = np.broadcast_to(matrix, (len(to), *matrix.shape[1:]))
        chains = state.chains
        q_after = state.values[after].reshape(chains, -1, matrix.shape[1])[:, to]
        q_before = state.values[before].reshape(chains, -1, matrix.shape[2])[:, sender]
        if after in total:
            message = np.log(np.maximum(np.einsum("fij,cfj->cfi", matrix, q_before), _LEAST))
            weight = np.where(self.sends[after][to], 0.5, 1.0)
            for k, site in enumerate(to):
                total[after].reshape(chains, -1, matrix.shape[1])[:, site] += weight[k] * message[:, k]
        if before in total:
            scaled = matrix / np.maximum(matrix.sum(2, keepdims=True), _LEAST)
            message = np.log(np.maximum(np.einsum("fij,cfi->cfj", scaled, q_after), _LEAST))
            for k, site in enumerate(sender):
                total[before].reshape(chains, -1, matrix.shape[2])[:, site] += 0.5 * message[:, k]


def _is_link(term: Term) -> bool:
    """Whether a term is a table of two beliefs."""
    return (
        isinstance(term.op, e.TableOp)
        and len(term.op.variables) == 2
        and all(var_type(v).space is Space.SIMPLEX for v in term.op.variables)
    )
