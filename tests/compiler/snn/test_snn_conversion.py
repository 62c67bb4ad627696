"""Converted networks: the IR does what the independent simulation does, spikes are spikes, and outputs converge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto
from xdsl.ir import Operation

import neuc
from neuc.compiler.driver import print_module, read_module
from neuc.compiler.snn.recipes import RECIPES, for_depth
from neuc.dialects import spike
from neuc.dialects.interp.core import interpret
from neuc.dialects.store import ConstantOp
from snn_models import chain, cnn, inputs, mlp, transformer

SAME = 1e-4
"""Relative: both round in f32, in other orders of the sums; thresholds that differ by rounding are too rare to meet."""
CLOSE = 0.06
"""Relative L2 distance to the float network after 64 steps: about 2/T for each of up to four layers."""

NETWORKS = {"mlp": mlp, "cnn": cnn, "transformer": transformer}
CASES = [("mlp", "a"), ("mlp", "b"), ("mlp", "c"), ("cnn", "a"), ("cnn", "b"), ("cnn", "c"), ("transformer", "c")]
CASES += [("transformer", "b")]


def reference(proto: ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return np.asarray(session.run(None, {"x": x})[0])


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(("network", "recipe"), CASES)
def test_the_ir_and_the_simulation_are_one_network(network: str, recipe: str):
    proto = NETWORKS[network]()
    model = neuc.convert_to_snn(proto, inputs(proto, 32), recipe=recipe, steps=3)
    x, seen = inputs(proto, 6, seed=8), list[str]()

    def observe(op: Operation, results: list[np.ndarray]) -> None:
        for value, array in zip(op.results, results):
            event = spike.event_of(value)
            if event is not None:
                seen.append(op.name)
                assert event.holds(array)

    model.module.verify()
    found = interpret(model.module, [x], model.context.weights, observe=observe)
    assert distance(found[0], model.run(x)[0]) < SAME
    assert seen


@pytest.mark.parametrize(("network", "recipe"), CASES)
def test_outputs_converge_to_the_float_network(network: str, recipe: str):
    proto = NETWORKS[network]()
    x = inputs(proto, 48)
    model = neuc.convert_to_snn(proto, x, recipe=recipe, steps=64, thresholds="max")
    over_time = model.run_over_time(x[:16])[0]
    expected = reference(proto, x[:16])
    assert distance(over_time[-1], expected) < CLOSE
    assert distance(over_time[-1], expected) < distance(over_time[0], expected)
    np.testing.assert_allclose(model.run_float(x[:16])[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "attributes"),
    [
        ("LeakyRelu", {"alpha": 0.2}),
        ("HardSigmoid", {}),
        ("HardSwish", {}),
        ("Gelu", {}),
        ("Sigmoid", {}),
        ("Tanh", {}),
    ],
)
@pytest.mark.parametrize("recipe", ["b", "c"])
def test_every_activation_converges(activation: str, attributes: dict[str, object], recipe: str):
    proto = mlp(1, activation, **attributes)
    x = inputs(proto, 48)
    model = neuc.convert_to_snn(proto, x, recipe=recipe, steps=64, thresholds="max")
    assert distance(model.run(x[:16])[0], reference(proto, x[:16])) < CLOSE


@pytest.mark.parametrize(("activation", "attributes"), [("LeakyRelu", {"alpha": 0.2}), ("HardSigmoid", {})])
def test_piecewise_linear_activations_have_binary_spikes(activation: str, attributes: dict[str, object]):
    proto = mlp(1, activation, **attributes)
    x = inputs(proto, 48)
    model = neuc.convert_to_snn(proto, x, recipe="a", steps=64, thresholds="max")
    assert distance(model.run(x[:16])[0], reference(proto, x[:16])) < CLOSE


@pytest.mark.parametrize("method", ["search", "max", "quantile", "ltb", "gaussian", "mse"])
def test_every_way_to_find_thresholds(method: str):
    proto = mlp()
    x = inputs(proto, 64)
    model = neuc.convert_to_snn(proto, x, recipe="a", steps=16, thresholds=method)
    assert distance(model.run(x)[0], reference(proto, x)) < 0.25
    assert all(site.threshold[0] > 0 for site in model.report.calibration.sites)


def test_a_run_of_fewer_steps_is_a_prefix():
    proto = cnn()
    x = inputs(proto, 32)
    for recipe in "abc":
        model = neuc.convert_to_snn(proto, x, recipe=recipe, steps=4)
        over_time = model.run_over_time(x)[0]
        np.testing.assert_array_equal(over_time[1], model.run(x, 2)[0])


def test_the_delayed_read_out_is_in_the_ir():
    proto = mlp()
    x = inputs(proto, 32)
    model = neuc.convert_to_snn(proto, x, recipe="a", steps=4, start=2)
    (found,) = interpret(model.module, [x], model.context.weights)
    assert distance(found, model.run(x)[0]) < SAME
    first = neuc.convert_to_snn(proto, x, recipe="a", steps=4)
    np.testing.assert_allclose(2 * model.run(x)[0], 4 * first.run(x)[0] - 2 * first.run(x, 2)[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("recipe", ["a", "c"])
def test_functions_behind_a_delayed_read_out_see_the_counted_steps(recipe: str):
    proto = cnn()  # With a softmax.
    x = inputs(proto, 8)
    model = neuc.convert_to_snn(proto, x, recipe=recipe, steps=4, start=2)
    (found,) = interpret(model.module, [x], model.context.weights)
    over_time = model.run_over_time(x)[0]
    assert distance(over_time[-1], found) < SAME
    np.testing.assert_allclose(over_time[2:].sum(axis=-1), 1, rtol=1e-5)


def test_constants_inside_the_loop_run_compiled():
    proto = mlp()
    x = inputs(proto, 16)
    model = neuc.convert_to_snn(proto, x, recipe="a", steps=3)
    expected = interpret(model.module, [x], model.context.weights)[0]
    (loop,) = (op for op in model.module.walk() if isinstance(op, spike.LoopOp))
    for op in [op for op in model.module.walk() if isinstance(op, ConstantOp)]:
        if all(use.operation.parent is loop.body.block for use in op.result.uses):
            op.detach()
            loop.body.block.insert_op_before(op, loop.body.block.first_op)  # pyright: ignore[reportArgumentType]
    assert any(isinstance(op, ConstantOp) for op in loop.body.block.ops)
    assert distance(model.session(threads=1).run(None, {"x": x})[0], expected) < SAME


def test_saved_text_is_the_network(tmp_path: Path):
    proto = cnn()
    x = inputs(proto, 16)
    model = neuc.convert_to_snn(proto, x, recipe="b", steps=2)
    model.save(tmp_path / "net.mlir")
    module, context = read_module(tmp_path / "net.mlir")
    module.verify()
    assert print_module(module) == print_module(model.module)
    np.testing.assert_array_equal(
        interpret(module, [x], context.weights)[0], interpret(model.module, [x], model.context.weights)[0]
    )


def test_deep_networks_get_spikes_of_more_levels_and_come_close():
    deep = chain(26)
    x, new = inputs(deep, 24), inputs(deep, 16, seed=9)
    by_default = neuc.convert_to_snn(deep, x, recipe="b", steps=8, refit=False)
    asked = neuc.convert_to_snn(deep, x, recipe="b", steps=8, refit=False, levels=4)
    assert (by_default.recipe.levels, asked.recipe.levels) == (7, 4)
    expected = reference(deep, new)
    # 4 levels are at most 8 times the smallest, 7 are 64 times: errors of deep layers fade by as much sooner.
    assert distance(by_default.run(new)[0], expected) < distance(asked.run(new)[0], expected) / 4
    assert for_depth(RECIPES["b"], 24).levels == for_depth(RECIPES["c"], 25).levels == 4
