"""The child process of `energy_speed.py` and `energy_peers.py` that runs the peers. It imports nothing of neuc.

Requests come as JSON lines: a case, and a file of arrays with the model (of spins `n`, `i`, `j`, `w`, `color`).
Answers are updates, CPU seconds of this process and seconds; what compiles or converts runs before the clock, and is
told apart as `build`. Results that are compared go to the file's neighbour with the ending `.out.npz`.
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
LIFE = 50
"""Steps of a rollout."""
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


def anneal(model: dict[str, np.ndarray], out: str) -> Run:
    """Simulated annealing from many starts; the energies they end in, and the range of temperatures, are kept."""
    import dimod
    from dwave.samplers import SimulatedAnnealingSampler

    n, reads, sweeps = (int(model[name]) for name in ("n", "reads", "sweeps"))
    vectors = (model["i"], model["j"], -model["w"].astype(float))
    bqm = dimod.BinaryQuadraticModel.from_numpy_vectors(np.zeros(n), vectors, 0.0, dimod.SPIN)
    sampler, seed = SimulatedAnnealingSampler(), iter(range(1, 1_000_000))

    def run() -> int:
        found = sampler.sample(bqm, num_reads=reads, num_sweeps=sweeps, seed=next(seed))
        np.savez(out, energies=found.record.energy, beta=np.array(found.info["beta_range"]))
        return n * reads * sweeps

    return run


def thermox_chain(model: dict[str, np.ndarray], scan: bool) -> Run:
    """Exact Ornstein-Uhlenbeck points of one chain."""
    import jax
    import jax.numpy as jnp
    import thermox

    jax.config.update("jax_enable_x64", True)
    a, steps = jnp.asarray(model["a"]), int(model["steps"])
    d = len(a)
    ts, zero = jnp.arange(steps) * float(model["dt"]), jnp.zeros(d)
    drift, diffusion = thermox.preprocess(a, 2 * jnp.eye(d))
    sample = jax.jit(lambda k: thermox.sample(k, ts, zero, drift, zero, diffusion, associative_scan=scan))

    def run() -> int:
        jax.block_until_ready(sample(jax.random.key(SEED)))
        return steps

    run()
    return run


def tmaze_agent(batch: int, out: str) -> tuple[Any, Any]:
    """Pymdp's T-maze and an agent in it; their arrays are written for others."""
    import jax
    import jax.numpy as jnp
    from pymdp.agent import Agent
    from pymdp.envs import tmaze as environments

    jax.config.update("jax_enable_x64", False)  # thermox's cases turn it on, and pymdp's rollout then mixes integers
    name = next(n for n in ("TMaze", "SimplifiedTMaze") if hasattr(environments, n))
    env = getattr(environments, name)()
    (a, a_deps), (b, b_deps), d = env.generate_A(), env.generate_B(), env.generate_D()
    c = [jnp.zeros(x.shape[0]) for x in a]
    c[next(m for m, x in enumerate(a) if x.shape[0] == 3)] = jnp.array([0.0, 3.0, -3.0])
    arrays: dict[str, Any] = {}
    for kind, group in (("a", a), ("b", b), ("c", c), ("d", d)):
        arrays |= {f"{kind}{k}": np.asarray(x) for k, x in enumerate(group)}
    for kind, deps in (("a_deps", a_deps), ("b_deps", b_deps)):
        arrays |= {f"{kind}{k}": np.asarray(x) for k, x in enumerate(deps)}
    np.savez(out, **arrays)
    return env, Agent(
        [jnp.asarray(x) for x in a],
        [jnp.asarray(x) for x in b],
        c,
        [jnp.asarray(x) for x in d],
        A_dependencies=a_deps,
        B_dependencies=b_deps,
        policy_len=2,
        num_iter=16,
        batch_size=batch,
        inference_algo="fpi",
        action_selection="deterministic",
    )


def tmaze(model: dict[str, np.ndarray], batch: int, out: str) -> Run:
    """A jitted agent's step: beliefs by fixed-point iteration, policies, action."""
    import jax
    import jax.numpy as jnp

    _, agent = tmaze_agent(batch, out)
    seen = [jnp.zeros((batch, 1), dtype=jnp.int32) for _ in agent.A]

    @jax.jit
    def step(observed: Any, prior: Any, key: Any) -> Any:
        found = agent.infer_states(observed, empirical_prior=prior)
        beliefs = found[0] if isinstance(found, tuple) else found
        posterior, value = agent.infer_policies(beliefs)
        return beliefs, posterior, agent.sample_action(posterior, jax.random.split(key, batch)), value

    key, calls = jax.random.key(SEED), 200 if batch == 1 else 20

    def run() -> int:
        for _ in range(calls):
            jax.block_until_ready(step(seen, agent.D, key))
        return calls * batch

    run()
    return run


def tmaze_rollout(model: dict[str, np.ndarray], batch: int, out: str) -> Run:
    """Pymdp's own rollout, jitted whole: agents and their mazes for 50 steps."""
    import jax
    from pymdp.envs.rollout import rollout

    env, agent = tmaze_agent(batch, out)
    live = jax.jit(lambda key: rollout(agent, env, LIFE, key))
    lives = 20 if batch == 1 else 2

    def run() -> int:
        for life in range(lives):
            jax.block_until_ready(jax.tree.leaves(live(jax.random.key(life))))
        return lives * LIFE * batch

    run()
    return run


CASES: dict[str, Callable[[dict[str, np.ndarray], str], Run]] = {
    "thrml": lambda m, _: thrml(m, 1, 50),
    "thrml, 16 chains": lambda m, _: thrml(m, 16, 10),
    "dwave Metropolis": lambda m, _: dwave(m, "Metropolis", 600),
    "dwave Gibbs": lambda m, _: dwave(m, "Gibbs", 600),
    "dwave anneal": anneal,
    "thermox, associative scan": lambda m, _: thermox_chain(m, scan=True),
    "thermox": lambda m, _: thermox_chain(m, scan=False),
    "pymdp": lambda m, out: tmaze(m, 1, out),
    "pymdp, 256 agents": lambda m, out: tmaze(m, 256, out),
    "pymdp, one life": lambda m, out: tmaze_rollout(m, 1, out),
    "pymdp, 256 lives": lambda m, out: tmaze_rollout(m, 256, out),
}


def main() -> None:
    answers = os.fdopen(os.dup(_COPY_OF_STDOUT), "w")
    os.dup2(2, _COPY_OF_STDOUT)
    made: dict[tuple[str, str], Run] = {}
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        answer: dict[str, Any] = {}
        if request["case"] == "versions":
            names = ("thrml", "jax", "dwave-samplers", "thermox", "inferactively-pymdp")
            answer = {name: version(name) for name in names}
        else:
            key = request["case"], request["model"]
            if key not in made:
                start = time.process_time()
                with np.load(request["model"]) as arrays:
                    made[key] = CASES[request["case"]](dict(arrays), f"{request['model']}.out.npz")
                answer["build"] = time.process_time() - start
            cpu, start = time.process_time(), time.perf_counter()
            answer["updates"] = made[key]()
            answer["cpu"], answer["seconds"] = time.process_time() - cpu, time.perf_counter() - start
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
