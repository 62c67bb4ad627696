"""More learning rules for layered networks: relatives of equilibrium propagation and of predictive coding.

Contrastive Hebbian learning, holomorphic equilibrium propagation, contrastive divergence, incremental and scaled
predictive coding. What they have in common with the others is in `learning_rules.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from neuc.compiler.energy.learning_maps import Array, Sizes
from neuc.compiler.energy.learning_rules import (
    EquilibriumPropagation,
    Layers,
    Network,
    PredictiveCoding,
    forward,
    glorot,
    maps_in,
)


@dataclass(frozen=True)
class ContrastiveHebbian(EquilibriumPropagation):
    """Movellan 1991: the second phase holds the output at the label, instead of nudging it.

    Attributes:
        rate: of plain gradient steps, for a contrast that is not divided by β.
    """

    rate: float = 0.1

    def slopes(self, layers: Layers, x: Array, y: Array, rng: np.random.Generator) -> Layers:
        """Correlations of the free phase minus those of the clamped one."""
        free = self.settle(layers, x, self.rest(layers, len(x)), self.free_steps)
        held = [*self.settle_below(layers, x, [*free[:-1], y], self.nudged_steps), y]
        found: Layers = []
        for number, map_ in enumerate(maps_in(layers)):
            before = (x, x) if number == 0 else (free[number - 1], held[number - 1])
            pairs = map_.slope(before[0], free[number]) - map_.slope(before[1], held[number])
            found.append((pairs / len(x), (free[number] - held[number]).mean(0)))
        return found

    def settle_below(self, layers: Layers, x: Array, states: Sequence[Array], steps: int) -> list[Array]:
        """Sweeps over all layers but the last, which is held; the hidden layers."""
        settled, maps = list(states), maps_in(layers)
        for _ in range(steps):
            for number in range(len(layers) - 1):
                w, b = layers[number]
                field = maps[number].forward(w, settled[number - 1] if number else x) + b
                field = field + maps[number + 1].back(layers[number + 1][0], settled[number + 1])
                settled[number] = np.minimum(np.maximum(field, 0.0), 1.0)
        return settled[:-1]


@dataclass(frozen=True)
class HolomorphicEquilibriumPropagation:
    """Laborieux and Zenke 2022: the first Fourier coefficient of dF/dθ over nudges on a circle, error O(β^N).

    Hidden states are σ(field), outputs the field itself, nudged by β ½(o − y)² with β complex; all are complex.

    Attributes:
        beta: radius of the circle.
        nudges: N, points on it.
        free_steps: sweeps without a nudge, from zeros.
        nudged_steps: sweeps at each point, from the free state.
    """

    rate: float = 5e-3
    decay: float = 1.0
    beta: float = 0.4
    nudges: int = 4
    free_steps: int = 15
    nudged_steps: int = 10
    adaptive: bool = True

    def start(self, sizes: Sizes, rng: np.random.Generator) -> Layers:
        """Half of Glorot's range: sweeps have to settle."""
        made = glorot(sizes, rng)
        return Network(((0.5 * w, b) for w, b in made), made.maps)

    def slopes(self, layers: Layers, x: Array, y: Array, rng: np.random.Generator) -> Layers:
        """Re 1/(N β) Σ_k e^(−2πik/N) dF/dθ(β e^(2πik/N))."""
        free = self.settle(layers, x, [np.zeros((len(x), len(b)), b.dtype) for _, b in layers], self.free_steps)
        total = [(np.zeros(w.shape, w.dtype), np.zeros(b.shape, b.dtype)) for w, b in layers]
        for number in range(self.nudges):
            turn = np.exp(2j * np.pi * number / self.nudges)
            states = self.settle(layers, x, free, self.nudged_steps, self.beta * turn, y)
            weight = 1.0 / (turn * self.nudges * self.beta * len(x))
            for place, (map_, below, here) in enumerate(zip(maps_in(layers), [x, *states], states)):
                w, b = total[place]
                total[place] = w - np.real(weight * map_.slope(below, here)), b - np.real(weight * here.sum(0))
        return [(w.astype(a.dtype), b.astype(c.dtype)) for (w, b), (a, c) in zip(total, layers)]

    def scores(self, layers: Layers, x: Array) -> Array:
        """The output layer at rest."""
        return self.settle(layers, x, [np.zeros((len(x), len(b)), b.dtype) for _, b in layers], self.free_steps)[-1]

    def settle(
        self,
        layers: Layers,
        x: Array,
        states: Sequence[Array],
        steps: int,
        nudge: complex = 0.0,
        y: Array | None = None,
    ) -> list[Array]:
        """Sweeps from the first layer to the last, each to its fixed point, the others held."""
        settled, maps, last = list(states), maps_in(layers), len(layers) - 1
        for _ in range(steps):
            for number, (w, b) in enumerate(layers):
                field = maps[number].forward(w, settled[number - 1] if number else x) + b
                if number < last:
                    field = field + maps[number + 1].back(layers[number + 1][0], settled[number + 1])
                    settled[number] = 1.0 / (1.0 + np.exp(-field))
                else:
                    settled[number] = field if y is None else (field + nudge * y) / (1.0 + nudge)
        return settled


@dataclass(frozen=True)
class ContrastiveDivergence:
    """Hinton 2002, on a restricted Boltzmann machine over pixels and label (Larochelle and Bengio 2008).

    F(v, h) = −v W h − c h − a v, all units 0 or 1. Layers: W and c, then a as weights [pixels + classes, 1].

    Attributes:
        sweeps: Gibbs sweeps of the model phase, from the data.
    """

    rate: float = 5e-3
    decay: float = 1.0
    sweeps: int = 1
    adaptive: bool = True

    def start(self, sizes: Sizes, rng: np.random.Generator) -> Layers:
        """Normal weights of deviation 0.01; one hidden layer."""
        inputs, hidden, classes = (size for size in (sizes[0], sizes[1], sizes[-1]) if isinstance(size, int))
        w = rng.normal(0.0, 0.01, (inputs + classes, hidden)).astype(np.float32)
        return [
            (w, np.zeros(hidden, np.float32)),
            (np.zeros((inputs + classes, 1), np.float32), np.zeros(1, np.float32)),
        ]

    def slopes(self, layers: Layers, x: Array, y: Array, rng: np.random.Generator) -> Layers:
        """dF/dθ of the data minus that after the sweeps; the label is one choice among the classes."""
        (w, c), (a, _) = layers
        data = np.concatenate([x, y], 1)
        visible, hidden = data, _sigmoid(data @ w + c)
        first = hidden
        for _ in range(self.sweeps):
            spikes = (rng.random(hidden.shape) < hidden).astype(w.dtype)
            field = spikes @ w.T + a[:, 0]
            pixels = _sigmoid(field[:, : x.shape[1]])
            scores = np.exp(field[:, x.shape[1] :] - field[:, x.shape[1] :].max(1, keepdims=True))
            visible = np.concatenate([pixels, scores / scores.sum(1, keepdims=True)], 1)
            hidden = _sigmoid(visible @ w + c)
        count = np.float32(len(x))
        dw = (visible.T @ hidden - data.T @ first) / count
        return [(dw, (hidden - first).mean(0)), ((visible - data).mean(0)[:, None], np.zeros(1, w.dtype))]

    def scores(self, layers: Layers, x: Array) -> Array:
        """−F of pixels and each label, hidden units summed out; what all labels share is left out."""
        (w, c), (a, _) = layers
        inputs = x.shape[1]
        field = x @ w[:inputs] + c
        columns = [a[inputs + k, 0] + np.logaddexp(0.0, field + w[inputs + k]).sum(1) for k in range(len(w) - inputs)]
        return np.stack(columns, 1)


@dataclass(frozen=True)
class IncrementalPredictiveCoding(PredictiveCoding):
    """Salvatori et al. 2022: weights change after every step of the latents, and not once they have settled."""

    rate: float = 3e-4
    steps: int = 8

    def passes(self, layers: Layers, x: Array, y: Array, rng: np.random.Generator) -> Iterator[Layers]:
        """Slopes after each step; the weights may have changed when the next is asked for."""
        latents = forward(layers, x)[:-1]
        for _ in range(self.steps):
            latents = self.settle(layers, x, y, latents, 1)
            yield self.slopes_at(layers, x, latents, y)


@dataclass(frozen=True)
class ScaledPredictiveCoding(PredictiveCoding):
    """µPC (Innocenti et al. 2025): standard normal weights, predictions scaled so that depth and width do not matter.

    1/√D at the first layer of D inputs, 1/√N between layers of N, 1/N at the last.
    """

    rate: float = 3e-2

    def start(self, sizes: Sizes, rng: np.random.Generator) -> Layers:
        """Standard normal weights."""
        made = glorot(sizes, rng)
        return Network(((rng.standard_normal(w.shape).astype(np.float32), b) for w, b in made), made.maps)

    def slopes(self, layers: Layers, x: Array, y: Array, rng: np.random.Generator) -> Layers:
        """Those of the scaled weights, times the scales."""
        found = super().slopes(self.scaled(layers), x, y, rng)
        return [(scale * w, b) for (w, b), scale in zip(found, self.scales(layers), strict=True)]

    def scores(self, layers: Layers, x: Array) -> Array:
        """The last prediction."""
        return super().scores(self.scaled(layers), x)

    def scales(self, layers: Layers) -> list[np.float32]:
        """What each layer's prediction is multiplied by."""
        fans = [map_.fans[0] for map_ in maps_in(layers)]
        return [np.float32(1.0 / (n if place == len(fans) - 1 else np.sqrt(n))) for place, n in enumerate(fans)]

    def scaled(self, layers: Layers) -> Network:
        """The network whose plain predictions are the scaled ones."""
        pairs = [(scale * w, b) for (w, b), scale in zip(layers, self.scales(layers), strict=True)]
        return Network(pairs, maps_in(layers))


def _sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -50.0, 50.0)))
