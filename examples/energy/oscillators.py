"""Coupled oscillators fall into step: phases on a ring with couplings cos(p - q)."""

from __future__ import annotations

import numpy as np

from neuc import energy


def build() -> tuple[energy.Program, dict[str, np.ndarray]]:
    """The program, and inputs for it."""
    rng = np.random.default_rng(0)
    ring, near = np.arange(24), np.roll(np.arange(24), -1)
    model = energy.Model()
    phase = model.phase(24, name="phase")
    for fn in ("cos", "sin"):
        view = model.rho(phase, fn)
        model.edges(view, ring, near, np.ones(24), view)
    settled = model.state(2).relax("flow", 200, dt=0.2)
    return model.program(last=settled[phase], energy=settled.energy()), {"phase": rng.normal(0, 1, (2, 24))}


if __name__ == "__main__":
    program, inputs = build()
    print(program.text())
    for name, values in program.interpret(**inputs).items():
        print(name, values.shape, values.reshape(-1)[:6])
