"""Active inference: what an agent believes it sees, and what it expects of each policy."""

from __future__ import annotations

import numpy as np

from neuc import energy


def build() -> tuple[energy.Program, dict[str, np.ndarray]]:
    """The program, and inputs for it."""
    likelihood = np.array([[0.9, 0.1, 0.2], [0.1, 0.9, 0.8]])
    moves = np.stack([np.roll(np.eye(3), step, 0) for step in (0, 1, 2)], -1)
    agent = energy.Agent([likelihood], [moves], C=[[0.0, 2.0]], D=[[0.6, 0.2, 0.2]], policy_len=2)
    inputs = {"obs0": np.array([[0]]), "log_prior0": np.log(agent.D[0])[None, None]}
    return agent.program(batch=1), inputs


if __name__ == "__main__":
    program, inputs = build()
    print(program.text())
    for name, values in program.interpret(**inputs).items():
        print(name, values.shape, values.reshape(-1)[:6])
