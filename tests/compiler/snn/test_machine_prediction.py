"""Converted networks on Loihi 2's machine file: closed forms of hand-made counts, and of a real conversion."""

from __future__ import annotations

import pytest

from neuc.backends.npu.known_machines import find_machine
from neuc.compiler.snn.convert import convert_to_snn
from neuc.compiler.snn.machine_prediction import predict_on_machine, predicted
from neuc.compiler.snn.simulate import Activity
from neuc.errors import Error
from snn_models import inputs, mlp
from spike_counts import activity


def test_steps_wait_for_the_busiest_core_and_the_barrier() -> None:
    machine = find_machine("npu-loihi2")
    ops, update, barrier, pj = (
        machine.extension[name]
        for name in ("synaptic_ops_per_core_cycle", "neuron_update_cycles", "barrier_us", "synaptic_op_pj")
    )
    found = predicted(activity(), 2, outputs=5)
    # Three layers work one step behind the other; layer b, on two cores, is the busiest in each step.
    events_of_b = [0.0, 200.0, 300.0, 0.0]
    cycles = sum((events / ops + 9000 * update) / 2 for events in events_of_b)
    assert found.seconds == pytest.approx(cycles / machine.clock_hz + 4 * barrier * 1e-6)
    assert found.events == 200 + 300 + 100
    assert found.joules == pytest.approx(600 * pj * 1e-12)
    assert found.limiters == {"the busiest core": 4}
    text = found.text()
    for part in ("not measured", "weights of convolutions are not shared", "synaptic_op_pj"):
        assert part in text


def test_a_converted_network_is_predicted_from_its_spikes() -> None:
    x = inputs(mlp(), 32)
    model = convert_to_snn(mlp(), x, recipe="a", steps=4)
    found = predict_on_machine(model, x)
    counted = Activity()
    model.run_over_time(x, 4, counted)
    assert found.events == pytest.approx(sum(sum(s.operations) for s in counted.synapses if s.spikes) / len(x))
    assert found.limiters == {"the barrier": 6}, "32 neurons take less than a barrier"
    machine = find_machine("npu-loihi2")
    assert 6 * machine.extension["barrier_us"] * 1e-6 < found.seconds < 12 * machine.extension["barrier_us"] * 1e-6
    shorter = predict_on_machine(model, x, steps=2)
    assert 0 < shorter.joules < found.joules
    assert shorter.limiters == {"the barrier": 4}


def test_what_cannot_be_predicted_is_refused() -> None:
    for steps in (0, 4):
        with pytest.raises(Error, match="E542"):
            predicted(activity(), steps, 5)
    with pytest.raises(Error, match="E688"):
        predicted(activity(), 2, 5, "npu-dimc")
    huge = activity()
    huge.layers[1].neurons = 10**7
    with pytest.raises(Error, match="neuro-cores are wanted"):
        predicted(huge, 2, 5)
