"""Early exits of networks whose encoders and read-outs know which step it is: delayed sums, rates, latencies."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, f32, i32
from xdsl.ir import SSAValue

import neuc
from neuc.backends.cpu.lowerings.spike_plan import LoopPlan, plan_loop
from neuc.dialects import dense, spike
from neuc.dialects.context import NeucContext
from neuc.dialects.interp.core import interpret
from neuc.dialects.store import tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.passes.expose_spike_state import ExposeSpikeState
from neuc.runtime.anytime import Anytime
from snn_models import cnn, inputs
from spiking_programs import Network, added, anytime_session

STEPS, START, INPUTS, CLASSES, SAMPLES = 12, 3, 17, 5, 24
ROUNDING = 1e-4
"""Sums of some hundred products below 8 in f32, in another order."""


def coded(store: WeightStore, encoder: str, *, decoder: str = "sum", whole: bool = False) -> func.FuncOp:
    """An encoder, one linear layer, neurons; their delayed counts (exact), summed currents, or first spikes."""
    rng = np.random.default_rng(3)
    net = Network([tensor_type(f32, ["B", INPUTS])], store)
    weight = net.constant((np.round(rng.standard_normal((CLASSES, INPUTS)) * 2) / 4).astype(np.float32))
    theta = net.constant(np.ones(1, np.float32))
    number = i32 if whole or decoder == "first" else f32
    states = [net.zeros(f32, ["B", CLASSES]), net.zeros(number, ["B", CLASSES])]
    if decoder == "first":
        late = net.constant(np.full(1, STEPS, np.int32))
        states[1] = net.add(dense.BroadcastOp(late, tensor_type(i32, ["B", CLASSES]))).results[0]
    loop = spike.LoopOp([], states, STEPS, [])
    body, x, t = loop.body.block, net.inputs[0], loop.step
    events = added(body, spike.EncodeRateOp(x, t, seed=7) if encoder == "rate" else latency(x, t)).results[0]
    current = added(body, spike.LinearOp(events, weight)).results[0]
    neuron = spike.IfOp(current, [loop.states[0]], [theta])
    fired: SSAValue = added(body, neuron).results[0]
    if decoder == "first":
        last = added(body, spike.FirstSpikeOp(fired, loop.states[1], t)).results[0]
    else:
        last = added(body, spike.AccumulateOp(fired if whole else current, loop.states[1], t, start=START)).results[0]
    body.add_op(spike.YieldOp([], [neuron.next_potential, last]))
    net.add(loop)
    return net.function([loop.final[1]])


def latency(x: SSAValue, step: SSAValue) -> spike.EncodeLatencyOp:
    """One spike of each input, over all steps."""
    return spike.EncodeLatencyOp(x, step, steps=STEPS)


@pytest.mark.parametrize(
    ("encoder", "decoder", "whole"),
    [("rate", "sum", False), ("latency", "sum", True), ("rate", "first", False)],
    ids=["rate, delayed sum", "latency, delayed count", "rate, first spike"],
)
def test_coders_go_on_where_they_stopped_and_exit_early(encoder: str, decoder: str, whole: bool) -> None:
    store = WeightStore()
    module = ModuleOp([coded(store, encoder, decoder=decoder, whole=whole)])
    x = np.random.default_rng(0).random((SAMPLES, INPUTS)).astype(np.float32)
    (sums,) = interpret(module, [x], store)
    assert len(np.unique(sums)) > 3
    with anytime_session(module, store) as session:
        for chunk in (1, 5, STEPS):
            exits = Anytime(session, chunk=chunk).run({"x0": x})
            # Weights are quarters: their sums are exact.
            np.testing.assert_array_equal(exits.outputs, sums)
            assert (exits.steps == STEPS).all()
        anytime = Anytime(session)
        anytime.calibrate({"x0": x}, agreement=0.8)
        exits = anytime.run({"x0": x})
    assert np.mean(exits.outputs.argmax(1) == sums.argmax(1)) >= 0.8
    assert exits.steps.min() < STEPS
    assert exits.steps.min() > (0 if decoder == "first" else START)
    # Those that ran to the end have seen the numbers of the whole program, whoever left before.
    late = exits.steps == STEPS
    np.testing.assert_array_equal(exits.outputs[late], sums[late])


def test_nothing_exits_before_the_first_step_that_counts() -> None:
    """Any margin would do, but there is no answer yet; nor is there one to calibrate on."""
    store = WeightStore()
    with anytime_session(ModuleOp([coded(store, "latency")]), store) as session:
        anytime = Anytime(session, bound=0.0)
        x = np.random.default_rng(0).random((SAMPLES, INPUTS)).astype(np.float32)
        assert (anytime.run({"x0": x}).steps == START + 1).all()
        assert anytime.calibrate({"x0": x}, agreement=0.0) >= 0
        assert (anytime.run({"x0": x}).steps > START).all()


def test_converted_networks_with_a_delayed_read_out_still_run_layer_by_layer() -> None:
    proto = cnn()
    model = neuc.convert_to_snn(proto, inputs(proto, 32), recipe="a", steps=6, start=2)
    x = inputs(proto, 6, seed=8)
    (expected,) = interpret(model.module, [x], model.context.weights)
    module, copy = model.module.clone(), model.module.clone()
    ExposeSpikeState().apply(NeucContext(weights=model.context.weights), copy)
    (loop,) = [op for op in copy.walk() if isinstance(op, spike.LoopOp)]
    assert isinstance(plan_loop(loop), LoopPlan)
    with anytime_session(module, model.context.weights) as session:
        for chunk in (1, 4):
            exits = Anytime(session, chunk=chunk).run({"x": x})
            np.testing.assert_allclose(exits.outputs.astype(np.float32), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("what", ["events", "delay"])
def test_states_that_samples_cannot_leave_are_refused(what: str) -> None:
    store = WeightStore()
    kind, dims = (spike.BINARY, ["B", 4]) if what == "events" else (f32, [2, "B", 4])
    net = Network([tensor_type(f32, ["B", 4])], store)
    loop = spike.LoopOp([], [net.zeros(f32, ["B", 4]), net.zeros(kind, dims)], STEPS, [])
    body, (v, held) = loop.body.block, loop.states
    theta, weight = net.constant(np.ones(1, np.float32)), net.constant(np.ones((4, 4), np.float32))
    if what == "events":
        current = added(body, spike.LinearOp(held, weight)).results[0]
        neuron = spike.IfOp(current, [v], [theta])
        after = added(body, neuron).results[0]
    else:
        late, after = added(body, spike.DelayOp(net.inputs[0], held)).results
        neuron = spike.IfOp(late, [v], [theta])
        added(body, neuron)
    body.add_op(spike.YieldOp([], [neuron.next_potential, after]))
    net.add(loop)
    with pytest.raises(Error, match=r"E543.*(events are fed back|a delay keeps)"):
        ExposeSpikeState().apply(NeucContext(weights=store), ModuleOp([net.function([loop.final[0]])]))
