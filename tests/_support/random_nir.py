"""Random NIR graphs whose numbers are small binary fractions, so that float32 computes with them exactly.

Chains of every primitive with skips that are summed up, feedback over weights, delays, grouped and non-square
convolutions, and inner graphs around parts of the chain.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

from nir_simulator import closes_cycle

DT = 2.0**-10
"""Seconds in a step, so that dt/τ and dt·r are binary fractions."""


class RandomGraph:
    """Draws one graph from a seed."""

    def __init__(self, seed: int | list[int]) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.shape: dict[str, tuple[int, ...]] = {}
        self.graph = self._draw()
        if self.rng.random() < 0.3:
            self.nested = self._nest()
        else:
            self.nested = self.graph

    def fraction(self, *shape: int, low: int = -6, high: int = 7) -> np.ndarray:
        return self.rng.integers(low, high, shape) / 4

    def inputs(self, steps: int) -> np.ndarray:
        return self.rng.integers(-4, 8, (steps, *self.shape["input"])) / 4

    def _draw(self) -> nir.NIRGraph:
        image = self.rng.random() < 0.5
        shape = (2 * int(self.rng.integers(1, 3)), 5, 6) if image else (int(self.rng.integers(1, 6)),)
        self._add("input", nir.Input({"input": np.array(shape)}), None, shape)
        last, chain = "input", ["input"]
        for i in range(int(self.rng.integers(2, 7))):
            last = self._step(f"n{i}", last)
            chain.append(last)
            self._connect(chain)
        self._add("output", nir.Output({"output": np.array(self.shape[last])}), last, self.shape[last])
        return nir.NIRGraph(nodes=self.nodes, edges=self.edges, type_check=False)

    def _add(self, name: str, node: Any, source: str | None, shape: tuple[int, ...]) -> str:
        self.nodes[name], self.shape[name] = node, tuple(int(s) for s in shape)
        if source is not None:
            self.edges.append((source, name))
        return name

    def _connect(self, chain: list[str]) -> None:
        """Perhaps a skip into the newest node, perhaps a feedback from it."""
        newest = chain[-1]
        before = self.edges[-1][0]
        wanted = self.shape[before]
        if self.rng.random() < 0.3:
            earlier = [n for n in chain[:-2] if self.shape[n] == wanted and (n, newest) not in self.edges]
            if earlier:
                self.edges.append((str(self.rng.choice(earlier)), newest))
        if self.rng.random() < 0.35:
            self._feed_back(chain)

    def _feed_back(self, chain: list[str]) -> None:
        newest = chain[-1]
        targets = [n for n in chain[1:] if type(self.nodes[n]).__name__ in NEURONS]
        if not targets:
            return
        target = str(self.rng.choice(targets))
        name, out, into = f"{newest}_back", self.shape[newest], self.shape[target]
        if len(out) == 1 and len(into) == 1:
            size = (into[0], out[0])
            node = (
                nir.Linear(self.fraction(*size))
                if self.rng.random() < 0.5
                else nir.Affine(self.fraction(*size), self.fraction(into[0]))
            )
        elif out == into:
            node = nir.Scale(self.fraction(*out))
        else:
            return
        edges = [*self.edges, (newest, name), (name, target)]
        if closes_cycle((name, target), {**self.nodes, name: node}, edges, DT):  # else the loop has several entries
            self._add(name, node, newest, into)
            self.edges.append((name, target))

    def _step(self, name: str, last: str) -> str:
        shape = self.shape[last]
        kinds = [*NEURONS, "Scale", "Threshold", "Delay"]
        kinds += (
            ["Conv2d", "Conv2d", "Pool", "Flatten"] if len(shape) == 3 else ["Linear", "Affine", "Linear", "Affine"]
        )
        if len(shape) == 2:
            kinds = ["Conv1d", "Flatten", *kinds]
        return getattr(self, f"_{str(self.rng.choice(kinds)).lower()}")(name, last, shape)

    def _neuron(self, name: str, last: str, shape: tuple[int, ...], node: Any) -> str:
        if self.rng.random() < 0.3 and hasattr(node, "v_threshold") and not np.any(node.v_reset):
            node.metadata["reset"] = "subtract"
        return self._add(name, node, last, shape)

    def _tau(self, shape: tuple[int, ...]) -> np.ndarray:
        return DT * 2.0 ** self.rng.integers(0, 2, shape)

    def _r(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.fraction(*shape, low=1) / DT

    def _theta(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.fraction(*shape, low=1)

    def _reset_to(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.fraction(*shape, low=-2, high=1) if self.rng.random() < 0.3 else np.zeros(shape)

    def _leak(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.fraction(*shape, low=-2, high=3) if self.rng.random() < 0.3 else np.zeros(shape)

    def _i(self, name: str, last: str, s: tuple[int, ...]) -> str:
        return self._neuron(name, last, s, nir.I(self._r(s)))

    def _if(self, name: str, last: str, s: tuple[int, ...]) -> str:
        return self._neuron(name, last, s, nir.IF(self._r(s), self._theta(s), self._reset_to(s)))

    def _li(self, name: str, last: str, s: tuple[int, ...]) -> str:
        return self._neuron(name, last, s, nir.LI(self._tau(s), self.fraction(*s, low=1), self._leak(s)))

    def _lif(self, name: str, last: str, s: tuple[int, ...]) -> str:
        node = nir.LIF(self._tau(s), self.fraction(*s, low=1), self._leak(s), self._theta(s), self._reset_to(s))
        return self._neuron(name, last, s, node)

    def _cubali(self, name: str, last: str, s: tuple[int, ...]) -> str:
        node = nir.CubaLI(
            tau_syn=self._tau(s),
            tau_mem=self._tau(s),
            r=self.fraction(*s),
            v_leak=self._leak(s),
            w_in=self.fraction(*s),
        )
        return self._neuron(name, last, s, node)

    def _cubalif(self, name: str, last: str, s: tuple[int, ...]) -> str:
        node = nir.CubaLIF(
            tau_syn=self._tau(s),
            tau_mem=self._tau(s),
            r=self.fraction(*s, low=1),
            v_leak=self._leak(s),
            v_threshold=self._theta(s),
            v_reset=self._reset_to(s),
            w_in=self.fraction(*s, low=1),
        )
        return self._neuron(name, last, s, node)

    def _scale(self, name: str, last: str, s: tuple[int, ...]) -> str:
        return self._add(name, nir.Scale(self.fraction(*s)), last, s)

    def _threshold(self, name: str, last: str, s: tuple[int, ...]) -> str:
        return self._add(name, nir.Threshold(self._theta(s)), last, s)

    def _delay(self, name: str, last: str, s: tuple[int, ...]) -> str:
        steps = self.rng.integers(0, 4, s if self.rng.random() < 0.5 else ())
        return self._add(name, nir.Delay(np.broadcast_to(steps * DT, s).copy()), last, s)

    def _linear(self, name: str, last: str, s: tuple[int, ...]) -> str:
        rows = int(self.rng.integers(1, 6))
        return self._add(name, nir.Linear(self.fraction(rows, s[-1])), last, (*s[:-1], rows))

    def _affine(self, name: str, last: str, s: tuple[int, ...]) -> str:
        rows = int(self.rng.integers(1, 6))
        return self._add(name, nir.Affine(self.fraction(rows, s[-1]), self.fraction(rows)), last, (*s[:-1], rows))

    def _conv(self, name: str, last: str, s: tuple[int, ...], axes: int) -> str:
        kernel = [int(self.rng.integers(1, min(4, size + 1))) for size in s[1:]]
        groups = int(self.rng.choice([g for g in (1, 2, s[0]) if s[0] % g == 0]))
        rows = groups * int(self.rng.integers(1, 3))
        stride: Any = [int(v) for v in self.rng.integers(1, 3, axes)]
        padding: Any = [int(v) for v in self.rng.integers(0, 2, axes)]
        if self.rng.random() < 0.3:
            padding, stride = str(self.rng.choice(["same", "valid"])), [1] * axes
        make: Any = nir.Conv1d if axes == 1 else nir.Conv2d
        single = axes == 1
        node = make(
            input_shape=s[1] if single else s[1:],
            weight=self.fraction(rows, s[0] // groups, *kernel),
            stride=stride[0] if single else tuple(stride),
            padding=padding if isinstance(padding, str) else padding[0] if single else tuple(padding),
            dilation=1 if single else (1, 1),
            groups=groups,
            bias=self.fraction(rows),
        )
        out = []
        for i, (size, k) in enumerate(zip(s[1:], kernel)):
            pads: Any = k - 1 if padding == "same" else 0 if padding == "valid" else 2 * padding[i]
            out.append((size + pads - k) // stride[i] + 1)
        return self._add(name, node, last, (rows, *out))

    def _conv1d(self, name: str, last: str, s: tuple[int, ...]) -> str:
        return self._conv(name, last, s, 1)

    def _conv2d(self, name: str, last: str, s: tuple[int, ...]) -> str:
        return self._conv(name, last, s, 2)

    def _pool(self, name: str, last: str, s: tuple[int, ...]) -> str:
        kernel = np.array([int(self.rng.choice([k for k in (1, 2, 4) if k <= size])) for size in s[1:]])
        stride, padding = self.rng.integers(1, 3, 2), np.minimum(self.rng.integers(0, 2, 2), kernel // 2)
        make = nir.SumPool2d if self.rng.random() < 0.5 else nir.AvgPool2d
        out = [(s[1 + i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in range(2)]
        return self._add(name, make(kernel_size=kernel, stride=stride, padding=padding), last, (s[0], *out))

    def _flatten(self, name: str, last: str, s: tuple[int, ...]) -> str:
        start = int(self.rng.integers(0, len(s)))
        shape = (*s[:start], int(np.prod(s[start:])))
        node = nir.Flatten(input_type={"input": np.array(s)}, start_dim=start, end_dim=-1)
        return self._add(name, node, last, shape)

    def _nest(self) -> nir.NIRGraph:
        """The same graph with one node in an inner graph of its own."""
        inner = str(self.rng.choice([n for n in self.nodes if n not in ("input", "output")]))
        source = next(a for a, b in self.edges if b == inner)
        part = nir.NIRGraph(
            nodes={
                "in": nir.Input({"input": np.array(self.shape[source])}),
                "core": self.nodes[inner],
                "out": nir.Output({"output": np.array(self.shape[inner])}),
            },
            edges=[("in", "core"), ("core", "out")],
            type_check=False,
        )
        return nir.NIRGraph(nodes={**self.nodes, inner: part}, edges=self.edges, type_check=False)


NEURONS = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF")
