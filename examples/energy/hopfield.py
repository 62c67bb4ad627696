"""A Hopfield network recalls a stored pattern from a noisy one (Hebb 1949, Hopfield 1982)."""

from __future__ import annotations

import numpy as np

from neuc import energy


def build() -> tuple[energy.Program, dict[str, np.ndarray]]:
    """The program, and inputs for it."""
    rng = np.random.default_rng(0)
    patterns = rng.choice([-1, 1], (3, 64))
    weights = (patterns.T @ patterns - 3 * np.eye(64)) / 64
    model = energy.Model()
    units = model.spin(64, name="units")
    model.couple(units, weights)
    noisy = patterns * np.where(rng.random((3, 64)) < 0.15, -1, 1)
    # Nearly no temperature: each unit in turn takes the sign of its field.
    recalled = model.state(3).sample(sweeps=5, beta=1000.0).last
    return model.program(recalled=recalled[units], energy=recalled.energy()), {"units": noisy}


if __name__ == "__main__":
    program, inputs = build()
    print(program.text())
    for name, values in program.interpret(**inputs).items():
        print(name, values.shape, values.reshape(-1)[:6])
