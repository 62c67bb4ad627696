"""How the weights of a layered network learn: equilibrium propagation, predictive coding, Forward-Forward.

Each rule says how a network starts, which way the weights go for a batch, and how the trained network answers, in
numpy. `learning_models.py` writes the same rules as `energy` programs, which is what training runs; a test keeps both
equal. Backpropagation stands here for comparison alone. Other rules are in `learning_variants.py` and
`learning_local.py`, their names in `learning_methods.py`, the loop over epochs in `learning.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from neuc.compiler.energy.learning_maps import Array, DenseMap, Map, Sizes, maps_of

Layers: TypeAlias = "list[tuple[Array, Array]]"
"""Weights and biases [out] of each layer, f32; weights [in, out], or all filters of a convolution in a row."""
LABEL_SCALE = 2.0
"""What Forward-Forward multiplies the appended one-hot label by."""
ADAM = (0.9, 0.999, 1e-8)
"""Decay of the mean and of the mean square of slopes, and the floor of the divisor (Kingma and Ba 2015)."""


class Network(list["tuple[Array, Array]"]):
    """Layers that know their maps; a plain list of layers is one of matrices."""

    def __init__(self, layers: Iterable[tuple[Array, Array]], maps: Sequence[Map]) -> None:
        super().__init__(layers)
        self.maps = tuple(maps)


def maps_in(layers: Layers) -> tuple[Map, ...]:
    """What the weights of each layer do."""
    if isinstance(layers, Network):
        return layers.maps
    return tuple(DenseMap(*w.shape) for w, _ in layers)


class Rule(Protocol):
    """What a learning rule offers to `train`."""

    @property
    def rate(self) -> float:
        """Step size."""
        ...

    @property
    def decay(self) -> float:
        """What the step size is multiplied by after each epoch."""
        ...

    @property
    def adaptive(self) -> bool:
        """Whether steps are Adam's; plain gradient steps otherwise."""
        ...

    def start(self, sizes: Sizes, rng: np.random.Generator) -> Layers:
        """Random layers for sizes input, hidden…, classes."""
        ...

    def slopes(self, layers: Layers, x: Array, y: Array, rng: np.random.Generator) -> Layers:
        """dF/dθ for a batch x [B, inputs] with one-hot labels y [B, classes]: the mean over the batch."""
        ...

    def scores(self, layers: Layers, x: Array) -> Array:
        """A score for each class, [B, classes]; the largest is the answer."""
        ...


@dataclass(frozen=True)
class EquilibriumPropagation:
    """Scellier and Bengio 2017 on a deep Hopfield network with states in [0, 1] and exact block minimisation.

    F = Σ ½|s_l|² − s_{l−1} W_l s_l − b_l s_l, and β ½|o − y|² in the nudged phases, which start from the free state.

    Attributes:
        beta: strength of the nudge.
        free_steps: sweeps over the layers without a nudge.
        nudged_steps: sweeps in each nudged phase.
        answer_steps: sweeps of the trained network, also in its ONNX export.
        centred: phases at β and −β (error O(β²), Laborieux et al. 2021); otherwise at β and 0 (error O(β)).
    """

    rate: float = 0.2
    decay: float = 0.98
    beta: float = 0.25
    free_steps: int = 20
    nudged_steps: int = 8
    answer_steps: int = 20
    centred: bool = True
    adaptive: bool = False

    def start(self, sizes: Sizes, rng: np.random.Generator) -> Layers:
        """Half of Glorot's range: F stays convex enough to settle."""
        made = glorot(sizes, rng)
        return Network(((0.5 * w, b) for w, b in made), maps_in(made))

    def slopes(self, layers: Layers, x: Array, y: Array, rng: np.random.Generator) -> Layers:
        """The contrast of two equilibria, see `energy.contrast`."""
        free = self.settle(layers, x, self.rest(layers, len(x)), self.free_steps)
        up = self.settle(layers, x, free, self.nudged_steps, self.beta, y)
        down = self.settle(layers, x, free, self.nudged_steps, -self.beta, y) if self.centred else free
        scale = np.float32(1.0 / ((2.0 if self.centred else 1.0) * self.beta * len(x)))
        found: Layers = []
        for number, (map_, a, b) in enumerate(zip(maps_in(layers), up, down, strict=True)):
            if number == 0:
                pairs = map_.slope(x, a - b)
            else:
                pairs = map_.slope(up[number - 1], a) - map_.slope(down[number - 1], b)
            found.append((-scale * pairs, -scale * (a - b).sum(0)))
        return found

    def scores(self, layers: Layers, x: Array) -> Array:
        """The output layer at rest."""
        return self.settle(layers, x, self.rest(layers, len(x)), self.answer_steps)[-1]

    def rest(self, layers: Layers, count: int) -> list[Array]:
        """The state that the free phase starts from: zeros."""
        return [np.zeros((count, len(b)), b.dtype) for _, b in layers]

    def settle(
        self, layers: Layers, x: Array, states: Sequence[Array], steps: int, nudge: float = 0.0, y: Array | None = None
    ) -> list[Array]:
        """Sweeps from the first layer to the last; each layer goes to the minimum of F in its box."""
        settled, last, maps = list(states), len(layers) - 1, maps_in(layers)
        drive = maps[0].forward(layers[0][0], x) + layers[0][1]  # the input is clamped: this part never changes
        for _ in range(steps):
            for number, (w, b) in enumerate(layers):
                field = drive if number == 0 else maps[number].forward(w, settled[number - 1]) + b
                if number < last:
                    field = field + maps[number + 1].back(layers[number + 1][0], settled[number + 1])
                elif y is not None and nudge:
                    field = (field + nudge * y) / (1.0 + nudge)
                settled[number] = np.minimum(np.maximum(field, 0.0), 1.0)
        return settled


@dataclass(frozen=True)
class PredictiveCoding:
    """Rao and Ballard 1999, Whittington and Bogacz 2017: F = Σ ½|z_l − W_l ρ(z_{l−1}) − b_l|², z_L = label, ρ = relu.

    Latents start at their predictions, where the first step is backpropagation's direction, then flow downhill.

    Attributes:
        steps: steps of the flow for each batch.
        dt: their size; dt times the largest curvature has to stay below 2.
    """

    rate: float = 2e-3
    decay: float = 1.0
    steps: int = 20
    dt: float = 0.1
    adaptive: bool = True

    def start(self, sizes: Sizes, rng: np.random.Generator) -> Layers:
        """Glorot's range."""
        return glorot(sizes, rng)

    def slopes(self, layers: Layers, x: Array, y: Array, rng: np.random.Generator) -> Layers:
        """dF/dθ where the latents have settled: outer products of errors and activities."""
        return self.slopes_at(layers, x, self.settle(layers, x, y, forward(layers, x)[:-1], self.steps), y)

    def slopes_at(self, layers: Layers, x: Array, latents: Sequence[Array], y: Array) -> Layers:
        """The same at given latents."""
        errors, activities = self.errors(layers, x, latents, y)
        return [
            (-map_.slope(a, e) / len(x), -e.mean(0))
            for map_, a, e in zip(maps_in(layers), activities, errors, strict=True)
        ]

    def scores(self, layers: Layers, x: Array) -> Array:
        """The last prediction."""
        return forward(layers, x)[-1]

    def settle(self, layers: Layers, x: Array, y: Array, start: Sequence[Array], steps: int) -> list[Array]:
        """The hidden latents after steps of gradient flow."""
        latents, dt, maps = list(start), self.dt, maps_in(layers)
        for _ in range(steps):
            errors, _ = self.errors(layers, x, latents, y)
            for number, z in enumerate(latents):
                back = maps[number + 1].back(layers[number + 1][0], errors[number + 1])
                latents[number] = z - dt * (errors[number] - (z > 0) * back)
        return latents

    def errors(self, layers: Layers, x: Array, latents: Sequence[Array], y: Array) -> tuple[list[Array], list[Array]]:
        """z_l − prediction for each layer, and the activities that it was predicted from."""
        activities = [x, *(np.maximum(z, 0.0) for z in latents)]
        found = zip([*latents, y], activities, layers, maps_in(layers), strict=True)
        return [z - map_.forward(w, a) - b for z, a, (w, b), map_ in found], activities


@dataclass(frozen=True)
class ForwardForward:
    """Hinton 2022: each layer raises its goodness, mean relu(W a + b)², on right labels, lowers it on wrong ones.

    The label is appended to the pixels. Between layers lengths are normalised, so that each layer has to learn
    something of its own. The answer is the label with the largest goodness, summed over layers.

    Attributes:
        theta: the goodness that tells right from wrong.
    """

    rate: float = 2e-2
    decay: float = 0.98
    theta: float = 2.0
    adaptive: bool = True

    def start(self, sizes: Sizes, rng: np.random.Generator) -> Layers:
        """Glorot's range; the first layer also reads the label, and there is no output layer."""
        whole = [size for size in sizes if isinstance(size, int)]
        return glorot([whole[0] + whole[-1], *whole[1:-1]], rng)

    def slopes(self, layers: Layers, x: Array, y: Array, rng: np.random.Generator) -> Layers:
        """Slopes of the layers' own losses on the batch, with the right labels and with random wrong ones."""
        right_and_wrong = np.concatenate([label_appended(x, y), label_appended(x, wrong_labels(y, rng))])
        sign = np.repeat(np.array([1.0, -1.0], x.dtype), len(x))
        a, found = right_and_wrong, []
        for w, b in layers:
            a = normalised(a)
            h = np.maximum(a @ w + b, 0.0)
            surprise = 1.0 / (1.0 + np.exp(np.clip(sign * ((h * h).mean(1) - self.theta), -50.0, 50.0)))
            slope = (-2.0 * sign * surprise / (h.shape[1] * len(h)))[:, None] * h
            found.append((a.T @ slope, slope.sum(0)))
            a = h
        return found

    def reads(self, layers: Layers, x: Array, y: Array, rng: np.random.Generator) -> dict[str, Array]:
        """What each layer reads, with right and wrong labels: the inputs of `learning_program`."""
        found: dict[str, Array] = {}
        for name, labels in (("right", y), ("wrong", wrong_labels(y, rng))):
            a = label_appended(x, labels)
            for number, (w, b) in enumerate(layers, 1):
                found[f"{name}{number}"] = a = normalised(a)
                if number < len(layers):
                    a = np.maximum(a @ w + b, 0.0)
        return found

    def scores(self, layers: Layers, x: Array) -> Array:
        """The goodness of each label, summed over the layers."""
        classes = layers[0][0].shape[0] - x.shape[1]
        columns: list[Array] = []
        for label in np.eye(classes, dtype=x.dtype):
            a, goodness = label_appended(x, np.broadcast_to(label, (len(x), classes))), np.zeros(len(x), x.dtype)
            for w, b in layers:
                a = np.maximum(normalised(a) @ w + b, 0.0)
                goodness = goodness + (a * a).mean(1)
            columns.append(goodness)
        return np.stack(columns, 1)


@dataclass(frozen=True)
class Backpropagation:
    """The yardstick: gradient descent through the same layers.

    Attributes:
        squared: lower ½|o − y|², the cost of the other rules, instead of the cross-entropy.
    """

    rate: float = 2e-3
    decay: float = 1.0
    squared: bool = False
    adaptive: bool = True

    def start(self, sizes: Sizes, rng: np.random.Generator) -> Layers:
        """Glorot's range."""
        return glorot(sizes, rng)

    def slopes(self, layers: Layers, x: Array, y: Array, rng: np.random.Generator) -> Layers:
        """The gradient, by the chain rule."""
        before = forward(layers, x)
        if self.squared:
            return backward(layers, x, before, before[-1] - y)
        shifted = np.exp(before[-1] - before[-1].max(1, keepdims=True))
        return backward(layers, x, before, shifted / shifted.sum(1, keepdims=True) - y)

    def scores(self, layers: Layers, x: Array) -> Array:
        """The logits."""
        return forward(layers, x)[-1]


def glorot(sizes: Sizes, rng: np.random.Generator) -> Network:
    """Uniform weights within √(6 / (in + out)), zero biases (Glorot and Bengio 2010)."""
    maps = maps_of(sizes)
    layers: Layers = []
    for map_ in maps:
        r = np.sqrt(6.0 / sum(map_.fans))
        layers.append((rng.uniform(-r, r, map_.weights).astype(np.float32), np.zeros(map_.outputs, np.float32)))
    return Network(layers, maps)


def forward(layers: Layers, x: Array) -> list[Array]:
    """What each layer gives before its relu; the last has none."""
    found: list[Array] = []
    for map_, (w, b) in zip(maps_in(layers), layers, strict=True):
        found.append(map_.forward(w, np.maximum(found[-1], 0.0) if found else x) + b)
    return found


def backward(layers: Layers, x: Array, before: Sequence[Array], error: Array) -> Layers:
    """Mean slopes by the chain rule, from the slope of the loss by the last layer's output."""
    found, maps = list[tuple[Array, Array]](), maps_in(layers)
    for number in reversed(range(len(layers))):
        a = x if number == 0 else np.maximum(before[number - 1], 0.0)
        found.append((maps[number].slope(a, error) / len(x), error.mean(0)))
        if number:
            error = maps[number].back(layers[number][0], error) * (before[number - 1] > 0)
    return found[::-1]


def wrong_labels(y: Array, rng: np.random.Generator) -> Array:
    """Random labels, one-hot, that are not those of y."""
    classes = y.shape[1]
    wrong = (y.argmax(1) + rng.integers(1, classes, len(y))) % classes
    return np.eye(classes, dtype=y.dtype)[wrong]


def label_appended(x: Array, y: Array) -> Array:
    """Pixels and the scaled one-hot label side by side."""
    return np.concatenate([x, np.float32(LABEL_SCALE) * y], 1)


def normalised(a: Array) -> Array:
    """Rows of root mean square 1; rows of zeros stay zeros."""
    return a / (np.sqrt((a * a).mean(1, keepdims=True)) + np.asarray(LENGTH_FLOOR, a.dtype))


LENGTH_FLOOR = 1e-4
"""Added to lengths, so that a layer with no activity does not divide by 0."""
