"""The child process of `energy_speed.py` that runs THRML and dwave-samplers. It imports nothing of neuc.

Requests come as JSON lines: the case's name, and a file of arrays (`n`, `i`, `j`, `w`, `color`) with the model. Answers
are spin updates, CPU seconds of this process and seconds; what compiles or converts runs before the clock, and is told
apart as `build`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

_COPY_OF_STDOUT = 1
BETA = 0.4
SEED = 1

Run = Callable[[], int]
"""Does some sweeps; returns the spin updates."""


def thrml(model: dict[str, np.ndarray], chains: int, sweeps: int) -> Run:
    """Jitted block Gibbs."""
    import jax
    import jax.numpy as jnp
    from thrml import Block, SamplingSchedule, SpinNode, sample_states
    from thrml.models import IsingEBM, IsingSamplingProgram, hinton_init

    n, color = int(model["n"]), model["color"]
    nodes = [SpinNode() for _ in range(n)]
    edges = [(nodes[i], nodes[j]) for i, j in zip(model["i"].tolist(), model["j"].tolist())]
    ebm = IsingEBM(nodes, edges, jnp.zeros(n), jnp.asarray(model["w"]), jnp.float32(BETA))
    blocks = [Block([nodes[i] for i in np.flatnonzero(color == c)]) for c in range(int(color.max()) + 1)]
    program = IsingSamplingProgram(ebm, blocks, [])
    schedule = SamplingSchedule(n_warmup=sweeps - 1, n_samples=1, steps_per_sample=1)
    key = jax.random.key(SEED)
    first = hinton_init(key, ebm, blocks, (chains,))
    step = jax.jit(jax.vmap(lambda k, s: sample_states(k, program, schedule, s, [], [Block(nodes)])))
    keys = jax.random.split(key, chains)

    def run() -> int:
        jax.block_until_ready(step(keys, first))
        return n * chains * sweeps

    run()
    return run


def dwave(model: dict[str, np.ndarray], rule: str, sweeps: int) -> Run:
    """Simulated annealing held at one temperature; conversions of the model are subtracted by two lengths of run."""
    import dimod
    from dwave.samplers import SimulatedAnnealingSampler

    n = int(model["n"])
    vectors = (model["i"], model["j"], -model["w"].astype(float))
    bqm = dimod.BinaryQuadraticModel.from_numpy_vectors(np.zeros(n), vectors, 0.0, dimod.SPIN)
    sampler = SimulatedAnnealingSampler()

    def run() -> int:
        sampler.sample(
            bqm,
            num_reads=1,
            seed=SEED,
            beta_schedule_type="custom",
            beta_schedule=[BETA],
            num_sweeps_per_beta=sweeps,
            proposal_acceptance_criteria=rule,
            randomize_order=False,
        )
        return n * sweeps

    return run


CASES: dict[str, Callable[[dict[str, np.ndarray]], Run]] = {
    "thrml": lambda m: thrml(m, 1, 50),
    "thrml, 16 chains": lambda m: thrml(m, 16, 10),
    "dwave Metropolis": lambda m: dwave(m, "Metropolis", 600),
    "dwave Gibbs": lambda m: dwave(m, "Gibbs", 600),
}


def main() -> None:
    answers = os.fdopen(os.dup(_COPY_OF_STDOUT), "w")
    os.dup2(2, _COPY_OF_STDOUT)
    made: dict[tuple[str, str], Run] = {}
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        answer: dict[str, Any] = {}
        if request["case"] == "versions":
            answer = {name: version(name) for name in ("thrml", "jax", "dwave-samplers")}
        else:
            key = request["case"], request["model"]
            if key not in made:
                start = time.process_time()
                with np.load(request["model"]) as arrays:
                    made[key] = CASES[request["case"]](dict(arrays))
                answer["build"] = time.process_time() - start
            cpu, start = time.process_time(), time.perf_counter()
            answer["updates"] = made[key]()
            answer["cpu"], answer["seconds"] = time.process_time() - cpu, time.perf_counter() - start
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
