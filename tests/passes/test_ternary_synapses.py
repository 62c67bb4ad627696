"""Ternary synapses: exact where weights were ternary already, and as far off as the fit says where they were not."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.dialects.builtin import FunctionType, ModuleOp, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region, SSAValue

from kernel_harness import runnable_isas
from neuc.compiler.snn.composites.step_builder import Ops, Step
from neuc.compiler.universe import new_context
from neuc.dialects import spike
from neuc.dialects.context import NeucContext
from neuc.dialects.interp.core import interpret
from neuc.dialects.store import tensor_type
from neuc.dialects.ternary_weights import defining_weight
from neuc.passes.ternary_synapses import TernarySynapses
from spiking_programs import Network, added, session

LOST = 0.3
"""Of currents, with two planes: weights of normal distribution lose about 13 dB."""
TOLERANCE = 1e-5
"""Sums of 40 f32 terms of size 1: 40 · 2^-24, rounded up."""


def test_convolutions_as_emitted_code() -> None:
    """Before and after, also in groups."""
    rng, ctx = np.random.default_rng(1), new_context()
    net = Network([tensor_type(f32, ["B", 4, 6, 6])], ctx.weights)
    unit = net.constant(np.ones(1, np.float32))
    whole, groups = (
        net.constant(rng.normal(0, 0.3, shape).astype(np.float32)) for shape in ((8, 4, 3, 3), (8, 2, 3, 3))
    )
    loop = spike.LoopOp([], [net.zeros(f32, ["B", 4, 6, 6]), *[net.zeros(f32, ["B", 8, 4, 6])] * 2], 4, [])
    neuron = spike.IfOp(net.inputs[0], [loop.states[0]], [unit])
    added(loop.body.block, neuron)
    after: list[SSAValue] = [neuron.next_potential]
    for place, (weight, group) in enumerate(((whole, 1), (groups, 2)), start=1):
        conv = spike.ConvOp(neuron.events, weight, strides=[2, 1], pads=[2, 1, 1, 1], dilations=[1, 1], group=group)
        added(loop.body.block, conv)
        after.append(added(loop.body.block, spike.AccumulateOp(conv.current, loop.states[place])).results[0])
    loop.body.block.add_op(spike.YieldOp([], after))
    net.add(loop)
    module = ModuleOp([net.function(list(loop.final[1:]))])
    x = rng.uniform(0, 1, (3, 4, 6, 6)).astype(np.float32)
    exact = interpret(module, [x], ctx.weights)
    TernarySynapses().apply(ctx, module)
    module.verify()
    convs = [op for op in module.walk() if isinstance(op, spike.ConvOp)]
    assert [(op.trits is not None, op.group.value.data) for op in convs] == [(True, 1), (True, 2)]
    made = interpret(module, [x], ctx.weights)
    for found, before in zip(made, exact, strict=True):
        assert 0 < np.linalg.norm(found - before) / np.linalg.norm(before) < LOST
    (main,) = module.ops
    assert isinstance(main, FuncOp)
    main.detach()
    with session(main, ctx.weights, runnable_isas()[0]) as program:
        for got, wanted in zip(program.run(None, {"x0": x}), made, strict=True):
            np.testing.assert_allclose(np.asarray(got, np.float32), wanted, rtol=0, atol=TOLERANCE)


def _network(weight: np.ndarray) -> tuple[ModuleOp, NeucContext]:
    """Numbers to spikes to currents [4 steps, B, N]."""
    ctx = new_context()
    given = tensor_type(f32, ["B", weight.shape[1]])
    ops = Ops(Block(arg_types=[given]), ctx.weights)
    step = Step.of(ops)
    out = step.linear(step.lif(ops.block.args[0], 0.5), "w", weight)
    result = step.close([out], 4).outputs[0]
    ops.block.add_op(ReturnOp(result))
    return ModuleOp([FuncOp("main", FunctionType.from_lists([given], [result.type]), Region(ops.block))]), ctx


@pytest.mark.parametrize("planes", [1, 2])
def test_currents_before_and_after(planes: int) -> None:
    rng = np.random.default_rng(0)
    ternary = rng.integers(-1, 2, (16, 40)).astype(np.float32) * np.float32(0.3)
    x = rng.uniform(0, 2, (8, 40)).astype(np.float32)
    for weight, exact in ((ternary, True), (rng.normal(0, 0.3, (16, 40)).astype(np.float32), False)):
        module, ctx = _network(weight)
        before = interpret(module, [x], ctx.weights)[0]
        TernarySynapses(planes).apply(ctx, module)
        module.verify()
        after = interpret(module, [x], ctx.weights)[0]
        (linear,) = (op for op in module.walk() if isinstance(op, spike.LinearOp))
        assert linear.trits is not None
        assert linear.trits.plane_count == planes
        if exact:
            np.testing.assert_allclose(after, before, atol=TOLERANCE)
            continue
        found = defining_weight(linear.weight).sqnr
        assert found is not None
        # Spikes are 0 or 1 whatever the weights, so errors of currents are sums of errors of weights.
        expected = 10 ** (-found.value.data / 20)
        assert 0 < np.linalg.norm(after - before) / np.linalg.norm(before) < 3 * expected
