"""An Ising model on a grid, annealed through its critical point: energy against sweep."""

from __future__ import annotations

import numpy as np

from neuc import energy


def build() -> tuple[energy.Program, dict[str, np.ndarray]]:
    """The program, and inputs for it."""
    model = energy.Model()
    spins = model.spin(8, 128, name="spins")
    model.grid(spins, 1.0)
    samples = model.init(chains=4).sample(sweeps=100, beta=(0.2, 0.6))
    return model.program(energies=samples.energies(), spins=samples.last[spins]), {}


if __name__ == "__main__":
    program, inputs = build()
    print(program.text())
    for name, values in program.run(**inputs).items():
        print(name, values.shape, values.reshape(-1)[:6])
