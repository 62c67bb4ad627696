"""Relaxations that diverge: the variable and the step by name, not NaN without a word."""

from __future__ import annotations

import numpy as np
import pytest

from neuc import energy
from neuc.errors import Error


def steep(method: str, *, dt: float, chains: int | str = "batch") -> energy.Program:
    model = energy.Model()
    x, y = model.real(2, name="x"), model.real(3, name="y")
    model.quad(x, 100.0)
    model.quad(y)
    state = model.state(chains)
    last = state.relax("flow", 60, dt=dt) if method == "flow" else state.sample(60, rule=method, dt=dt).last
    return model.program(last_x=last[x], last_y=last[y])


@pytest.mark.parametrize(("method", "named"), [("flow", "the flow, dt = 0.1"), ("langevin", "langevin")])
def test_the_variable_and_the_step_are_named(method: str, named: str) -> None:
    program, starts = steep(method, dt=0.1), {"x": np.ones((4, 2)), "y": np.ones((4, 3))}
    # (1 - 0.1 * 100)^t leaves f32 (3.4e38) at t = 41.
    for run in (program.interpret, program.run):
        with pytest.raises(Error, match=rf"E621.*x diverges at step 4\d of {named}"):
            run(**starts)
    fine = steep(method, dt=0.01)
    assert np.isfinite(fine.run(**starts).last_x).all()


def test_only_the_chain_that_diverges_is_blamed() -> None:
    starts = {"x": np.zeros((4, 2)), "y": np.ones((4, 3))}
    starts["x"][2] = 1.0
    with pytest.raises(Error, match=r"E621.*x diverges"):
        steep("flow", dt=0.1).run(**starts)
    with pytest.raises(Error, match=r"E621.*result last_x holds NaN or infinity in row 2"):
        steep("flow", dt=0.1, chains=4).run(**starts)


def test_inputs_that_are_no_numbers_are_the_callers() -> None:
    starts = {"x": np.full((4, 2), np.nan), "y": np.ones((4, 3))}
    assert np.isnan(steep("flow", dt=0.01).run(**starts).last_x).all()


@pytest.mark.parametrize(("method", "dt"), [("block_min", 0.0), ("flow", 0.5)])
def test_numbers_that_still_grow_are_refused_and_large_ones_are_not(method: str, dt: float) -> None:
    def program(coupling: float, push: float) -> energy.Program:
        model = energy.Model()
        x, y = model.real(2, name="x"), model.real(2, name="y")
        model.quad(x)
        model.quad(y)
        model.couple(x, coupling * np.eye(2), y)
        model.linear(x, np.full(2, push))
        return model.program(last=model.state("batch").relax(method, 20, dt=dt)[y])

    starts = {"x": np.ones((3, 2)), "y": np.ones((3, 2))}
    for run in (program(3.0, 1.0).run, program(3.0, 1.0).interpret):
        with pytest.raises(Error, match=r"E621.*result last is .* after 20 steps and .* after 40: it diverges"):
            run(**starts)
    assert np.abs(program(0.5, 1e8).run(**starts).last).max() > 1e7


def test_images_to_answer_that_are_no_numbers_are_refused() -> None:
    layers = [energy.Layer(np.eye(3, dtype=np.float32), np.zeros(3, np.float32))]
    with pytest.raises(Error, match=r"E617.*image 1 holds NaN"):
        energy.network(layers, "pc").run([[0.0, 1.0, 2.0], [np.nan, 0.0, 0.0]])
