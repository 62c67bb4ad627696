"""Writes `tests/suites/pymdp_golden.npz`: what inferactively-pymdp 1.0.4 infers on its T-maze and grid world.

Run with a Python that has pymdp: `python tests/_support/pymdp_golden.py`. Its agents act for 50 steps in an environment
that is sampled here; marginal message passing smooths windows of what they saw. Not run by the tests.
"""

# Runs in an environment of its own, with the packages that pyright does not find here.
# pyright: reportMissingImports=false, reportArgumentType=false
from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from pymdp.agent import Agent
from pymdp.algos import run_mmp
from pymdp.envs.grid_world import GridWorld
from pymdp.envs.tmaze import TMaze

STEPS, WINDOW = 50, 6


def record(name, env, preferences, policy_len, noise):
    """One agent's life as arrays whose names begin with `name`."""
    a = [np.asarray(x, np.float32) for x in env.A]
    b = [np.asarray(x, np.float32) for x in env.B]
    # Priors and preferences without symmetry: among equal policies roundings would choose.
    uneven = np.random.default_rng(3)
    d = [uneven.dirichlet(np.full(len(x), 5.0)).astype(np.float32) for x in env.D]
    preferences = [np.asarray(c) + uneven.normal(0, 0.1, len(c)) for c in preferences]
    # Likelihoods without zeros: logarithms of what pymdp takes for zero differ with the precision.
    a = [(1 - noise) * x + noise / len(x) for x in a]
    agent = Agent(
        [jnp.asarray(x)[None] for x in a],
        [jnp.asarray(x)[None] for x in b],
        [jnp.asarray(c, jnp.float32)[None] for c in preferences],
        [jnp.asarray(x)[None] for x in d],
        A_dependencies=env.A_dependencies,
        B_dependencies=env.B_dependencies,
        policy_len=policy_len,
        num_iter=16,
        batch_size=1,
        inference_algo="fpi",
        action_selection="deterministic",
    )
    rng = np.random.default_rng(5)
    state = [int(rng.integers(len(x))) for x in d]
    prior, found = [jnp.asarray(x)[None] for x in d], {}
    seen, acted = [], []
    for step in range(STEPS):
        outcome = [
            int(rng.choice(len(x), p=p / p.sum()))
            for x, deps in zip(a, env.A_dependencies)
            for p in [x[(slice(None), *(state[f] for f in deps))].astype(np.float64)]
        ]
        q = agent.infer_states([jnp.array([o]) for o in outcome], empirical_prior=prior)
        q_pi, efe = agent.infer_policies(q)
        action = np.asarray(agent.sample_action(q_pi, jax.random.split(jax.random.key(step), 1)))[0]
        for f, x in enumerate(q):
            found.setdefault(f"q{f}", []).append(np.asarray(x)[0, -1])
        found.setdefault("neg_efe", []).append(np.asarray(efe)[0])
        found.setdefault("q_pi", []).append(np.asarray(q_pi)[0])
        seen.append(outcome)
        acted.append(action)
        next_prior = agent.update_empirical_prior(jnp.asarray(action)[None], q)
        prior = next_prior[0] if isinstance(next_prior, tuple) else next_prior
        state = [
            int(rng.choice(len(p), p=p / p.sum()))
            for x, deps, u in zip(b, env.B_dependencies, action)
            for p in [x[(slice(None), *(state[f] for f in deps), int(u))].astype(np.float64)]
        ]
    seen, acted = np.array(seen, np.int32), np.array(acted, np.int32)
    smoothed = {f"mmp{f}": [] for f in range(len(d))}
    for end in range(WINDOW, STEPS + 1, 4):
        window, taken = seen[end - WINDOW : end], acted[end - WINDOW : end - 1]
        links = [jnp.stack([jnp.asarray(x[..., u]) for u in taken[:, f]]) for f, x in enumerate(b)]
        outcomes = [jax.nn.one_hot(window[:, m], len(x)) for m, x in enumerate(a)]
        q = run_mmp(
            [jnp.asarray(x) for x in a],
            links,
            outcomes,
            [jnp.asarray(x) for x in d],
            env.A_dependencies,
            env.B_dependencies,
            num_iter=16,
            tau=1.0,
        )
        for f, x in enumerate(q):
            smoothed[f"mmp{f}"].append(np.asarray(x))
    arrays = {**{k: np.stack(v) for k, v in {**found, **smoothed}.items()}, "obs": seen, "actions": acted}
    for letter, group in (("A", a), ("B", b), ("C", preferences), ("D", d)):
        arrays |= {f"{letter}{k}": np.asarray(x, np.float32) for k, x in enumerate(group)}
    for letter, lists in (("a", env.A_dependencies), ("b", env.B_dependencies)):
        arrays |= {f"{letter}_deps{k}": np.asarray(deps, np.int32) for k, deps in enumerate(lists)}
    return {f"{name}/{key}": value for key, value in arrays.items()}


def main() -> None:
    maze, grid = TMaze(), GridWorld(shape=(3, 3), initial_position=0, success_prob=0.9)
    maze_c = [
        np.array([0.0, 3.0, -3.0]) if x.shape[0] == 3 and k == 1 else np.zeros(x.shape[0]) for k, x in enumerate(maze.A)
    ]
    goal = np.zeros(9)
    goal[8] = 2.0
    arrays = record("tmaze", maze, maze_c, 2, 0.02) | record("grid", grid, [goal], 2, 0.05)
    np.savez_compressed(Path(__file__).parent.parent / "suites" / "pymdp_golden.npz", **arrays)


if __name__ == "__main__":
    main()
