"""Spiking networks on target cpu-spike: the interpreter's spikes, on every instruction set and with any threads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from kernel_harness import runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.dialects.interp.core import interpret
from neuc.dialects.weight_store import WeightStore
from spiking_programs import constant_current_cnn, constant_current_mlp, session

QUICK = {runnable_isas()[0]}
ISAS = pytest.mark.parametrize(
    "isa",
    [pytest.param(isa, id=isa.name, marks=[] if isa in QUICK else pytest.mark.slow) for isa in runnable_isas()],
)
SIZES = (20, 37, 130, 10)
SMALL = (9, 13, 11, 3)
BATCHES = (1, 3, 17)
POTENTIAL_ERROR = 65 * 130 * 2.0**-22
"""Sums of 130 weights below 4, rounded in another order in each of 65 steps."""


IMAGE = (2, 9, 9)


def inputs(batch: int, shape: Sequence[int], integer: bool) -> np.ndarray:
    """Analog inputs, half of them 0."""
    rng = np.random.default_rng(batch)
    x = rng.random((batch, *shape)) * (rng.random((batch, *shape)) < 0.5)
    return np.round(x * 100).astype(np.int8) if integer else x.astype(np.float32)


def check(
    main: func.FuncOp, store: WeightStore, isa: Isa, threads: int, integer: bool, shape: Sequence[int] = SIZES[:1]
) -> None:
    """Spikes are the interpreter's; numbers are, too, up to rounding."""
    reference = ModuleOp([main.clone()])
    with session(main, store, isa, threads) as program:
        for batch in BATCHES:
            x = inputs(batch, shape, integer)
            events, *numbers = program.run(None, {"x0": x})
            wanted, *exact = interpret(reference, [x], store)
            assert 0 < wanted.mean() < 1
            np.testing.assert_array_equal(events, wanted)
            for got, number in zip(numbers, exact, strict=True):
                np.testing.assert_allclose(got, number, rtol=0, atol=0 if integer else POTENTIAL_ERROR)  # pyright: ignore[reportArgumentType, reportCallIssue]


@pytest.mark.parametrize("isa", [isa for isa in runnable_isas() if isa not in QUICK], ids=lambda isa: isa.name)
def test_small_integer_networks_are_exact_everywhere(isa: Isa) -> None:
    """One network on the instruction sets that the tests below leave to slow runs."""
    store = WeightStore()
    check(constant_current_mlp(store, SMALL, 6, integer=True), store, isa, 2, True, SMALL[:1])


@ISAS
def test_integer_networks_are_exact(isa: Isa) -> None:
    for steps, threads in ((1, 1), (7, 2), (65, 3)):
        store = WeightStore()
        check(constant_current_mlp(store, SIZES, steps, integer=True), store, isa, threads, True)


@ISAS
def test_float_networks_fire_alike(isa: Isa) -> None:
    for steps, threads in ((1, 3), (64, 2)):
        store = WeightStore()
        check(constant_current_mlp(store, SIZES, steps), store, isa, threads, False)


@ISAS
@pytest.mark.parametrize("integer", [False, True], ids=["f32", "i8"])
def test_convolutions_by_scatter(isa: Isa, integer: bool) -> None:
    for steps, threads in ((1, 2), (6, 3)):
        store = WeightStore()
        check(constant_current_cnn(store, steps, integer=integer), store, isa, threads, integer, IMAGE)
