"""Anytime inference: exits when the margin is large enough, and all steps give what the whole program gives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.ir import SSAValue

import neuc
from neuc.backends.cpu.lowerings.spike_maps import casted
from neuc.dialects import spike
from neuc.dialects.context import NeucContext
from neuc.dialects.interp.core import interpret
from neuc.dialects.store import tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.passes.expose_spike_state import ExposeSpikeState
from neuc.passes.map_building import map_of
from neuc.runtime.anytime import Anytime, margins
from neuc.runtime.session import Session
from snn_models import inputs, transformer
from spiking_programs import Network, added, anytime_session, constant_current_mlp

STEPS, SIZES = 12, (20, 33, 47, 6)
ROUNDING = 12 * 47 * 8 * 2.0**-22
"""Sums of 47 products below 8 in each of 12 steps, rounded in another order."""


def test_networks_that_count_steps_or_give_them_all_are_refused() -> None:
    for broken in ("raster", "two"):
        store = WeightStore()
        main = constant_current_mlp(store, SIZES, STEPS, raster=broken == "raster")
        if broken == "two":
            loop = next(op for op in main.walk() if isinstance(op, spike.LoopOp))
            main.body.block.insert_op_before(loop.clone(), loop)
        with pytest.raises(Error, match="E543"):
            ExposeSpikeState().apply(NeucContext(weights=store), ModuleOp([main]))


@pytest.fixture(scope="module")
def program() -> Iterator[tuple[Session, np.ndarray, np.ndarray]]:
    """A session with exposed state, inputs, and the interpreter's sums of the whole network."""
    store = WeightStore()
    module = ModuleOp([constant_current_mlp(store, SIZES, STEPS, sums_alone=True, integer=True)])
    x = (np.random.default_rng(0).random((40, SIZES[0])) * 100).astype(np.int8)
    (sums,) = interpret(module, [x], store)
    with anytime_session(module, store) as found:
        yield found, x, sums


@pytest.mark.parametrize("chunk", [1, 5, STEPS])
def test_without_a_bound_all_steps_run(program: tuple[Session, np.ndarray, np.ndarray], chunk: int) -> None:
    session, x, sums = program
    exits = Anytime(session, chunk=chunk).run({"x0": x})
    np.testing.assert_array_equal(exits.outputs, sums)
    assert (exits.steps == STEPS).all()


def test_clear_samples_stop_early_with_the_answer_of_all_steps(program: tuple[Session, np.ndarray, np.ndarray]) -> None:
    session, x, sums = program
    anytime = Anytime(session)
    assert np.isfinite(anytime.calibrate({"x0": x}, agreement=0.9))
    exits = anytime.run({"x0": x})
    assert exits.steps.min() < STEPS
    assert np.mean(exits.outputs.argmax(1) == sums.argmax(1)) >= 0.9
    assert sum(exits.distribution().values()) == pytest.approx(1)
    assert "on average" in exits.text()
    # One sample alone stops where it stopped among others.
    alone = anytime.run({"x0": x[3:4]})
    np.testing.assert_array_equal(alone.outputs[0], exits.outputs[3])
    assert alone.steps[0] == exits.steps[3]


def test_lists_are_arrays_if_the_program_holds_their_numbers(
    program: tuple[Session, np.ndarray, np.ndarray],
) -> None:
    session, x, sums = program
    anytime = Anytime(session)
    np.testing.assert_array_equal(anytime.run({"x0": x[:2].tolist()}).outputs, sums[:2])
    np.testing.assert_array_equal(anytime.run({"x0": x[:2].astype(np.float64)}).outputs, sums[:2])
    assert anytime.calibrate({"x0": x.tolist()}) >= 0
    for wrong in ([[0.5] * SIZES[0]], [[300] * SIZES[0]], [[1], [1, 2]], [["a"]], 3):
        with pytest.raises(Error, match="E544"):
            Anytime(session).run({"x0": wrong})


def differential_mlp(store: WeightStore) -> func.FuncOp:
    """Two layers of differential neurons, changes summed up as Σ x/t. Weights are quarters: their sums are exact."""
    rng = np.random.default_rng(1)
    net = Network([tensor_type(f32, ["B", SIZES[0]])], store)
    first, second, last = (
        net.constant((np.round(rng.standard_normal((n, k)) * 2) / 4).astype(np.float32))
        for k, n in itertools.pairwise(SIZES)
    )
    unit = net.constant(np.array([0.25], np.float32))
    states = [net.zeros(f32, ["B", n]) for n in (*[SIZES[1]] * 4, *[SIZES[2]] * 4, SIZES[3])]
    x, states[2] = states[0], net.add(spike.LinearOp(net.inputs[0], first)).results[0]
    loop = spike.LoopOp([], states, STEPS, [])
    body, after = loop.body.block, list[SSAValue]()
    inverse = added(body, map_of([loop.step], lambda t: 1.0 / (casted(t, f32) + 1.0))).results[0]
    for place, weight in ((0, second), (4, last)):
        before = loop.states[place : place + 4]
        neuron = spike.DifferentialOp(x, before, loop.step, unit, spike.EventType.of("graded", 4), relu=True)
        after += added(body, neuron).results[1:]
        x = added(body, spike.LinearOp(neuron.events, weight)).results[0]
    after += added(body, map_of([loop.states[-1], x, inverse], lambda sum_, x, share: sum_ + x * share)).results
    body.add_op(spike.YieldOp([], after))
    net.add(loop)
    return net.function([loop.final[-1]])


def test_differential_coding_goes_on_where_it_stopped() -> None:
    store = WeightStore()
    module = ModuleOp([differential_mlp(store)])
    x = (np.random.default_rng(0).integers(0, 8, (9, SIZES[0])) / 8).astype(np.float32)
    (sums,) = interpret(module, [x], store)
    with anytime_session(module, store) as session:
        runs = [Anytime(session, chunk=chunk).run({"x0": x}) for chunk in (1, 5, STEPS)]
    assert np.abs(sums).max() > 0.1
    for exits in runs:
        np.testing.assert_allclose(np.asarray(exits.outputs, np.float32), sums, rtol=0, atol=ROUNDING)


def test_what_makes_no_sense_is_refused(program: tuple[Session, np.ndarray, np.ndarray]) -> None:
    session, x, _ = program
    for chunk, bound in ((0, 1.0), (STEPS + 1, 1.0), (1, float("nan"))):
        with pytest.raises(Error, match="E544"):
            Anytime(session, chunk=chunk, bound=bound)
    for given, told in (
        ({}, "inputs are none"),
        ({"y": x}, "the program's are x0"),
        ({"x0": x[:0]}, "x0 holds no samples"),
    ):
        with pytest.raises(Error, match=f"early exits: .*{told}"):
            Anytime(session).run(given)
    for share in (-0.1, 7.0, float("nan")):
        with pytest.raises(Error, match="early exits: an agreement of"):
            Anytime(session).calibrate({"x0": x}, agreement=share)
    with pytest.raises(Error, match=r"chunks of 1\.5"):
        Anytime(session, chunk=1.5)  # pyright: ignore[reportArgumentType]


def test_other_forms_and_nan_are_refused_with_the_cure(program: tuple[Session, np.ndarray, np.ndarray]) -> None:
    session, x, _ = program
    with pytest.raises(Error, match=r"neuc\.load"):
        Anytime("steps.neuc")  # pyright: ignore[reportArgumentType]
    with pytest.raises(Error, match=r"list, not named.*run\(\{'x0': samples\}\)"):
        Anytime(session).run([x])  # pyright: ignore[reportArgumentType]
    with pytest.raises(Error, match="x0 holds NaN"):
        Anytime(session).run({"x0": np.full(x.shape, np.nan, np.float32)})


@pytest.mark.parametrize("recipe", ["c", pytest.param("b", marks=pytest.mark.slow)])
def test_transformers_run_some_steps_at_a_time(recipe: str) -> None:
    """Their functions of means, and changes, read the number of the step from memory."""
    proto = transformer()
    model = neuc.convert_to_snn(proto, inputs(proto, 32), recipe=recipe, steps=4)
    x = inputs(proto, 6, seed=8)
    expected = model.run(x)[0]
    module = model.module.clone()
    with anytime_session(module, model.context.weights) as session:
        for chunk in (1, 3):
            exits = Anytime(session, chunk=chunk).run({"x": x})
            np.testing.assert_allclose(exits.outputs.astype(np.float32), expected, atol=ROUNDING)
            assert (exits.steps == 4).all()
        anytime = Anytime(session, bound=float(np.median(margins(expected))))
        assert anytime.run({"x": x}).steps.min() < 4
