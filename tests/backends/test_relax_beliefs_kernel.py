"""Beliefs and expected free energies in generated code against the interpreter, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import runnable_isas
from neuc.backends.cpu.lowerings.relax_beliefs import policy_tree
from neuc.backends.cpu.target import isa_text
from neuc.compiler.energy import Agent
from neuc.compiler.energy.agent import all_policies

TOLERANCE = 2e-5
"""f32 against f64: sums of 30 logarithms of size 1 to 10, each off by 2 units of 6e-8, over 16 iterations."""
ISAS = [isa_text(isa) for isa in runnable_isas()]


def random_agent(seed: int) -> Agent:
    """Three factors of 4, 2 and 3 states, one moved by another; modalities of one to three factors, 19 outcomes."""
    rng = np.random.default_rng(seed)
    sizes, a_deps, b_deps = (4, 2, 3), [(0,), (1, 2), (0, 1, 2)], [(0,), (0, 1), (2,)]

    def conditional(first: int, rest: tuple[int, ...]) -> np.ndarray:
        return rng.dirichlet(np.ones(first), rest).transpose(len(rest), *range(len(rest)))

    a = [conditional(o, tuple(sizes[d] for d in deps)) for o, deps in zip((5, 3, 11), a_deps)]
    controls = (3, 2, 1)
    b = [conditional(sizes[f], (*(sizes[d] for d in deps), controls[f])) for f, deps in enumerate(b_deps)]
    c, d = [rng.normal(size=len(x)) for x in a], [rng.dirichlet(np.ones(n)) for n in sizes]
    return Agent(a, b, c, d, A_dependencies=a_deps, B_dependencies=b_deps, policy_len=2)


@pytest.mark.parametrize("isa", ISAS)
def test_a_step_of_several_agents(isa: str) -> None:
    agent, batch = random_agent(1), 5
    rng = np.random.default_rng(0)
    program = agent.program()
    feeds = {f"obs{m}": rng.integers(0, len(a), (batch, 1)) for m, a in enumerate(agent.A)}
    for f, d in enumerate(agent.D):
        feeds[f"log_prior{f}"] = np.log(rng.dirichlet(np.ones(len(d)), (batch, 1)))
        feeds[f"start{f}"] = np.full((batch, 1, len(d)), 1.0 / len(d))
    expected = program.interpret(**feeds)
    session = program.session(isa=isa, threads=2)
    found = dict(zip(expected, session.run(list(expected), program.feeds(**feeds))))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=TOLERANCE)  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_common_steps_of_policies_are_one_node() -> None:
    policies = all_policies([3, 2], 2)
    tree, depth = policy_tree(policies)
    assert depth == 2
    assert len(tree) == 6 + 36
    walked, actions = [], {}
    for t, policy, *u in tree.tolist():
        actions[t] = u
        if policy >= 0:
            walked.append((policy, [actions[0], actions[1]]))
    assert walked == [(k, p) for k, p in enumerate(policies.tolist())]
    repeated, _ = policy_tree(np.zeros((2, 3, 1), np.int32))
    assert repeated[:, 1].tolist() == [-1, -1, 0, 1]
