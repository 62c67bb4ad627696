"""Relaxations by integrate-and-fire neurons: rates go to the minimum as 1/steps, native code equals the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from neuc import energy
from neuc.compiler.energy.spiking import spiking
from neuc.dialects.spike import IfOp
from neuc.errors import Error

STEPS = 1024
WITHIN = 40.0
"""Spikes by which a count may be off at the end: a membrane holds a few thresholds, and couplings add them up."""


def sparse_code(penalty: float) -> tuple[energy.Program, dict[str, np.ndarray], np.ndarray]:
    """Non-negative codes of images over a dictionary, ½|image − D x|² + penalty Σ x; and the dictionary [16, 12]."""
    rng = np.random.default_rng(0)
    dictionary = np.abs(rng.normal(size=(16, 12)))
    dictionary /= np.linalg.norm(dictionary, axis=0)
    model = energy.Model()
    image = model.real(16, name="image", clamped=True)
    code = model.real(12, box=(0.0, float("inf")), name="code")
    overlap = dictionary.T @ dictionary
    model.quad(code)
    model.couple(code, np.eye(12) - 0.5 * (overlap + overlap.T))
    model.couple(image, dictionary, code)
    model.linear(code, np.full(12, -penalty))
    settled = model.state("batch").relax("flow", 2000, dt=0.1)
    images = np.abs(rng.normal(size=(3, 16)))
    return model.program(found=settled[code]), {"image": images, "code": np.zeros((3, 12))}, dictionary


@pytest.mark.parametrize("penalty", [0.0, 0.15])
def test_rates_solve_sparse_coding(penalty: float) -> None:
    program, inputs, dictionary = sparse_code(penalty)
    spikes = spiking(program, steps=STEPS, quantum=3.0)
    assert any(isinstance(op, IfOp) for op in spikes.module.walk())
    found = spikes.interpret(**inputs).found
    exact = program.interpret(**inputs).found
    assert 0 < (exact > 0).sum() < exact.size

    def cost(x: np.ndarray) -> np.ndarray:
        return 0.5 * ((inputs["image"] - x @ dictionary.T) ** 2).sum(1) + penalty * x.sum(1)

    excess = cost(found) - cost(exact)
    assert (excess > -1e-6).all()
    assert (excess < 0.5 * (WITHIN * 3.0 / STEPS) ** 2).all()
    np.testing.assert_array_equal(spikes.run(**inputs).found, found)


def test_a_hopfield_network_of_graded_states_in_a_box() -> None:
    rng = np.random.default_rng(1)
    w = rng.normal(0, 0.08, (12, 12))
    model = energy.Model()
    x = model.real(12, box=(0.0, 1.0), name="x")
    model.quad(x, 1.0)
    model.couple(x, np.triu(w, 1) + np.triu(w, 1).T)
    model.linear(x, rng.normal(0.4, 0.5, 12))
    settled = model.state("batch").relax("flow", 400, dt=0.1)
    program, start = model.program(found=settled[x]), np.zeros((1, 12))
    exact = program.interpret(x=start).found
    assert (exact == 1.0).any()
    found = spiking(program, steps=STEPS).run(x=start).found
    np.testing.assert_allclose(found, exact, atol=WITHIN / STEPS)


def with_memories(model: energy.Model) -> None:
    model.memories(model.variables[0], np.ones((2, 3)), 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: None, "no minimum"),
        (with_memories, "energy.lse has no spiking form"),
        (lambda model: model.real(3, name="y"), "2 free variables"),
    ],
)
def test_relaxations_of_another_form_are_named(change, message: str) -> None:
    model = energy.Model()
    x = model.real(3, box=(0.0, 1.0), name="x")
    change(model)
    program = model.program(found=model.state(1).relax("flow", 1, dt=0.1)[x])
    with pytest.raises(Error, match=f"E633.*{message}"):
        spiking(program)


def test_quanta_and_steps_that_make_no_sense() -> None:
    program, _, _ = sparse_code(0.0)
    model = energy.Model()
    x = model.real(3, box=(0.0, 1.0), name="x")
    with pytest.raises(Error, match=r"E633.*relaxes nothing"):
        spiking(model.program(found=model.state(1)[x]))
    with pytest.raises(Error, match=r"E633.*quantum of inf"):
        spiking(program)
    with pytest.raises(Error, match=r"E633.*0 steps"):
        spiking(program, steps=0, quantum=1.0)
