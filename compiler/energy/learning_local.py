"""Rules by which layers learn for themselves: self-contrastive Forward-Forward, dendrites. Not those of streams."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuc.compiler.energy.learning_maps import Array, Sizes
from neuc.compiler.energy.learning_rules import Layers, Network, glorot, maps_in, normalised


@dataclass(frozen=True)
class SelfContrastive:
    """SCFF (Chen et al. 2025): layers learn without labels that x + x belongs together, and x + another image does not.

    The last layer reads the normalised activity of all hidden ones and learns by the delta rule.

    Attributes:
        theta: the goodness, mean relu(W a + b)², that tells the one from the other.
    """

    rate: float = 3e-3
    decay: float = 1.0
    theta: float = 1.5
    adaptive: bool = True

    def start(self, sizes: Sizes, rng: np.random.Generator) -> Layers:
        """Glorot's range; the last layer reads all hidden ones."""
        whole = [size for size in sizes if isinstance(size, int)]
        hidden = glorot(whole[:-1], rng)
        return [*hidden, *glorot([sum(whole[1:-1]), whole[-1]], rng)]

    def slopes(self, layers: Layers, x: Array, y: Array, rng: np.random.Generator) -> Layers:
        """Each layer's own loss, and the last layer's error on the label."""
        other = x[rng.permutation(len(x))]
        a, found = np.concatenate([x + x, x + other]), list[tuple[Array, Array]]()
        sign = np.repeat(np.array([1.0, -1.0], x.dtype), len(x))
        for w, b in layers[:-1]:
            a = normalised(a)
            h = np.maximum(a @ w + b, 0.0)
            surprise = 1.0 / (1.0 + np.exp(np.clip(sign * ((h * h).mean(1) - self.theta), -50.0, 50.0)))
            slope = (-2.0 * sign * surprise / (h.shape[1] * len(h)))[:, None] * h
            found.append((a.T @ slope, slope.sum(0)))
            a = h
        read = self.features(layers, x)
        w, b = layers[-1]
        error = (_softmax(read @ w + b) - y) / np.float32(len(x))
        return [*found, (read.T @ error, error.sum(0))]

    def scores(self, layers: Layers, x: Array) -> Array:
        """What the last layer reads out."""
        w, b = layers[-1]
        return self.features(layers, x) @ w + b

    def features(self, layers: Layers, x: Array) -> Array:
        """The normalised activities of all hidden layers, side by side."""
        a, found = x + x, list[Array]()
        for w, b in layers[:-1]:
            a = np.maximum(normalised(a) @ w + b, 0.0)
            found.append(normalised(a))
        return np.concatenate(found, 1)


@dataclass(frozen=True)
class DendriticLearning:
    """Errors live in apical dendrites, which read the layer above through weights of their own.

    Basal dendrites give u = W r + b, the soma r = tanh u. The output's error is label − u; an apical dendrite adds up
    B times the errors above, and W changes by basal input times (1 − r²) times that: nothing but what is at the synapse
    (Sacramento et al. 2018; Lv et al. 2025). B is no transpose: both change by the same product of what their ends
    show, and lose a share of themselves (Kolen and Pollack 1994), so that they come to agree. With one hidden layer it
    is a neuron whose dendrites are that layer.

    Attributes:
        loss: the share of W and B that is lost each step.
    """

    rate: float = 0.1
    decay: float = 1.0
    loss: float = 1e-3
    adaptive: bool = False

    def start(self, sizes: Sizes, rng: np.random.Generator) -> Layers:
        """Glorot's range for W, and again for B; layers: W and b of all, then B of all but the first with no bias."""
        up, down = glorot(sizes, rng), glorot(sizes, rng)
        feedback = [(w, np.zeros(1, np.float32)) for w, _ in down[1:]]
        return Network([*up, *feedback], (*up.maps, *up.maps[1:]))

    def slopes(self, layers: Layers, x: Array, y: Array, rng: np.random.Generator) -> Layers:
        """Changes of W, b and B, each from what its synapses see."""
        ups, downs = self.parts(layers)
        maps = maps_in(layers)
        somas, basal = self.activities(layers, x)
        errors: list[Array] = [y - basal[-1]]
        for number in reversed(range(len(downs))):
            apical = maps[number + 1].back(downs[number][0], errors[0])
            errors.insert(0, apical * (1.0 - somas[number] ** 2))
        found: Layers = []
        for number, ((w, _), error) in enumerate(zip(ups, errors)):
            below = x if number == 0 else somas[number - 1]
            found.append((self.loss * w - maps[number].slope(below, error) / len(x), -error.mean(0)))
        back = [
            (self.loss * (b - w) + slope, np.zeros_like(none))
            for (b, none), (w, _), (slope, _) in zip(downs, ups[1:], found[1:])
        ]
        return [*found, *back]

    def scores(self, layers: Layers, x: Array) -> Array:
        """The basal potential of the last layer."""
        return self.activities(layers, x)[1][-1]

    def parts(self, layers: Layers) -> tuple[Layers, Layers]:
        """Layers, and the feedback to all but the last."""
        count = (len(layers) + 1) // 2
        return layers[:count], layers[count:]

    def activities(self, layers: Layers, x: Array) -> tuple[list[Array], list[Array]]:
        """Somas of the hidden layers and basal potentials of all."""
        basal, somas = list[Array](), list[Array]()
        for map_, (w, b) in zip(maps_in(layers), self.parts(layers)[0]):
            basal.append(map_.forward(w, somas[-1] if somas else x) + b)
            somas.append(np.tanh(basal[-1]))
        return somas[:-1], basal


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
