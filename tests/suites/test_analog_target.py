"""From a model to analog crossbars and back: the targets, time and draws, threads, and options that make no sense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc
from neuc.errors import Error

SAME = 1e-5
"""Relative; f32 sums in another order."""


def model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {
        "w0": rng.standard_normal((40, 70)) * 0.2,
        "b0": rng.standard_normal(70) * 0.1,
        "w1": rng.standard_normal((70, 9)) * 0.2,
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w0", "b0"], ["h"], name="first"),
            helper.make_node("Relu", ["h"], ["r"], name="relu"),
            helper.make_node("MatMul", ["r", "w1"], ["y"], name="second"),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 9])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


X = np.random.default_rng(1).standard_normal((33, 40)).astype(np.float32)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return neuc.compile(model(), "cpu").session().run(None, {"x": X})[0]


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def test_ideal_crossbars_compute_the_model(expected: np.ndarray) -> None:
    session = neuc.compile(model(), "xbar-sim{tile=32x32}").session()
    assert relative(session.run(None, {"x": X})[0], expected) < SAME


def lstm() -> onnx.ModelProto:
    """Both directions, a number of steps that only run time knows."""
    rng = np.random.default_rng(0)
    shapes = {"w": (2, 32, 6), "r": (2, 32, 8), "b": (2, 64)}
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", *shapes], ["y", "h"], name="lstm", hidden_size=8, direction="bidirectional")],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", 3, 6])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", 2, 3, 8]),
            helper.make_tensor_value_info("h", TensorProto.FLOAT, [2, 3, 8]),
        ],
        [numpy_helper.from_array((rng.standard_normal(s) * 0.5).astype(np.float32), n) for n, s in shapes.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_recurrent_layers_of_any_length_are_on_crossbars() -> None:
    """A loop over time gives the bits of as many steps one by one, read noise included, whatever the length is."""
    target, x = "xbar-pcm{cycle_noise=0.01}", np.random.default_rng(2).standard_normal((7, 3, 6)).astype(np.float32)
    compiled = neuc.compile(lstm(), target)
    text = str(compiled.report)
    assert "4 crossbar tiles" in text
    assert "on the CPU instead of a crossbar" not in text
    loop = compiled.session(threads=2)
    loop.run(None, {"x": x[:2]})
    fixed = neuc.compile(lstm(), target, shapes={"x": (7, 3, 6)}).session(threads=1)
    fixed.run(None, {"x": x})  # runs are counted, and each has noise of its own
    for found, wanted in zip(loop.run(None, {"x": x}), fixed.run(None, {"x": x}), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_tiles_on_both_sides_of_a_host_node() -> None:
    """What is known of a tile goes along with the segment that uses it."""
    rng = np.random.default_rng(0)
    weights = {name: (rng.standard_normal((8, 8)) * 0.3).astype(np.float32) for name in ("w0", "w1")}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"], name="first"),
        helper.make_node("Hardmax", ["h"], ["g"], name="on the host"),
        helper.make_node("MatMul", ["g", "w1"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "mixed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 8])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    mixed = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    compiled = neuc.compile(mixed, "xbar-pcm{out_noise=0,device=ideal,adc_bits=16,dac_bits=16}")
    assert [host.op for host in compiled.report.hosts] == ["Hardmax"]
    x = rng.standard_normal((5, 8)).astype(np.float32)
    wanted = weights["w1"][(x @ weights["w0"]).argmax(axis=1)]
    # 16 bits over a range of 10.
    np.testing.assert_allclose(compiled.session().run(None, {"x": x})[0], wanted, atol=10 * 2**-15)  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_devices_age_and_draws_differ_and_come_back(expected: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "model.neuc"
    neuc.compile(model(), "xbar-pcm{tile=64x64}").save(path)
    found: dict[int, list[np.ndarray]] = {}
    for threads in (1, 2):
        session = neuc.load(path, threads=threads)
        assert session.analog is not None
        results = found[threads] = [session.run(None, {"x": X})[0]]
        for time, seed in ((0.0, 0), (86400.0, 0), (31536000.0, 0), (31536000.0, 1)):
            session.analog.set(time, seed)
            results.append(session.run(None, {"x": X})[0])
    for first, second in zip(found[1], found[2]):
        np.testing.assert_array_equal(first, second)
    fresh, again, day, year, other = found[1]
    np.testing.assert_array_equal(fresh, again)
    errors = [relative(result, expected) for result in (fresh, day, year)]
    assert 0.02 < errors[0] < errors[1] < errors[2] < 0.4
    assert relative(other, year) > 0.05


@pytest.mark.parametrize("kind", ["sar", "ramp"])
def test_converters_of_another_kind_answer_otherwise_and_chips_differ(kind: str) -> None:
    """Ideal devices and no noise, so that converters are all that differs."""
    options = "device=ideal,out_noise=0,adc_bound=4"
    targets = [
        f"{options}",
        f"{options},adc={kind}",
        f"{options},adc={kind},chip=1",
        f"{options},adc={kind},adc_mismatch=0",
    ]
    uniform, first, second, perfect = (
        neuc.compile(model(), f"xbar-pcm{{{text}}}").session().run(None, {"x": X})[0] for text in targets
    )
    np.testing.assert_array_equal(perfect, uniform)
    for one, other in ((first, uniform), (second, uniform), (first, second)):
        assert 0 < relative(one, other) < 0.03


def test_reads_of_one_chip_differ_by_noise_alone() -> None:
    session = neuc.compile(model(), "xbar-pcm").session()
    first, second = (session.run(None, {"x": X})[0] for _ in range(2))
    # Converter noise of 0.04 in units of the largest input, on outputs that are about that large.
    assert 0 < relative(first, second) < 0.2


@pytest.mark.parametrize(
    "target",
    [
        "xbar-reram{tile=64x32,mode=pos-neg}",
        "xbar-pcm{device=hermes2,adc=ramp,compensation=column,doublings=3,adc_bound=4}",
        pytest.param("xbar-pcm{device=reram-cmo,slices=2}", marks=pytest.mark.slow),
        pytest.param("xbar-pcm{device=sonos,mode=bit-serial,dac_bits=5}", marks=pytest.mark.slow),
        pytest.param("xbar-pcm{wires=closed,r_wire=0.35,cycle_noise=0.0175}", marks=pytest.mark.slow),
        "xbar-pcm{tile=24x24,wires=exact,r_wire=1}",
        "xbar-mesh{tile=32x32,loss_db=0.1,crosstalk=0.001,phase_bits=10}",
        "xbar-pcm{stuck_low=0.01,stuck_high=0.002,chip=4,verify=2,tolerance=0.3}",
    ],
)
def test_other_machines_stay_near_the_model(target: str, expected: np.ndarray) -> None:
    session = neuc.compile(model(), target).session()
    assert relative(session.run(None, {"x": X})[0], expected) < 0.35


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("xbar-pcm{tile=0x4}", "NEUC-E651"),
        ("xbar-pcm{tile=256}", "NEUC-E651"),
        ("xbar-pcm{adc_bits=0}", "NEUC-E652"),
        ("xbar-pcm{adc_bits=40}", "NEUC-E652"),
        ("xbar-pcm{dac_bits=1}", "NEUC-E652"),
        ("xbar-pcm{adc_bound=0}", "NEUC-E652"),
        ("xbar-pcm{adc_bound=nan}", "NEUC-E002"),
        ("xbar-pcm{adc=flash}", "NEUC-E652"),
        ("xbar-pcm{adc=sar,adc_mismatch=-1}", "NEUC-E652"),
        ("xbar-pcm{r_wire=-1,wires=closed}", "NEUC-E652"),
        ("xbar-pcm{steps=0}", "NEUC-E002"),
        ("xbar-pcm{steps=5000}", "NEUC-E002"),
        ("xbar-pcm{mode=sideways}", "NEUC-E652"),
        ("xbar-pcm{g_min=30}", "NEUC-E642"),
        ("xbar-pcm{device=pmc}", "NEUC-E640"),
        ("xbar-pcm{device=missing.csv}", "NEUC-E004"),
        ("xbar-pcm{stuck_low=2}", "NEUC-E643"),
        ("xbar-pcm{temperature=-400}", "NEUC-E643"),
        ("xbar-pcm{range=-1}", "NEUC-E002"),
        ("xbar-pcm{range=missing.npz}", "NEUC-E004"),
        ("xbar-pcm{wires=thick}", "NEUC-E002"),
        ("xbar-pcm{r_wire=-1,wires=exact}", "NEUC-E002"),
        ("xbar-pcm{share=maybe}", "NEUC-E002"),
        ("xbar-pcm{scaling=row}", "NEUC-E651"),
        ("xbar-pcm{tile=16x16,cores=2}", "NEUC-E653"),
        ("xbar-pcm{bits=8}", "NEUC-E002"),
        ("xbar-mesh{layout=square}", "NEUC-E660"),
        ("xbar-mesh{loss_db=-1}", "NEUC-E661"),
    ],
)
def test_options_that_make_no_sense(target: str, code: str) -> None:
    with pytest.raises(Error) as caught:
        neuc.compile(model(), target)
    assert caught.value.code == code
    assert caught.value.hint


def test_a_refused_option_is_named_as_it_was_written() -> None:
    with pytest.raises(Error, match="cycle_noise = -1"):
        neuc.compile(model(), "xbar-pcm{cycle_noise=-1}")


@pytest.mark.parametrize(
    ("time", "seed", "code"), [(-1.0, 0, "NEUC-E644"), (0.0, -1, "NEUC-E648"), (0.0, 2**32, "NEUC-E648")]
)
def test_times_and_draws_that_make_no_sense(time: float, seed: int, code: str) -> None:
    session = neuc.compile(model(), "xbar-pcm").session()
    assert session.analog is not None
    with pytest.raises(Error) as caught:
        session.analog.set(time, seed)
    assert caught.value.code == code
