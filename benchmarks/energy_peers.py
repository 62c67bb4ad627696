"""Ornstein-Uhlenbeck processes beside thermox, an agent's step beside pymdp, ground states beside dwave-samplers.

    python benchmarks/energy_peers.py --peers PYTHON [--page docs/energy.md]

PYTHON is that of an environment with thrml, thermox 0.0.6, inferactively-pymdp 1.0.4 and dwave-samplers 1.8.0. All in
one run, turn by turn, CPU seconds of all threads; neuc on one thread. With --page, the tables between the marks of that
page are written anew. What is compared is stated in each table's sentence.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import networkx as nx
import numpy as np
from energy_speed import Peers
from page_marks import fill

from neuc import energy

ROUNDS = 3
OU_SIZES = ((16, 10000), (128, 2000))
DT = 0.1
READS, SWEEPS = 64, 1000
TURNS = 10
SPINS = 512
LIFE = 50
"""Steps of a life, as the worker's rollouts have them."""


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of all threads."""
    start = time.process_time()
    run()
    return time.process_time() - start


def ornstein_uhlenbeck(peers: Peers, folder: str, rounds: int) -> list[str]:
    """Points of a chain per CPU second; thermox keeps them all, neuc the last one."""
    lines = [
        f"**Exact Ornstein-Uhlenbeck**, steps of {DT} of chains of d numbers per CPU second; thermox has f64, keeps",
        "every point, neuc has f32 and keeps the last. A lane is a chain, so one chain leaves fifteen lanes empty.",
        "",
        "| d | neuc, 16 chains | neuc, one chain | thermox | thermox, associative scan | 16 chains to best thermox |",
        "|---|---|---|---|---|---|",
    ]
    for d, steps in OU_SIZES:
        random = np.random.default_rng(0)
        m = random.normal(size=(d, d)) / d**0.5
        a = m @ m.T + np.eye(d)
        path = f"{folder}/ou{d}.npz"
        np.savez(path, a=a, steps=steps, dt=DT)
        model, x = energy.linear_system(a)
        samples = model.state("chains").sample(None, 1.0, rule="ou_exact", dt=DT)
        program = model.program(last=samples.last[x])
        session = program.session(threads=1)
        rates: dict[str, list[float]] = {}
        for chains in (16, 1):
            session.run(None, program.feeds(x=np.zeros((chains, d)), sweeps=10))
        for _ in range(rounds):
            for chains in (16, 1):
                feeds = program.feeds(x=np.zeros((chains, d)), sweeps=steps)
                used = seconds(partial(session.run, None, feeds))
                rates.setdefault(f"{chains}", []).append(chains * steps / used)
            for case in ("thermox", "thermox, associative scan"):
                answer = peers.ask(case=case, model=path)
                rates.setdefault(case, []).append(answer["updates"] / answer["cpu"])
        names = ("16", "1", "thermox", "thermox, associative scan")
        many, one, plain, scan = (statistics.median(rates[name]) for name in names)
        lines.append(f"| {d} | {many:.2e} | {one:.2e} | {plain:.2e} | {scan:.2e} | {many / max(plain, scan):.0f} |")
    return lines


def agent_steps(peers: Peers, folder: str, rounds: int) -> list[str]:
    """Beliefs by 16 iterations and −G of 25 policies on pymdp's T-maze."""
    path = f"{folder}/tmaze.npz"
    np.savez(path, n=0)
    peers.ask(case="pymdp", model=path)
    with np.load(f"{path}.out.npz") as file:
        arrays = dict(file)

    def group(kind: str) -> list[np.ndarray]:
        return [arrays[f"{kind}{k}"] for k in range(sum(name.rstrip("0123456789") == kind for name in arrays))]

    agent = energy.Agent(
        group("a"),
        group("b"),
        group("c"),
        group("d"),
        A_dependencies=[tuple(int(v) for v in deps) for deps in group("a_deps")],
        B_dependencies=[tuple(int(v) for v in deps) for deps in group("b_deps")],
        policy_len=2,
    )
    runs = single_steps(agent) | lives(agent)
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            steps = run()
            found.setdefault(name, []).append(1e6 * (time.process_time() - start) / steps)
            # The worker's case of one agent's single steps has pymdp's name alone.
            case = "pymdp" if name == "one agent" else f"pymdp, {name}"
            answer = peers.ask(case=case, model=path)
            found.setdefault(f"pymdp, {name}", []).append(1e6 * answer["cpu"] / answer["updates"])
    medians = {name: statistics.median(values) for name, values in found.items()}
    lines = [
        f"**An agent's step** on pymdp's T-maze, {len(agent.policies)} policies, 16 iterations: beliefs and −G as one",
        "call from Python (pymdp: jitted whole, with the choice of the action); and lives of 50 steps in one call, the",
        "maze in the loop: observe, infer, weigh policies, act (pymdp: its own `rollout`, jitted). CPU µs a step and",
        "agent.",
        "",
        "| | neuc, prepared call | pymdp, jitted | ratio |",
        "|---|---|---|---|",
    ]
    for name in runs:
        ours, theirs = medians[name], medians[f"pymdp, {name}"]
        lines.append(f"| {name} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |")
    return lines


def single_steps(agent: energy.Agent) -> dict[str, Callable[[], int]]:
    """Beliefs and −G of some agents; each run says how many steps it made."""
    runs: dict[str, Callable[[], int]] = {}
    for name, batch, calls in (("one agent", 1, 2000), ("256 agents", 256, 40)):
        inputs = {f"obs{m}": np.zeros((batch, 1), np.int32) for m in range(len(agent.A))}
        for f, d in enumerate(agent.D):
            prior = np.log(np.maximum(d, np.finfo(np.float64).eps)).astype(np.float32)
            inputs[f"log_prior{f}"] = np.ascontiguousarray(np.broadcast_to(prior, (batch, 1, len(d))))
            inputs[f"start{f}"] = np.full((batch, 1, len(d)), 1.0 / len(d), np.float32)
        runs[name] = prepared_run(agent.program(batch), inputs, calls, batch)
    return runs


def lives(agent: energy.Agent) -> dict[str, Callable[[], int]]:
    """Agents in mazes of their own, whole lives a call."""
    counts = (("one life", 1, 100), ("256 lives", 256, 2))
    inputs = {"seed": np.array(7, np.int64)}
    return {
        name: prepared_run(agent.rollout(LIFE, agents=agents), inputs, calls, LIFE * agents)
        for name, agents, calls in counts
    }


def prepared_run(program: energy.Program, inputs: dict[str, np.ndarray], calls: int, steps: int) -> Callable[[], int]:
    """Prepared calls on one thread; each run says how many steps it made."""
    session = program.session(threads=1)
    binding = session.io_binding()
    for spec in session.program.inputs:
        binding.bind_cpu_input(spec.name, inputs[spec.name])
    prepared = session.prepare(binding)

    def run() -> int:
        for _ in range(calls):
            prepared()
        return calls * steps

    return run


def race_models() -> dict[str, dict[str, np.ndarray]]:
    """Couplings of the races: F = −Σ w s s."""
    graphs = {
        f"MaxCut, random 3-regular, n = {SPINS}": (nx.random_regular_graph(3, SPINS, seed=2), -1.0),
        f"±J, random 6-regular, n = {SPINS}": (nx.random_regular_graph(6, SPINS, seed=3), 0.0),
        "±J, torus of 8 × 8 × 8": (nx.grid_graph([8, 8, 8], periodic=True), 0.0),
    }
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, (graph, weight) in graphs.items():
        numbered = nx.convert_node_labels_to_integers(graph)
        i, j = np.array(numbered.edges).T
        w = np.full(len(i), weight) if weight else np.random.default_rng(5).choice([-1.0, 1.0], len(i))
        found[name] = {"n": np.array(len(numbered)), "i": i, "j": j, "w": w, "reads": np.array(READS)}
        found[name]["sweeps"] = np.array(SWEEPS)
    return found


def ground_states(peers: Peers, folder: str) -> list[str]:
    """CPU seconds of annealing for each time the lowest energy of the whole race is found."""
    lines = [
        f"**Ground states**: annealing runs of {READS} starts and {SWEEPS} sweeps, both by Metropolis sweeps and over",
        "dwave's own range of temperatures. The lowest energy that any run found is the goal; shown are CPU seconds",
        "for each start that reached it.",
        "",
        "| | goal | neuc | dwave | ratio | starts of neuc, dwave that reached it |",
        "|---|---|---|---|---|---|",
    ]
    for number, (title, arrays) in enumerate(race_models().items()):
        path = f"{folder}/race{number}.npz"
        np.savez(path, **arrays)
        energies: dict[str, list[np.ndarray]] = {"neuc": [], "dwave": []}
        cpu = dict.fromkeys(energies, 0.0)
        answer = peers.ask(case="dwave anneal", model=path)
        with np.load(f"{path}.out.npz") as file:
            beta = float(file["beta"][0]), float(file["beta"][1])
        n = int(arrays["n"])
        model, x = energy.from_coo(arrays["i"], arrays["j"], arrays["w"], np.zeros(n))
        samples = model.init(READS).sample(SWEEPS, beta, ramp="geometric", rule="metropolis")
        program = model.program(spins=samples.last[x])
        session = program.session(threads=1)
        session.run(None, program.feeds(sweeps=1))
        for turn in range(TURNS):
            start = time.process_time()
            (spins,) = session.run(None, program.feeds(seed=turn))
            cpu["neuc"] += time.process_time() - start
            spins = spins.astype(np.float64)
            energies["neuc"].append(-(spins[:, arrays["i"]] * spins[:, arrays["j"]]) @ arrays["w"])
            answer = peers.ask(case="dwave anneal", model=path)
            cpu["dwave"] += answer["cpu"]
            with np.load(f"{path}.out.npz") as file:
                energies["dwave"].append(file["energies"])
        goal = min(float(np.concatenate(found).min()) for found in energies.values())
        hits = {name: int((np.concatenate(found) < goal + 0.5).sum()) for name, found in energies.items()}
        times = {name: cpu[name] / hits[name] if hits[name] else float("inf") for name in hits}
        ratio = times["dwave"] / times["neuc"] if hits["neuc"] else float("nan")
        starts = READS * TURNS
        lines.append(
            f"| {title} | {goal:.0f} | {times['neuc']:.3f} | {times['dwave']:.3f} | {ratio:.1f} | "
            f"{hits['neuc']}, {hits['dwave']} of {starts} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, help="Python with the peers")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    peers = Peers(options.peers)
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            ornstein_uhlenbeck(peers, folder, options.rounds),
            agent_steps(peers, folder, options.rounds),
            ground_states(peers, folder),
        ]
    versions = ", ".join(f"{name} {number}" for name, number in peers.ask(case="versions").items())
    head = [f"Medians of {options.rounds} rounds, load average {os.getloadavg()[0]:.1f}. {versions}."]
    text = "\n".join("\n".join(part) for part in ([*head, ""], *([*part, ""] for part in parts))).rstrip()
    print(text)
    if options.page is not None:
        fill(options.page, "peers", text)


if __name__ == "__main__":
    main()
