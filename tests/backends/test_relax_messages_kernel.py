"""Mean field and marginal message passing in generated code equal the interpreter within rounding."""

from __future__ import annotations

import numpy as np
import pytest

from neuc.compiler.energy import Agent, Model
from neuc.errors import Error

TOLERANCE = 2e-5
"""Of probabilities after some iterations: f32 sums, exponentials and logarithms."""
RNG = np.random.default_rng(8)
BATCH = 5


def distributions(*shape: int) -> np.ndarray:
    raw = RNG.random(shape) + 0.05
    return raw / raw.sum(0)


def test_messages_along_a_window() -> None:
    """Two factors, a modality that reads both, and one that reads one."""
    agent = Agent(
        [distributions(4, 3, 2), distributions(3, 2)],
        [distributions(3, 3, 2), distributions(2, 2, 1)],
        [np.zeros(4), np.zeros(3)],
        [distributions(3), distributions(2)],
        A_dependencies=[(0, 1), (1,)],
        num_iter=7,
    )
    program = agent.sequence([[1, 0], [0, 0], [1, 0]], tau=0.7)
    inputs = {f"obs{m}": RNG.integers(0, size, (BATCH, 4)) for m, size in enumerate((4, 3))}
    inputs |= {f"start{f}": np.full((BATCH, 4, k), 1.0 / k) for f, k in enumerate((3, 2))}
    expected, found = program.interpret(**inputs), program.run(**inputs)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=TOLERANCE)


def test_mean_field_of_many_sites_and_large_tables() -> None:
    model = Model()
    q, r = model.beliefs(5, 6, name="q"), model.beliefs(4, 2, name="r")
    seen, given = model.categories(3, 6, name="seen", clamped=True), model.beliefs(4, 2, name="given", clamped=True)
    model.linear(q, RNG.normal(size=(6, 5)))
    model.table([seen, q], RNG.normal(size=(6, 3, 5)), [np.arange(6), np.arange(6)])
    model.table([q, r, given], RNG.normal(size=(1, 5, 4, 4)), [[0, 3], [1, 0], [0, 1]])
    model.table([q, r], RNG.normal(size=(2, 5, 4)), [[2, 5], [1, 1]])
    state = model.state("batch").relax("mean_field", 5)
    program = model.program(last_q=state[q], last_r=state[r])
    inputs = {
        "q": np.full((BATCH, 6, 5), 0.2),
        "r": np.full((BATCH, 2, 4), 0.25),
        "seen": RNG.integers(0, 3, (BATCH, 6)),
        "given": np.moveaxis(distributions(4, BATCH, 2), 0, -1),
    }
    expected, found = program.interpret(**inputs), program.run(**inputs)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=TOLERANCE)


def test_one_site_tables_too_large_to_write_out() -> None:
    model = Model()
    a, b, c = (model.beliefs(24, 1, name=name) for name in "abc")
    model.table([a, b, c], RNG.normal(size=(24, 24, 24)))
    state = model.state("batch").relax("mean_field", 3)
    program = model.program(last=state[b])
    inputs = {name: np.moveaxis(distributions(24, BATCH, 1), 0, -1) for name in "abc"}
    np.testing.assert_allclose(program.run(**inputs).last, program.interpret(**inputs).last, atol=TOLERANCE)


def test_what_has_no_kernel_is_named() -> None:
    model = Model()
    q, s = model.beliefs(3, 2, name="q"), model.spin(2, name="s", clamped=True)
    model.table([s, q], RNG.normal(size=(2, 3)), [[0, 1], [0, 1]])
    program = model.program(last=model.state("batch").relax("mean_field", 2)[q])
    with pytest.raises(Error, match="NEUC-E252"):
        program.session()
