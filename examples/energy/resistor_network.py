"""A deep resistive network: voltages settle between diodes, conductances learn (Kendall et al. 2020)."""

from __future__ import annotations

import numpy as np

from neuc import energy


def build() -> tuple[energy.Program, dict[str, np.ndarray]]:
    """The program, and inputs for it."""
    rng = np.random.default_rng(0)
    model = energy.Model()
    source, hidden = model.real(8, name="source", clamped=True), model.real(12, box=(0.0, 9.0), name="hidden")
    out, target = model.real(2, name="out"), model.real(2, name="target", clamped=True)
    g1, g2 = (model.constant("g", rng.uniform(0, 1, shape)) for shape in ((8, 12), (12, 2)))
    model.resistors(source, g1, hidden)
    model.resistors(hidden, g2, out)
    model.cost(out, target)
    settled = model.state(1).relax("block_min", 30)
    pulled, pushed = (settled.relax("block_min", 30, nudge=nudge) for nudge in (0.5, -0.5))
    slopes = energy.contrast([pulled, pushed], [g1, g2], scale=1 / 0.5)
    inputs = {"source": rng.normal(size=(1, 8)), "target": np.ones((1, 2))}
    inputs |= {"hidden": np.zeros((1, 12)), "out": np.zeros((1, 2))}
    return model.program(answer=settled[out], dg1=slopes[0], dg2=slopes[1]), inputs


if __name__ == "__main__":
    program, inputs = build()
    print(program.text())
    for name, values in program.interpret(**inputs).items():
        print(name, values.shape, values.reshape(-1)[:6])
