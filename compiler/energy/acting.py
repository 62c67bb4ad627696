"""`Life`: an agent in its user's own loop: what it believes, does and learns from one observation to the next."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from neuc.compiler.energy.agent import EPSILON, Agent
from neuc.compiler.energy.program import Program
from neuc.errors import Error, Exit

Array = np.ndarray


class Life:
    """One agent from its first observation on.

    ::

        life = energy.Life(agent)
        while running:
            life.observe(observation)  # beliefs, by generated code
            observation = environment.step(life.act())

    Counts of what was seen and done are kept; `learn` adds them to Dirichlet parameters and makes a new agent of their
    means, which is compiled when it is next asked.

    Args:
        agent: how the world is believed to be.
        pA: Dirichlet parameters of A, one array for each modality; None: A is not learned.
        pB: the same of B, for each factor.
        rate: what counts are multiplied by.
        seed: of sampled actions.

    Raises:
        Error: NEUC-E632, parameters that do not fit the agent's arrays.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        pA: Sequence[ArrayLike] | None = None,
        pB: Sequence[ArrayLike] | None = None,
        rate: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.agent, self.rate = agent, rate
        self.pA = _parameters("pA", pA, agent.A)
        self.pB = _parameters("pB", pB, agent.B)
        self._rng = np.random.default_rng(seed)
        self._added_a = None if self.pA is None else [np.zeros_like(p) for p in self.pA]
        self._added_b = None if self.pB is None else [np.zeros_like(p) for p in self.pB]
        self.restart()

    def restart(self) -> None:
        """A new episode: beliefs are D again; what was learned and counted stays."""
        self.beliefs = [np.asarray(d, np.float64) for d in self.agent.D]
        self.q_pi = np.zeros(0)
        self._before: list[Array] | None = None
        self._action: Array | None = None

    def observe(self, observation: Sequence[int]) -> list[Array]:
        """Beliefs about each factor after an observation, one number a modality.

        Raises:
            Error: NEUC-E632, an observation of another form.
        """
        if np.ndim(observation) != 1:
            raise _wrong(f"observation {observation!r} is no list", "one number for each modality: observe([0])")
        seen = [int(o) for o in observation]
        sizes = [len(a) for a in self.agent.A]
        if len(seen) != len(sizes) or not all(0 <= o < n for o, n in zip(seen, sizes, strict=True)):
            raise _wrong(f"observation {seen} for modalities of {sizes} outcomes", "one number below each of these")
        found = self._program.run(**{f"obs{m}": [[o]] for m, o in enumerate(seen)}, **self._priors())
        self.beliefs = [found[f"q{f}"][0, 0].astype(np.float64) for f in range(len(self.agent.D))]
        self.q_pi = self.agent.q_pi(found.neg_efe)
        self._count(seen)
        return self.beliefs

    def act(self, *, sample: bool = False) -> list[int]:
        """The next action of each factor: the most probable one, or one drawn.

        Raises:
            Error: NEUC-E632, nothing was observed yet.
        """
        if not self.q_pi.size:
            raise _wrong("an action before the first observation", "observe, then act")
        if sample:
            chosen = [self._rng.choice(len(m[0]), p=m[0] / m[0].sum()) for m in self.agent.action_marginals(self.q_pi)]
            self._action = np.array([chosen], np.int32)
        else:
            self._action = self.agent.action(self.q_pi)
        self._before = self.beliefs
        return [int(u) for u in self._action[0]]

    def learn(self) -> None:
        """Add what was counted since to the Dirichlet parameters; A and B become their means."""
        arrays: dict[str, list[Array]] = {}
        for name, parameters, added in (("A", self.pA, self._added_a), ("B", self.pB, self._added_b)):
            if parameters is None or added is None:
                continue
            for p, more in zip(parameters, added, strict=True):
                p += self.rate * more
                more[:] = 0
            arrays[name] = [(p / p.sum(0)).astype(np.float32) for p in parameters]
        if not arrays:
            raise _wrong("an agent without Dirichlet parameters", "Life(agent, pA=…)")
        self.agent = self.agent.changed(**arrays)
        self.__dict__.pop("_program", None)

    @cached_property
    def _program(self) -> Program:
        return self.agent.program(batch=1)

    def _priors(self) -> dict[str, Array]:
        """Logarithms of what the last action leads to, or of D."""
        if self._before is None or self._action is None:
            logs = [np.log(np.maximum(d, EPSILON))[None, None] for d in self.agent.D]
        else:
            logs = self.agent.log_prior([q[None, None] for q in self._before], self._action)
        return {f"log_prior{f}": np.asarray(x, np.float32) for f, x in enumerate(logs)}

    def _count(self, seen: Sequence[int]) -> None:
        """The outcome ⊗ q for A; for B, q ⊗ q of the step before, for the action that was taken."""
        if self._added_a is not None:
            for added, outcome, factors in zip(self._added_a, seen, self.agent.A_dependencies, strict=True):
                added[outcome] += _outer([self.beliefs[f] for f in factors])
        if self._added_b is not None and self._before is not None and self._action is not None:
            for f, (added, factors) in enumerate(zip(self._added_b, self.agent.B_dependencies, strict=True)):
                moved = _outer([self.beliefs[f], *(self._before[d] for d in factors)])
                added[..., self._action[0, f]] += moved


def _outer(vectors: Sequence[Array]) -> Array:
    product = np.ones(())
    for vector in vectors:
        product = product[..., None] * vector
    return product


def _parameters(name: str, given: Sequence[ArrayLike] | None, arrays: Sequence[Array]) -> list[Array] | None:
    """Positive f64 copies in the shapes of `arrays`."""
    if given is None:
        return None
    found = [np.array(p, np.float64) for p in given]
    for number, (p, array) in enumerate(zip(found, arrays)):
        if p.shape != array.shape or not (np.isfinite(p).all() and (p >= 0).all() and (p.sum(0) > 0).all()):
            what = f"{name}[{number}] of shape {list(p.shape)} for an array of shape {list(array.shape)}"
            raise _wrong(what, "counts of 0 or more, some in every column")
    if len(found) != len(arrays):
        raise _wrong(f"{len(found)} arrays {name} for {len(arrays)}", "one for each")
    return found


def _wrong(what: str, hint: str) -> Error:
    return Error("NEUC-E632", what, hint=hint, exit_code=Exit.USAGE)
