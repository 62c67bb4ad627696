"""NeuroBench's metrics against counts made by hand, and against the package itself."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.ir import Operation

import neuc
from neuc.compiler.snn.model import SpikingModel
from neuc.compiler.snn.neurobench import NeuroBench, neurobench
from neuc.compiler.snn.simulate import Activity
from neuc.compiler.snn.sweep import operations
from neuc.dialects import spike
from neuc.dialects.dense import MatMulOp
from neuc.dialects.interp.core import interpret
from neuc.dialects.store import constant_value
from snn_models import cnn, inputs, mlp

STEPS = 4


@pytest.fixture(scope="module")
def network() -> tuple[SpikingModel, np.ndarray, NeuroBench]:
    proto = mlp()
    x = inputs(proto, 20)
    model = neuc.convert_to_snn(proto, x, recipe="a", steps=STEPS)
    return model, x, neurobench(model.module, model.context.weights, [x])


def trains(model: SpikingModel, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Spikes [T, N, …] of each layer, its membranes behind each step, and the weights [N, K] they meet."""
    events: dict[Operation, list[np.ndarray]] = {}
    membranes: dict[Operation, list[np.ndarray]] = {}

    def observe(op: Operation, results: list[np.ndarray]) -> None:
        if isinstance(op, spike.IfOp):
            events.setdefault(op, []).append(results[0])
            membranes.setdefault(op, []).append(results[1])

    interpret(model.module, [x], model.context.weights, observe=observe)
    weights = [op.weight for op in model.module.walk() if isinstance(op, spike.LinearOp)]
    arrays = [w for value in weights if (w := constant_value(value, model.context.weights)) is not None]
    return [np.stack(v) for v in events.values()], [np.stack(v) for v in membranes.values()], arrays


def test_counts_by_hand(network: tuple[SpikingModel, np.ndarray, NeuroBench]):
    model, x, found = network
    events, membranes, weights = trains(model, x)
    spikes = sum(int(e.sum()) for e in events)
    assert found.activation_sparsity == pytest.approx(1 - spikes / sum(e.size for e in events))
    acs = sum(int(((e[..., None, :] != 0) & (w != 0)).sum()) for e, w in zip(events, weights))
    assert found.effective_acs == pytest.approx(acs / len(x))
    assert found.effective_macs == pytest.approx(np.count_nonzero(x) * 16 / len(x))
    assert found.dense == pytest.approx(12 * 16 + STEPS * (16 * 16 + 16 * 5))
    updates = sum(int((m[1:] != m[:-1]).sum()) + m[0].size for m in membranes)
    assert found.membrane_updates == pytest.approx(updates / len(x))


def test_the_sweep_counts_the_same(network: tuple[SpikingModel, np.ndarray, NeuroBench]):
    model, x, found = network
    row = model.sweep(x, None, [STEPS]).rows[0]
    assert row.accumulations == pytest.approx(found.effective_acs)
    assert row.multiplications == pytest.approx(found.effective_macs)


def test_padding_never_counts():
    proto = cnn()
    x = inputs(proto, 3)
    model = neuc.convert_to_snn(proto, x, recipe="a", steps=2)
    found = neurobench(model.module, model.context.weights, [x])
    activity = Activity()
    model.run_over_time(x, 2, activity)
    # The metric calls sums of pooled spikes numbers, unless they happen to be 0 and 1 alone.
    ours = operations(activity, 2, spikes=True) + operations(activity, 2, spikes=False)
    assert found.effective_acs + found.effective_macs == pytest.approx(ours)
    assert found.dense > found.effective_acs + found.effective_macs


@pytest.mark.torch
def test_the_package_counts_the_same(network: tuple[SpikingModel, np.ndarray, NeuroBench]):
    torch = pytest.importorskip("torch")
    pytest.importorskip("neurobench")
    from neurobench.metrics.manager.workload_manager import WorkloadMetricManager  # pyright: ignore[reportMissingImports]
    from neurobench.metrics.static import ConnectionSparsity  # pyright: ignore[reportMissingImports]
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations  # pyright: ignore[reportMissingImports]
    from neurobench.models import TorchModel  # pyright: ignore[reportMissingImports]

    model, x, found = network
    events, _, weights = trains(model, x)

    class Replay(torch.nn.Module):
        """An activation that sends recorded spikes."""

        def __init__(self, recorded: np.ndarray) -> None:
            super().__init__()
            self.recorded, self.step = recorded, 0

        def forward(self, current: object) -> object:
            self.step += 1
            return torch.tensor(self.recorded[self.step - 1].astype(np.float32))

    def linear(weight: np.ndarray) -> object:
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight.data = torch.tensor(weight)
        return layer

    class Net(torch.nn.Module):
        """The converted network, a step at a time behind the analog layer."""

        def __init__(self) -> None:
            super().__init__()
            self.spiking = torch.nn.ModuleList([Replay(e) for e in events])
            self.synapses = torch.nn.ModuleList([linear(w) for w in weights])

        def forward(self, data: object) -> object:
            out = data
            for _ in range(STEPS):
                for neuron, synapse in zip(self.spiking, self.synapses):
                    out = synapse(neuron(data))
            return out

    wrapped = TorchModel(Net())
    wrapped.add_activation_module(Replay)
    manager = WorkloadMetricManager([ActivationSparsity, SynapticOperations])
    manager.register_hooks(wrapped)
    manager.initialize_metrics()
    labels = torch.zeros(len(x))
    results = manager.run_metrics(wrapped, wrapped(torch.tensor(x)), (torch.tensor(x), labels), len(x), len(x))
    counted = results["SynapticOperations"]
    assert counted["Effective_ACs"] == pytest.approx(found.effective_acs)
    assert counted["Effective_MACs"] == 0
    assert counted["Dense"] == pytest.approx(found.dense - 12 * 16)  # the analog layer is not in this network
    assert results["ActivationSparsity"] == pytest.approx(found.activation_sparsity)
    first = constant_value(next(op.b for op in model.module.walk() if isinstance(op, MatMulOp)), model.context.weights)
    assert first is not None
    whole = TorchModel(torch.nn.Sequential(linear(first.T), *(linear(w) for w in weights)))
    assert ConnectionSparsity()(whole) == pytest.approx(found.connection_sparsity, abs=1e-4)
