"""Anytime inference: exits when the margin is large enough, and all steps give what the whole program gives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from kernel_harness import runnable_isas
from neuc.backends.cpu.emit import emit
from neuc.backends.cpu.target import TARGETS
from neuc.dialects import spike
from neuc.dialects.context import NeucContext
from neuc.dialects.interp.core import interpret
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.passes.expose_spike_state import FACT, ExposeSpikeState
from neuc.passes.module_facts import facts_of
from neuc.passes.partition import Partition
from neuc.runtime.anytime import Anytime
from neuc.runtime.session import Session
from spiking_programs import constant_current_mlp

STEPS, SIZES = 12, (20, 33, 47, 6)


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
    context = NeucContext(weights=store)
    ExposeSpikeState().apply(context, module)
    module.verify()
    fact = facts_of(module)
    for step in (Partition(target="cpu-spike"), *TARGETS["cpu-spike"].pipeline(runnable_isas()[0])):
        step.apply(context, module)
    made = emit(module, store)
    with Session.from_parts(made.program, made.kernels, made.arrays(), threads=1, manifest={FACT: fact[FACT]}) as found:
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


def test_what_makes_no_sense_is_refused(program: tuple[Session, np.ndarray, np.ndarray]) -> None:
    session, x, _ = program
    for chunk, bound in ((0, 1.0), (STEPS + 1, 1.0), (1, float("nan"))):
        with pytest.raises(Error, match="E544"):
            Anytime(session, chunk=chunk, bound=bound)
    for inputs in ({}, {"y": x}, {"x0": x[:0]}):
        with pytest.raises(Error, match="E544"):
            Anytime(session).run(inputs)
    for share in (-0.1, 7.0, float("nan")):
        with pytest.raises(Error, match="an agreement of"):
            Anytime(session).calibrate({"x0": x}, agreement=share)
    with pytest.raises(Error, match=r"chunks of 1\.5"):
        Anytime(session, chunk=1.5)  # pyright: ignore[reportArgumentType]
