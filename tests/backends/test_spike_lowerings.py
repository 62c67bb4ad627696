"""Every operation of the `spike` dialect as launches: layer by layer, unrolled, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from xdsl.dialects import arith, func
from xdsl.dialects.builtin import f32, i32, i64
from xdsl.ir import Operation, SSAValue

from kernel_harness import runnable_isas
from neuc.backends.cpu.lowering import unsupported_reason
from neuc.backends.cpu.lowerings import spike_loop
from neuc.backends.cpu.lowerings.spike_plan import LoopPlan, plan_loop
from neuc.dialects import dense, spike
from neuc.dialects.store import tensor_type
from neuc.dialects.weight_store import WeightStore
from segment_harness import expected_of, run_segment
from spiking_programs import Network, added

ISA = runnable_isas()[0]
STEPS, INPUTS, NEURONS = 6, 11, 21
ROUNDING = 1e-4
"""Potentials of a few units after six steps of sums of eleven products, in another order of rounding."""

Cell = Callable[[SSAValue, Sequence[SSAValue], SSAValue, Callable[[float], SSAValue]], Operation]
"""From current, states, step number and a maker of parameters."""


def _neuron(op_class: type, *values: float, reset_value: float | None = None, **options: object) -> Cell:
    def make(x: SSAValue, states: Sequence[SSAValue], t: SSAValue, p: Callable[[float], SSAValue]) -> Operation:
        parameters = [p(value) for value in values] + ([] if reset_value is None else [p(reset_value)])
        return op_class(x, states, parameters, **options)

    return make


def _levels(op_class: type, event: spike.EventType, *, steps: bool = False, relu: bool = False) -> Cell:
    def make(x: SSAValue, states: Sequence[SSAValue], t: SSAValue, p: Callable[[float], SSAValue]) -> Operation:
        return op_class(x, states, *([t] if steps else []), p(0.25), event, relu=relu)

    return make


CELLS: dict[str, tuple[int, bool, Cell]] = {
    "if": (1, True, _neuron(spike.IfOp, 1.0)),
    "if hard": (1, True, _neuron(spike.IfOp, 1.0, reset="hard", fire="gt")),
    "if to": (1, True, _neuron(spike.IfOp, 1.0, reset_value=0.25, reset="hard")),
    "lif": (1, True, _neuron(spike.LifOp, 0.75, 1.0, reset_value=0.5)),
    "cuba": (2, True, _neuron(spike.CubaLifOp, 0.5, 0.75, 0.9, 1.0)),
    "adaptive": (2, True, _neuron(spike.AdaptiveOp, 0.75, 0.5, 0.5, 1.0)),
    "alpha": (2, False, _neuron(spike.AlphaOp, 0.75, 0.5, 2.0, 1.0)),
    "alpha hard": (2, False, _neuron(spike.AlphaOp, 0.75, 0.5, 2.0, 1.0, reset="hard")),
    "signed": (2, True, _levels(spike.MultiThresholdOp, spike.SIGNED)),
    "graded": (2, True, _levels(spike.MultiThresholdOp, spike.graded(4), relu=True)),
    "differential": (4, False, _levels(spike.DifferentialOp, spike.graded(3), steps=True, relu=True)),
}
"""States, whether there is an integer form, and how it is made. Decays are in units of 1/4096 in integers."""


def network(name: str, *, integer: bool, recurrent: bool, store: WeightStore) -> func.FuncOp:
    """Scanned events -> linear (-> + linear of the last events) -> neurons -> linear, summed up."""
    states, _, cell = CELLS[name]
    element, dtype = (i32, np.int32) if integer else (f32, np.float32)
    rng = np.random.default_rng(3)
    net = Network([tensor_type(spike.BINARY, [STEPS, "B", INPUTS])], store)

    def matrix(n: int, k: int) -> SSAValue:
        w = rng.standard_normal((n, k)) * 0.7
        return net.constant(np.round(w * 90).astype(np.int8) if integer else w.astype(np.float32))

    def parameter(value: float) -> SSAValue:
        spread = value * np.linspace(1, 1.5 if value >= 1 else 1, NEURONS)
        # Numbers below 1 are decays and gains, but for units and reset values, where any number will do.
        unit = 4096 if integer and value < 1 and name not in ("signed", "graded") else 100 if integer else 1
        return net.constant((spread * unit).astype(dtype))

    weights = matrix(NEURONS, INPUTS), matrix(NEURONS, NEURONS), matrix(5, NEURONS)
    dims = ["B", NEURONS]
    initial = [net.zeros(element, dims) for _ in range(states)] + [net.zeros(element, ["B", 5])]
    probe = spike.LoopOp([net.inputs[0]], initial, STEPS, [])
    made = cell(spike.LinearOp(probe.slices[0], weights[0]).current, probe.states[:states], probe.step, parameter)
    event = made.results[0].type.get_element_type()  # pyright: ignore[reportAttributeAccessIssue]
    if recurrent:
        initial.append(net.zeros(event, dims))
    loop = spike.LoopOp([net.inputs[0]], initial, STEPS, [tensor_type(event, dims)])
    body = loop.body.block
    current = added(body, spike.LinearOp(loop.slices[0], weights[0])).results[0]
    if recurrent:
        back = added(body, spike.LinearOp(loop.states[-1], weights[1])).results[0]
        plus = dense.MapOp([current, back], current.type)
        inner = plus.body.block
        sum_ = (arith.AddiOp if integer else arith.AddfOp)(inner.args[0], inner.args[1])
        inner.add_ops([sum_, dense.YieldOp(sum_.result)])
        current = added(body, plus).results[0]
    neuron = added(body, cell(current, loop.states[:states], loop.step, parameter))
    read = added(body, spike.LinearOp(neuron.results[0], weights[2])).results[0]
    total = added(body, spike.AccumulateOp(read, loop.states[states])).results[0]
    fed = [neuron.results[0]] if recurrent else []
    body.add_op(spike.YieldOp([neuron.results[0]], [*neuron.results[1:], total, *fed]))
    net.add(loop)
    return net.function(list(loop.results))


@pytest.mark.parametrize("recurrent", [False, True], ids=["layers", "unrolled"])
@pytest.mark.parametrize("name", CELLS)
def test_neurons(name: str, recurrent: bool) -> None:
    for integer in (False, True):
        if integer and not CELLS[name][1]:
            continue
        store = WeightStore()
        main = network(name, integer=integer, recurrent=recurrent, store=store)
        main.verify()
        (loop,) = [op for op in main.walk() if isinstance(op, spike.LoopOp)]
        assert isinstance(plan_loop(loop), str if recurrent else LoopPlan)
        events = (np.random.default_rng(5).random((STEPS, 3, INPUTS)) < 0.4).astype(np.int8)
        got, expected = run_segment(main, [events], ISA, store), expected_of(main, [events], store)
        assert expected[0].any()
        np.testing.assert_array_equal(got[0], expected[0])
        for mine, number in zip(got[1:], expected[1:], strict=True):
            np.testing.assert_allclose(mine, number, rtol=ROUNDING, atol=0 if integer else ROUNDING)


def check(main: func.FuncOp, arrays: Sequence[np.ndarray], store: WeightStore) -> list[np.ndarray]:
    """The launches' results, which are the interpreter's."""
    main.verify()
    got, expected = run_segment(main, arrays, ISA, store), expected_of(main, arrays, store)
    for mine, number in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, number, rtol=ROUNDING, atol=ROUNDING)
    return got


LEAKY: dict[str, tuple[type[spike.LeakyOp], list[float]]] = {
    "integrator": (spike.IntegratorOp, []),
    "li": (spike.LiOp, [0.75]),
    "cuba_li": (spike.CubaLiOp, [0.5, 0.75, 0.9]),
}


@pytest.mark.parametrize("image", [False, True], ids=["rows", "images"])
@pytest.mark.parametrize("name", LEAKY)
def test_potentials_that_are_read_in_each_step(name: str, image: bool) -> None:
    """Events -> synapses -> membranes that do not spike -> thresholds; for any number of steps."""
    op_class, values = LEAKY[name]
    store, rng = WeightStore(), np.random.default_rng(5)
    shape, weight_shape = ([3, 5, 5], (4, 3, 3, 3)) if image else ([INPUTS], (NEURONS, INPUTS))
    out = [4, 5, 5] if image else [NEURONS]
    net = Network([tensor_type(spike.BINARY, ["T", "B", *shape])], store)
    weight = net.constant(rng.standard_normal(weight_shape).astype(np.float32))
    parameters = [net.constant(np.array([value], np.float32)) for value in (*values, 0.5)]
    states = [net.zeros(f32, ["B", *out]) for _ in range(2 if name == "cuba_li" else 1)]
    types = [tensor_type(f32, ["B", *out]), tensor_type(spike.BINARY, ["B", *out])]
    loop = spike.LoopOp([net.inputs[0]], states, "T", types)
    body = loop.body.block
    if image:
        synapse = spike.ConvOp(loop.slices[0], weight, strides=[1, 1], pads=[1] * 4, dilations=[1, 1])
    else:
        synapse = spike.LinearOp(loop.slices[0], weight)
    membrane = op_class(added(body, synapse).results[0], list(loop.states), parameters[:-1])
    added(body, membrane)
    fired = added(body, spike.ThresholdOp(membrane.next_states[-1], parameters[-1])).results[0]
    body.add_op(spike.YieldOp([membrane.next_states[-1], fired], list(membrane.next_states)))
    net.add(loop)
    main = net.function(list(loop.results))
    assert isinstance(plan_loop(loop), LoopPlan)
    x = (rng.random((STEPS, 3, *shape)) < 0.3).astype(np.int8)
    potentials, events, *last = run_segment(main, [x], ISA, store)
    wanted, fired_there, *last_there = expected_of(main, [x], store)
    np.testing.assert_allclose(potentials, wanted, rtol=0, atol=ROUNDING)
    sure = np.abs(wanted - 0.5) > ROUNDING
    np.testing.assert_array_equal(events[sure], fired_there[sure])
    assert 0 < events.mean() < 1
    for got, there in zip(last, last_there, strict=True):
        np.testing.assert_allclose(got, there, rtol=0, atol=ROUNDING)


def test_coders_and_delays() -> None:
    store = WeightStore()
    net = Network([tensor_type(f32, ["B", INPUTS])], store)
    dims = ["B", INPUTS]
    initial = [net.zeros(f32, dims), net.constant(np.full((1,), 99, np.int32)), net.zeros(spike.BINARY, [2, *dims])]
    initial[1] = net.add(dense.BroadcastOp(initial[1], tensor_type(i32, dims))).results[0]
    kinds = [spike.BINARY, spike.BINARY, spike.SIGNED, spike.BINARY]
    loop = spike.LoopOp([], initial, STEPS, [tensor_type(kind, dims) for kind in kinds])
    body, x, t = loop.body.block, net.inputs[0], loop.step
    rate = added(body, spike.EncodeRateOp(x, t, seed=7)).results[0]
    latency = added(body, spike.EncodeLatencyOp(x, t, steps=STEPS)).results[0]
    delta = added(body, spike.EncodeDeltaOp(x, loop.states[0], net.constant(np.full(1, 0.2, np.float32)))).results
    first = added(body, spike.FirstSpikeOp(rate, loop.states[1], t)).results[0]
    late = added(body, spike.DelayOp(rate, loop.states[2])).results
    body.add_op(spike.YieldOp([rate, latency, delta[0], late[0]], [delta[1], first, late[1]]))
    net.add(loop)
    got = check(
        net.function(list(loop.results)), [np.random.default_rng(1).random((3, INPUTS)).astype(np.float32)], store
    )
    assert all(events.any() for events in got[:4])


def test_pools_scales_and_expectations() -> None:
    store = WeightStore()
    dims = ["B", 3, 6, 6]
    net = Network([tensor_type(f32, dims), tensor_type(spike.graded(2), ["B", 3, 6, 6])], store)
    window = {"kernel": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}
    initial = [net.zeros(f32, dims), net.zeros(f32, dims), net.zeros(f32, dims)]
    small = ["B", 3, 3, 3]
    loop = spike.LoopOp([], initial, STEPS, [tensor_type(f32, small), tensor_type(f32, small), tensor_type(f32, dims)])
    body, (x, events) = loop.body.block, net.inputs
    scale = net.constant(np.linspace(0.5, 2, 3).astype(np.float32).reshape(3, 1, 1))
    scaled = added(body, spike.ScaleOp(events, scale)).results[0]
    pooled = added(body, spike.SumPoolOp(events, **window)).results[0]  # pyright: ignore[reportArgumentType]
    largest = added(body, spike.MaxPoolOp(scaled, loop.states[0], **window)).results
    mean = spike.ExpectationOp([x], [loop.states[1]], loop.states[2], loop.step)
    softmax = dense.SoftmaxOp(mean.body.block.args[0], axis=3)
    mean.body.block.add_ops([softmax, spike.YieldOp([softmax.result])])
    added(body, mean)
    body.add_op(spike.YieldOp([pooled, largest[0], mean.result], [largest[1], *mean.next_totals, mean.next_last]))
    net.add(loop)
    rng = np.random.default_rng(2)
    spikes = rng.choice([-2, -1, 0, 0, 1, 2], (2, 3, 6, 6)).astype(np.int8)
    check(net.function(list(loop.results)), [rng.random((2, 3, 6, 6)).astype(np.float32), spikes], store)


def test_what_has_no_code_is_refused_with_the_reason() -> None:
    x, weight = Network([tensor_type(spike.BINARY, ["B", 4]), tensor_type(f32, [5, 4])], WeightStore()).inputs
    reason = unsupported_reason(spike.LinearOp(x, weight))
    assert reason is not None
    assert "not constant" in reason


def test_coders_read_the_step_from_memory_where_it_is_no_constant() -> None:
    """Feedback, for any number of steps: one step's launches, run for each."""
    store = WeightStore()
    net = Network([tensor_type(f32, [9, "B", INPUTS])], store)
    dims = ["B", INPUTS]
    late = net.constant(np.full(1, 99, np.int32))
    initial = [net.zeros(spike.BINARY, dims), net.zeros(f32, dims)]
    initial.append(net.add(dense.BroadcastOp(late, tensor_type(i32, dims))).results[0])
    kinds = [tensor_type(spike.BINARY, dims)] * 2
    loop = spike.LoopOp([net.inputs[0]], initial, 9, kinds)
    body, (before, total, first), t = loop.body.block, loop.states, loop.step
    weight = net.constant(np.eye(INPUTS, dtype=np.float32))
    added(body, current := spike.LinearOp(before, weight))
    rate = added(body, spike.EncodeRateOp(loop.slices[0], t, seed=7)).results[0]
    latency = added(body, spike.EncodeLatencyOp(loop.slices[0], t, steps=9)).results[0]
    sum_ = added(body, spike.AccumulateOp(current.current, total, t, start=2)).results[0]
    soonest = added(body, spike.FirstSpikeOp(rate, first, t)).results[0]
    body.add_op(spike.YieldOp([rate, latency], [rate, sum_, soonest]))
    net.add(loop)
    x = np.random.default_rng(1).random((9, 3, INPUTS)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spike_loop, "WORTH_UNROLLING", 10)
        got = check(net.function(list(loop.results)), [x], store)
    assert all(part.any() for part in got)


@pytest.mark.parametrize("steps", ["T", 9], ids=["unknown", "many"])
def test_feedback_over_steps_that_are_a_loop_of_launches(steps: str | int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recurrent neurons, two states that change places in each step, and the step's number."""
    monkeypatch.setattr(spike_loop, "WORTH_UNROLLING", 10)
    store, rng = WeightStore(), np.random.default_rng(4)
    net = Network([tensor_type(f32, [steps, "B", NEURONS])], store)
    initial = [net.zeros(f32, ["B", NEURONS]), net.zeros(spike.BINARY, ["B", NEURONS])]
    initial += [net.constant(np.full(3, value, np.float32)) for value in (1, 2)]
    types = [tensor_type(spike.BINARY, ["B", NEURONS]), tensor_type(i64, [1])]
    loop = spike.LoopOp([net.inputs[0]], initial, steps, types)
    body, (v, before, one, two) = loop.body.block, loop.states
    weight = net.constant((rng.standard_normal((NEURONS, NEURONS)) * 0.3).astype(np.float32))
    current = added(body, spike.LinearOp(before, weight)).results[0]
    sums = dense.MapOp([loop.slices[0], current], current.type)
    left, right = sums.body.block.args
    total = added(sums.body.block, arith.AddfOp(left, right)).results[0]
    sums.body.block.add_op(dense.YieldOp(total))
    threshold = net.constant(np.ones(1, np.float32))
    neurons = added(body, spike.IfOp(added(body, sums).results[0], [v], [threshold]))
    events, potential = neurons.results
    number = added(body, dense.ReshapeOp(loop.step, tensor_type(i64, [1]))).results[0]
    body.add_op(spike.YieldOp([events, number], [potential, events, two, one]))
    net.add(loop)
    x = rng.standard_normal((9, 2, NEURONS)).astype(np.float32)
    got = check(net.function(list(loop.results)), [x], store)
    np.testing.assert_array_equal(got[1].ravel(), np.arange(9))
