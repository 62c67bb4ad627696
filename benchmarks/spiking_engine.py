"""Speed of spiking networks: target cpu-spike beside other engines, with equal weights, in turns in one run.

    python benchmarks/spiking_engine.py --peers PYTHON [--json FILE]

PYTHON is one that has torch and any of spikingjelly, snntorch, norse, sinabs; without it neuc alone is measured. All
engines use one thread. Images a second are of process time, the least of all runs; latencies are medians on the wall
clock at batch 1. The same network with ReLU, on our target cpu and in torch, stands beside them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from neuc.backends.cpu.emit import emit
from neuc.backends.cpu.target import TARGETS
from neuc.dialects.context import NeucContext
from neuc.passes.partition import Partition
from neuc.runtime.session import Session

sys.path.insert(0, str(Path(__file__).resolve().parent))
from spiking_networks import EXAMPLES, PIXELS, Network, build, read

STEPS = (2, 4, 8, 32)
BATCHES = (1, 100)
ROUNDS = 5
REPEATS = {1: 20, 100: 3}
"""Runs of an engine in a turn, by batch."""
OURS = ("neuc cpu-spike", "neuc cpu-spike int8")
ANNS = ("neuc cpu, ANN", "torch ANN")

Run = Callable[[int, int, int], "tuple[list[float], list[float]]"]
"""From batch, repeats and the first image to seconds on the wall clock and of the process."""


@dataclass
class Row:
    """One engine at one T and batch."""

    network: str
    engine: str
    steps: int
    batch: int
    cpu: list[float] = field(default_factory=list[float])
    wall: list[float] = field(default_factory=list[float])

    @property
    def rate(self) -> float:
        """Images a second of process time."""
        return self.batch / min(self.cpu)

    @property
    def median(self) -> float:
        """Seconds a run takes, on the wall clock."""
        return float(np.median(self.wall))


class Peers:
    """The other engines, in a process of their own."""

    def __init__(self, python: str) -> None:
        worker = Path(__file__).resolve().parent / "spiking_worker.py"
        self._process = subprocess.Popen(
            [python, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, **request: object) -> dict[str, object]:
        """One answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the process with the other engines ended; run benchmarks/spiking_worker.py by hand")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def spiking_session(network: Network, steps: int, *, whole: bool) -> Session:
    """The network compiled for cpu-spike, one thread."""
    main, store = build(network, steps, whole=whole)
    context, module = NeucContext(weights=store), ModuleOp([main])
    for step in (Partition(target="cpu-spike"), *TARGETS["cpu-spike"].pipeline()):
        step.apply(context, module)
    made = emit(module, store)
    return Session.from_parts(made.program, made.kernels, made.arrays(), threads=1)


def ann_session(name: str) -> Session:
    """The network with ReLU on target cpu, one thread."""
    import neuc

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ann.onnx"
        subprocess.run([sys.executable, str(EXAMPLES / "onnx_networks.py"), name, "--to", str(path)], check=True)
        out = Path(folder) / "ann.neuc"
        neuc.compile(path, target="cpu").save(out)
        return neuc.load(out, threads=1)


def runner(session: Session, images: np.ndarray) -> Run:
    """Runs of a session on bound arrays."""
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    prepared: dict[int, tuple[np.ndarray, Callable[[], object]]] = {}

    def run(batch: int, repeats: int, first: int) -> tuple[list[float], list[float]]:
        if batch not in prepared:
            x, y = np.ascontiguousarray(images[:batch]), np.empty((batch, 10), _dtype(session))
            binding = session.io_binding()
            binding.bind_cpu_input(name, x)
            binding.bind_cpu_output(output, y)
            prepared[batch] = x, session.prepare(binding)
        x, call = prepared[batch]
        wall, cpu = list[float](), list[float]()
        for repeat in range(repeats):
            at = (first + repeat * batch) % (len(images) - batch + 1)
            x[...] = images[at : at + batch]
            start, start_cpu = time.perf_counter(), time.process_time()
            call()
            cpu.append(time.process_time() - start_cpu)
            wall.append(time.perf_counter() - start)
        return wall, cpu

    return run


def _dtype(session: Session) -> np.dtype:
    return np.dtype(np.int32 if "int32" in session.get_outputs()[0].type else np.float32)


def measure(name: str, steps: Sequence[int], python: str | None) -> tuple[list[Row], Mapping[str, object]]:
    """All engines on one network, in turns."""
    network = read(name)
    images = network.images[:2000]
    network = Network(network.name, network.layers, images, network.labels[:2000])
    facts: dict[str, object] = {}
    peers = Peers(python) if python else None
    try:
        if peers is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "network.npz"
                save(path, network)
                facts = peers.ask(op="load", path=str(path))
        ann = runner(ann_session(name), images.reshape(-1, 1, 28, 28))
        whole = np.round(images * PIXELS).astype(np.int8)
        rows: list[Row] = []
        for count in steps:
            floats, ints = (spiking_session(network, count, whole=w) for w in (False, True))
            facts[f"accuracy T={count}"] = [_accuracy(floats, images, network), _accuracy(ints, whole, network)]
            ours = {OURS[0]: runner(floats, images), OURS[1]: runner(ints, whole), ANNS[0]: ann}
            for batch in BATCHES:
                rows += _turns(name, count, batch, ours, peers, facts)
        return rows, facts
    finally:
        if peers is not None:
            peers.close()


def _turns(
    name: str, steps: int, batch: int, ours: Mapping[str, Run], peers: Peers | None, facts: Mapping[str, object]
) -> list[Row]:
    others = list(facts.get("versions", ())) if peers is not None else []  # pyright: ignore
    found = {engine: Row(name, engine, steps, batch) for engine in (*ours, *others)}
    for turn in range(ROUNDS):
        first = turn * 131
        for engine, run in ours.items():
            wall, cpu = run(batch, REPEATS[batch], first)
            found[engine].wall += wall[1:]
            found[engine].cpu += cpu[1:]
        for engine in others:
            assert peers is not None
            got = peers.ask(op="run", engine=engine, steps=steps, batch=batch, repeats=REPEATS[batch], first=first)
            found[engine].wall += got["wall"][1:]  # pyright: ignore
            found[engine].cpu += got["cpu"][1:]  # pyright: ignore
    return list(found.values())


def save(path: Path, network: Network) -> None:
    """Write a network for the worker."""
    arrays: dict[str, np.ndarray] = {"layers": np.array(len(network.layers)), "images": network.images}
    for index, layer in enumerate(network.layers):
        arrays |= {f"w{index}": layer.weight, f"b{index}": layer.bias, f"pooled{index}": np.array(layer.pooled)}
    np.savez(path, **arrays)


def _accuracy(session: Session, images: np.ndarray, network: Network) -> float:
    name = session.get_inputs()[0].name
    (logits,) = session.run(None, {name: images})
    return float((np.asarray(logits).argmax(1) == network.labels).mean())


def table(rows: Sequence[Row]) -> str:
    """Images a second and medians, and how often the best other spiking engine ours is."""
    lines = [
        "| network | T | batch | engine | images/s per core | median µs | of the best other |",
        "|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((row.network, row.steps, row.batch) for row in rows):
        own = [row for row in rows if (row.network, row.steps, row.batch) == key]
        others = [row for row in own if row.engine not in (*OURS, *ANNS)]
        for row in own:
            ratio = ""
            if others and row.engine in OURS:
                faster = row.rate / max(other.rate for other in others)
                sooner = min(other.median for other in others) / row.median
                ratio = f"{faster:.1f}x, {sooner:.1f}x sooner"
            lines.append(
                f"| {row.network} | {row.steps} | {row.batch} | {row.engine} | {row.rate:,.0f} | "
                f"{row.median * 1e6:,.0f} | {ratio} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="a Python with torch and the other engines")
    parser.add_argument("--networks", nargs="+", default=["fashion_mlp", "fashion_cnn"])
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    parser.add_argument("--json", type=Path, help="write everything there, too")
    options = parser.parse_args()
    rows: list[Row] = []
    facts: dict[str, object] = {}
    for name in options.networks:
        found, said = measure(name, options.steps, options.peers)
        rows += found
        facts[name] = said
    print(table(rows))
    print(json.dumps(facts, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps({"rows": [asdict(row) for row in rows], "facts": facts}))


if __name__ == "__main__":
    main()
