"""NIR graphs simulated step by step in float64, from the equations alone: nothing of neuc is used here.

Time is cut into steps of dt by forward Euler. A Delay of a step or more answers before it reads. An edge u -> v carries
the value of the step before if every way from an input, or from such a Delay, to u passes v; then what comes from
stateless nodes is computed from the values their neurons had one step before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

STATEFUL = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF", "Delay")
Array = np.ndarray


GRAIN, LARGEST = 2.0**-12, 2.0**6
"""Values that are multiples of GRAIN and at most LARGEST: sums of ten of them times quarters up to 1.5 are below 2^10
and multiples of 2^-14, which are 24 bits, so that f32 adds them up exactly in any order."""


class Inexact(Exception):
    """A value f32 might not compute exactly: the example says nothing about equality."""


def check_exact(value: Array) -> None:
    """Raise Inexact unless every number is within GRAIN and LARGEST."""
    array = np.asarray(value)
    if (np.abs(array) > LARGEST).any() or (array % GRAIN).any():
        raise Inexact


class Simulator:
    """Simulates `graph` (of the package nir, without nested graphs), whose nodes put out arrays of `shapes`."""

    def __init__(self, graph: Any, shapes: Mapping[str, tuple[int, ...]], dt: float, subtract: bool = False) -> None:
        self.nodes, self.edges, self.shapes = graph.nodes, list(graph.edges), shapes
        self.dt, self.subtract = dt, subtract
        self.inputs = [n for n, node in self.nodes.items() if kind(node) == "Input"]
        self.outputs = [n for n, node in self.nodes.items() if kind(node) == "Output"]
        self.late = {edge for edge in self.edges if closes_cycle(edge, self.nodes, self.edges, dt)}

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Outputs [T, *shape] for inputs [T, *shape]."""
        steps = len(next(iter(inputs.values())))
        self.state: dict[str, Any] = {}
        self.old: dict[str, Array] = {}
        traces: dict[str, list[Array]] = {name: [] for name in self.outputs}
        for t in range(steps):
            self.now: dict[str, Array] = {name: inputs[name][t].astype(np.float64) for name in self.inputs}
            self.before: dict[str, Array] = {}
            for name in self.nodes:
                self.value(name)
            for name, past in self.state.items():
                if isinstance(past, list) and breaks(self.nodes[name], self.dt):
                    past.append(self.gather(name, [None] * len(self.sources(name))))
            for name in self.outputs:
                traces[name].append(self.now[name])
            self.old = {n: v for n, v in self.now.items() if kind(self.nodes[n]) in (*STATEFUL, "Threshold", "Input")}
        return {name: np.array(trace) for name, trace in traces.items()}

    def value(self, name: str) -> Array:
        if name not in self.now:
            late = [self.previous(s) if (s, name) in self.late else None for s in self.sources(name)]
            early = breaks(self.nodes[name], self.dt)
            self.now[name] = self.compute(name, np.zeros(self.shapes[name]) if early else self.gather(name, late))
        return self.now[name]

    def sources(self, name: str) -> list[str]:
        return [a for a, b in self.edges if b == name]

    def gather(self, name: str, late: list[Array | None]) -> Array:
        total: Array | float = 0.0
        for source, known in zip(self.sources(name), late):
            total = total + (self.value(source) if known is None else known)
        return np.asarray(total, np.float64)

    def previous(self, name: str) -> Array:
        """What `name` put out one step before; 0 before the first."""
        if kind(self.nodes[name]) in (*STATEFUL, "Threshold", "Input"):
            return self.old.get(name, np.zeros(self.shapes[name]))
        if name not in self.before:
            self.before[name] = self.compute(name, np.sum([self.previous(s) for s in self.sources(name)], axis=0))
        return self.before[name]

    def compute(self, name: str, x: Array) -> Array:
        node = self.nodes[name]
        y = COMPUTE[kind(node)](self, name, node, x)
        check_exact(y)
        return y

    # Neurons

    def membrane(self, name: str, node: Any, u: Array, rest: float = 0.0) -> Array:
        fired = u > node.v_threshold
        if self.subtract or node.metadata.get("reset") == "subtract":
            after = u - node.v_threshold * fired
        else:
            after = np.where(fired, node.v_reset, u)
        self.keep(name, after)
        return fired.astype(np.float64)

    def keep(self, name: str, value: Array) -> None:
        check_exact(value)
        self.state[name] = value

    def last(self, name: str) -> Any:
        return self.state.get(name, 0.0)


def kind(node: Any) -> str:
    return type(node).__name__


def breaks(node: Any, dt: float) -> bool:
    """Whether a node is a Delay of a step or more."""
    return kind(node) == "Delay" and bool((np.rint(node.delay / dt) >= 1).all())


def closes_cycle(edge: tuple[str, str], nodes: Any, edges: list[tuple[str, str]], dt: float) -> bool:
    """Whether the edge's source is reached from no input, and no Delay, without passing its target."""
    source, target = edge
    early = {n for n, node in nodes.items() if breaks(node, dt)}
    if target in early:
        return False
    seen = {n for n, node in nodes.items() if kind(node) == "Input" or n in early} - {target}
    while True:
        more = {b for a, b in edges if a in seen and b != target and b not in early} - seen
        if not more:
            return source not in seen
        seen |= more


def integrator(sim: Simulator, name: str, node: Any, x: Array) -> Array:
    sim.keep(name, sim.last(name) + sim.dt * node.r * x)
    return sim.last(name)


def integrate_and_fire(sim: Simulator, name: str, node: Any, x: Array) -> Array:
    return sim.membrane(name, node, sim.last(name) + sim.dt * node.r * x)


def leak(sim: Simulator, name: str, node: Any, x: Array) -> Array:
    v = sim.last(name)
    return v + sim.dt / node.tau * (node.v_leak - v + node.r * x)


def leaky_integrator(sim: Simulator, name: str, node: Any, x: Array) -> Array:
    sim.keep(name, leak(sim, name, node, x))
    return sim.last(name)


def leaky_fire(sim: Simulator, name: str, node: Any, x: Array) -> Array:
    return sim.membrane(name, node, leak(sim, name, node, x))


def synapse(sim: Simulator, name: str, node: Any, x: Array) -> Array:
    i, v = sim.last(name + ".i"), sim.last(name)
    i = i + sim.dt / node.tau_syn * (node.w_in * x - i)
    sim.keep(name + ".i", i)
    return v + sim.dt / node.tau_mem * (node.v_leak - v + node.r * i)


def cuba_integrator(sim: Simulator, name: str, node: Any, x: Array) -> Array:
    sim.keep(name, synapse(sim, name, node, x))
    return sim.last(name)


def cuba_fire(sim: Simulator, name: str, node: Any, x: Array) -> Array:
    return sim.membrane(name, node, synapse(sim, name, node, x))


def delay(sim: Simulator, name: str, node: Any, x: Array) -> Array:
    past = sim.state.setdefault(name, [])
    steps = np.broadcast_to(np.rint(node.delay / sim.dt).astype(int), x.shape)
    y = np.zeros(x.shape)
    if breaks(node, sim.dt):  # what it reads now is put in at the end of the step
        for index in np.ndindex(x.shape):
            if steps[index] <= len(past):
                y[index] = past[-steps[index]][index]
        return y
    past.append(x)
    for index in np.ndindex(x.shape):
        if steps[index] < len(past):
            y[index] = past[-1 - steps[index]][index]
    return y


def convolution(sim: Simulator, name: str, node: Any, x: Array) -> Array:
    w, axes = node.weight, node.weight.ndim - 2
    (stride, dilation) = (np.broadcast_to(v, (axes,)) for v in (node.stride, node.dilation))
    if isinstance(node.padding, str):
        reach = [int(d * (k - 1)) if node.padding == "same" else 0 for d, k in zip(dilation, w.shape[2:])]
        pads = [(r // 2, r - r // 2) for r in reach]
    else:
        pads = [(int(p), int(p)) for p in np.broadcast_to(node.padding, (axes,))]
    x = np.pad(x, [(0, 0), *pads])
    out = [(x.shape[1 + i] - dilation[i] * (w.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in range(axes)]
    y = np.zeros((w.shape[0], *out))
    per_group = w.shape[0] // int(node.groups)
    for m, *at in itertools.product(range(w.shape[0]), *map(range, out)):
        first = m // per_group * w.shape[1]
        for c, *tap in itertools.product(range(w.shape[1]), *map(range, w.shape[2:])):
            place = tuple(int(a * s + k * d) for a, s, k, d in zip(at, stride, tap, dilation))
            y[(m, *at)] += w[(m, c, *tap)] * x[(first + c, *place)]
    return y + node.bias.reshape(-1, *[1] * axes)


def pooling(mean: bool) -> Callable[[Simulator, str, Any, Array], Array]:
    def pool(sim: Simulator, name: str, node: Any, x: Array) -> Array:
        kernel, stride, padding = (np.broadcast_to(v, (2,)) for v in (node.kernel_size, node.stride, node.padding))
        x = np.pad(x, [(0, 0), (padding[0],) * 2, (padding[1],) * 2])
        out = [(x.shape[1 + i] - kernel[i]) // stride[i] + 1 for i in range(2)]
        y = np.zeros((x.shape[0], *out))
        for c, i, j in np.ndindex(y.shape):
            rows, columns = i * stride[0], j * stride[1]
            y[c, i, j] = x[c, rows : rows + kernel[0], columns : columns + kernel[1]].sum()
        return y / (kernel[0] * kernel[1]) if mean else y

    return pool


def flat(sim: Simulator, name: str, node: Any, x: Array) -> Array:
    first, last = (int(d) % x.ndim for d in (node.start_dim, node.end_dim))
    return x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :])


COMPUTE: dict[str, Callable[[Simulator, str, Any, Array], Array]] = {
    "Input": lambda sim, name, node, x: x,
    "Output": lambda sim, name, node, x: x,
    "Linear": lambda sim, name, node, x: x @ node.weight.T,
    "Affine": lambda sim, name, node, x: x @ node.weight.T + node.bias,
    "Scale": lambda sim, name, node, x: x * node.scale,
    "Conv1d": convolution,
    "Conv2d": convolution,
    "SumPool2d": pooling(mean=False),
    "AvgPool2d": pooling(mean=True),
    "Flatten": flat,
    "Delay": delay,
    "Threshold": lambda sim, name, node, x: (x > node.threshold).astype(np.float64),
    "I": integrator,
    "IF": integrate_and_fire,
    "LI": leaky_integrator,
    "LIF": leaky_fire,
    "CubaLI": cuba_integrator,
    "CubaLIF": cuba_fire,
}
