"""An agent in an environment of its user's own: it follows a chain of cues to the reward, and learns what it saw."""

from __future__ import annotations

import numpy as np
import pytest

from neuc import energy
from neuc.errors import Error

ROWS, COLUMNS = 3, 3
CELLS = ROWS * COLUMNS
START, FIRST_CUE, SECOND_CUES, REWARDS = 3, 0, (2, 8), (6, 4)
"""Places: the first cue tells at which of two places the second cue is, and that at which of two the reward is."""
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0))


class Maze:
    """A grid world: two cells hold a reward and a punishment, which one is said by a cue that another cue leads to."""

    def __init__(self, second: int, reward: int) -> None:
        self.second, self.reward, self.place = second, reward, START

    def step(self, move: int) -> list[int]:
        row, column = self.place // COLUMNS + MOVES[move][0], self.place % COLUMNS + MOVES[move][1]
        if 0 <= row < ROWS and 0 <= column < COLUMNS:
            self.place = row * COLUMNS + column
        return self.look()

    def look(self) -> list[int]:
        first = 1 + self.second if self.place == FIRST_CUE else 0
        second = 1 + self.reward if self.place == SECOND_CUES[self.second] else 0
        found = 0 if self.place not in REWARDS else (1 if self.place == REWARDS[self.reward] else 2)
        return [self.place, first, second, found]


def maze_agent() -> energy.Agent:
    """The maze as an agent knows it: all but which cue and which reward it is."""
    where, first = np.eye(CELLS), np.zeros((3, CELLS, 2))
    second, found = np.zeros((3, CELLS, 2, 2)), np.zeros((3, CELLS, 2))
    for place in range(CELLS):
        for s in range(2):
            first[1 + s if place == FIRST_CUE else 0, place, s] = 1
            for r in range(2):
                second[1 + r if place == SECOND_CUES[s] else 0, place, s, r] = 1
                found[0 if place not in REWARDS else (1 if place == REWARDS[r] else 2), place, r] = 1
    moves = np.zeros((CELLS, CELLS, len(MOVES)))
    for place in range(CELLS):
        for move in range(len(MOVES)):
            maze = Maze(0, 0)
            maze.place = place
            maze.step(move)
            moves[maze.place, place, move] = 1
    return energy.Agent(
        [where, first, second, found],
        [moves, np.eye(2)[..., None], np.eye(2)[..., None]],
        C=[np.zeros(CELLS), np.zeros(3), np.zeros(3), [0.0, 3.0, -6.0]],
        D=[np.eye(CELLS)[START], [0.5, 0.5], [0.5, 0.5]],
        A_dependencies=[[0], [0, 1], [0, 1, 2], [0, 2]],
        policy_len=4,
        gamma=16.0,
    )


@pytest.mark.slow
def test_an_agent_follows_the_chain_of_cues_to_the_reward() -> None:
    life = energy.Life(maze_agent())
    for second in range(2):
        for reward in range(2):
            maze = Maze(second, reward)
            life.restart()
            life.observe(maze.look())
            places = [maze.place]
            for _ in range(12):
                life.observe(maze.step(life.act()[0]))
                places.append(maze.place)
            assert places.index(FIRST_CUE) < places.index(SECOND_CUES[second]) < places.index(REWARDS[reward])
            assert REWARDS[1 - reward] not in places
            assert places[-1] == REWARDS[reward]
            assert life.beliefs[2][reward] > 0.99


def test_dirichlet_parameters_learn_what_an_environment_does() -> None:
    rng = np.random.default_rng(0)
    likelihood = np.array([[0.9, 0.2], [0.1, 0.8]])
    moves = np.stack([np.eye(2), np.eye(2)[::-1]], -1)
    vague = np.array([[0.6, 0.4], [0.4, 0.6]])
    agent = energy.Agent([vague], [moves], C=[[0.0, 0.0]], D=[[1.0, 0.0]])
    life = energy.Life(agent, pA=[10 * vague], pB=[moves * 5 + 1.0], seed=1)
    state, expected = 0, 10 * vague
    for episode in range(3):
        life.restart()
        state = 0
        for _ in range(40):
            outcome = int(rng.random() < likelihood[1, state])
            q = life.observe([outcome])[0]
            expected[outcome] += q
            (action,) = life.act(sample=True)
            state = state if action == 0 else 1 - state
        life.learn()
        assert life.pA is not None
        np.testing.assert_allclose(life.pA[0], expected, rtol=1e-6)
        np.testing.assert_allclose(life.agent.A[0], expected / expected.sum(0), rtol=1e-6)
        assert episode < 2 or np.abs(life.agent.A[0] - likelihood).max() < 0.15
    assert life.pB is not None
    # One transition was counted for each step after an episode's first.
    assert life.pB[0].sum() == pytest.approx((moves * 5 + 1.0).sum() + 3 * 39, rel=1e-6)


def test_uses_that_cannot_work_are_named() -> None:
    agent = energy.Agent([np.eye(2)], [np.eye(2)[..., None]], C=[[0.0, 1.0]], D=[[0.5, 0.5]])
    life = energy.Life(agent)
    with pytest.raises(Error, match=r"E632.*before the first observation"):
        life.act()
    with pytest.raises(Error, match=r"E632.*observation \[2\]"):
        life.observe([2])
    with pytest.raises(Error, match=r"E632.*without Dirichlet"):
        life.learn()
    with pytest.raises(Error, match=r"E632.*pA\[0\] of shape \[3\]"):
        energy.Life(agent, pA=[np.ones(3)])


def test_an_agent_may_see_what_never_changes() -> None:
    agent = energy.Agent(
        [np.ones((1, 2)), np.eye(2)], [np.eye(2)[..., None]], [np.zeros(1), np.zeros(2)], [np.full(2, 0.5)]
    )
    prior = np.log(np.full((1, 1, 2), 0.5, np.float32))
    found = agent.program(batch=1).run(
        obs0=np.zeros((1, 1), np.int32), obs1=np.ones((1, 1), np.int32), log_prior0=prior
    )
    assert found.q0[0, 0, 1] > 0.9
