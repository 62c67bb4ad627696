"""A modern Hopfield network: one exact minimisation is attention over the patterns (Ramsauer et al. 2021)."""

from __future__ import annotations

import numpy as np

from neuc import energy


def build() -> tuple[energy.Program, dict[str, np.ndarray]]:
    """The program, and inputs for it."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(10, 16))
    model = energy.Model()
    x = model.real(16, name="x")
    model.memories(x, patterns, sharpness=4.0)
    recalled = model.state(2).relax("block_min", 3)
    return model.program(recalled=recalled[x], energy=recalled.energy()), {
        "x": patterns[:2] + rng.normal(0, 0.3, (2, 16))
    }


if __name__ == "__main__":
    program, inputs = build()
    print(program.text())
    for name, values in program.interpret(**inputs).items():
        print(name, values.shape, values.reshape(-1)[:6])
