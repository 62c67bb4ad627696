"""Relaxation and learning signals: gradients of every term, descent, equilibrium propagation, predictive coding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuc.compiler.energy import Model, Parameter, Variable
from neuc.compiler.energy.states import contrast
from neuc.errors import Error

STEP = 1e-5
DIFFERENCE_TOLERANCE = 1e-7
"""Central differences with step 1e-5 in f64: truncation 1e-10, rounding 1e-11, on numbers of size 1."""
DESCENT_SLACK = 1e-9
"""Roundings of energies of size 10 in f64."""
RNG = np.random.default_rng(0)
MEANS, BIAS, WIDE_BIAS = RNG.normal(size=4), RNG.normal(size=3), RNG.normal(size=6)
Build = Callable[[Model, Variable, Variable, Parameter], None]
TERMS: dict[str, tuple[tuple[int, ...], Build]] = {
    "quad": ((), lambda m, x, y, p: m.quad(x, MEANS**2, MEANS)),
    "linear": ((4,), lambda m, x, y, p: m.linear(x, p)),
    "bilinear": ((4, 3), lambda m, x, y, p: m.couple(m.rho(x, "tanh"), p, y)),
    "edges": ((3,), lambda m, x, y, p: m.edges(m.rho(x, "cos"), [0, 1, 3], [2, 2, 0], p, y)),
    "pred": ((3, 4), lambda m, x, y, p: m.predict(y, p, m.rho(x, "sigmoid"), BIAS)),
    "resistor": ((4, 3), lambda m, x, y, p: m.resistors(x, p, y)),
    "lse": ((5, 4), lambda m, x, y, p: m.memories(x, p, 2.0)),
    "local": ((6, 4), lambda m, x, y, p: m.goodness(x, p, WIDE_BIAS, theta=0.5)),
}


class TermCase:
    """A model of one term over x [4] and y [3], and where it is looked at."""

    def __init__(self, name: str) -> None:
        shape, self.build = TERMS[name]
        rng = np.random.default_rng(7)
        self.parameter = np.abs(rng.normal(size=shape)) + 0.1
        self.at = {"x": rng.normal(size=(1, 4)), "y": rng.normal(size=(1, 3))}

    def model(self, parameter: np.ndarray) -> tuple[Model, Parameter]:
        model = Model(precise=True)
        x, y, p = model.real(4, name="x"), model.real(3, name="y"), model.constant("p", parameter)
        self.build(model, x, y, p)
        return model, p

    def energy(self, values: dict[str, np.ndarray], parameter: np.ndarray) -> float:
        model, _ = self.model(parameter)
        return float(model.program(f=model.state(1).energy()).interpret(**values).f[0])


@pytest.mark.parametrize("name", TERMS)
def test_gradients_by_variables_equal_differences(name: str) -> None:
    """A flow step of size 1 moves by −dF/dx."""
    case = TermCase(name)
    model, _ = case.model(case.parameter)
    moved = model.state(1).relax("flow", 1, dt=1.0)
    found = model.program(**{f"{v.name}_moved": moved[v] for v in model.variables}).interpret(**case.at)
    for variable, value in case.at.items():
        for index in np.ndindex(value.shape):
            ends = ({**case.at, variable: value + s * STEP * one(value.shape, index)} for s in (1, -1))
            high, low = (case.energy(end, case.parameter) for end in ends)
            slope = value[index] - found[f"{variable}_moved"][index]
            assert abs(slope - (high - low) / (2 * STEP)) < DIFFERENCE_TOLERANCE


@pytest.mark.parametrize("name", sorted(set(TERMS) - {"quad"}))
def test_gradients_by_parameters_equal_differences(name: str) -> None:
    case = TermCase(name)
    model, parameter = case.model(case.parameter)
    (slope,) = model.state(1).gradient(parameter)
    found = model.program(g=slope).interpret(**case.at).g
    for index in np.ndindex(case.parameter.shape):
        moved = (case.parameter + s * STEP * one(case.parameter.shape, index) for s in (1, -1))
        high, low = (case.energy(case.at, p) for p in moved)
        assert abs(found[index] - (high - low) / (2 * STEP)) < DIFFERENCE_TOLERANCE


def one(shape: tuple[int, ...], index: tuple[int, ...]) -> np.ndarray:
    made = np.zeros(shape)
    made[index] = 1.0
    return made


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), nudge=st.sampled_from([0.0, 0.3, -0.3]))
def test_block_minimisation_never_raises_the_energy(seed: int, nudge: float) -> None:
    rng = np.random.default_rng(seed)
    model = Model(precise=True)
    x = model.real(3, name="x", clamped=True)
    h, o = model.real(5, box=(0.0, 1.0), name="h"), model.real(2, box=(-1.0, 1.0), name="o")
    y, spins = model.real(2, name="y", clamped=True), model.spin(4, name="s")
    model.quad(h)
    model.quad(o)
    model.couple(x, rng.normal(size=(3, 5)), h)
    model.couple(h, rng.normal(size=(5, 2)), o)
    model.resistors(h, rng.uniform(size=(5, 2)), o)
    model.cost(o, y)
    model.couple(spins, rng.normal(size=(4, 2)), o)
    state = model.state(2)
    results = {}
    for step in range(4):
        results[f"f{step}"] = state.energy(nudge)
        state = state.relax("block_min", 1, nudge=nudge)
    feeds = {"x": rng.normal(size=(2, 3)), "h": rng.uniform(size=(2, 5)), "o": rng.uniform(-1, 1, (2, 2))}
    feeds |= {"y": rng.normal(size=(2, 2)), "s": rng.choice([-1, 1], (2, 4))}
    found = model.program(**results).interpret(**feeds)
    trace = np.stack([found[f"f{step}"] for step in range(4)])
    assert (np.diff(trace, axis=0) <= DESCENT_SLACK).all()


class Equilibrium:
    """A network of 4, 6 and 2 units with smooth ρ, its target, and gradients of its loss."""

    def __init__(self, *, holomorphic: bool) -> None:
        rng = np.random.default_rng(12)
        self.w1, self.w2 = rng.normal(0, 0.4, (6, 4)), rng.normal(0, 0.4, (2, 6))
        self.x, self.t = rng.normal(size=4), np.array([0.5, -0.3])
        self.holomorphic = holomorphic

    def model(self, w1: np.ndarray) -> tuple[Model, list[Variable], Parameter]:
        m = Model(precise=True)
        kind = m.complex if self.holomorphic else m.real
        x, h = kind(4, name="x", clamped=True), kind(6, name="h")
        o, y = kind(2, name="o"), kind(2, name="y", clamped=True)
        parameter = m.constant("w1", w1)
        m.quad(h)
        m.quad(o)
        m.couple(m.rho(h, "tanh"), parameter, x)
        m.couple(m.rho(o, "tanh"), self.w2, m.rho(h, "tanh"))
        m.cost(o, y)
        return m, [x, h, o, y], parameter

    def feeds(self) -> dict[str, np.ndarray]:
        values = {"x": self.x, "h": np.zeros(6), "o": np.zeros(2), "y": self.t}
        if self.holomorphic:
            values = {k: np.stack([v, np.zeros_like(v)], -1) for k, v in values.items()}
        return {k: v[None] for k, v in values.items()}

    def loss(self, w1: np.ndarray) -> float:
        m, (_, _, o, _), _ = self.model(w1)
        free = m.state(1).relax("flow", 250, dt=0.5)
        out = m.program(out=free[o]).interpret(**self.feeds()).out
        return 0.5 * float(((out - self.t) ** 2).sum())

    def exact(self) -> np.ndarray:
        """dL/dw1 by central differences through the fixed point."""
        found = np.zeros((6, 4))
        for index in ((0, 0), (2, 3), (5, 1)):
            high, low = (self.loss(self.w1 + s * 1e-4 * one((6, 4), index)) for s in (1, -1))
            found[index] = (high - low) / 2e-4
        return found

    def estimate(self, nudge: float, phases: int) -> np.ndarray:
        m, _, parameter = self.model(self.w1)
        free = m.state(1).relax("flow", 250, dt=0.5)
        turns = [complex(np.exp(2j * np.pi * k / phases)) for k in range(phases)]
        nudges = [nudge * t if self.holomorphic else nudge * t.real for t in turns]
        states = [free.relax("flow", 250, dt=0.5, nudge=b) for b in nudges]
        (slope,) = contrast(states, [parameter], 1.0 / nudge)
        return m.program(g=slope).interpret(**self.feeds()).g


@pytest.mark.parametrize(("phases", "order"), [(2, 2), (4, 4)])
def test_equilibrium_propagation_converges_to_the_gradient(phases: int, order: int) -> None:
    """Centred: error O(β²); four complex nudges: O(β⁴). Halving β divides the error by 2^order."""
    network = Equilibrium(holomorphic=phases > 2)
    exact = Equilibrium(holomorphic=False).exact()
    some = exact != 0
    errors = [np.abs(network.estimate(b, phases)[some] - exact[some]).max() for b in (2**-3, 2**-4)]
    # The next order adds some per cent at β = 1/8.
    assert 0.75 * order < np.log2(errors[0] / errors[1]) < 1.3 * order


def test_predictive_coding_begins_in_the_direction_of_backpropagation() -> None:
    rng = np.random.default_rng(1)
    w1, w2, x, t = rng.normal(size=(5, 3)), rng.normal(size=(2, 5)), rng.normal(size=3), rng.normal(size=2)
    h = w1 @ x
    out = w2 @ np.tanh(h)
    delta = (w2.T @ (out - t)) * (1 - np.tanh(h) ** 2)
    m = Model(precise=True)
    vx, vh, vo = m.real(3, name="x", clamped=True), m.real(5, name="h"), m.real(2, name="o", clamped=True)
    p1, p2 = m.constant("w1", w1), m.constant("w2", w2)
    m.predict(vh, p1, vx)
    m.predict(vo, p2, m.rho(vh, "tanh"))
    first = m.state(1)
    moved = first.relax("flow", 1, dt=2**-7)
    g2, g1 = first.gradient(p2)[0], moved.gradient(p1)[0]
    found = m.program(g1=g1, g2=g2).interpret(x=x[None], h=h[None], o=t[None])
    np.testing.assert_allclose(found.g2, np.outer(out - t, np.tanh(h)), rtol=1e-12)
    np.testing.assert_allclose(found.g1 * 2**7, np.outer(delta, x), rtol=1e-9)


def test_a_modern_hopfield_step_is_attention() -> None:
    patterns, query = RNG.normal(size=(6, 4)), RNG.normal(size=(1, 4))
    m = Model(precise=True)
    x = m.real(4, name="x")
    m.memories(x, patterns, 1.5)
    found = m.program(last=m.state(1).relax("block_min", 1)[x]).interpret(x=query).last
    weights = np.exp(1.5 * query @ patterns.T)
    np.testing.assert_allclose(found, weights / weights.sum() @ patterns, rtol=1e-12)


def test_simulated_bifurcation_finds_the_ground_state() -> None:
    rng = np.random.default_rng(3)
    upper = np.triu(rng.choice([-1.0, 1.0], (10, 10)), 1)
    w = upper + upper.T
    m = Model()
    x = m.real(10, box=(-1.0, 1.0), name="x")
    m.couple(x, w)
    found = m.program(last=m.state(40).relax("bifurcation", 300, dt=0.5, scale=0.2)[x])
    best = found.interpret(x=rng.uniform(-0.1, 0.1, (40, 10))).last
    states = ((np.arange(1 << 10)[:, None] >> np.arange(10)) & 1) * 2 - 1
    energies = -0.5 * np.einsum("ci,ij,cj->c", states, w, states)
    s = np.sign(best)
    assert (-0.5 * np.einsum("ci,ij,cj->c", s, w, s)).min() == energies.min()


def test_what_a_method_does_not_fit_is_refused() -> None:
    m = Model(precise=True)
    x = m.real(2, name="x")
    m.quad(x)
    m.couple(x, [[0.0, 1.0], [1.0, 0.0]])
    program = m.program(last=m.state(1).relax("block_min", 1)[x])
    with pytest.raises(Error, match=r"E610.*couples the sites of one variable"):
        program.interpret(x=np.zeros((1, 2)))
    m = Model(precise=True)
    x, y = m.real(2, name="x"), m.real(2, name="y")
    m.resistors(x, -np.ones((2, 2)), y)
    with pytest.raises(Error, match=r"E608"):
        m.program(f=m.state(1).energy()).interpret(x=np.zeros((1, 2)), y=np.zeros((1, 2)))
    m = Model()
    x = m.spin(2, name="x")
    m.couple(x, [[0.0, 1.0], [2.0, 0.0]])
    with pytest.raises(Error, match=r"E600"):
        m.program(x=m.init(1).sample(3).last[x]).run()
    m = Model()
    x = m.spin(2, name="x")
    m.linear(x, [np.nan, 0.0])
    with pytest.raises(Error, match=r"E601"):
        m.program(x=m.init(1).sample(3).last[x]).run()
