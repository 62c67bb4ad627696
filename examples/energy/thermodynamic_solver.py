"""Thermodynamic linear algebra: samples of an Ornstein-Uhlenbeck process solve A x = b and invert A."""

from __future__ import annotations

import numpy as np

from neuc import energy


def build() -> tuple[energy.Program, dict[str, np.ndarray]]:
    """The program, and inputs for it."""
    a, b = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 1.5]]), np.array([1.0, -1.0, 0.5])
    model, x = energy.linear_system(a, b)
    samples = model.state(4000).sample(sweeps=12, beta=1.0, rule="ou_exact", dt=1.0)
    # The mean of the samples is A^-1 b, their covariance A^-1.
    return model.program(samples=samples.last[x]), {"x": np.zeros((4000, 3))}


if __name__ == "__main__":
    program, inputs = build()
    print(program.text())
    for name, values in program.interpret(**inputs).items():
        print(name, values.shape, values.reshape(-1)[:6])
