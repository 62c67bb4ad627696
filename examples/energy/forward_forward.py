"""Forward-Forward: a layer raises the goodness of true data and lowers that of false data (Hinton 2022)."""

from __future__ import annotations

import numpy as np

from neuc import energy


def build() -> tuple[energy.Program, dict[str, np.ndarray]]:
    """The program, and inputs for it."""
    rng = np.random.default_rng(0)
    layer = rng.normal(0, 0.2, (32, 20)), np.zeros(32)
    slopes, inputs = {}, {}
    for kind in ("true", "false"):
        model = energy.Model()
        data = model.real(20, name="data", clamped=True)
        w, b = model.constant("w", layer[0]), model.constant("b", layer[1])
        model.goodness(data, w, b, theta=2.0, negative=kind == "false")
        state = model.state("batch")
        dw, db = state.gradient(w, b)
        slopes[kind] = model.program(dw=dw, db=db, loss=state.energy())
        inputs[kind] = rng.normal(size=(16, 20)) * (2.0 if kind == "true" else 0.5)
    learned = slopes["false"].interpret(data=inputs["false"])
    layer[0][:] -= 0.1 * learned.dw
    return slopes["true"], {"data": inputs["true"]}


if __name__ == "__main__":
    program, inputs = build()
    print(program.text())
    for name, values in program.interpret(**inputs).items():
        print(name, values.shape, values.reshape(-1)[:6])
