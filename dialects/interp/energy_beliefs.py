"""Meaning of `energy.efe`: what policies are expected to bring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuc.dialects import energy as e
from neuc.dialects.interp.core import Env, implements

Array = np.ndarray
EPSILON = np.finfo(np.float64).eps
"""What probabilities are at least where a logarithm is taken of them."""


@implements(e.EfeOp)
def _efe(op: e.EfeOp, args: list[Array], env: Env) -> list[Array]:
    f, m = op.factors.value.data, op.modalities.value.data
    doubles = [a.astype(np.float64) for a in args[:-1]]
    beliefs, a, b, c = doubles[:f], doubles[f : f + m], doubles[f + m : 2 * f + m], doubles[2 * f + m :]
    found = negative_efe(
        beliefs, a, b, c, args[-1], op.dependencies(), utility=op.no_utility is None, gain=op.no_gain is None
    )
    return [found.astype(np.float32)]


def negative_efe(
    beliefs: list[Array],
    a: list[Array],
    b: list[Array],
    c: list[Array],
    policies: Array,
    dependencies: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]],
    *,
    utility: bool = True,
    gain: bool = True,
) -> Array:
    """−G [C, P] of policies i32 [P, T, factors], from beliefs [C, S_f]."""
    a_factors, b_factors = dependencies
    result = np.zeros((len(beliefs[0]), len(policies)))
    for number, policy in enumerate(policies):
        q = beliefs
        for actions in policy:
            q = [expected(b[k][..., actions[k]], [q[d] for d in deps]) for k, deps in enumerate(b_factors)]
            for a_m, c_m, deps in zip(a, c, a_factors):
                states = [q[d] for d in deps]
                outcomes = expected(a_m, states)
                if utility:
                    result[:, number] += outcomes @ c_m
                if gain:
                    ambiguity = expected(_entropy(a_m, 0)[None], states)[:, 0]
                    result[:, number] += _entropy(outcomes, 1) - ambiguity
    return result


def expected(array: Array, beliefs: list[Array]) -> Array:
    """Σ over state axes of array [N, S…] times beliefs [C, S]: [C, N]."""
    out = np.broadcast_to(array, (len(beliefs[0]), *array.shape))
    for q in reversed(beliefs):
        out = (out * q.reshape(len(q), *[1] * (out.ndim - 2), -1)).sum(-1)
    return out


def _entropy(p: Array, axis: int) -> Array:
    return -(p * np.log(np.maximum(p, EPSILON))).sum(axis)
