"""Meaning of `energy.rollout`: agents and their worlds, step by step; draws are the words of `energy_random.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuc.dialects import energy as e
from neuc.dialects.energy_rollout import TIE, Arrays
from neuc.dialects.interp import energy_random as random
from neuc.dialects.interp.core import Env, implements
from neuc.dialects.interp.energy_beliefs import EPSILON, expected, negative_efe
from neuc.dialects.interp.energy_terms import softmax

Array = np.ndarray


@implements(e.RolloutOp)
def _rollout(op: e.RolloutOp, args: list[Array], env: Env) -> list[Array]:
    value = dict(zip(op.args, args))
    a_factors, b_factors = op.dependencies()

    def arrays(of: Arrays) -> tuple[list[Array], list[Array], list[Array]]:
        a, b, d = ([value[x].astype(np.float64) for x in group] for group in (of.a, of.b, of.d))
        return a, b, d

    (a, b, d), world = arrays(op.agent), arrays(op.world)
    c = [value[x].astype(np.float64) for x in op.preferences]
    agents, policies, seed = op.agents.value.data, value[op.policies], int(value[op.seed])
    priors = [np.broadcast_to(x, (agents, len(x))) for x in d]
    states, actions = np.zeros((agents, len(d)), np.int64), np.zeros((agents, len(d)), np.int64)
    rows: list[list[Array]] = []
    for t in range(op.steps.value.data):
        words = random.words(len(d) + len(a), t, agents, random.WORLD, seed)
        states, outcomes = _moved(world, (a_factors, b_factors), states, actions, words, first=t == 0)
        logs = [np.log(np.maximum(x[outcomes[:, m]], EPSILON)) for m, x in enumerate(a)]
        beliefs = _inferred(logs, a_factors, priors, op.iterations.value.data)
        values = negative_efe(beliefs, a, b, c, policies, (a_factors, b_factors))
        q_pi = softmax(op.gamma.value.data * values)
        for f, x in enumerate(b):
            chosen = policies[:, 0, f] == np.arange(x.shape[-1])[:, None]
            marginal = q_pi @ chosen.T
            actions[:, f] = (marginal >= marginal.max(1, keepdims=True) - TIE).argmax(1)
        priors = [_expected_each(x, actions[:, f], beliefs, b_factors[f]) for f, x in enumerate(b)]
        rows.append([outcomes, states.copy(), actions.copy(), values, *beliefs])
    dtypes = [np.int32] * 3 + [np.float32] * (1 + len(d))
    return [np.stack(column, 1).astype(dtype) for column, dtype in zip(zip(*rows), dtypes)]


def _moved(
    world: tuple[list[Array], list[Array], list[Array]],
    dependencies: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]],
    states: Array,
    actions: Array,
    words: Array,
    *,
    first: bool,
) -> tuple[Array, Array]:
    """The world's next states and what is seen of them, [agents, factors] and [agents, modalities]."""
    (a, b, d), (a_factors, b_factors) = world, dependencies
    new = np.empty_like(states)
    for f, word in enumerate(words.T[: len(d)]):
        if first:
            ends = np.broadcast_to(random.choice_thresholds(d[f]), (len(states), len(d[f]) - 1))
        else:
            place = tuple(states[:, k] for k in b_factors[f])
            ends = random.choice_thresholds(b[f])[(*place, actions[:, f])]
        new[:, f] = random.choose(word, ends)
    seen = [
        random.choose(word, random.choice_thresholds(x)[tuple(new[:, k] for k in deps)])
        for x, deps, word in zip(a, a_factors, words.T[len(d) :])
    ]
    return new, np.stack(seen, 1)


def _inferred(logs: list[Array], factors: Sequence[Sequence[int]], priors: list[Array], iterations: int) -> list[Array]:
    """Q_f ← softmax(ln prior_f + Σ_m E ln A_m over the other factors), all at once, from uniform beliefs."""
    q = [np.full(p.shape, 1.0 / p.shape[1]) for p in priors]
    for _ in range(iterations):
        scores = [np.log(np.maximum(p, EPSILON)) for p in priors]
        for log, deps in zip(logs, factors):
            for place, f in enumerate(deps):
                others = [q[k] for k in deps if k != f]
                scores[f] = scores[f] + _contracted(np.moveaxis(log, 1 + place, 1), others)
        q = [softmax(s) for s in scores]
    return q


def _contracted(array: Array, beliefs: list[Array]) -> Array:
    """Σ of array [C, N, S…] over its last axes with beliefs [C, S]: [C, N]."""
    for q in reversed(beliefs):
        array = (array * q.reshape(len(q), *[1] * (array.ndim - 2), -1)).sum(-1)
    return array


def _expected_each(b: Array, actions: Array, beliefs: list[Array], factors: Sequence[int]) -> Array:
    """B[…, u]·q with each agent's own u: [C, S']."""
    moved = [expected(b[..., u], [beliefs[k][c : c + 1] for k in factors])[0] for c, u in enumerate(actions)]
    return np.stack(moved)
