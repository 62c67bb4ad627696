"""Samplers against closed forms: Onsager's Ising model, and the stationary law of Ornstein-Uhlenbeck processes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import ellipk

from neuc.compiler.energy import Model, Variable, linear_system
from neuc.errors import Error

SIGMAS = 3.0
"""The bar that is set; one of the five numbers is beyond it by chance once in 70 seeds."""
SIDE = 128
"""Correlations reach 6 sites at these temperatures: a torus of 128 is endless."""
MAX_Z = 4.5
"""Of the 27 moments of six variables: exceeded by chance with probability 2e-4."""


def onsager_energy(beta: float) -> float:
    """Per site, J = 1 (Onsager 1944)."""
    kappa = 2 * np.sinh(2 * beta) / np.cosh(2 * beta) ** 2
    bracket = 1 + 2 / np.pi * (2 * np.tanh(2 * beta) ** 2 - 1) * ellipk(kappa**2)
    return float(-bracket / np.tanh(2 * beta))


def magnetisation(beta: float) -> float:
    """Of one of the two phases, above the critical β (Yang 1952)."""
    return float((1 - np.sinh(2 * beta) ** -4) ** 0.125)


@pytest.mark.parametrize("beta", [0.3, 0.38, 0.5])
def test_ising_grid_against_onsager(beta: float) -> None:
    chains, sweeps, warmup = 16, 500, 100
    model = Model()
    x = model.spin(SIDE, SIDE, name="x")
    model.grid(x, 1.0)
    # Below the critical temperature chains begin in the phase that is measured.
    start = model.state(x=np.ones((chains, SIDE, SIDE))) if beta > 0.44 else model.init(chains)
    samples = start.sample(sweeps, beta, warmup=warmup)
    found = model.program(energy=samples.energies(), sums=samples.sums(x)).run(seed=11)
    measured = {"energy": (found.energy.mean(0) / SIDE**2, onsager_energy(beta))}
    per_chain = found.sums.reshape(chains, -1).mean(1) / (sweeps - warmup)
    measured["magnetisation"] = (per_chain, magnetisation(beta) if beta > 0.44 else 0.0)
    for name, (values, exact) in measured.items():
        error = values.std(ddof=1) / np.sqrt(chains)
        assert abs(values.mean() - exact) < SIGMAS * error, name


def test_ornstein_uhlenbeck_solves_and_inverts() -> None:
    rng, n, chains = np.random.default_rng(4), 6, 20000
    root = rng.normal(size=(n, n))
    a, b = root @ root.T / n + np.eye(n), rng.normal(size=n)
    model, x = linear_system(a, b)
    state = model.state(x=np.zeros((chains, n))).sample(12, 1.0, rule="ou_exact", dt=1.0).last
    found = model.program(last=state[x]).interpret(seed=9).last
    inverse, mean = np.linalg.inv(a), np.linalg.solve(a, b)
    deviations = found - mean
    products = np.einsum("ci,cj->cij", deviations, deviations)
    for values, exact in ((deviations, np.zeros(n)), (products, inverse)):
        error = values.std(0) / np.sqrt(chains)
        # After a time 12 what is left of the beginning is e^-12 of the mean at most.
        assert np.abs((values.mean(0) - exact) / error).max() < MAX_Z


def test_langevin_has_the_same_law_for_small_steps() -> None:
    chains = 4000
    model = Model(precise=True)
    x = model.real(2, name="x")
    model.couple(x, [[-2.0, 0.5], [0.5, -1.0]])
    state = model.state(x=np.zeros((chains, 2))).sample(400, 2.0, rule="langevin", dt=0.02).last
    found = model.program(last=state[x]).interpret(seed=1).last
    exact = np.linalg.inv([[2.0, -0.5], [-0.5, 1.0]]) / 2.0
    products = np.einsum("ci,cj->cij", found, found)
    error = products.std(0) / np.sqrt(chains)
    # Euler's step inflates variances by dt·λ/2, 2 per cent at most, which is added to the statistical error.
    assert (np.abs(products.mean(0) - exact) < MAX_Z * error + 0.02 * np.abs(exact).max()).all()


def test_systems_without_a_law_are_refused() -> None:
    with pytest.raises(Error, match=r"E600"):
        linear_system([[1.0, 2.0], [0.0, 1.0]])
    model, x = linear_system([[1.0, 2.0], [2.0, 1.0]])
    program = model.program(x=model.state(x=np.zeros((1, 2))).sample(2, 1.0, rule="ou_exact", dt=1.0).last[x])
    with pytest.raises(Error, match=r"E611.*eigenvalue -1"):
        program.interpret()
    for beta in ([0.0, 1.0, 1.0], [-1.0] * 3, [np.nan] * 3, []):
        with pytest.raises(Error, match=r"E605"):
            program.interpret(beta=beta)
    with pytest.raises(Error, match=r"E605"):
        program.interpret(sweeps=0)


def test_packed_chains_against_onsager() -> None:
    """Each chain's last state is a draw of its own: the spread over chains is the error."""
    beta, chains = 0.38, 256
    model = Model()
    x = model.spin(SIDE, SIDE, name="x")
    model.grid(x, 1.0)
    found = model.program(x=model.init(chains).sample(150, beta, packed=True).last[x]).run(seed=2).x.astype(np.int64)
    bonds = np.sum([(found * np.roll(found, 1, axis)).sum((1, 2)) for axis in (1, 2)], axis=0)
    values = -bonds / SIDE**2
    error = values.std(ddof=1) / np.sqrt(chains)
    assert abs(values.mean() - onsager_energy(beta)) < SIGMAS * error


@pytest.mark.parametrize(
    ("code", "made"),
    [
        ("E614.*no sites", lambda m, s: m.spin(0, 4)),
        ("E614.*cat variable.*at least two", lambda m, s: m.categories(1, 3)),
        ("E614.*whole sizes", lambda m, s: m.spin(2.5)),
        ("E614.*is empty", lambda m, s: m.real(3, box=(1.0, -1.0))),
        ("E614.*no variables", lambda m, s: Model().state(0)),
        ("E614.*a int .'3'. stands where a term takes a variable", lambda m, s: m.grid(3, 1.0)),  # type: ignore[arg-type]
        ("E614.*a str .*variable", lambda m, s: m.couple(s, 1.0, "x")),  # type: ignore[arg-type]
        ("E614.*a ndarray .*variable", lambda m, s: m.linear(np.ones(4), s)),  # type: ignore[arg-type]
        ("E614.*a NoneType .*variable", lambda m, s: m.table([None], [1.0, 2.0])),  # type: ignore[list-item]
        ("E614.*a float .*variable", lambda m, s: m.rho(1.0, "tanh")),  # type: ignore[arg-type]
        ("E614.*'gradient'.*flow", lambda m, s: m.init(3).relax("gradient", 5)),
        ("E614.*'mala'.*langevin", lambda m, s: m.init(3).sample(rule="mala")),
        ("E614.*change what the message names", lambda m, s: m.init(0)),
        ("E605.*ramp 'x'", lambda m, s: m.init(3).sample(ramp="x")),
        ("E605.*warmup", lambda m, s: m.init(3).sample(200, warmup=500)),
        ("E605.*ladder", lambda m, s: m.init(2).sample(ladder=(-0.1, 0.2))),
        ("E605.*beside a ladder", lambda m, s: m.init(2).sample(10, (0.3, 0.9), ladder=(0.1, 0.2))),
        ("E605.*sweeps=10.*beta has 3", lambda m, s: m.init(2).sample(10, [0.1, 0.2, 0.3])),
        ("E605.*beta='x'", lambda m, s: m.init(2).sample(beta="x")),  # type: ignore[arg-type]
        (r"E600.*\[2, 3\]", lambda m, s: linear_system(np.ones((2, 3)))),
        ("E601.*NaN", lambda m, s: linear_system(np.full((2, 2), np.nan))),
    ],
)
def test_arguments_that_make_no_sense_are_named(code: str, made: Callable[[Model, Variable], object]) -> None:
    model = Model()
    spins = model.spin(4)
    with pytest.raises(Error, match=code):
        made(model, spins)
