"""One step of each kind of neuron on vectors: from current, states and parameters to events and next states.

The meaning is `dialects/interp/spike_neurons.py`, and operations come in its order, each rounded on its own, so that
results are its bits. Memory and loops are the kernels' business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.ir import Attribute

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i32, i64, vec
from neuc.backends.cpu.irtypes import is_float

_DECAY_BITS = 12
"""Decays of integer neurons are in units of 2^-12."""


@dataclass(frozen=True)
class Neuron:
    """One kind of neuron.

    Attributes:
        kind: the operation's name without its dialect, ``if``, ``lif`` …
        number: ``f32`` or ``i32``: what currents, states and parameters are.
        states: how many states it has.
        parameters: how many parameters it has; a reset value is the last.
        hard: a spike puts the potential to the reset value (0 if there is none), and does not take it off.
        above: it fires above the threshold, and not at it.
        reset_value: there is one.
        old: the membrane reads the synaptic current of the step before.
        levels: powers of two its events can be.
        relu: what it sent never sums up below 0.
        quarters: fire_at in quarters.
    """

    kind: str
    number: str
    states: int
    parameters: int
    hard: bool = False
    above: bool = False
    reset_value: bool = False
    old: bool = False
    levels: int = 1
    relu: bool = False
    quarters: int = 3

    @property
    def element(self) -> Attribute:
        """The type of a current."""
        return f32 if self.number == "f32" else i32

    @property
    def fires(self) -> bool:
        """Whether it makes events."""
        return self.kind not in ("integrator", "li", "cuba_li")

    def step(
        self, b: KernelBuilder, current: Val, states: Sequence[Val], parameters: Sequence[Val], step: Val
    ) -> tuple[Val | None, list[Val]]:
        """The code of one step.

        Args:
            b: the builder.
            current: a vector.
            states: as many.
            parameters: as many, or scalars splat.
            step: the step's number, i64.

        Returns:
            The events as i32 (None of a neuron that has none), and the next states.
        """
        return _STEPS[self.kind](b, self, current, states, parameters, step)


Step = Callable[[KernelBuilder, Neuron, Val, "Sequence[Val]", "Sequence[Val]", Val], "tuple[Val | None, list[Val]]"]


def _scaled(b: KernelBuilder, factor: Val, value: Val) -> Val:
    """factor·value; of integers in units of 2^-12, cut towards 0."""
    if is_float(value.type):
        return factor * value
    product = b.sext(factor, i64) * b.sext(value, i64)
    below_zero = product.ashr(63) & ((1 << _DECAY_BITS) - 1)
    return b.trunc((product + below_zero).ashr(_DECAY_BITS), i32)


def _fired(b: KernelBuilder, n: Neuron, u: Val, threshold: Val) -> Val:
    if is_float(u.type):
        return b.fcmp("ogt" if n.above else "oge", u, threshold)
    return b.icmp("sgt" if n.above else "sge", u, threshold)


def _reset(b: KernelBuilder, n: Neuron, u: Val, fired: Val, threshold: Val, parameters: Sequence[Val]) -> Val:
    if n.hard:
        return b.select(fired, parameters[-1] if n.reset_value else b.zero(u.type), u)
    return b.select(fired, u - (parameters[-1] if n.reset_value else threshold), u)


def _spike(b: KernelBuilder, n: Neuron, u: Val, threshold: Val, parameters: Sequence[Val]) -> tuple[Val, Val]:
    """The events and the potential after them."""
    fired = _fired(b, n, u, threshold)
    return b.zext(fired, i32), _reset(b, n, u, fired, threshold, parameters)


def _if(b: KernelBuilder, n: Neuron, x: Val, v: Sequence[Val], p: Sequence[Val], t: Val) -> tuple[Val, list[Val]]:
    events, potential = _spike(b, n, v[0] + x, p[0], p)
    return events, [potential]


def _lif(b: KernelBuilder, n: Neuron, x: Val, v: Sequence[Val], p: Sequence[Val], t: Val) -> tuple[Val, list[Val]]:
    events, potential = _spike(b, n, _scaled(b, p[0], v[0]) + x, p[1], p)
    return events, [potential]


def _cuba(b: KernelBuilder, n: Neuron, x: Val, v: Sequence[Val], p: Sequence[Val]) -> tuple[Val, Val]:
    synapse = _scaled(b, p[0], v[0]) + x
    return synapse, _scaled(b, p[1], v[1]) + _scaled(b, p[2], v[0] if n.old else synapse)


def _cuba_lif(b: KernelBuilder, n: Neuron, x: Val, v: Sequence[Val], p: Sequence[Val], t: Val) -> tuple[Val, list[Val]]:
    synapse, u = _cuba(b, n, x, v, p)
    events, potential = _spike(b, n, u, p[3], p)
    return events, [synapse, potential]


def _alpha(b: KernelBuilder, n: Neuron, x: Val, v: Sequence[Val], p: Sequence[Val], t: Val) -> tuple[Val, list[Val]]:
    e, h = p[0] * v[0] + x, p[1] * v[1] + x
    gain, threshold = p[2], p[3]
    fired = _fired(b, n, gain * (e - h), threshold)
    if n.hard:
        start = p[-1] / gain if n.reset_value else b.zero(e.type)
        return b.zext(fired, i32), [b.select(fired, start, e), b.select(fired, b.zero(h.type), h)]
    off = (p[-1] if n.reset_value else threshold) / gain
    return b.zext(fired, i32), [b.select(fired, e - off, e), h]


def _adaptive(b: KernelBuilder, n: Neuron, x: Val, v: Sequence[Val], p: Sequence[Val], t: Val) -> tuple[Val, list[Val]]:
    moved = p[3] + _scaled(b, p[2], v[1])
    events, potential = _spike(b, n, _scaled(b, p[0], v[0]) + x, moved, p)
    sent = b.sitofp(events, f32) if n.number == "f32" else events << _DECAY_BITS
    return events, [potential, _scaled(b, p[1], v[1]) + sent]


def _integrator(
    b: KernelBuilder, n: Neuron, x: Val, v: Sequence[Val], p: Sequence[Val], t: Val
) -> tuple[None, list[Val]]:
    return None, [v[0] + x]


def _li(b: KernelBuilder, n: Neuron, x: Val, v: Sequence[Val], p: Sequence[Val], t: Val) -> tuple[None, list[Val]]:
    return None, [_scaled(b, p[0], v[0]) + x]


def _cuba_li(b: KernelBuilder, n: Neuron, x: Val, v: Sequence[Val], p: Sequence[Val], t: Val) -> tuple[None, list[Val]]:
    return None, list(_cuba(b, n, x, v, p))


def _threshold(
    b: KernelBuilder, n: Neuron, x: Val, v: Sequence[Val], p: Sequence[Val], t: Val
) -> tuple[Val, list[Val]]:
    return b.zext(_fired(b, n, x, p[0]), i32), []


def _level_events(b: KernelBuilder, n: Neuron, m: Val, output: Val, unit: Val) -> Val:
    """The largest level that fires, in units of the smallest."""
    events = b.zero(vec(i32, m.lanes))
    for k in range(n.levels):
        if is_float(m.type):
            level = unit * float(1 << k)
            bound = level * (n.quarters / 4)
            up, down = b.fcmp("oge", m, bound), b.fcmp("ole", m, -bound)
            sent_enough = b.fcmp("oge", output, level)
        else:
            level = unit << k
            bound, height = b.sext(level, i64) * n.quarters, b.sext(m, i64) << 2
            up, down = b.icmp("sge", height, bound), b.icmp("sle", height, -bound)
            sent_enough = b.icmp("sge", output, level)
        if n.relu:
            down = down & sent_enough
        power = b.const(1 << k, events.type)
        events = b.select(up, power, b.select(down, -power, events))
    return events


def _sent(b: KernelBuilder, n: Neuron, events: Val, unit: Val) -> Val:
    return (b.sitofp(events, f32) if n.number == "f32" else events) * unit


def _multi_threshold(
    b: KernelBuilder, n: Neuron, x: Val, v: Sequence[Val], p: Sequence[Val], t: Val
) -> tuple[Val, list[Val]]:
    m = v[0] + x
    events = _level_events(b, n, m, v[1], p[0])
    sent = _sent(b, n, events, p[0])
    return events, [m - sent, v[1] + sent]


def _differential(
    b: KernelBuilder, n: Neuron, x: Val, v: Sequence[Val], p: Sequence[Val], t: Val
) -> tuple[Val, list[Val]]:
    membrane, output, mean_in, mean_out = v
    count = b.splat(b.sitofp(t + 1, f32), x.lanes)
    m = membrane + x + mean_in - mean_out
    c = output + mean_out
    events = _level_events(b, n, m, c, p[0])
    sent = _sent(b, n, events, p[0])
    return events, [m - sent, c + sent, mean_in + x / count, mean_out + sent / count]


_STEPS: dict[str, Step] = {
    "if": _if,
    "lif": _lif,
    "cuba_lif": _cuba_lif,
    "alpha": _alpha,
    "adaptive": _adaptive,
    "integrator": _integrator,
    "li": _li,
    "cuba_li": _cuba_li,
    "threshold": _threshold,
    "multi_threshold": _multi_threshold,
    "differential": _differential,
}
