"""MaxCut of a random graph by annealing: F counts what is not cut."""

from __future__ import annotations

import numpy as np

from neuc import energy


def build() -> tuple[energy.Program, dict[str, np.ndarray]]:
    """The program, and inputs for it."""
    import networkx as nx

    graph = nx.random_regular_graph(3, 60, seed=1)
    for a, b in graph.edges:
        graph.edges[a, b]["weight"] = -1.0
    model, spins, _ = energy.from_graph(graph)
    samples = model.init(chains=32).sample(sweeps=300, beta=(0.1, 4.0), ramp="geometric")
    return model.program(energies=samples.energies(), cut=samples.last[spins]), {}


if __name__ == "__main__":
    program, inputs = build()
    print(program.text())
    for name, values in program.run(**inputs).items():
        print(name, values.shape, values.reshape(-1)[:6])
