"""A selective scan (Mamba) whose linear layers are fed by signed-integer spiking neurons; time is the token.

A. Gu, T. Dao, "Mamba", 2023, arXiv:2312.00752, for the scan. An integer spike goes out as unit spikes -1, 0, 1, one
after another within the token, so that every weight is added, subtracted or skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.ir import SSAValue

from neuc.compiler.snn.composites.step_builder import Ops, Step
from neuc.dialects import spike
from neuc.dialects.dense_attrs import ReduceKind
from neuc.dialects.store import dims_of
from neuc.passes.scalar_builder import Scalar, absolute, exp, log1p, maximum, sigmoid


@dataclass(frozen=True)
class IntegerNeurons:
    """Signed-integer neurons: u = leak·rest + x/unit, and unit spikes leave u while |u| ≥ 3/4, `most` of them at most.

    Attributes:
        unit: f32 [features], what one spike stands for.
        leak: how much of the rest stays for the next token.
        most: the largest integer.
    """

    unit: np.ndarray
    leak: float
    most: int


@dataclass(frozen=True)
class ScanLayers:
    """Parameters of one block, f32; `inner` features, `state` numbers for each, steps of rank `rank`.

    Attributes:
        into, into_bias: [2·inner, width], [2·inner]: features and gates.
        conv, conv_bias: [inner, taps], [inner]: over the last tokens, the newest last.
        select: [rank + 2·state, inner].
        step, step_bias: [inner, rank], [inner].
        decay: [inner, state], logarithms.
        skip: [inner].
        out, out_bias: [width, inner], [width].
        neurons: before `into`, `select` and `out`.
    """

    into: np.ndarray
    into_bias: np.ndarray
    conv: np.ndarray
    conv_bias: np.ndarray
    select: np.ndarray
    step: np.ndarray
    step_bias: np.ndarray
    decay: np.ndarray
    skip: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray
    neurons: tuple[IntegerNeurons, IntegerNeurons, IntegerNeurons]


def integer_spikes(step: Step, x: SSAValue, name: str, neurons: IntegerNeurons) -> SSAValue:
    """Signed events [most, …]: the unit spikes of the integers that x [B, features] makes."""
    rest = step.zero_state(dims_of(x))
    scale = step.constant(f"{name}.per_unit", (1 / neurons.unit).astype(np.float32))
    u = step.map(lambda a, b, s: a * neurons.leak + b * s, rest, x, scale)
    inner = Step.of(step)
    membrane, total = inner.state(u), inner.zero_state(dims_of(x))
    silence = inner.filled(0.0, x)
    op = spike.MultiThresholdOp(silence, [membrane, total], inner.constant("unit", 1.0), spike.SIGNED)
    events = inner.add(op)
    inner.keep(membrane, op.next_membrane)
    inner.keep(total, op.next_output)
    loop = inner.close([events], neurons.most)
    step.keep(rest, inner.final(loop, membrane))
    return loop.outputs[0]


def spiking_linear(
    step: Step, x: SSAValue, name: str, neurons: IntegerNeurons, weight: np.ndarray, bias: np.ndarray | None = None
) -> SSAValue:
    """weight·s·unit + bias of x's integer spikes s: a synapse for unit spikes, then the sum over them."""
    events = integer_spikes(step, x, name, neurons)
    total = step.reduce(ReduceKind.SUM, step.linear(events, name, weight * neurons.unit), 0)
    return total if bias is None else step.sum(total, step.constant(f"{name}.bias", bias.astype(np.float32)))


def selective_scan(step: Step, token: SSAValue, name: str, layers: ScanLayers) -> SSAValue:
    """The block's output f32 [B, width] for one token f32 [B, width] (normalised; the shortcut is the caller's)."""
    before_into, before_select, before_out = layers.neurons
    inner, state = layers.decay.shape
    mixed = spiking_linear(step, token, f"{name}.into", before_into, layers.into, layers.into_bias)
    x, gate = step.columns(mixed, 0, inner), step.columns(mixed, inner, 2 * inner)
    x = _silu(step, _causal_conv(step, x, name, layers))
    chosen = spiking_linear(step, x, f"{name}.select", before_select, layers.select)
    rank = layers.step.shape[1]
    width = step.linear(step.columns(chosen, 0, rank), f"{name}.step", layers.step, layers.step_bias)
    width = step.map(lambda a: maximum(a, 0.0) + log1p(exp(-absolute(a))), width)
    b, c = (step.columns(chosen, rank + i * state, rank + (i + 1) * state) for i in range(2))
    y = _scan(step, x, width, b, c, name, layers)
    y = step.map(lambda a, g: a * (g * sigmoid(g)), y, gate)
    return spiking_linear(step, y, f"{name}.out", before_out, layers.out, layers.out_bias)


def _scan(
    step: Step, x: SSAValue, width: SSAValue, b: SSAValue, c: SSAValue, name: str, layers: ScanLayers
) -> SSAValue:
    """The scan: h = exp(−width·exp(decay))·h + width·x·b; y = Σ h·c + skip·x."""
    batch, inner = dims_of(x)
    state = layers.decay.shape[1]
    h = step.zero_state([batch, inner, state])
    rates = step.constant(f"{name}.rates", -np.exp(layers.decay.astype(np.float32)))
    wide, column = ([batch, 1, state], [batch, inner, 1])
    after = step.map(
        lambda h, w, r, x, b: exp(w * r) * h + w * x * b,
        h,
        step.reshape(width, column),
        rates,
        step.reshape(x, column),
        step.reshape(b, wide),
    )
    step.keep(h, after)
    read = step.reduce(ReduceKind.SUM, step.map(lambda h, c: h * c, after, step.reshape(c, wide)), 2)
    skip = step.constant(f"{name}.skip", layers.skip.astype(np.float32))
    return step.map(lambda y, s, x: y + s * x, read, skip, x)


def _causal_conv(step: Step, x: SSAValue, name: str, layers: ScanLayers) -> SSAValue:
    """Each feature's own weighted sum over the last tokens, which are states."""
    taps = layers.conv.shape[1]
    past = [step.zero_state(dims_of(x)) for _ in range(taps - 1)]
    window = [*past, x]
    for state, newer in zip(past, window[1:], strict=True):
        step.keep(state, newer)
    kernel = [step.constant(f"{name}.conv.{i}", layers.conv[:, i].astype(np.float32)) for i in range(taps)]

    def body(bias: Scalar, *pairs: Scalar) -> Scalar:
        total = bias
        for value, weight in zip(pairs[:taps], pairs[taps:], strict=True):
            total = total + value * weight
        return total

    return step.map(body, step.constant(f"{name}.conv.bias", layers.conv_bias.astype(np.float32)), *window, *kernel)


def _silu(ops: Ops, x: SSAValue) -> SSAValue:
    return ops.map(lambda a: a * sigmoid(a), x)
