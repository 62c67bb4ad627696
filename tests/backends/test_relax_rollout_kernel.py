"""Lives of agents in generated code against the interpreter, on every instruction set; worlds against their arrays."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import runnable_isas
from neuc import energy
from neuc.backends.cpu.target import isa_text
from neuc.compiler.energy.agent import Agent, World
from neuc.dialects.interp.energy_random import choice_thresholds, choose
from neuc.errors import Error

TOLERANCE = 5e-5
"""f32 against f64: sums of 30 logarithms of size 1 to 10, each off by 2 units of 6e-8, over 16 iterations and steps."""
FAIR = 4.5
"""Standard deviations that a right frequency stays within."""
FIRST, *OTHERS = [isa_text(isa) for isa in runnable_isas()]


def conditional(rng: np.random.Generator, first: int, rest: tuple[int, ...]) -> np.ndarray:
    return rng.dirichlet(np.ones(first), rest).transpose(len(rest), *range(len(rest)))


def random_agent(seed: int, policy_len: int = 2) -> tuple[Agent, World]:
    """Two factors, one moved by both; modalities that read factors in any order; a world unlike what is believed."""
    rng = np.random.default_rng(seed)
    sizes, a_deps, b_deps, controls = (4, 3), [(1, 0), (1,), (0,)], [(0,), (1, 0)], (3, 2)

    def arrays() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        a = [conditional(rng, o, tuple(sizes[d] for d in deps)) for o, deps in zip((5, 2, 3), a_deps)]
        b = [conditional(rng, sizes[f], (*(sizes[d] for d in deps), controls[f])) for f, deps in enumerate(b_deps)]
        return a, b, [rng.dirichlet(np.ones(n)) for n in sizes]

    a, b, d = arrays()
    c = [rng.normal(size=len(x)) for x in a]
    agent = Agent(a, b, c, d, A_dependencies=a_deps, B_dependencies=b_deps, policy_len=policy_len, gamma=3.0)
    return agent, World(*arrays())


@pytest.mark.parametrize("isa", [FIRST, *(pytest.param(isa, marks=pytest.mark.slow) for isa in OTHERS)])
def test_lives_are_the_interpreters(isa: str) -> None:
    agent, world = random_agent(1)
    program = agent.rollout(7, world, agents=9)
    expected = program.interpret(seed=5)
    session = program.session(isa=isa, threads=2)
    found = dict(zip(expected, session.run(list(expected), program.feeds(seed=5))))
    for name, values in expected.items():
        if values.dtype == np.int32:
            np.testing.assert_array_equal(found[name], values, err_msg=name)
        else:
            np.testing.assert_allclose(
                np.asarray(found[name], float), values.astype(float), atol=TOLERANCE, err_msg=name
            )


def test_a_step_of_a_life_is_the_step_of_an_agent() -> None:
    agent, world = random_agent(2)
    lived = agent.rollout(3, world, agents=4).interpret(seed=1)
    program, log_prior = agent.program(), [np.tile(np.log(d), (4, 1, 1)) for d in agent.D]
    for t in range(3):
        feeds = {f"obs{m}": lived.outcomes[:, t, m : m + 1] for m in range(3)}
        feeds |= {f"log_prior{f}": x for f, x in enumerate(log_prior)}
        feeds |= {f"start{f}": np.full((4, 1, len(d)), 1.0 / len(d)) for f, d in enumerate(agent.D)}
        step = program.interpret(**feeds)
        np.testing.assert_allclose(step.neg_efe, lived.neg_efe[:, t], atol=TOLERANCE)
        np.testing.assert_allclose(step.q1[:, 0], lived.q1[:, t], atol=TOLERANCE)
        assert (agent.action(agent.q_pi(step.neg_efe)) == lived.actions[:, t]).all()
        log_prior = agent.log_prior([step.q0, step.q1], lived.actions[:, t])


def test_worlds_follow_their_arrays() -> None:
    agent, world = random_agent(3, policy_len=1)
    lived = agent.rollout(200, world, agents=200).run(seed=8)
    states, actions, outcomes = lived.states, lived.actions, lived.outcomes
    before = tuple(states[:, :-1, f].reshape(-1) for f in (1, 0))
    u, after = actions[:, :-1, 1].reshape(-1), states[:, 1:, 1].reshape(-1)
    for place in np.ndindex(3, 4, 2):
        here = (before[0] == place[0]) & (before[1] == place[1]) & (u == place[2])
        _fair(after[here], np.asarray(world.B[1])[(slice(None), *place)])
    for place in np.ndindex(3, 4):
        here = (states[..., 1] == place[0]) & (states[..., 0] == place[1])
        _fair(outcomes[here][:, 0], np.asarray(world.A[0])[(slice(None), *place)])
    _fair(states[:, 0, 0], np.asarray(world.D[0]))


def _fair(drawn: np.ndarray, p: np.ndarray) -> None:
    count = np.bincount(drawn, minlength=len(p))
    assert (np.abs(count - len(drawn) * p) <= FAIR * np.sqrt(len(drawn) * p * (1 - p)) + 1).all()


def test_what_is_certain_is_always_chosen() -> None:
    words = np.array([0, 1, 2**31, 2**32 - 1], np.uint32)
    for k in range(3):
        ends = np.broadcast_to(choice_thresholds(np.eye(3)[k]), (4, 2))
        assert (choose(words, ends) == k).all()


def test_the_printed_life_runs_edited_and_bad_worlds_are_named() -> None:
    agent, world = random_agent(4, policy_len=1)
    program = agent.rollout(5, world)
    text = program.text()
    assert "energy.rollout(" in text
    assert program.edited(text).text() == text
    again = program.edited(text.replace("iterations = 16", "iterations = 1"))
    assert not np.allclose(again.interpret(seed=0).q0, program.interpret(seed=0).q0)
    with pytest.raises(Error, match=r"E607.*A\[0\] is not normalised"):
        agent.rollout(5, World([2 * np.asarray(a) for a in world.A], world.B, world.D))
    with pytest.raises(Error, match=r"E607.*the world's B has other shapes"):
        agent.rollout(5, World(world.A, [np.asarray(b)[..., :1] for b in world.B], world.D))
    with pytest.raises(Error, match=r"E614.*steps = 0, should be at least 1"):
        agent.rollout(0)
    assert energy.World is World
