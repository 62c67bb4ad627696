"""`Agent`: active inference over discrete states from A, B, C and D arrays as pymdp has them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from xdsl.ir import SSAValue

from neuc.compiler.energy.model import Model, Variable
from neuc.compiler.energy.program import Program
from neuc.compiler.energy.states import Value
from neuc.dialects import energy as e
from neuc.dialects.energy_rollout import Arrays
from neuc.errors import Error

Array = np.ndarray
EPSILON = float(np.finfo(np.float64).eps)
"""What probabilities are at least where their logarithm is taken, as in pymdp."""
_SUM_TOLERANCE = 1e-4
"""Distributions in f32 add up to 1 within this."""


@dataclass(frozen=True)
class World:
    """What an agent acts in, as pymdp's environments have it: arrays of the true A, B and D, of the agent's shapes."""

    A: Sequence[ArrayLike]
    B: Sequence[ArrayLike]
    D: Sequence[ArrayLike]


class Agent:
    """An active-inference agent; `program` is one step of it, `sequence` smoothing over a window.

    Args:
        A: per modality [O, S…], the states' axes in the order of `A_dependencies`.
        B: per factor [S', S…, U].
        C: per modality [O], log preferences.
        D: per factor [S], the prior of the first step.
        A_dependencies: factors of the axes of each A; all by default.
        B_dependencies: factors of the axes of each B; the factor itself by default.
        policy_len: steps of a policy.
        num_iter: iterations of inference.
        gamma: precision of policies.

    Raises:
        Error: NEUC-E607, an array that is no distribution or does not fit the others.
    """

    def __init__(
        self,
        A: Sequence[ArrayLike],
        B: Sequence[ArrayLike],
        C: Sequence[ArrayLike],
        D: Sequence[ArrayLike],
        *,
        A_dependencies: Sequence[Sequence[int]] | None = None,
        B_dependencies: Sequence[Sequence[int]] | None = None,
        policy_len: int = 1,
        num_iter: int = 16,
        gamma: float = 1.0,
    ) -> None:
        self.A, self.B, self.C, self.D = ([np.asarray(x, np.float32) for x in arrays] for arrays in (A, B, C, D))
        factors = range(len(self.D))
        self.A_dependencies = [tuple(deps) for deps in (A_dependencies or [factors] * len(self.A))]
        self.B_dependencies = [tuple(deps) for deps in (B_dependencies or [[f] for f in factors])]
        self.num_iter, self.gamma, self.policy_len = num_iter, gamma, policy_len
        self._check()
        self.policies = all_policies([b.shape[-1] for b in self.B], policy_len)

    def changed(self, *, A: Sequence[ArrayLike] | None = None, B: Sequence[ArrayLike] | None = None) -> Agent:
        """The agent with other A or B, such as learned ones."""
        return Agent(
            self.A if A is None else A,
            self.B if B is None else B,
            self.C,
            self.D,
            A_dependencies=self.A_dependencies,
            B_dependencies=self.B_dependencies,
            policy_len=self.policy_len,
            num_iter=self.num_iter,
            gamma=self.gamma,
        )

    def program(self, batch: int | str = "batch") -> Program:
        """One step by fixed-point iteration: inputs `obs0` … i32 and `log_prior0` … f32, results `q0` … and `neg_efe`.

        Of `batch` agents: observations are [batch, 1], logarithms of priors and beliefs [batch, 1, S], −G is
        [batch, policies]. Iterations begin at uniform beliefs; where `batch` is not 1 those are the inputs `start0` ….
        """
        model = Model()
        beliefs = [model.beliefs(len(d), 1, name=f"start{f}") for f, d in enumerate(self.D)]
        priors = [model.beliefs(len(d), 1, name=f"log_prior{f}", clamped=True) for f, d in enumerate(self.D)]
        for q, prior in zip(beliefs, priors):
            model.table([q, prior], np.eye(q.type.levels))
        self._observe(model, beliefs, [""])
        constants = {q.name: np.full((1, 1, q.type.levels), 1.0 / q.type.levels, np.float32) for q in beliefs}
        state = model.state(batch, **(constants if batch == 1 else {}))
        state = state.relax("mean_field", self.num_iter)
        found = {f"q{f}": state[q] for f, q in enumerate(beliefs)}
        return model.program(**found, neg_efe=self._policies(model, [value.value for value in found.values()]))

    def rollout(self, steps: int, world: World | None = None, *, agents: int = 1) -> Program:
        """Whole lives in a world, as one program: observe, infer, act, and the world moves.

        Input `seed`; results `outcomes` i32 [agents, steps, modalities], `states` (the world's) and `actions` i32
        [agents, steps, factors], `neg_efe` f32 [agents, steps, policies], beliefs `q0` … f32 [agents, steps, S]. Each
        agent is in a world of its own.

        Args:
            steps: observations, and actions after them.
            world: the agent's own arrays by default.
            agents: how many.

        Raises:
            Error: NEUC-E607, a world whose arrays are no distributions or of other shapes; NEUC-E614, no steps.
        """
        true = World(self.A, self.B, self.D) if world is None else world
        # An agent that believed in this world: its arrays are checked as the agent's own are.
        checked = Agent(
            true.A, true.B, self.C, true.D, A_dependencies=self.A_dependencies, B_dependencies=self.B_dependencies
        )
        for name, ours, theirs in (("B", self.B, checked.B), ("D", self.D, checked.D)):
            if [x.shape for x in ours] != [x.shape for x in theirs]:
                raise Error(
                    "NEUC-E607", f"the world's {name} has other shapes than the agent's", hint="as many of each"
                )
        model = Model()
        own, real = ([[model.weights(x) for x in group] for group in (of.A, of.B, of.D)] for of in (self, checked))
        op = e.RolloutOp(
            Arrays(*own),
            [model.weights(x) for x in self.C],
            model.integers(self.policies),
            Arrays(*real),
            model.seed(),
            (self.A_dependencies, self.B_dependencies),
            agents=agents,
            steps=steps,
            iterations=self.num_iter,
            gamma=self.gamma,
        )
        model.add(op)
        results = {"outcomes": op.outcomes, "states": op.states, "actions": op.actions, "neg_efe": op.values}
        results |= {f"q{f}": q for f, q in enumerate(op.beliefs)}
        return model.program(**{name: Value(model, value) for name, value in results.items()})

    def sequence(self, actions: ArrayLike, batch: int | str = "batch", tau: float = 1.0) -> Program:
        """Beliefs over a window by marginal message passing, given its actions i32 [T − 1, factors].

        Inputs `obs0` … i32 [batch, T] and `start0` …, the beliefs to begin with, [batch, T, S]; results `q0` ….

        Raises:
            Error: NEUC-E607, transitions of several factors.
        """
        taken = np.asarray(actions, np.int64).reshape(-1, len(self.B))
        steps = len(taken) + 1
        if any(deps != (f,) for f, deps in enumerate(self.B_dependencies)):
            raise Error("NEUC-E607", "messages pass along factors alone", hint="B[f] depends on factor f only")
        model = Model()
        beliefs = [model.beliefs(len(d), steps, name=f"start{f}") for f, d in enumerate(self.D)]
        for f, (q, d) in enumerate(zip(beliefs, self.D)):
            prior = np.zeros((steps, len(d)))
            # Like a message, the prior of a site that sends on counts half.
            prior[0] = np.log(np.maximum(d, EPSILON)) * (0.5 if steps > 1 else 1.0)
            model.linear(q, prior)
            if steps > 1:
                links = np.log(np.maximum(np.moveaxis(self.B[f], -1, 0)[taken[:, f]], EPSILON))
                model.table([q, q], links, [np.arange(1, steps), np.arange(steps - 1)])
        self._observe(model, beliefs, range(steps))
        state = model.state(batch).relax("messages", self.num_iter, dt=tau)
        return model.program(**{f"q{f}": state[q] for f, q in enumerate(beliefs)})

    def q_pi(self, neg_efe: Array) -> Array:
        """The posterior of policies, [batch, P]."""
        scores = self.gamma * neg_efe.astype(np.float64)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)

    def action(self, q_pi: Array) -> Array:
        """The most probable action of each factor, i32 [batch, factors]."""
        return np.stack([m.argmax(1) for m in self.action_marginals(q_pi)], 1).astype(np.int32)

    def action_marginals(self, q_pi: Array) -> list[Array]:
        """How probable each action of each factor is as the first one, [batch, U] each."""
        first = self.policies[:, 0]
        return [
            np.stack([q_pi[:, first[:, f] == u].sum(1) for u in range(b.shape[-1])], 1) for f, b in enumerate(self.B)
        ]

    def log_prior(self, q: Sequence[Array], action: Array) -> list[Array]:
        """Ln of the next step's prior, B[…, action]·q, [batch, 1, S] each."""
        found: list[Array] = []
        for b, deps, u in zip(self.B, self.B_dependencies, action.T):
            moved = np.moveaxis(b, -1, 0)[u].astype(np.float64)
            for d in reversed(deps):
                moved = (moved * q[d][:, 0].reshape(len(moved), *[1] * (moved.ndim - 2), -1)).sum(-1)
            found.append(np.log(np.maximum(moved, EPSILON))[:, None].astype(np.float32))
        return found

    def _observe(self, model: Model, beliefs: Sequence[Variable], steps: Sequence[object]) -> None:
        """Ln A of the observed outcomes, at each step of the window."""
        count = len(steps)
        for m, (a, deps) in enumerate(zip(self.A, self.A_dependencies)):
            outcome = model.categories(len(a), count, name=f"obs{m}", clamped=True)
            sites = [np.arange(count)] * (1 + len(deps))
            model.table([outcome, *(beliefs[d] for d in deps)], np.log(np.maximum(a, EPSILON))[None], sites)

    def _policies(self, model: Model, beliefs: Sequence[SSAValue]) -> Value:
        flat = [model.flattened(q) for q in beliefs]
        a, b, c = ([model.weights(x) for x in group] for group in (self.A, self.B, self.C))
        policies = model.integers(self.policies)
        return Value(model, model.add(e.EfeOp(flat, a, b, c, policies, self.A_dependencies, self.B_dependencies)))

    def _check(self) -> None:
        for name, arrays in (("A", self.A), ("B", self.B), ("D", self.D)):
            for index, array in enumerate(arrays):
                if not np.isfinite(array).all():
                    raise Error("NEUC-E607", f"{name}[{index}] holds NaN or infinity", hint="repair its entries")
                if not (array >= 0).all() or not np.allclose(array.sum(0), 1.0, atol=_SUM_TOLERANCE):
                    raise Error(
                        "NEUC-E607", f"{name}[{index}] is not normalised", hint="divide it by its sum over axis 0"
                    )
        sizes = [len(d) for d in self.D]
        for m, (a, c, deps) in enumerate(zip(self.A, self.C, self.A_dependencies)):
            if a.shape[1:] != tuple(sizes[d] for d in deps) or c.shape != a.shape[:1]:
                raise Error("NEUC-E607", f"A[{m}] and C[{m}] do not fit the factors", hint="A is [O, S…], C is [O]")
        for f, (b, deps) in enumerate(zip(self.B, self.B_dependencies)):
            if b.shape[:-1] != (sizes[f], *(sizes[d] for d in deps)):
                raise Error("NEUC-E607", f"B[{f}] does not fit the factors", hint="B is [S', S…, U]")


def all_policies(controls: Sequence[int], length: int) -> Array:
    """Every sequence of actions, i32 [P, length, factors], the last step's actions changing fastest."""
    steps = list(itertools.product(*(range(n) for n in controls)))
    return np.array(list(itertools.product(steps, repeat=length)), np.int32)
