"""Slopes of holomorphic equilibrium propagation as tensor operations, complex numbers as pairs of real ones.

What it computes is `HolomorphicEquilibriumPropagation.slopes` in `learning_variants.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.ir import SSAValue

from neuc.compiler.energy.learning_layers import Batch
from neuc.compiler.energy.learning_variants import HolomorphicEquilibriumPropagation
from neuc.compiler.energy.tensors import Tensors, width
from neuc.dialects.dims import Dim
from neuc.dialects.store import dims_of
from neuc.passes.scalar_builder import Scalar, cos, exp, minimum, sigmoid, sin

Complex = tuple[SSAValue, SSAValue]
"""Real and imaginary parts, [nudges, batch, n]."""
FARTHEST = 40.0
"""Where σ is 0 for f32; the square of the power is still a number."""


def holomorphic(at: Batch, rule: HolomorphicEquilibriumPropagation) -> list[SSAValue]:
    """Free sweeps in real numbers, then sweeps at all points of the half circle side by side.

    Points −k and k of the circle have conjugate states and add the same real part, so one of them counts twice.
    """
    t, count = at.tensors, int(rule.nudges)
    (w, b), *_ = at.pairs
    drive = t.forward(at.maps[0], w, at.x, b)
    free = _settled(at, drive, rule.free_steps)
    half = np.arange(count // 2 + 1)
    turn = np.exp(2j * np.pi * half / count)
    states = _nudged(at, drive, free, rule.beta * turn, rule.nudged_steps)
    twice = np.where((half == 0) | (2 * half == count), 1.0, 2.0)
    weight = -twice / (turn * count * rule.beta * at.shape[0])
    real, imaginary = (_column(t, part) for part in (weight.real, weight.imag))
    found: list[SSAValue] = []
    for number, (above, beyond) in enumerate(states):
        weighed = t.map(lambda h, i, a, b: a * h - b * i, above, beyond, real, imaginary)
        if number == 0:
            total = t.total(weighed)  # the image is the same at all points
            slope = t.slope(at.maps[0], at.x, total)
        else:
            other = t.map(lambda h, i, a, b: a * i + b * h, above, beyond, real, imaginary)
            below = states[number - 1]
            first, second = (
                t.slope(at.maps[number], _flat(t, b), _flat(t, w)) for b, w in zip(below, (weighed, other))
            )
            slope = t.map(lambda p, q: p - q, first, second)
            total = t.total(weighed)
        found += [slope, t.total(total)]
    return found


def _settled(at: Batch, drive: SSAValue, steps: int) -> list[SSAValue]:
    """The layers at rest, from zeros: terms that are 0 are left out."""
    t, last = at.tensors, len(at.pairs) - 1
    states: list[SSAValue | None] = [None] * len(at.pairs)
    for _ in range(steps):
        for number, (w, b) in enumerate(at.pairs):
            below, above = states[number - 1] if number else None, states[number + 1] if number < last else None
            fields = [drive if below is None else t.forward(at.maps[number], w, below, b)]
            if above is not None:
                fields.append(t.back(at.maps[number + 1], at.pairs[number + 1][0], above))
            states[number] = fields[0] if number == last else t.map(_sigmoid_of_sum, *fields)
    return [state for state in states if state is not None]


def _nudged(at: Batch, drive: SSAValue, free: Sequence[SSAValue], nudges: np.ndarray, steps: int) -> list[Complex]:
    """The layers after sweeps at each nudge, from the free state."""
    t, last, count = at.tensors, len(at.pairs) - 1, len(nudges)
    keep, pull = 1.0 / (1.0 + nudges), nudges / (1.0 + nudges)
    parts = [_column(t, part) for part in (keep.real, keep.imag, pull.real, pull.imag)]
    states: list[Complex] = []
    for state in free:
        spread = t.broadcast(state, (count, *dims_of(state)))
        states.append((spread, t.filled(0.0, spread)))
    for _ in range(steps):
        for number, (w, b) in enumerate(at.pairs):
            if number == 0:
                real, imaginary = [drive], list[SSAValue]()
            else:
                below = states[number - 1]
                map_ = at.maps[number]
                real, imaginary = [t.forward(map_, w, below[0], b)], [t.forward(map_, w, below[1])]
            if number < last:
                above, map_, feedback = states[number + 1], at.maps[number + 1], at.pairs[number + 1][0]
                real.append(t.back(map_, feedback, above[0]))
                imaginary.append(t.back(map_, feedback, above[1]))
                total = t.sum(*real), t.sum(*imaginary)
                states[number] = t.map(_sigmoid_real, *total), t.map(_sigmoid_imaginary, *total)
            else:
                field = *real, *imaginary, at.y, *parts
                states[number] = t.map(_pulled_real, *field), t.map(_pulled_imaginary, *field)
    return states


def _column(t: Tensors, values: np.ndarray) -> SSAValue:
    """A number for each nudge, [nudges, 1, 1]."""
    return t.constant("nudge", values.astype(np.float32)[:, None, None])


def _flat(t: Tensors, x: SSAValue) -> SSAValue:
    """All nudges' rows under each other."""
    nudges, batch, _ = dims_of(x)
    return t.reshape(x, (Dim.of(nudges * batch), width(x)))


def _sigmoid_of_sum(first: Scalar, *others: Scalar) -> Scalar:
    for other in others:
        first = first + other
    return sigmoid(first)


def _sigmoid_real(a: Scalar, b: Scalar) -> Scalar:
    """Re 1/(1 + e^(−a−ib))."""
    small = exp(minimum(-a, FARTHEST))
    return (1.0 + small * cos(b)) / (1.0 + 2.0 * small * cos(b) + small * small)


def _sigmoid_imaginary(a: Scalar, b: Scalar) -> Scalar:
    """Im 1/(1 + e^(−a−ib))."""
    small = exp(minimum(-a, FARTHEST))
    return small * sin(b) / (1.0 + 2.0 * small * cos(b) + small * small)


def _pulled_real(f: Scalar, g: Scalar, y: Scalar, a: Scalar, b: Scalar, c: Scalar, d: Scalar) -> Scalar:
    """Re ((f + ig)(a + ib) + y (c + id))."""
    return f * a - g * b + y * c


def _pulled_imaginary(f: Scalar, g: Scalar, y: Scalar, a: Scalar, b: Scalar, c: Scalar, d: Scalar) -> Scalar:
    """Im of the same."""
    return f * b + g * a + y * d
