"""Rules by which layers learn for themselves: self-contrastive and recurrent Forward-Forward, dendrites."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuc.compiler.energy.learning_maps import Array, Sizes
from neuc.compiler.energy.learning_rules import Layers, Network, glorot, maps_in, normalised
from neuc.errors import Error, Exit


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


class StreamLearner:
    """A recurrent Forward-Forward layer that learns a stream of symbols while it passes, a step at a time.

    h_t = relu(W [h_{t−1} normalised, symbol t] + b). The symbol that comes raises the goodness mean h², one that does
    not come lowers it (Hinton 2022, section 3.4); no step looks back further than h_{t−1}, and none is stored.

    Args:
        symbols: how many there are.
        hidden: units.
        rate: step size.
        theta: the goodness that tells right from wrong.
        seed: of the weights and of wrong symbols.

    Raises:
        Error: NEUC-E618, a size that makes no learner; NEUC-E619, a rate that is not above 0.
    """

    def __init__(
        self, symbols: int, hidden: int = 64, *, rate: float = 0.03, theta: float = 1.0, seed: int = 0
    ) -> None:
        if symbols < 2 or hidden < 1:
            what = f"{symbols} symbols and {hidden} units make no learner"
            raise Error("NEUC-E618", what, hint="at least two symbols, one unit", exit_code=Exit.USAGE)
        if not (np.isfinite(rate) and rate > 0):
            raise Error("NEUC-E619", f"rate = {rate}", hint="rates are above 0", exit_code=Exit.USAGE)
        self.symbols, self.rate, self.theta = symbols, rate, theta
        self.rng = np.random.default_rng(seed)
        self.w = (self.rng.standard_normal((hidden + symbols, hidden)) / np.sqrt(hidden)).astype(np.float32)
        self.w[hidden:] *= np.float32(np.sqrt(hidden))
        self.b = np.zeros(hidden, np.float32)
        self.h = np.zeros(hidden, np.float32)

    def step(self, symbol: int, *, learn: bool = True) -> int:
        """Take the next symbol in.

        Returns:
            What was expected in its place.

        Raises:
            Error: NEUC-E616, there is no such symbol.
        """
        if not 0 <= symbol < self.symbols:
            what = f"symbol {symbol}, and there are {self.symbols}"
            raise Error("NEUC-E616", what, hint=f"symbols are 0 to {self.symbols - 1}", exit_code=Exit.USAGE)
        reads = np.concatenate([np.tile(normalised(self.h[None]), (self.symbols, 1)), np.eye(self.symbols)], 1)
        reads = reads.astype(np.float32)
        activity = np.maximum(reads @ self.w + self.b, 0.0)
        goodness = (activity**2).mean(1)
        if learn:
            # Every other symbol is a wrong one; together they weigh as much as the right one.
            sign = np.full(self.symbols, -1.0)
            sign[symbol] = 1.0
            weight = np.where(sign > 0, 1.0, 1.0 / (self.symbols - 1))
            surprise = weight / (1.0 + np.exp(np.clip(sign * (goodness - self.theta), -50.0, 50.0)))
            push = ((sign * surprise)[:, None] * activity).astype(np.float32) * np.float32(self.rate)
            self.w += reads.T @ push
            self.b += push.sum(0)
        self.h = activity[symbol]
        return int(goodness.argmax())


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
