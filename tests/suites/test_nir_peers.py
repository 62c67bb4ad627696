"""Graphs that other tools wrote, run in neuc, and one of ours run in another tool: the same spikes in every step.

Needs torch, snntorch, norse and nirtorch; docs/spiking.md says how such an environment is made.
"""

from __future__ import annotations

import sys
import types
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

nir = pytest.importorskip("nir")
torch = pytest.importorskip("torch")

import neuc  # noqa: E402
from neuc.compiler.exporters.nir_graph import export_nir  # noqa: E402
from neuc.compiler.importers.nir.importer import import_nir  # noqa: E402
from neuc.compiler.importers.nir.options import NirOptions  # noqa: E402
from neuc.compiler.universe import new_context  # noqa: E402
from neuc.dialects.interp.core import interpret  # noqa: E402
from neuc.passes.module_facts import notes_of  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

STEPS, WIDTH, HIDDEN, OUT = 60, 8, 16, 4
SNNTORCH_DT = 1e-4
"""What snnTorch's exporter computes time constants with."""
NORSE_DT = 1e-3


def inputs(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((STEPS, WIDTH)).astype(np.float32)


def in_neuc(graph: Any, x: np.ndarray, **options: Any) -> tuple[np.ndarray, list[str]]:
    """Outputs [T, ...] of a graph, or of a file with one."""
    context = new_context()
    module = import_nir(graph, context, NirOptions(**options))
    return interpret(module, [x[:, None]], context.weights)[0][:, 0], notes_of(module)


def leaky(size: int, beta: float, kind: str, reset: str, **more: Any) -> Any:
    snn = pytest.importorskip("snntorch")
    # Parameters as vectors, and a sample without a batch: nir 1.0.8 refuses what is written otherwise.
    many = {"beta": torch.full((size,), beta), "threshold": torch.ones(size), "reset_mechanism": reset}
    return getattr(snn, kind)(**many, init_hidden=True, **more)


def snntorch_network(kind: str, reset: str) -> Any:
    torch.manual_seed(1)
    more = {"alpha": torch.full((HIDDEN,), 0.75)} if kind == "Synaptic" else {}
    last = {"alpha": torch.full((OUT,), 0.75)} if kind == "Synaptic" else {}
    net = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, HIDDEN),
        leaky(HIDDEN, 0.875, kind, reset, **more),
        torch.nn.Linear(HIDDEN, OUT),
        leaky(OUT, 0.75, kind, reset, **last),
    )
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, torch.nn.Linear):
                layer.weight *= 3
    return net


def in_snntorch(net: Any, x: np.ndarray) -> np.ndarray:
    utils = pytest.importorskip("snntorch.utils")
    utils.reset(net)
    with torch.no_grad():
        return np.stack([np.asarray(net(torch.from_numpy(row))) for row in x])


@pytest.mark.parametrize(
    ("kind", "reset", "read_as"),
    [("Leaky", "zero", "file"), ("Leaky", "subtract", "snntorch"), ("Synaptic", "subtract", "snntorch")],
)
def test_a_network_of_snntorch_spikes_the_same(kind: str, reset: str, read_as: str, tmp_path: Path) -> None:
    exporter = pytest.importorskip("snntorch.export_nir")
    net, x = snntorch_network(kind, reset), inputs()
    path = tmp_path / "graph.nir"
    nir.write(path, exporter.export_to_nir(net, torch.from_numpy(x[0])))
    found, notes = in_neuc(path, x, dt=SNNTORCH_DT, reset=read_as)
    expected = in_snntorch(net, x)
    assert 0.02 < expected.mean() < 0.9  # it does something
    np.testing.assert_array_equal(found, expected)
    if reset == "zero":
        assert any("--reset snntorch" in note for note in notes)
    else:
        lost, _ = in_neuc(path, x, dt=SNNTORCH_DT)
        assert (lost != expected).any(), "its exporter has learned to write soft resets"


def test_a_synaptic_neuron_of_snntorch_skips_the_step_after_a_spike() -> None:
    """Its reset to zero clears the next step's potential together with that step's input; NIR's only the potential."""
    exporter = pytest.importorskip("snntorch.export_nir")
    net, x = snntorch_network("Synaptic", "zero"), inputs()
    graph = exporter.export_to_nir(net, torch.from_numpy(x[0]))
    found, _ = in_neuc(graph, x, dt=SNNTORCH_DT)
    expected = in_snntorch(net, x)
    assert (found != expected).any()
    assert not (expected[1:] * expected[:-1]).any()  # so none of its neurons ever spikes twice in a row
    assert (found[1:] * found[:-1]).any()


def recurrent_network(kind: str, reset: str, every: bool) -> Any:
    torch.manual_seed(1)
    more: dict[str, Any] = {"alpha": torch.full((HIDDEN,), 0.75)} if kind == "RSynaptic" else {}
    back = {"linear_features": HIDDEN} if every else {"V": torch.linspace(-0.5, 0.5, HIDDEN)}
    net = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, HIDDEN), leaky(HIDDEN, 0.875, kind, reset, all_to_all=every, **back, **more)
    )
    with torch.no_grad():
        net[0].weight *= 2
    return net


@pytest.mark.parametrize("every", [True, False], ids=["all to all", "to themselves"])
@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic"])
def test_recurrent_neurons_of_snntorch_spike_the_same(kind: str, every: bool, tmp_path: Path) -> None:
    """Nested graphs with cycles, run as emitted code, too."""
    exporter = pytest.importorskip("snntorch.export_nir")
    net, x = recurrent_network(kind, "subtract", every), inputs()
    # Before the export, which runs the network: snnTorch's reset leaves the last spikes of RSynaptic.
    expected = in_snntorch(net, x)
    graph = exporter.export_to_nir(net, torch.from_numpy(x[0]))
    found, _ = in_neuc(graph, x, dt=SNNTORCH_DT, reset="snntorch")
    assert 0.02 < expected.mean() < 0.9
    np.testing.assert_array_equal(found, expected)
    compiled = neuc.compile(
        graph,
        target="cpu-spike",
        dt=SNNTORCH_DT,
        reset="snntorch",
        shapes={"input": (STEPS, 1, WIDTH)},
    )
    np.testing.assert_array_equal(np.asarray(compiled.session().run(None, {"input": x[:, None]})[0])[:, 0], expected)


def test_a_recurrent_reset_to_zero_of_snntorch_skips_the_step_after_a_spike() -> None:
    """As its Synaptic neurons do."""
    exporter = pytest.importorskip("snntorch.export_nir")
    net, x = recurrent_network("RLeaky", "zero", True), inputs()
    expected = in_snntorch(net, x)
    found, _ = in_neuc(exporter.export_to_nir(net, torch.from_numpy(x[0])), x, dt=SNNTORCH_DT)
    assert (found != expected).any()
    assert not (expected[1:] * expected[:-1]).any()


def test_a_convolutional_network_of_snntorch_spikes_the_same() -> None:
    exporter = pytest.importorskip("snntorch.export_nir")
    torch.manual_seed(6)
    side, channels = 8, 3
    image = (channels, side, side)
    snn = pytest.importorskip("snntorch")

    def neurons(shape: tuple[int, ...]) -> Any:
        many = {"beta": torch.full(shape, 0.875), "threshold": torch.ones(shape)}
        return snn.Leaky(**many, init_hidden=True, reset_mechanism="zero")

    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, channels, 3, padding=1),
        neurons(image),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(-3),
        torch.nn.Linear(channels * 16, OUT),
        neurons((OUT,)),
    )
    with torch.no_grad():
        net[4].weight *= 6
    x = np.random.default_rng(9).standard_normal((STEPS, 1, side, side)).astype(np.float32)
    expected = in_snntorch(net, x)
    found, _ = in_neuc(exporter.export_to_nir(net, torch.from_numpy(x[0])), x, dt=SNNTORCH_DT)
    assert 0.02 < expected.mean() < 0.9
    np.testing.assert_array_equal(found, expected)


def norse_network(cell: Any, gain: float) -> Any:
    norse = pytest.importorskip("norse.torch")
    torch.manual_seed(2)
    net = norse.SequentialState(torch.nn.Linear(WIDTH, HIDDEN), cell(), torch.nn.Linear(HIDDEN, OUT), cell())
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, torch.nn.Linear):
                layer.weight *= gain
    return net


def in_norse(net: Any, x: np.ndarray) -> np.ndarray:
    state, outputs = None, []
    with torch.no_grad():
        for row in x:
            out, state = net(torch.from_numpy(row)[None], state)
            outputs.append(out.numpy()[0])
    return np.stack(outputs)


def test_a_network_of_norse_spikes_the_same() -> None:
    """Norse writes dt/τ⁻¹ where τ should stand, so a step of its files is dt² long."""
    norse = pytest.importorskip("norse.torch")
    net, x = norse_network(norse.LIFBoxCell, 40), inputs(3)
    graph = norse.to_nir(net, torch.from_numpy(x[0]), dt=NORSE_DT)
    found, _ = in_neuc(graph, x, dt=NORSE_DT**2)
    expected = in_norse(net, x)
    assert 0.02 < expected.mean() < 0.9
    np.testing.assert_array_equal(found, expected)


def test_norse_loses_the_weight_of_synapses() -> None:
    """Norse adds an input whole to its synaptic current, where NIR takes dt/τ of it: w_in = τ/dt makes up for it."""
    norse = pytest.importorskip("norse.torch")
    net, x = norse_network(norse.LIFCell, 12), inputs(4)
    graph = norse.to_nir(net, torch.from_numpy(x[0]), dt=NORSE_DT)
    expected = in_norse(net, x)
    assert 0.02 < expected.mean() < 0.9
    found, _ = in_neuc(graph, x, dt=NORSE_DT**2)
    assert (found != expected).any(), "its exporter has learned to write w_in"
    for node in graph.nodes.values():
        if isinstance(node, nir.CubaLIF):
            node.w_in = node.tau_syn / NORSE_DT**2
    found, _ = in_neuc(graph, x, dt=NORSE_DT**2)
    np.testing.assert_array_equal(found, expected)


def test_a_network_of_ours_spikes_the_same_in_norse() -> None:
    norse = pytest.importorskip("norse.torch")
    rng, context = np.random.default_rng(5), new_context()

    def lif(n: int) -> Any:
        return nir.LIF(np.full(n, 8e-3), np.ones(n), np.zeros(n), np.ones(n))

    nodes: dict[str, Any] = {
        "input": nir.Input({"input": np.array([WIDTH])}),
        "w1": nir.Affine(rng.standard_normal((HIDDEN, WIDTH)) * 2, rng.standard_normal(HIDDEN)),
        "lif1": lif(HIDDEN),
        "w2": nir.Affine(rng.standard_normal((OUT, HIDDEN)) * 3, rng.standard_normal(OUT)),
        "lif2": lif(OUT),
        "output": nir.Output({"output": np.array([OUT])}),
    }
    names = list(nodes)
    module = import_nir(nir.NIRGraph(nodes, list(pairwise(names))), context, NirOptions(dt=NORSE_DT))
    x = inputs(6)
    ours = interpret(module, [x[:, None]], context.weights)[0][:, 0]
    exported = export_nir(module, context.weights, dt=NORSE_DT)
    for node in exported.graph.nodes.values():
        if isinstance(node, nir.LIF):
            np.testing.assert_allclose(node.to_dict()["r"], 1, rtol=1e-6)  # Norse leaves r out
    net = norse.from_nir(exported.graph, dt=NORSE_DT)
    assert 0.02 < ours.mean() < 0.9
    np.testing.assert_array_equal(in_norse(net, x), ours)


def test_a_network_of_spikingjelly_spikes_the_same() -> None:
    """It fires at the threshold, too, where NIR fires above: no potential of floats meets it exactly."""
    pytest.importorskip("loguru")
    names = ("functional", "layer", "neuron", "nir_exchange")
    parts = [pytest.importorskip(f"spikingjelly.activation_based.{name}") for name in names]
    functional, layer, neuron, nir_exchange = parts
    torch.manual_seed(3)
    net = torch.nn.Sequential(
        layer.Linear(WIDTH, HIDDEN), neuron.LIFNode(tau=4.0), layer.Linear(HIDDEN, OUT), neuron.IFNode()
    )
    with torch.no_grad():
        net[0].weight *= 6
    x = inputs(7)
    graph = nir_exchange.export_to_nir(net, torch.from_numpy(x[:1]))
    found, _ = in_neuc(graph, x, dt=1e-4)
    functional.reset_net(net)
    with torch.no_grad():
        expected = np.stack([net(torch.from_numpy(row)[None]).numpy()[0] for row in x])
    assert 0.02 < expected.mean() < 0.9
    np.testing.assert_array_equal(found, expected)


def test_a_network_of_sinabs_spikes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it writes lacks soft resets, and its decay is exp(-1/tau): neurons without decay can be compared."""
    monkeypatch.setitem(sys.modules, "samna", types.ModuleType("samna"))
    layers, nir_of_sinabs = pytest.importorskip("sinabs.layers"), pytest.importorskip("sinabs.nir")
    single = pytest.importorskip("sinabs.activation").SingleSpike
    torch.manual_seed(4)
    net = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, HIDDEN),
        layers.IAF(spike_fn=single),
        torch.nn.Linear(HIDDEN, OUT),
        layers.IAF(spike_fn=single),
    )
    x = inputs(8)
    with torch.no_grad():
        expected = net(torch.from_numpy(x)[None]).numpy()[0]
    for part in net:
        if isinstance(part, layers.IAF):
            part.reset_states()
    graph = nir_of_sinabs.to_nir(net, torch.from_numpy(x[:1])[None])
    found, _ = in_neuc(graph, x[:, None], dt=1.0, reset="subtract")
    assert 0.02 < expected.mean() < 0.9
    np.testing.assert_array_equal(found[:, 0], expected)
