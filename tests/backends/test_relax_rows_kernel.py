"""Relaxations of real numbers in generated code equal the interpreter within rounding, on every instruction set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from kernel_harness import runnable_isas
from neuc.backends.cpu.target import isa_text
from neuc.compiler.energy import Model, Program, contrast, linear_system
from neuc.compiler.energy.learning_maps import Conv, ConvMap
from neuc.errors import Error

TOLERANCE = 2e-5
"""Of values of size 1 after some twenty steps: f32 sums against f64."""
NORMAL_TOLERANCE = 5e-4
"""Of Langevin paths: u near 1/2 in the logarithm, and twenty steps of it."""
ISAS = [isa_text(isa) for isa in runnable_isas()]
BATCH = 19  # not a multiple of any vector's lanes
RNG = np.random.default_rng(5)


def close(program: Program, isa: str, tolerance: float, inputs: Mapping[str, Any], threads: int = 1) -> None:
    """Every result is the interpreter's."""
    expected = program.interpret(**inputs)
    found = program.session(isa=isa, threads=threads).run(list(expected), program.feeds(**inputs))
    for name, array in zip(expected, (np.asarray(array, np.float64) for array in found)):
        np.testing.assert_allclose(array, expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


def everything() -> tuple[Program, dict[str, np.ndarray]]:
    """A flow under every term that has a gradient by real numbers, and slopes of those that learn."""
    model = Model()
    x = model.real(6, box=(-2.0, 2.0), name="x")
    z = model.real(21, name="z")
    given = model.real(4, name="given", clamped=True)
    target = model.real(6, name="target", clamped=True)
    spin = model.spin(3, name="spin", clamped=True)
    w = model.parameter("w", 6, 21)
    pw, pb = model.constant("pw", RNG.normal(size=(6, 21)) * 0.2), model.constant("pb", RNG.normal(size=6))
    half = RNG.normal(size=(21, 21)) * 0.1
    model.quad(x, np.full(6, 1.5), RNG.normal(size=6))
    model.quad(z)
    model.linear(z, RNG.normal(size=21))
    model.couple(model.rho(x, "tanh"), w, model.rho(z, "sigmoid"))
    model.couple(z, half + half.T)
    model.couple(given, RNG.normal(size=(4, 21)) * 0.3, z)
    model.couple(spin, RNG.normal(size=(3, 21)) * 0.3, z)
    model.edges(model.rho(z, "cos"), [0, 3, 3, 20], [1, 2, 0, 5], RNG.normal(size=4), x)
    model.predict(x, pw, model.rho(z, "relu"), pb, precision=0.7)
    model.predict(target, np.eye(6), x, skip=0.25)
    model.resistors(given, np.abs(RNG.normal(size=(4, 6))) * 0.1, x)
    model.memories(x, RNG.normal(size=(5, 6)), 0.8)
    model.force(x, RNG.normal(size=(6, 4)) * 0.2, given)
    model.cost(x, target, "ce")
    first = model.state("batch")
    nudged = first.relax("flow", 12, dt=0.05, nudge=0.5)
    program = model.program(last_z=nudged[z], last_x=nudged[x])
    inputs = {
        "x": RNG.normal(size=(BATCH, 6)),
        "z": RNG.normal(size=(BATCH, 21)),
        "given": RNG.normal(size=(BATCH, 4)),
        "target": np.abs(RNG.normal(size=(BATCH, 6))),
        "spin": RNG.choice([-1, 1], (BATCH, 3)),
        "w": RNG.normal(size=(6, 21)) * 0.3,
    }
    return program, inputs


def blocks() -> tuple[Program, dict[str, np.ndarray]]:
    """Block minimisation over real numbers and spins, and the contrast of two nudges."""
    model = Model()
    x = model.real(5, name="x", clamped=True)
    h, o = model.real(18, box=(0.0, 1.0), name="h"), model.real(3, box=(0.0, 1.0), name="o")
    s, y = model.spin(7, name="s"), model.real(3, name="y", clamped=True)
    w1, w2 = model.constant("w1", RNG.normal(size=(5, 18))), model.constant("w2", RNG.normal(size=(18, 3)) * 0.5)
    b = model.constant("b", RNG.normal(size=18))
    for layer in (h, o):
        model.quad(layer, 1.25)
    model.couple(x, w1, h)
    model.couple(h, w2, o)
    model.couple(s, RNG.normal(size=(7, 18)), h)
    model.linear(h, b)
    model.cost(o, y)
    free = model.state("batch").relax("block_min", 10)
    up, down = (free.relax("block_min", 4, nudge=nudge) for nudge in (0.3, -0.3))
    slopes = contrast([up, down], [w1, w2, b], 1.0 / 0.3)
    program = model.program(free_s=free[s], up_h=up[h], down_o=down[o], **dict(zip(("dw1", "dw2", "db"), slopes)))
    inputs = {
        "x": RNG.normal(size=(BATCH, 5)),
        "h": np.zeros((BATCH, 18)),
        "o": np.zeros((BATCH, 3)),
        "s": RNG.choice([-1, 1], (BATCH, 7)),
        "y": RNG.random((BATCH, 3)),
    }
    return program, inputs


@pytest.mark.parametrize("isa", [ISAS[0], *(pytest.param(isa, marks=pytest.mark.slow) for isa in ISAS[1:])])
def test_flow_of_every_term(isa: str) -> None:
    program, inputs = everything()
    close(program, isa, TOLERANCE, inputs)


def test_block_minimisation_and_contrast() -> None:
    program, inputs = blocks()
    close(program, "host", TOLERANCE, inputs, threads=2)


def test_slopes_of_every_term_that_learns() -> None:
    model = Model()
    x, z = model.real(6, name="x"), model.real(9, name="z")
    w, p, b = (model.constant(n, RNG.normal(size=shape)) for n, shape in (("w", (6, 9)), ("p", (6, 9)), ("b", (6,))))
    lw, lb = model.constant("lw", RNG.normal(size=(11, 9))), model.constant("lb", RNG.normal(size=11))
    patterns, g = model.constant("patterns", RNG.normal(size=(4, 6))), model.constant("g", RNG.random((6, 9)))
    model.couple(x, w, z)
    model.predict(x, p, model.rho(z, "relu"), b, precision=0.5)
    model.goodness(z, lw, lb, theta=1.5)
    model.memories(x, patterns, 1.2)
    model.resistors(x, g, z)
    parameters = [w, p, b, lw, lb, patterns, g]
    slopes = model.state("batch").gradient(*parameters)
    program = model.program(**{f"d{q.name}": slope for q, slope in zip(parameters, slopes)})
    close(program, "host", TOLERANCE, {"x": RNG.normal(size=(BATCH, 6)), "z": RNG.normal(size=(BATCH, 9))})


def test_langevin_draws_the_interpreters_noise_with_any_number_of_threads() -> None:
    model = Model()
    x, angle = model.real(5, box=(-1.5, 1.5), name="x"), model.phase(4, name="angle")
    model.quad(x)
    model.couple(x, RNG.normal(size=(5, 4)) * 0.3, model.rho(angle, "sin"))
    samples = model.state(BATCH).sample(20, (0.5, 2.0), rule="langevin", dt=0.05)
    program = model.program(last_x=samples.last[x], last_angle=samples.last[angle])
    inputs = {"x": np.zeros((BATCH, 5)), "angle": RNG.normal(size=(BATCH, 4))}
    close(program, "host", NORMAL_TOLERANCE, {"seed": np.int64(9), **inputs})
    feeds = program.feeds(seed=np.int64(9), **inputs)
    one, two = (program.session(threads=n).run(None, feeds) for n in (1, 2))
    for a, b in zip(one, two):
        np.testing.assert_array_equal(a, b)


def test_ornstein_uhlenbeck_has_its_mean_and_covariance() -> None:
    a, b = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 1.5]]), np.array([1.0, -1.0, 0.5])
    model, x = linear_system(a, b, precise=False)
    samples = model.state(20000).sample(6, 1.0, rule="ou_exact", dt=1.0)
    program = model.program(samples=samples.last[x])
    found = program.run(x=np.zeros((20000, 3)), seed=3).samples
    inverse = np.linalg.inv(a)
    error = np.sqrt(inverse.diagonal() / len(found))
    assert (np.abs(found.mean(0) - inverse @ b) < 4.5 * error).all()
    spread = np.sqrt((inverse**2 + np.outer(inverse.diagonal(), inverse.diagonal())) / len(found))
    assert (np.abs(np.cov(found.T) - inverse) < 4.5 * spread).all()
    few = {"x": np.zeros((20000, 3))[:], "seed": np.int64(3)}
    np.testing.assert_allclose(program.interpret(**few).samples, found, atol=NORMAL_TOLERANCE)


def test_bifurcation_reaches_the_interpreters_spins() -> None:
    model, n = Model(), 24
    x = model.real(n, name="x")
    i, j = np.triu_indices(n, 1)
    model.edges(x, i, j, RNG.choice([-1.0, 1.0], len(i)))
    settled = model.state("batch").relax("bifurcation", 40, dt=0.5, scale=0.2)
    program = model.program(spins=settled[x])
    close(program, "host", 1e-3, {"x": RNG.normal(size=(BATCH, n)) * 0.1})


def test_what_has_no_minimum_is_named() -> None:
    model = Model()
    x, y = model.real(3, name="x"), model.real(3, name="y", clamped=True)
    model.couple(x, np.eye(3), y)
    program = model.program(last=model.state("batch").relax("block_min", 2)[x])
    with pytest.raises(Error, match="NEUC-E610"):
        program.session()


def test_edges_that_share_weights() -> None:
    """A strided convolution with a rim, as a coupling and as a prediction, with weights of run time; and its slopes."""
    mapped = ConvMap((2, 5, 6), Conv(3, 3, stride=2, pad=1))
    above, below, number = mapped.edges()
    model = Model()
    x, y = model.real(2, 5, 6, name="x"), model.real(3, 3, 3, name="y")
    given = model.real(2, 5, 6, name="given", clamped=True)
    w, v = model.parameter("w", *mapped.weights), model.parameter("v", *mapped.weights)
    b, u = model.parameter("b", 3, 3, 3), model.constant("u", RNG.normal(size=4))
    model.quad(x)
    model.edges(y, above, below, w, x, shared=number)
    model.edges(y, above, below, w, given, shared=number)
    model.edges(x, [0, 5, 5, 2], [1, 2, 0, 5], u, y)
    model.predict_edges(y, model.rho(x, "tanh"), (above, below, number), v, b, precision=2.0)
    flown = model.state("batch").relax("flow", 3, dt=0.05)
    slopes = flown.gradient(w, v, b, u)
    program = model.program(last_x=flown[x], last_y=flown[y], **dict(zip(("dw", "dv", "db", "du"), slopes)))
    inputs = {"x": RNG.normal(size=(BATCH, 2, 5, 6)), "y": RNG.normal(size=(BATCH, 3, 3, 3))}
    inputs |= {"given": RNG.normal(size=(BATCH, 2, 5, 6)), "b": RNG.normal(size=(3, 3, 3))}
    inputs |= {name: RNG.normal(size=mapped.weights) * 0.2 for name in ("w", "v")}
    close(program, "host", TOLERANCE, inputs)
    dense = np.zeros((mapped.inputs, mapped.outputs))
    np.add.at(dense, (below, above), inputs["w"][number])
    a, e = RNG.normal(size=(2, mapped.inputs)), RNG.normal(size=(2, mapped.outputs))
    np.testing.assert_allclose(mapped.forward(inputs["w"], a), a @ dense)
    np.testing.assert_allclose(mapped.back(inputs["w"], e), e @ dense.T)
    outer = np.zeros(mapped.weights)
    np.add.at(outer, number, (a.T @ e)[below, above])
    np.testing.assert_allclose(mapped.slope(a, e), outer)


def test_energies_of_every_chain() -> None:
    model = Model()
    x, z = model.real(3, 4, name="x"), model.real(5, name="z")
    spin, target = model.spin(12, name="spin"), model.real(5, name="target", clamped=True)
    half = RNG.normal(size=(5, 5))
    model.quad(x, 0.7, RNG.normal(size=(3, 4)))
    model.linear(z, RNG.normal(size=5))
    model.couple(model.rho(x, "tanh"), RNG.normal(size=(12, 12)), spin)
    model.couple(z, half + half.T)
    model.edges(z, [0, 3, 3], [1, 2, 0], RNG.normal(size=3))
    model.grid(x, 0.4)
    model.predict(z, RNG.normal(size=(5, 12)), x, RNG.normal(size=5), precision=0.6)
    model.resistors(x, RNG.random((12, 5)), z)
    model.cost(z, target)
    state = model.state("batch")
    program = model.program(free=state.energy(), nudged=state.energy(0.5))
    inputs = {name: RNG.normal(size=(BATCH, *v)) for name, v in (("x", (3, 4)), ("z", (5,)), ("target", (5,)))}
    close(program, "host", TOLERANCE, {"spin": RNG.choice([-1, 1], (BATCH, 12)), **inputs})
