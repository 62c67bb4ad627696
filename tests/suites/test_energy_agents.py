"""Active inference equals pymdp 1.0.4's: beliefs, expected free energies and actions over 50 steps (golden data).

`tests/_support/pymdp_golden.py` wrote the data.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuc import energy
from neuc.errors import Error

GOLDEN = Path(__file__).parent / "pymdp_golden.npz"
TOLERANCE = 1e-5
"""The bar that is set; pymdp computes in f32, whose roundings of some units of 6e-8 add up over 16 iterations."""
WINDOW, STRIDE = 6, 4


class Life:
    """What pymdp's agent saw, believed and did."""

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN) as file:
            self.arrays = {k.removeprefix(f"{name}/"): file[k] for k in file.files if k.startswith(f"{name}/")}

    def group(self, prefix: str) -> list[np.ndarray]:
        """The arrays prefix0, prefix1 …"""
        return [self.arrays[f"{prefix}{k}"] for k in range(sum(f"{prefix}{k}" in self.arrays for k in range(9)))]

    def agent(self) -> energy.Agent:
        deps = ([tuple(x) for x in self.group(f"{letter}_deps")] for letter in "ab")
        a_deps, b_deps = deps
        arrays = (self.group(letter) for letter in "ABCD")
        return energy.Agent(*arrays, A_dependencies=a_deps, B_dependencies=b_deps, policy_len=2)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("name", ["tmaze", "grid"])
def test_fixed_point_iteration_and_policies(name: str, native: bool) -> None:
    life = Life(name)
    agent, seen, taken = life.agent(), life.arrays["obs"], life.arrays["actions"]
    program = agent.program(batch=1)
    factors = range(len(agent.D))
    priors = [np.log(np.maximum(d, 1e-16))[None, None].astype(np.float32) for d in agent.D]
    decided = 0
    for step, outcome in enumerate(seen):
        feeds = {f"obs{m}": np.array([[o]], np.int32) for m, o in enumerate(outcome)}
        feeds |= {f"log_prior{f}": p for f, p in enumerate(priors)}
        found = program.run(**feeds) if native else program.interpret(**feeds)
        beliefs = [found[f"q{f}"] for f in factors]
        for f in factors:
            np.testing.assert_allclose(beliefs[f][0, 0], life.arrays[f"q{f}"][step], atol=TOLERANCE)
        np.testing.assert_allclose(found.neg_efe[0], life.arrays["neg_efe"][step], atol=TOLERANCE)
        q_pi = agent.q_pi(found.neg_efe)
        np.testing.assert_allclose(q_pi[0], life.arrays["q_pi"][step], atol=TOLERANCE)
        marginals = agent.action_marginals(q_pi)
        # Where several actions are equally good, roundings choose pymdp's: it must be one of them.
        best = [m[0] >= m[0].max() - TOLERANCE for m in marginals]
        assert all(b[u] for b, u in zip(best, taken[step]))
        decided += sum(b.sum() == 1 for b in best)
        priors = agent.log_prior(beliefs, taken[step : step + 1])
    assert decided


@pytest.mark.parametrize("name", ["tmaze", "grid"])
def test_marginal_message_passing(name: str) -> None:
    life = Life(name)
    agent, seen, taken = life.agent(), life.arrays["obs"], life.arrays["actions"]
    factors = range(len(agent.D))
    for number, end in enumerate(range(WINDOW, len(seen) + 1, STRIDE)):
        window = seen[end - WINDOW : end]
        program = agent.sequence(taken[end - WINDOW : end - 1], batch=1)
        feeds = {f"obs{m}": window[:, m][None] for m in range(window.shape[1])}
        uniform = [np.full((1, WINDOW, len(d)), 1.0 / len(d), np.float32) for d in agent.D]
        found = program.interpret(**feeds, **{f"start{f}": q for f, q in enumerate(uniform)})
        for f in factors:
            np.testing.assert_allclose(found[f"q{f}"][0], life.arrays[f"mmp{f}"][number], atol=TOLERANCE)


def test_arrays_that_are_no_distributions_are_refused() -> None:
    a, b, c, d = np.eye(2), np.eye(2)[..., None], np.zeros(2), np.ones(2) / 2
    with pytest.raises(Error, match=r"E607.*A\[0\] is not normalised"):
        energy.Agent([2 * a], [b], [c], [d])
    with pytest.raises(Error, match=r"E607.*D\[0\] is not normalised"):
        energy.Agent([a], [b], [c], [np.ones(2)])
    with pytest.raises(Error, match=r"E607.*B\[0\] does not fit"):
        energy.Agent([a], [np.eye(3)[..., None]], [c], [d])
    agent = energy.Agent([a], [b], [c], [d])
    for rollout in (lambda: agent.rollout(0), lambda: agent.rollout(3, agents=0)):
        with pytest.raises(Error, match=r"E614.*change what the message names"):
            rollout()
