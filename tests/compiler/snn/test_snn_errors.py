"""What cannot be converted is refused by name, and what is odd is said; nothing stays a float network silently."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

import neuc
from neuc.compiler.cli.app import run
from neuc.compiler.inputs import load_npz
from neuc.compiler.snn.model import SpikingModel
from neuc.errors import Error, Exit
from onnx_models import model, node, value
from snn_models import cnn, inputs, mlp, transformer

X = np.random.default_rng(0).standard_normal((16, 12)).astype(np.float32)


def refused(code: str, run: Callable[[], object]) -> Error:
    with pytest.raises(Error) as caught:
        run()
    assert caught.value.code == code
    assert caught.value.hint
    return caught.value


def converted(proto: ModelProto | None = None, x: object = X, **options: object) -> SpikingModel:
    return neuc.convert_to_snn(mlp() if proto is None else proto, x, **options)  # pyright: ignore[reportArgumentType]


def linear_only() -> ModelProto:
    return model(
        [node("MatMul", "x w", "y", name="only")],
        [value("x", ["N", 12])],
        [value("y", ["N", 5])],
        {"w": np.ones((12, 5), np.float32)},
    )


def test_data_that_say_nothing():
    refused("NEUC-E520", lambda: converted(x=np.zeros((0, 12), np.float32)))
    refused("NEUC-E521", lambda: converted(x=np.full((4, 12), np.nan, np.float32)))
    refused("NEUC-E006", lambda: converted(x={"other": X}))
    refused("NEUC-E312", lambda: converted(x=X[:, :5]))
    refused("NEUC-E311", lambda: converted(x=X.astype(np.float64)))


def test_weights_that_are_no_numbers():
    proto = mlp()
    for tensor in proto.graph.initializer:
        if tensor.name == "w2":
            broken = np.full((16, 16), np.nan, np.float32)
            tensor.raw_data = broken.tobytes()
    error = refused("NEUC-E521", lambda: converted(proto))
    assert "act2" in error.message


def test_data_that_say_little_are_warned_of():
    assert any("constant" in w for w in converted(x=np.ones((8, 12), np.float32)).report.warnings)
    assert any("one calibration sample" in w for w in converted(x=X[:1]).report.warnings)
    assert any("dead" in w for w in converted(x=X[:1]).report.warnings)


def test_time_axes_that_count_as_samples_are_warned_of():
    w = {"w": np.ones((1, 16, 3), np.float32), "r": np.ones((1, 16, 4), np.float32), "v": np.ones((4, 5), np.float32)}
    nodes = [node("LSTM", "x w r", "h", name="lstm", hidden_size=4), node("MatMul", "h v", "y", name="last")]
    proto = model(nodes, [value("x", [8, 2, 3])], [value("y", [8, 1, 2, 5])], w)
    x = np.random.default_rng(0).standard_normal((8, 2, 3)).astype(np.float32)
    warnings = converted(proto, x, recipe="b").report.warnings
    assert any("axis 0 of input x is the time axis of lstm" in w for w in warnings)
    assert any("in no count: lstm" in w for w in warnings)


def test_options_that_make_no_sense():
    refused("NEUC-E523", lambda: converted(steps=0))
    assert refused("NEUC-E523", lambda: converted(steps=4, start=4)).exit_code == Exit.USAGE
    refused("NEUC-E523", lambda: converted(steps=4).run(X, 0))
    refused("NEUC-E523", lambda: converted(steps=4).sweep(X, None, []))
    for bad in ({"recipe": "z"}, {"thresholds": "guess"}, {"recipe": "a", "levels": 3}, {"recipe": "b", "levels": 8}):
        refused("NEUC-E527", lambda options=bad: converted(mlp(), X, **options))
    refused("NEUC-E527", lambda: converted(recipe="a", coding="differential"))


def test_labels_that_do_not_fit():
    refused("NEUC-E530", lambda: converted(steps=2).sweep(X, np.zeros(3, int)))
    found = refused("NEUC-E530", lambda: converted(steps=2).sweep(X, np.full(len(X), 100)))
    assert re.match(r"labels 100 to 100 for a model of \d+ outputs", found.message)


def test_networks_without_neurons_are_refused():
    for recipe in "abc":
        refused("NEUC-E525", lambda r=recipe: converted(linear_only(), recipe=r))


def test_operations_without_a_spiking_form_are_named():
    proto = transformer()
    error = refused("NEUC-E525", lambda: converted(proto, inputs(proto, 4), recipe="a"))
    assert "recipes b and c" in (error.hint or "")
    nodes = [
        node("Relu", "x", "r", name="first"),
        node("Erf", "r", "e", name="curve"),
        node("MatMul", "e w", "h", name="product"),
        node("Relu", "h", "y", name="last"),
    ]
    weights = {"w": np.eye(12, dtype=np.float32)}
    curved = model(nodes, [value("x", ["N", 12])], [value("y", ["N", 12])], weights)
    error = refused("NEUC-E524", lambda: converted(curved, recipe="a"))
    assert [ref.name for ref in error.nodes] == ["curve"]
    converted(curved, recipe="c", steps=2)


def test_what_spikes_already_is_refused(tmp_path: Path):
    converted(steps=1).save(tmp_path / "net.mlir")
    error = refused("NEUC-E524", lambda: neuc.convert_to_snn(tmp_path / "net.mlir", X))
    assert "spiking network already" in error.message


def test_calibration_data_are_named_arrays(tmp_path: Path):
    np.save(tmp_path / "x.npy", X)
    assert "one array without a name" in refused("NEUC-E006", lambda: load_npz(tmp_path / "x.npy")).message


def test_a_report_that_cannot_be_written_stops_before_anything_is(tmp_path: Path):
    onnx.save(mlp(), tmp_path / "net.onnx")
    np.savez(tmp_path / "calib.npz", x=X)
    paths = [str(tmp_path / name) for name in ("net.onnx", "out.mlir", "calib.npz", "missing/report.json")]
    options = ["--to", "snn", "--recipe", "b", "--steps", "1", "--calib", paths[2], "--report", paths[3]]
    assert run(["convert", *paths[:2], *options]) != 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calib.npz", "net.onnx"]


def test_a_goal_that_is_missed():
    proto = mlp()
    error = refused("NEUC-E528", lambda: converted(proto, inputs(proto, 64), recipe="auto", max_steps=1, max_drop=0.0))
    assert "closest" in error.message


def test_auto_takes_the_fewest_steps_that_reach_the_goal():
    proto = mlp()
    x = inputs(proto, 128)
    found = converted(proto, x, recipe="auto", max_steps=8, max_drop=0.1)
    assert found.report.chosen
    assert found.sweep(x, None, [found.steps]).rows[0].agreement >= 0.85


def test_auto_says_once_why_a_recipe_cannot_be_and_what_its_points_are_of():
    weights = {name: np.eye(8, dtype=np.float32) for name in ("v", "w")}
    nodes = [node("MatMul", "x v", "h"), node("Tanh", "h", "t"), node("MatMul", "t w", "y")]
    proto = model(nodes, [value("x", ["B", 8])], [value("y", ["B", 8])], weights)
    said = converted(proto, inputs(proto, 32), recipe="auto", max_steps=8, max_drop=0.5).report.chosen
    assert sum(text.startswith("recipe a:") for text in said) == 1
    assert any("points of agreement with the float network lost on 16 held-out samples" in text for text in said)


def test_what_feeds_synapses_is_said():
    proto = cnn()
    report = converted(proto, inputs(proto, 8), recipe="a", steps=2).report
    assert [text.split(":")[0] for text in report.carried] == ["conv3", "conv4", "fc"]
    assert {v.verdict for v in report.verdicts} == {"exact"}
