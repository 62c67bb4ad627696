"""NIR export: networks come back with the same spikes; what NIR cannot say is listed at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

nir = pytest.importorskip("nir")
pytest.importorskip("h5py")

from xdsl.dialects.builtin import ModuleOp  # noqa: E402
from xdsl.parser import Parser  # noqa: E402

from neuc.compiler.cli import main  # noqa: E402
from neuc.compiler.exporters.nir_graph import export_nir  # noqa: E402
from neuc.compiler.importers.nir.importer import import_nir  # noqa: E402
from neuc.compiler.importers.nir.options import NirOptions  # noqa: E402
from neuc.compiler.universe import new_context  # noqa: E402
from neuc.dialects.context import NeucContext  # noqa: E402
from neuc.dialects.interp.core import interpret  # noqa: E402
from neuc.errors import Error, Exit  # noqa: E402
from neuc.passes.expand_graded_spikes import ExpandGradedSpikes  # noqa: E402
from random_nir import DT, RandomGraph  # noqa: E402

STEPS = 5


def outputs(module: ModuleOp, context: NeucContext, x: np.ndarray) -> np.ndarray:
    return interpret(module, [x], context.weights)[0]


@pytest.mark.parametrize("soft_reset", ["metadata", "subgraph"])
def test_random_graphs_come_back_the_same(soft_reset: str) -> None:
    compared = 0
    for seed in range(60):
        drawn = RandomGraph([seed, 7])
        synaptic = any(type(n).__name__ == "CubaLIF" for n in drawn.nodes.values())
        if soft_reset == "subgraph" and synaptic:  # their soft resets have no subgraph
            continue
        first, second = new_context(), new_context()
        module = import_nir(drawn.graph, first, NirOptions(dt=DT))
        exported = export_nir(module, first.weights, dt=DT, soft_reset=soft_reset)
        again = import_nir(exported.graph, second)
        x = drawn.inputs(STEPS)[:, None].astype(np.float32)
        np.testing.assert_array_equal(outputs(again, second, x), outputs(module, first, x), err_msg=f"seed {seed}")
        compared += 1
    assert compared > 30


def parsed(text: str) -> tuple[ModuleOp, NeucContext]:
    context = new_context()
    module = Parser(context, text).parse_module()
    module.verify()
    return module, context


# A layer of two neurons behind a constant input, whose spikes and summed output currents come out.
NETWORK = """
func.func @main(%x: tensor<?x2xf32, #store.dims<"B", "2">> {onnx.name = "x"})
    -> (tensor<6x?x2x!spike.event<binary>, #store.dims<"6", "B", "2">> {onnx.name = "spikes"},
        tensor<?x1xf32, #store.dims<"B", "1">> {onnx.name = "y"}) {
  %theta = store.constant value dense<1.0> : tensor<f32> : tensor<f32>
  %start = store.constant value dense<START> : tensor<f32> : tensor<f32>
  %zero = store.constant value dense<0.0> : tensor<f32> : tensor<f32>
  %w = store.constant value dense<[[1.0, 0.5], [-0.25, 0.75]]> : tensor<2x2xf32> : tensor<2x2xf32>
  %u = store.constant value dense<[[1.0, -2.0]]> : tensor<1x2xf32> : tensor<1x2xf32>
  %b = store.constant value dense<[0.125]> : tensor<1xf32> : tensor<1xf32>
  %v0 = dense.broadcast(%start) : (tensor<f32>) -> tensor<?x2xf32, #store.dims<"B", "2">>
  %y0 = dense.broadcast(%zero) : (tensor<f32>) -> tensor<?x1xf32, #store.dims<"B", "1">>
  %i = spike.linear(%x, %w) : (tensor<?x2xf32, #store.dims<"B", "2">>, tensor<2x2xf32>)
    -> tensor<?x2xf32, #store.dims<"B", "2">>
  %all, %vn, %yn = spike.loop scan() init(%v0, %y0)
      : (), (tensor<?x2xf32, #store.dims<"B", "2">>, tensor<?x1xf32, #store.dims<"B", "1">>)
      steps 6 -> (tensor<6x?x2x!spike.event<binary>, #store.dims<"6", "B", "2">>) {
  ^step(%t: tensor<i64>, %v: tensor<?x2xf32, #store.dims<"B", "2">>, %y: tensor<?x1xf32, #store.dims<"B", "1">>):
    %s, %v1 = spike.if(%i, %v, %theta) {reset = RESET, fire = FIRE}
      : (tensor<?x2xf32, #store.dims<"B", "2">>, tensor<?x2xf32, #store.dims<"B", "2">>, tensor<f32>)
      -> (tensor<?x2x!spike.event<binary>, #store.dims<"B", "2">>, tensor<?x2xf32, #store.dims<"B", "2">>)
    %c = spike.linear(%s, %u, %b)
      : (tensor<?x2x!spike.event<binary>, #store.dims<"B", "2">>, tensor<1x2xf32>, tensor<1xf32>)
      -> tensor<?x1xf32, #store.dims<"B", "1">>
    %y1 = spike.accumulate(%c, %y) : (tensor<?x1xf32, #store.dims<"B", "1">>, tensor<?x1xf32, #store.dims<"B", "1">>)
      -> tensor<?x1xf32, #store.dims<"B", "1">>
    spike.yield outputs(%s) states(%v1, %y1) : (tensor<?x2x!spike.event<binary>, #store.dims<"B", "2">>),
      (tensor<?x2xf32, #store.dims<"B", "2">>, tensor<?x1xf32, #store.dims<"B", "1">>)
  }
  func.return %all, %yn : tensor<6x?x2x!spike.event<binary>, #store.dims<"6", "B", "2">>,
    tensor<?x1xf32, #store.dims<"B", "1">>
}
"""
X = np.array([[0.5, 0.25], [1.0, -1.0], [0.25, 1.0]], np.float32)


@pytest.mark.parametrize("soft_reset", ["metadata", "subgraph"])
@pytest.mark.parametrize("start", ["0.0", "0.5"])
@pytest.mark.parametrize(("reset", "fire"), [("soft", "ge"), ("soft", "gt"), ("hard", "ge")])
def test_a_converted_layer_means_the_same_in_nir(soft_reset: str, start: str, reset: str, fire: str) -> None:
    module, context = parsed(NETWORK.replace("START", start).replace("RESET", reset).replace("FIRE", fire))
    spikes, y = interpret(module, [X], context.weights)
    exported = export_nir(module, context.weights, soft_reset=soft_reset)
    assert any("the same input in every step" in note for note in exported.notes)
    again = new_context()
    found = import_nir(exported.graph, again)
    by_name = interpret(found, [np.broadcast_to(X, (6, *X.shape))], again.weights)
    np.testing.assert_array_equal(by_name[0], spikes)
    np.testing.assert_array_equal(by_name[1][-1], y)
    assert spikes.any()
    kinds = {type(node).__name__ for node in exported.graph.nodes.values()}
    assert ("Threshold" in kinds) == (soft_reset == "subgraph" and reset == "soft")


def test_what_nir_cannot_say_is_listed_at_once() -> None:
    text = """
    func.func @main(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x2x2xf32> {
      %theta = store.constant value dense<1.0> : tensor<f32> : tensor<f32>
      %zero = store.constant value dense<0.0> : tensor<f32> : tensor<f32>
      %z = dense.broadcast(%zero) : (tensor<f32>) -> tensor<1x2x4x4xf32>
      %y0 = dense.broadcast(%zero) : (tensor<f32>) -> tensor<1x2x2x2xf32>
      %a, %b, %c, %d = spike.loop scan() init(%z, %z, %z, %y0)
          : (), (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>, tensor<1x2x2x2xf32>) steps 4 -> () {
      ^step(%t: tensor<i64>, %m: tensor<1x2x4x4xf32>, %o: tensor<1x2x4x4xf32>, %p: tensor<1x2x4x4xf32>,
            %y: tensor<1x2x2x2xf32>):
        %s, %m1, %o1 = spike.multi_threshold(%x, %m, %o, %theta)
          : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>, tensor<f32>)
          -> (tensor<1x2x4x4x!spike.event<graded, 3>>, tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>)
        %i = spike.scale(%s, %theta) : (tensor<1x2x4x4x!spike.event<graded, 3>>, tensor<f32>) -> tensor<1x2x4x4xf32>
        %q, %p1 = spike.max_pool(%i, %p) {kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0]}
          : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> (tensor<1x2x2x2xf32>, tensor<1x2x4x4xf32>)
        %y1 = spike.accumulate(%q, %y) : (tensor<1x2x2x2xf32>, tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
        spike.yield outputs() states(%m1, %o1, %p1, %y1)
          : (), (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>, tensor<1x2x2x2xf32>)
      }
      func.return %d : tensor<1x2x2x2xf32>
    }"""
    module, context = parsed(text)
    with pytest.raises(Error, match="2 operations without a form in NIR") as caught:
        export_nir(module, context.weights)
    assert [(n.op_type, n.reason) for n in caught.value.nodes] == [
        ("spike.multi_threshold", "NIR has no signed or graded spikes"),
        ("spike.max_pool", "NIR has no max-pooling"),
    ]
    assert caught.value.exit_code == Exit.UNSUPPORTED


def test_graded_spikes_can_be_written_once_they_are_expanded() -> None:
    text = Path(__file__).parents[2] / "passes" / "expand-graded-spikes.mlir"
    module, context = parsed(text.read_text(encoding="utf-8").split("// -----")[0])
    x = np.array([[0.75, -1.5, 2.0]], np.float32)
    (y,) = interpret(module, [x], context.weights)
    ExpandGradedSpikes().apply(context, module)
    exported = export_nir(module, context.weights)
    again = new_context()
    found = import_nir(exported.graph, again)
    (trace,) = interpret(found, [np.broadcast_to(x, (4, *x.shape))], again.weights)
    np.testing.assert_array_equal(trace[-1], y)
    assert y.any()


def test_golden_traces_are_the_interpreters_spikes(tmp_path: Path) -> None:
    text = NETWORK.replace("START", "0.5").replace("RESET", "soft").replace("FIRE", "ge")
    source, target, traces = tmp_path / "net.mlir", tmp_path / "net.nir", tmp_path / "traces.nir"
    source.write_text(text, encoding="utf-8")
    np.save(tmp_path / "x.npy", X)
    command = ["convert", str(source), str(target), "--to", "nir", "--dt", "0.001", "--traces", str(traces)]
    assert main([*command, "--traces-on", f"x=@{tmp_path / 'x.npy'}"]) == 0
    module, context = parsed(text)
    spikes, _ = interpret(module, [X], context.weights)
    data = nir.read_data(traces)
    (name,) = [n for n, node in nir.read(target, type_check=False).nodes.items() if type(node).__name__ == "IF"]
    observed = data.nodes[name].observables["spikes"]
    assert (observed.data == np.moveaxis(spikes, 0, 1)).all()
    assert observed.dt == 0.001
    assert data.nodes["x"].observables["input"].data.shape == (3, 6, 2)


def test_what_stands_in_the_way_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two.mlir"
    path.write_text("func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> { func.return %x : tensor<2xf32> }\n")
    assert main(["convert", str(path), str(tmp_path / "o.nir"), "--to", "nir"]) == Exit.FAULT
    assert "0 time loops" in capsys.readouterr().err
    assert not (tmp_path / "o.nir").exists()
