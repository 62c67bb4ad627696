"""Ballistic simulated bifurcation of a spin glass (Goto et al. 2021): positions end near a ground state."""

from __future__ import annotations

import numpy as np

from neuc import energy


def build() -> tuple[energy.Program, dict[str, np.ndarray]]:
    """The program, and inputs for it."""
    rng = np.random.default_rng(0)
    upper = np.triu(rng.choice([-1.0, 1.0], (40, 40)), 1)
    model = energy.Model()
    x = model.real(40, box=(-1.0, 1.0), name="x")
    model.couple(x, upper + upper.T)
    settled = model.state(16).relax("bifurcation", 500, dt=0.5, scale=0.1)
    return model.program(last=settled[x], energy=settled.energy()), {"x": rng.uniform(-0.1, 0.1, (16, 40))}


if __name__ == "__main__":
    program, inputs = build()
    print(program.text())
    for name, values in program.interpret(**inputs).items():
        print(name, values.shape, values.reshape(-1)[:6])
