"""The child process of `spiking_engine.py` that runs other engines; needs torch and any of the engines it knows.

Imports nothing of neuc. Requests and answers are JSON, a line each: `load` (an .npz of layers), then `run`, which is
timed, or `classes` of some images.
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
import torch
from torch import Tensor, nn

START = 0.5
BATCH = 100
"""Images at a time, where only classes are asked for."""
Runner = Callable[[Tensor, int], Tensor]


class Synapses(nn.Module):
    """One layer's synapses, and the sums of 2x2 in front of them."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray, pooled: bool) -> None:
        super().__init__()
        self.pooled = pooled
        conv = weight.ndim == 4
        kind = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1) if conv else nn.Linear(*weight.shape[::-1])
        kind.weight.data, kind.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """[N, …] -> currents."""
        if self.pooled:
            x = nn.functional.avg_pool2d(x, 2, divisor_override=1)
        return self.kind(x.flatten(1) if isinstance(self.kind, nn.Linear) else x)


def step_by_step(layers: list[Synapses], cell: Callable[[int, Tensor, Any], tuple[Tensor, Any]]) -> Runner:
    """Run all layers in each step; `cell(layer, current, state)` gives spikes and the next state."""

    def run(x: Tensor, steps: int) -> Tensor:
        states: list[Any] = [None] * (len(layers) - 1)
        total: Tensor | float = 0.0
        for _ in range(steps):
            h = x
            for index, layer in enumerate(layers[:-1]):
                h, states[index] = cell(index, layer(h), states[index])
            total = total + layers[-1](h)
        assert isinstance(total, Tensor)
        return total

    return run


def spikingjelly(layers: list[Synapses], mode: str) -> Runner:
    """IF neurons with soft reset; single-step or multi-step."""
    from spikingjelly.activation_based import functional, layer, neuron

    nodes = [neuron.IFNode(v_threshold=1.0, v_reset=None, step_mode=mode) for _ in layers[:-1]]
    network = nn.ModuleList(nodes).eval()

    def begin() -> None:
        functional.reset_net(network)
        for node in nodes:
            node.v = START

    if mode == "s":

        def cell(index: int, current: Tensor, state: Any) -> tuple[Tensor, Any]:
            return nodes[index](current), None

        inner = step_by_step(layers, cell)

        def run(x: Tensor, steps: int) -> Tensor:
            begin()
            return inner(x, steps)

        return run
    wrapped = [layer.SeqToANNContainer(synapses) for synapses in layers]

    def run_all(x: Tensor, steps: int) -> Tensor:
        begin()
        h = x.unsqueeze(0).expand(steps, *x.shape)
        for node, synapses in zip(nodes, wrapped[:-1], strict=True):
            h = node(synapses(h))
        return wrapped[-1](h).sum(0)

    return run_all


def snntorch(layers: list[Synapses]) -> Runner:
    """Leaky neurons without a leak, reset by subtraction."""
    import snntorch as snn

    cells = [snn.Leaky(beta=1.0, threshold=1.0, reset_mechanism="subtract") for _ in layers[:-1]]

    def cell(index: int, current: Tensor, state: Any) -> tuple[Tensor, Any]:
        return cells[index](current, torch.full_like(current, START) if state is None else state)

    return step_by_step(layers, cell)


def norse(layers: list[Synapses]) -> Runner:
    """Integrate-and-fire cells; they reset to 0."""
    import norse.torch as norse_torch
    from norse.torch.functional.iaf import IAFFeedForwardState

    cells = [norse_torch.IAFCell() for _ in layers[:-1]]

    def cell(index: int, current: Tensor, state: Any) -> tuple[Tensor, Any]:
        if state is None:
            state = IAFFeedForwardState(v=torch.full_like(current, START))
        return cells[index](current, state)

    return step_by_step(layers, cell)


def sinabs(layers: list[Synapses]) -> Runner:
    """IAF layers over all steps; several spikes a step are allowed."""
    sys.modules.setdefault("samna", type(sys)("samna"))
    import sinabs.layers as sinabs_layers

    nodes = [sinabs_layers.IAF() for _ in layers[:-1]]

    def run(x: Tensor, steps: int) -> Tensor:
        h = x.unsqueeze(1).expand(-1, steps, *x.shape[1:])
        for node, synapses in zip(nodes, layers[:-1], strict=True):
            current = synapses(h.reshape(-1, *h.shape[2:]))
            node.init_state_with_shape((len(x), *current.shape[1:]))
            node.v_mem += START
            h = node(current.reshape(len(x), steps, *current.shape[1:]))
        return layers[-1](h.reshape(-1, *h.shape[2:])).reshape(len(x), steps, -1).sum(1)

    return run


def torch_ann(layers: list[Synapses]) -> Runner:
    """The network with ReLU: what the time steps stand for."""

    def run(x: Tensor, steps: int) -> Tensor:
        for synapses in layers[:-1]:
            x = torch.relu(synapses(x))
        return layers[-1](x)

    return run


ENGINES: dict[str, tuple[str, Callable[[list[Synapses]], Runner]]] = {
    "SpikingJelly s": ("spikingjelly", lambda layers: spikingjelly(layers, "s")),
    "SpikingJelly m": ("spikingjelly", lambda layers: spikingjelly(layers, "m")),
    "snnTorch": ("snntorch", snntorch),
    "Norse": ("norse", norse),
    "sinabs": ("sinabs", sinabs),
    "torch ANN": ("torch", torch_ann),
}


class Worker:
    """Engines of one network."""

    def __init__(self, path: str) -> None:
        data = np.load(path)
        count = int(data["layers"])
        layers = [
            Synapses(data[f"w{i}"], data[f"b{i}"], bool(i and data[f"pooled{i - 1}"])).eval() for i in range(count)
        ]
        self.images = torch.from_numpy(data["images"])
        self.runners: dict[str, Runner] = {}
        self.missing: dict[str, str] = {}
        for name, (package, make) in ENGINES.items():
            try:
                runner = make(layers)
                runner(self.images[:2], 2)
                self.runners[name] = runner
            except Exception as error:  # whatever an engine fails with, the others are measured
                self.missing[name] = f"{package}: {type(error).__name__}: {str(error)[:200]}"
        self.versions = {name: version(ENGINES[name][0]) for name in self.runners}

    def run(self, engine: str, steps: int, batch: int, repeats: int, first: int) -> dict[str, Any]:
        """Seconds of single runs, on the wall clock and of this process."""
        runner, wall, cpu = self.runners[engine], list[float](), list[float]()
        classes: list[int] = []
        for repeat in range(repeats):
            at = (first + repeat * batch) % (len(self.images) - batch + 1)
            x = self.images[at : at + batch]
            start, start_cpu = time.perf_counter(), time.process_time()
            y = runner(x, steps)
            cpu.append(time.process_time() - start_cpu)
            wall.append(time.perf_counter() - start)
            classes = y.argmax(1).tolist()
        return {"wall": wall, "cpu": cpu, "classes": classes}

    def classes(self, engine: str, steps: int, count: int) -> dict[str, Any]:
        """The class of each of the first images."""
        parts = [self.runners[engine](part, steps).argmax(1) for part in self.images[:count].split(BATCH)]
        return {"classes": torch.cat(parts).tolist()}


def main() -> None:
    """Answer requests until the pipe closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    worker: Worker | None = None
    with torch.inference_mode():
        for line in sys.stdin:
            request = json.loads(line)
            asked = request.pop("op")
            if asked == "load":
                worker = Worker(request["path"])
                answer: dict[str, Any] = {"versions": worker.versions, "missing": worker.missing}
            else:
                assert worker is not None
                answer = worker.run(**request) if asked == "run" else worker.classes(**request)
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
