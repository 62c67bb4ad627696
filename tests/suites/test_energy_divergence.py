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
