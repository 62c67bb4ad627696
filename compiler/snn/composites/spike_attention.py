"""Spike-driven self-attention: queries, keys and values are spikes, and nothing is multiplied.

M. Yao et al., "Spike-driven Transformer", 2023, arXiv:2307.01694, equations 9 to 12; made of `spike` operations alone,
so that verifiers prove that what goes between layers are spikes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.ir import SSAValue

from neuc.compiler.snn.composites.step_builder import Ops, Step
from neuc.dialects import spike
from neuc.dialects.store import dims_of


@dataclass(frozen=True)
class Layer:
    """A linear layer with its batch norm folded in.

    Attributes:
        weight: f32 [N, K].
        bias: f32 [N].
    """

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class AttentionLayers:
    """The four layers of one attention, each of as many features as the tokens have."""

    q: Layer
    k: Layer
    v: Layer
    out: Layer


def both(ops: Ops, a: SSAValue, b: SSAValue) -> SSAValue:
    """Events where a AND b are events: their count reaches 2. Shapes are equal."""
    count = ops.add(spike.AccumulateOp(a, ops.filled(0.0, a)))
    count = ops.add(spike.AccumulateOp(b, count))
    return ops.add(spike.ThresholdOp(count, ops.constant("both", 2.0)))


def spike_attention(
    step: Step, tokens: SSAValue, name: str, layers: AttentionLayers, *, decay: float, weight: float
) -> SSAValue:
    """The attention's current: out(mask AND v), mask = neuron(weight · Σ over tokens of (q AND k)).

    Args:
        step: the step of a time loop.
        tokens: binary events [B, S, D].
        name: what constants are called after.
        layers: its layers; q, k, v end in leaky integrate-and-fire neurons of threshold 1.
        decay: of all membranes.
        weight: of one coincidence of a query with a key.

    Returns:
        f32 [B, S, D].
    """
    q, k, v = (
        step.lif(step.linear(tokens, f"{name}.{part}", layer.weight, layer.bias), decay)
        for part, layer in (("q", layers.q), ("k", layers.k), ("v", layers.v))
    )
    batch, count, width = dims_of(tokens)
    matches = step.transpose(both(step, q, k), [0, 2, 1])
    column = step.linear(matches, f"{name}.matches", np.full((1, count.value), weight, np.float32))
    mask = step.reshape(step.lif(column, decay), [batch, 1, width])
    chosen = both(step, step.broadcast(mask, [batch, count, width]), v)
    return step.linear(chosen, f"{name}.out", layers.out.weight, layers.out.bias)
