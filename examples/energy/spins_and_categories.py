"""Spins and categories with factors of two and three variables, as THRML has them; sampled by block Gibbs."""

from __future__ import annotations

import numpy as np

from neuc import energy


def build() -> tuple[energy.Program, dict[str, np.ndarray]]:
    """The program, and inputs for it."""
    rng = np.random.default_rng(0)
    model = energy.Model()
    spins, colors = model.spin(8, name="spins"), model.categories(3, 8, name="colors")
    sites = np.arange(8)
    model.table([spins, colors], rng.normal(size=(8, 3)), [sites, sites])
    model.table([spins, spins, colors], rng.normal(size=(7, 3)), [sites[:-1], sites[1:], sites[:-1]])
    samples = model.init(chains=4).sample(sweeps=50, beta=1.0, warmup=10)
    return model.program(spins=samples.sums(spins), colors=samples.sums(colors)), {}


if __name__ == "__main__":
    program, inputs = build()
    print(program.text())
    for name, values in program.run(**inputs).items():
        print(name, values.shape, values.reshape(-1)[:6])
