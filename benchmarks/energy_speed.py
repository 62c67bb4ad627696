"""Spin updates per CPU second beside THRML and dwave-samplers, on the same models, turn by turn in one run.

    python benchmarks/energy_speed.py --peers PYTHON [--page docs/energy.md]

PYTHON is that of an environment with thrml 0.1.4 and dwave-samplers 1.8.0. With --page, the tables between the marks of
that page are written anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import networkx as nx
import numpy as np
from page_marks import fill

from neuc.compiler.energy import Model, Program, from_coo

ROUNDS = 5
BETA = 0.4
SIDE, NODES, DEGREE = 256, 32768, 6
MANY = 65536
"""Spins whose building and compiling is timed alone."""
PACKED = "neuc, 512 packed chains, each its own stream"
SHARED = "neuc, 512 packed chains, one stream for all: no error bars"
PEERS = ("thrml", "thrml, 16 chains", "dwave Metropolis", "dwave Gibbs")


@dataclass
class Measured:
    """What a contestant did, round by round."""

    rates: list[float] = field(default_factory=list[float])
    build: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.rates)


class Peers:
    """The worker in the peers' environment."""

    def __init__(self, python: str) -> None:
        worker = Path(__file__).parent / "energy_worker.py"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        self.process = subprocess.Popen(
            [python, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **request: str) -> dict[str, float]:
        """Send a request and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the peers' process ended; its errors are above")
        return json.loads(line)


def grid_arrays() -> dict[str, np.ndarray]:
    """A periodic ferromagnet."""
    site = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    i = np.concatenate([site, site], 0).reshape(-1)
    j = np.concatenate([np.roll(site, -1, 1), np.roll(site, -1, 0)], 0).reshape(-1)
    color = np.indices(site.shape).sum(0).reshape(-1) % 2
    return {"n": np.array(site.size), "i": i, "j": j, "w": np.ones(len(i), np.float32), "color": color}


@cache
def regular_arrays() -> dict[str, np.ndarray]:
    """A random regular graph with couplings ±1."""
    graph = nx.random_regular_graph(DEGREE, NODES, seed=1)
    i, j = np.array(graph.edges).T
    colored = nx.greedy_color(graph, "largest_first")
    color = np.array([colored[k] for k in range(NODES)])
    w = np.random.default_rng(0).choice([-1.0, 1.0], len(i)).astype(np.float32)
    return {"n": np.array(NODES), "i": i, "j": j, "w": w, "color": color}


def grid_program(chains: int) -> Program:
    model = Model()
    x = model.spin(SIDE, SIDE, name="x")
    model.grid(x, 1.0)
    return model.program(x=model.init(chains).sample(100, BETA).last[x])


def packed_program(chains: int, *, shared: bool) -> Program:
    """Bit-packed chains on the grid."""
    model = Model()
    x = model.spin(SIDE, SIDE, name="x")
    model.grid(x, 1.0)
    return model.program(x=model.init(chains).sample(100, BETA, packed=True, shared=shared).last[x])


def regular_program(chains: int) -> Program:
    arrays = regular_arrays()
    model, x = from_coo(arrays["i"], arrays["j"], arrays["w"], np.zeros(NODES))
    return model.program(x=model.init(chains).sample(100, BETA).last[x])


def many_program(chains: int) -> Program:
    """A random graph of degree 6 or less, of three random permutations."""
    random = np.random.default_rng(0)
    edges = np.concatenate([np.stack([np.arange(MANY), random.permutation(MANY)], 1) for _ in range(3)])
    i, j = edges[edges[:, 0] != edges[:, 1]].T
    model, x = from_coo(i, j, np.ones(len(i)), np.zeros(MANY))
    return model.program(x=model.init(chains).sample(100, BETA).last[x])


def contestant(
    make: Callable[[int], Program], chains: int, sweeps: int, sites: int
) -> tuple[Callable[[], float], float]:
    """A run of ours, and the CPU seconds that building and compiling took with an empty cache of kernels."""
    before = os.environ.get("NEUC_CACHE_DIR")
    os.environ["NEUC_CACHE_DIR"] = ""
    start = time.process_time()
    program = make(chains)
    session = program.session(threads=1)
    build = time.process_time() - start
    if before is None:
        del os.environ["NEUC_CACHE_DIR"]
    else:
        os.environ["NEUC_CACHE_DIR"] = before
    feeds, names = program.feeds(sweeps=sweeps), [spec.name for spec in session.program.outputs]

    def run() -> float:
        cpu = time.process_time()
        session.run(names, feeds)
        return sites * chains * sweeps / (time.process_time() - cpu)

    run()
    return run, build


def measure(python: str, rounds: int) -> tuple[dict[str, dict[str, Measured]], dict[str, float]]:
    """All contestants on both models."""
    peers = Peers(python)
    found: dict[str, dict[str, Measured]] = {}
    cases = {
        f"periodic grid {SIDE} x {SIDE}": (grid_arrays(), grid_program, SIDE * SIDE),
        f"random {DEGREE}-regular graph, n = {NODES}": (regular_arrays(), regular_program, NODES),
    }
    with tempfile.TemporaryDirectory() as folder:
        for number, (title, (arrays, make, sites)) in enumerate(cases.items()):
            path = f"{folder}/{number}.npz"
            np.savez(path, **arrays)
            table = found[title] = {name: Measured() for name in ("neuc", "neuc, 16 chains", *PEERS)}
            make(1).session(threads=1)  # imports are nobody's build time
            ours = {
                name: contestant(make, chains, sweeps, sites)
                for name, chains, sweeps in (("neuc", 1, 200), ("neuc, 16 chains", 16, 20))
            }
            if make is grid_program:
                for name, shared, sweeps in ((PACKED, False, 40), (SHARED, True, 400)):
                    ours[name] = contestant(partial(packed_program, shared=shared), 512, sweeps, sites)
            for _ in range(rounds):
                for name, (run, build) in ours.items():
                    table.setdefault(name, Measured()).rates.append(run())
                    table[name].build = build
                for name in PEERS:
                    answer = peers.ask(case=name, model=path)
                    table[name].rates.append(answer["updates"] / answer["cpu"])
                    table[name].build = answer.get("build", table[name].build)
    return found, peers.ask(case="versions")


def page_text(found: dict[str, dict[str, Measured]], versions: dict[str, float], rounds: int) -> str:
    """The tables."""
    peers = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines = [
        f"Medians of {rounds} rounds, contestants in turn, on {platform.machine()} with a load average of "
        f"{os.getloadavg()[0]:.1f}; one thread for neuc,",
        f"CPU seconds of all threads of a process for all. {peers}.",
    ]
    for title, table in found.items():
        lines += [
            "",
            f"**{title}**, β = {BETA}",
            "",
            "| | spin updates / CPU s | neuc, one chain, is faster by | build and compile, CPU s |",
        ]
        lines.append("|---|---|---|---|")
        for name, measured in table.items():
            ratio = "" if name.startswith("neuc") else f"{table['neuc'].median / measured.median:.1f}"
            lines.append(f"| {name} | {measured.median:.2e} | {ratio} | {measured.build:.2f} |")
    build = contestant(many_program, 1, 1, MANY)[1]
    lines += ["", f"A random graph of degree 6 and {MANY:,} spins builds and compiles in {build:.2f} CPU s."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", required=True, help="Python with thrml and dwave-samplers")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    found, versions = measure(options.peers, options.rounds)
    text = page_text(found, versions, options.rounds)
    print(text)
    if options.page is not None:
        fill(options.page, "speed", text)


if __name__ == "__main__":
    main()
