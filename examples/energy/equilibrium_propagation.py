"""Equilibrium propagation: two nudged equilibria and the gradient between them (Scellier and Bengio 2017)."""

from __future__ import annotations

import numpy as np

from neuc import energy


def build() -> tuple[energy.Program, dict[str, np.ndarray]]:
    """The program, and inputs for it."""
    rng = np.random.default_rng(0)
    model = energy.Model()
    x, y = model.real(64, name="x", clamped=True), model.real(10, name="y", clamped=True)
    hidden, out = model.real(128, box=(0.0, 1.0), name="hidden"), model.real(10, box=(0.0, 1.0), name="out")
    w1, w2 = (model.constant("w", rng.normal(0, 0.1, shape)) for shape in ((64, 128), (128, 10)))
    model.quad(hidden)
    model.quad(out)
    model.couple(x, w1, hidden)
    model.couple(hidden, w2, out)
    model.cost(out, y)
    free = model.state("batch").relax("block_min", 15)
    up, down = (free.relax("block_min", 15, nudge=nudge) for nudge in (0.25, -0.25))
    slopes = energy.contrast([up, down], [w1, w2], scale=1 / 0.25)
    inputs = {"x": rng.random((5, 64)), "y": np.eye(10)[:5], "hidden": np.zeros((5, 128)), "out": np.zeros((5, 10))}
    return model.program(answer=free[out], dw1=slopes[0], dw2=slopes[1]), inputs


if __name__ == "__main__":
    program, inputs = build()
    print(program.text())
    for name, values in program.interpret(**inputs).items():
        print(name, values.shape, values.reshape(-1)[:6])
