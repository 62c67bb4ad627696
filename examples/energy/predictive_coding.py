"""Predictive coding: errors settle between data and label, weights follow them (Whittington and Bogacz 2017)."""

from __future__ import annotations

import numpy as np

from neuc import energy


def build() -> tuple[energy.Program, dict[str, np.ndarray]]:
    """The program, and inputs for it."""
    rng = np.random.default_rng(0)
    w = [rng.normal(0, 0.3, shape) for shape in ((16, 8), (16, 16), (4, 16))]
    model = energy.Model()
    x, z1, z2 = model.real(8, name="x", clamped=True), model.real(16, name="z1"), model.real(16, name="z2")
    y = model.real(4, name="y", clamped=True)
    weights = [model.constant("w", values) for values in w]
    model.predict(z1, weights[0], x)
    model.predict(z2, weights[1], model.rho(z1, "tanh"))
    model.predict(y, weights[2], model.rho(z2, "tanh"))
    settled = model.state("batch").relax("flow", 20, dt=0.1)
    slopes = settled.gradient(*weights)
    data, label = rng.normal(size=(6, 8)), rng.normal(size=(6, 4))
    first = data @ w[0].T
    inputs = {"x": data, "z1": first, "z2": np.tanh(first) @ w[1].T, "y": label}
    return model.program(energy=settled.energy(), dw0=slopes[0], dw1=slopes[1], dw2=slopes[2]), inputs


if __name__ == "__main__":
    program, inputs = build()
    print(program.text())
    for name, values in program.interpret(**inputs).items():
        print(name, values.shape, values.reshape(-1)[:6])
