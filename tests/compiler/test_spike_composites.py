"""Attention of spikes and the selective scan, as operations, beside plain numpy that knows the equations alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from xdsl.dialects.builtin import FunctionType, ModuleOp, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region, SSAValue

from neuc.compiler.snn.composites.selective_scan import IntegerNeurons, ScanLayers, integer_spikes, selective_scan
from neuc.compiler.snn.composites.spike_attention import AttentionLayers, Layer, both, spike_attention
from neuc.compiler.snn.composites.step_builder import Ops, Step
from neuc.dialects import spike
from neuc.dialects.interp.core import interpret
from neuc.dialects.spike_types import BINARY, SIGNED, event_of
from neuc.dialects.store import dims_of, tensor_type
from neuc.dialects.weight_store import WeightStore

BATCH, TOKENS, WIDTH, STEPS = 3, 5, 6, 4
DECAY, WEIGHT = 0.5, 0.5
TOLERANCE = 1e-5
"""Results of size 1 from chains of some ten f32 sums of at most 16 terms: 10 · 16 · 2^-24, rounded up."""

Array = np.ndarray


def _run(build: Callable[[Ops, SSAValue], SSAValue], x: Array) -> Array:
    """The module that `build` writes, applied to `x`."""
    given = tensor_type(f32, ["B", *x.shape[1:]])
    ops = Ops(Block(arg_types=[given]), WeightStore())
    result = build(ops, ops.block.args[0])
    ops.block.add_op(ReturnOp(result))
    module = ModuleOp([FuncOp("main", FunctionType.from_lists([given], [result.type]), Region(ops.block))])
    module.verify()
    return interpret(module, [x], ops.store)[0]


class Lif:
    """A layer of leaky neurons with soft reset and threshold 1."""

    def __init__(self) -> None:
        self.u: Array | float = 0.0

    def __call__(self, current: Array) -> Array:
        u = np.float32(DECAY) * self.u + current
        fired = (u >= 1).astype(np.float32)
        self.u = u - fired
        return fired


def _attention_layers(rng: np.random.Generator) -> AttentionLayers:
    def layer() -> Layer:
        weight, bias = rng.normal(0, 1, (WIDTH, WIDTH)), rng.normal(0.4, 0.5, WIDTH)
        return Layer(weight.astype(np.float32), bias.astype(np.float32))

    return AttentionLayers(layer(), layer(), layer(), layer())


def test_spike_attention_is_the_papers() -> None:
    rng = np.random.default_rng(0)
    layers = _attention_layers(rng)
    x = rng.normal(0.5, 0.7, (BATCH, TOKENS, WIDTH)).astype(np.float32)

    def build(ops: Ops, x: SSAValue) -> SSAValue:
        step = Step.of(ops)
        events = step.lif(x, DECAY)
        out = spike_attention(step, events, "a", layers, decay=DECAY, weight=WEIGHT)
        return step.close([out], STEPS).outputs[0]

    first, q, k, v, mask = (Lif() for _ in range(5))
    expected, masks = [], 0.0
    for _ in range(STEPS):
        s = first(x)
        qs, ks, vs = (
            neuron(s @ part.weight.T + part.bias) for neuron, part in ((q, layers.q), (k, layers.k), (v, layers.v))
        )
        chosen = mask(WEIGHT * (qs * ks).sum(1, keepdims=True))
        masks += chosen.mean()
        expected.append((chosen * vs) @ layers.out.weight.T + layers.out.bias)
    assert 0.05 < masks / STEPS < 0.95, "the mask decides nothing"
    np.testing.assert_allclose(_run(build, x), np.stack(expected), atol=TOLERANCE)


def test_coincidences_are_binary_events() -> None:
    x = np.array([[0.0, 0.4, 0.6, 1.0]], np.float32)

    def build(ops: Ops, x: SSAValue) -> SSAValue:
        step = Step.of(ops)
        a, b = (step.add(spike.ThresholdOp(x, step.constant("t", t))) for t in (0.3, 0.5))
        events = both(step, a, b)
        assert event_of(events) == BINARY
        return step.close([events], 1).outputs[0]

    assert _run(build, x).tolist() == [[[0, 0, 1, 1]]]


def test_integer_spikes_are_signed_events_that_sum_to_the_rounded_input() -> None:
    x = np.array([[0.0, 0.74, 0.75, -0.75, 1.74, 1.75, -3.9, 9.0]], np.float32)
    neurons = IntegerNeurons(np.ones(8, np.float32), 0.5, 4)

    def build(ops: Ops, x: SSAValue) -> SSAValue:
        step = Step.of(ops)
        events = integer_spikes(step, x, "n", neurons)
        assert event_of(events) == SIGNED
        assert [str(d) for d in dims_of(events)] == ["4", "B", "8"]
        return step.close([events], 1).outputs[0]

    events = _run(build, x)[0]
    assert events.dtype == np.int8
    assert events.sum(0).tolist() == [[0, 0, 1, -1, 1, 2, -4, 4]]


def _scan_layers(rng: np.random.Generator, width: int, inner: int, state: int, rank: int) -> ScanLayers:
    def normal(*shape: int) -> Array:
        return rng.normal(0, 0.7, shape).astype(np.float32)

    neurons = [IntegerNeurons(rng.uniform(0.3, 0.6, n).astype(np.float32), 0.25, 4) for n in (width, inner, inner)]
    return ScanLayers(
        normal(2 * inner, width), normal(2 * inner), normal(inner, 3), normal(inner), normal(rank + 2 * state, inner),
        normal(inner, rank), normal(inner), normal(inner, state), normal(inner), normal(width, inner), normal(width),
        (neurons[0], neurons[1], neurons[2]),
    )  # fmt: skip


class Integers:
    """Signed-integer neurons by their closed form."""

    def __init__(self, neurons: IntegerNeurons) -> None:
        self.neurons, self.rest = neurons, np.float32(0)

    def __call__(self, x: Array) -> Array:
        u = np.float32(self.neurons.leak) * self.rest + x * (1 / self.neurons.unit).astype(np.float32)
        s = np.sign(u) * np.minimum(self.neurons.most, np.floor(np.abs(u) + np.float32(0.25)))
        self.rest = u - s
        return s * self.neurons.unit


def _reference_scan(tokens: Array, p: ScanLayers) -> Array:
    """Token by token, [T, B, width]."""
    inner, state = p.decay.shape
    rank, taps = p.step.shape[1], p.conv.shape[1]
    into, select, out = (Integers(neurons) for neurons in p.neurons)
    h, past, made = np.zeros((tokens.shape[1], inner, state)), [np.zeros((tokens.shape[1], inner))] * (taps - 1), []
    for token in tokens:
        x, gate = np.split(into(token) @ p.into.T + p.into_bias, 2, -1)
        past = [*past, x]
        x = sum(past[i] * p.conv[:, i] for i in range(taps)) + p.conv_bias
        past = past[1:]
        x = x / (1 + np.exp(-x))
        low, b, c = np.split(select(x) @ p.select.T, [rank, rank + state], -1)
        step = np.log1p(np.exp(low @ p.step.T + p.step_bias))
        h = np.exp(-step[..., None] * np.exp(p.decay)) * h + (step * x)[..., None] * b[:, None]
        y = ((h * c[:, None]).sum(-1) + p.skip * x) * gate / (1 + np.exp(-gate))
        made.append(out(y) @ p.out.T + p.out_bias)
    return np.stack(made)


def test_selective_scan_is_the_papers() -> None:
    rng = np.random.default_rng(1)
    width, tokens = 5, 7
    layers = _scan_layers(rng, width, inner=6, state=3, rank=2)
    x = rng.normal(0, 1, (BATCH, tokens, width)).astype(np.float32)

    def build(ops: Ops, x: SSAValue) -> SSAValue:
        step = Step.of(ops, [ops.transpose(x, [1, 0, 2])])
        out = selective_scan(step, step.slices[0], "s", layers)
        return step.close([out], tokens).outputs[0]

    got, expected = _run(build, x), _reference_scan(x.transpose(1, 0, 2), layers)
    assert np.abs(expected).max() > 0.5
    # f64 and f32 may round an integer differently where u lies on a step; none does here.
    np.testing.assert_allclose(got, expected, atol=5 * TOLERANCE)
