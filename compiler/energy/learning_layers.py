"""Slopes of rules that relax nothing, as tensor operations: what their numpy loops compute, for the compiler.

Forward-Forward, SCFF, dendritic learning, contrastive divergence, backpropagation. Rules that relax an
energy are in `learning_models.py`, holomorphic equilibrium propagation in `learning_circle.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.ir import SSAValue

from neuc.compiler.energy.learning_local import DendriticLearning, SelfContrastive
from neuc.compiler.energy.learning_maps import Map
from neuc.compiler.energy.learning_rules import LABEL_SCALE, LENGTH_FLOOR, Backpropagation, ForwardForward
from neuc.compiler.energy.learning_variants import ContrastiveDivergence
from neuc.compiler.energy.tensors import Tensors, width
from neuc.passes.scalar_builder import Scalar, exp, maximum, minimum, sigmoid, sqrt, tanh, where

Pair = tuple[SSAValue, SSAValue]


@dataclass(frozen=True)
class Batch:
    """What a step of a rule reads.

    Attributes:
        tensors: where operations go.
        pairs: weights and biases of each layer.
        maps: what the weights do.
        x: images [batch, inputs].
        y: one-hot labels [batch, classes].
        shape: batch, inputs, classes.
    """

    tensors: Tensors
    pairs: Sequence[Pair]
    maps: Sequence[Map]
    x: SSAValue
    y: SSAValue
    shape: tuple[int, int, int]


def forward_forward(at: Batch, rule: ForwardForward) -> list[SSAValue]:
    """Input ``wrong`` [batch, classes]: one-hot labels that are not the images'."""
    t, (batch, _, classes) = at.tensors, at.shape
    labels = t.concat([at.y, t.input("wrong", batch, classes)], 0)
    pixels = t.concat([at.x, at.x], 0)
    reads = t.concat([pixels, t.map(lambda y: LABEL_SCALE * y, labels)], 1)
    return _goodness_slopes(at, at.pairs, reads, rule.theta)


def self_contrastive(at: Batch, rule: SelfContrastive) -> list[SSAValue]:
    """Input ``other`` [batch, inputs]: the images in another order."""
    t, (batch, inputs, _) = at.tensors, at.shape
    twice = t.map(lambda x: x + x, at.x)
    reads = t.concat([twice, t.sum(at.x, t.input("other", batch, inputs))], 0)
    found = _goodness_slopes(at, at.pairs[:-1], reads, rule.theta)
    a, features = twice, list[SSAValue]()
    for w, b in at.pairs[:-1]:
        a = t.matmul(normalised(t, a), w, b, relu=True)
        features.append(normalised(t, a))
    read, (w, b) = t.concat(features, 1), at.pairs[-1]
    error = t.map(lambda p, y: (p - y) * (1.0 / batch), t.softmax(t.matmul(read, w, b)), at.y)
    return [*found, *_slopes(t, at.maps[-1], read, error)]


def dendritic(at: Batch, rule: DendriticLearning) -> list[SSAValue]:
    """Basal potentials up, errors down through feedback weights, and both kinds of weights by what they see."""
    t, batch = at.tensors, at.shape[0]
    count = (len(at.pairs) + 1) // 2
    ups, downs = at.pairs[:count], at.pairs[count:]
    below, basal = [at.x], list[SSAValue]()
    for map_, (w, b) in zip(at.maps, ups):
        basal.append(t.forward(map_, w, below[-1], b))
        below.append(t.map(tanh, basal[-1]))
    errors = [t.map(lambda y, u: y - u, at.y, basal[-1])]
    for number in reversed(range(len(downs))):
        apical = t.back(at.maps[number + 1], downs[number][0], errors[0])
        errors.insert(0, t.map(lambda a, r: a * (1.0 - r * r), apical, below[number + 1]))
    found, correlations = list[SSAValue](), list[SSAValue]()
    for map_, a, error, (w, _) in zip(at.maps, below, errors, ups):
        product, total = _slopes(t, map_, a, error, -1.0 / batch)
        correlations.append(t.map(lambda w, p: rule.loss * w + p, w, product))
        found += [correlations[-1], total]
    for (feedback, nothing), (w, _), slope in zip(downs, ups[1:], correlations[1:]):
        back = t.map(lambda b, w, s: rule.loss * (b - w) + s, feedback, w, slope)
        found += [back, t.filled(0.0, nothing)]
    return found


def contrastive_divergence(at: Batch, rule: ContrastiveDivergence) -> list[SSAValue]:
    """Input ``draws`` [sweeps, batch, hidden]: uniform numbers that decide which hidden units are on."""
    t, (batch, inputs, classes) = at.tensors, at.shape
    (w, c), (a, nothing) = at.pairs
    visible = inputs + classes
    data, rest = t.concat([at.x, at.y], 1), t.reshape(a, (visible,))
    first = hidden = t.map(sigmoid, t.matmul(data, w, c))
    model, units = data, width(hidden)
    draws = t.input("draws", rule.sweeps, batch * units)
    for number in range(rule.sweeps):
        drawn = t.reshape(draws, (rule.sweeps * batch, units))
        drawn = drawn if rule.sweeps == 1 else t.rows(drawn, number * batch, (number + 1) * batch)
        on = t.map(lambda u, p: where(u < p, u.constant(1.0), 0.0), drawn, hidden)
        field = t.matmul(on, w, rest, transpose_b=True)
        pixels = t.map(sigmoid, t.columns(field, 0, inputs))
        model = t.concat([pixels, t.softmax(t.columns(field, inputs, visible))], 1)
        hidden = t.map(sigmoid, t.matmul(model, w, c))
    moved = t.map(lambda v, d: (v - d) * (1.0 / batch), model, data)
    share = t.map(lambda h, f: (h - f) * (1.0 / batch), hidden, first)
    both = t.map(
        lambda m, d: m - d,
        t.matmul(model, hidden, transpose_a=True, alpha=1.0 / batch),
        t.matmul(data, first, transpose_a=True, alpha=1.0 / batch),
    )
    return [both, t.total(share), t.reshape(t.total(moved), (visible, 1)), t.filled(0.0, nothing)]


def backpropagation(at: Batch, rule: Backpropagation) -> list[SSAValue]:
    """The chain rule, from the last layer to the first."""
    t, batch = at.tensors, at.shape[0]
    below = [at.x]
    for number, (w, b) in enumerate(at.pairs):
        below.append(t.forward(at.maps[number], w, below[-1], b, relu=number < len(at.pairs) - 1))
    answer = below[-1] if rule.squared else t.softmax(below[-1])
    error = t.map(lambda o, y: (o - y) * (1.0 / batch), answer, at.y)
    found: list[SSAValue] = []
    for number in reversed(range(len(at.pairs))):
        found = [*_slopes(t, at.maps[number], below[number], error), *found]
        if number:
            back = t.back(at.maps[number], at.pairs[number][0], error)
            error = t.map(lambda e, a: where(a > 0.0, e, 0.0), back, below[number])
    return found


def _goodness_slopes(at: Batch, pairs: Sequence[Pair], a: SSAValue, theta: float) -> list[SSAValue]:
    """Each layer's own loss: mean h² above θ for the first half of the rows, below it for the second."""
    t, rows, found = at.tensors, 2 * at.shape[0], list[SSAValue]()
    sign = t.constant("sign", np.repeat(np.array([1.0, -1.0], np.float32), at.shape[0])[:, None])
    for map_, (w, b) in zip(at.maps, pairs):
        read = normalised(t, a)
        a = t.matmul(read, w, b, relu=True)
        scale = -2.0 / (rows * width(a))

        def push(goodness: Scalar, sign: Scalar, scale: float = scale) -> Scalar:
            surprise = 1.0 / (1.0 + exp(minimum(maximum(sign * (goodness - theta), -50.0), 50.0)))
            return scale * sign * surprise

        slope = t.map(lambda p, h: p * h, t.map(push, t.mean_square(a), sign), a)
        found += _slopes(t, map_, read, slope)
    return found


def normalised(t: Tensors, a: SSAValue) -> SSAValue:
    """Rows of root mean square 1."""
    share = t.map(lambda m: 1.0 / (sqrt(m) + LENGTH_FLOOR), t.mean_square(a))
    return t.map(lambda a, s: a * s, a, share)


def _slopes(t: Tensors, map_: Map, a: SSAValue, error: SSAValue, scale: float = 1.0) -> list[SSAValue]:
    """Of a layer's weights and bias, times a number."""
    total = t.total(error)
    if scale != 1.0:
        total = t.map(lambda s: s * scale, total)
    return [t.slope(map_, a, error, scale), total]
