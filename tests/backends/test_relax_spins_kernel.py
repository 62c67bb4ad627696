"""Sweeps over spins in generated code equal the interpreter bit for bit, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import runnable_isas
from neuc.backends.cpu.target import isa_text
from neuc.compiler.energy import Model, Program
from neuc.errors import Error

ENERGY_TOLERANCE = 1e-5
"""Of energies of size 100: f32 sums of a few hundred products, in another order."""
ISAS = [isa_text(isa) for isa in runnable_isas()]
RNG = np.random.default_rng(2)
GRIDS = [(5, 7, False, 11), (6, 10, True, 40)]


def everything(rule: str, rows: int, columns: int, *, periodic: bool, edges: int, clamp: bool = False) -> Program:
    """A grid with more edges, fields, a ramp of temperatures and every observable."""
    model, sites = Model(), rows * columns
    x = model.spin(rows, columns, name="x")
    y = model.spin(5, name="y", clamped=clamp)
    model.grid(x, 0.37, periodic=periodic)
    if edges:
        i, j = RNG.choice(sites, (2, edges))
        keep = i != j
        model.edges(x, i[keep], j[keep], RNG.normal(size=edges)[keep])
    model.edges(x, RNG.choice(sites, 9), RNG.choice(5, 9), RNG.normal(size=9), y)
    model.linear(x, RNG.normal(size=(rows, columns)))
    samples = model.init(3).sample(13, (0.3, 1.1), warmup=3, thin=2, rule=rule)
    results = {"x": samples.last[x], "y": samples.last[y]}
    return model.program(**results) if clamp else model.program(**results, energy=samples.energies())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rule", ["gibbs", "metropolis"])
@pytest.mark.parametrize(
    ("rows", "columns", "periodic", "edges"), [(4, 4, True, 0), (5, 7, False, 11), (6, 10, True, 40)]
)
def test_bits_equal_the_interpreters(isa: str, rule: str, rows: int, columns: int, periodic: bool, edges: int) -> None:
    program = everything(rule, rows, columns, periodic=periodic, edges=edges)
    feeds = program.feeds(seed=77)
    expected = program.interpret(seed=77)
    session = program.session(isa=isa, threads=1)
    found = dict(zip(expected, session.run(list(expected), feeds)))
    np.testing.assert_array_equal(found["x"], expected.x)
    np.testing.assert_array_equal(found["y"], expected.y)
    np.testing.assert_allclose(found["energy"], expected.energy, rtol=ENERGY_TOLERANCE, atol=1e-3)  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_any_number_of_threads_gives_the_same_bits() -> None:
    model = Model()
    x = model.spin(9, 6, name="x")
    model.grid(x, 0.4, periodic=False)
    samples = model.init(7).sample(20, 0.5)
    program = model.program(x=samples.last[x], sums=samples.sums(x))
    feeds = program.feeds(seed=-(2**62) + 5)
    one, two = (program.session(threads=n).run(None, feeds) for n in (1, 2))
    for a, b in zip(one, two):
        np.testing.assert_array_equal(a, b)
    expected = program.interpret(seed=-(2**62) + 5)
    np.testing.assert_array_equal(one[0], expected.x)
    np.testing.assert_array_equal(one[1], expected.sums)


def test_clamped_spins_stay() -> None:
    program = everything("gibbs", 4, 6, periodic=True, edges=5, clamp=True)
    expected = program.interpret(seed=1)
    found = program.run(seed=1)
    np.testing.assert_array_equal(found.x, expected.x)
    np.testing.assert_array_equal(found.y, expected.y)


def test_energies_after_a_ladder_of_temperatures() -> None:
    model = Model()
    x = model.spin(30, name="x")
    model.edges(x, np.arange(29), np.arange(1, 30), np.ones(29))
    samples = model.init(3).sample(8, ladder=(0.2, 0.5, 1.0))
    program = model.program(x=samples.last[x], energy=samples.energies())
    expected, found = program.interpret(), program.run()
    np.testing.assert_array_equal(found.x, expected.x)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=ENERGY_TOLERANCE)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("rule", "field"), [("gibbs", 0.0), ("gibbs", 0.13), ("metropolis", 0.0)])
def test_grids_of_one_coupling(isa: str, rule: str, field: float) -> None:
    """The checkerboard kernel gives the bits that any graph's would."""
    model = Model()
    x = model.spin(4, 128, name="x")
    model.grid(x, 0.4)
    if field:
        model.linear(x, field)
    samples = model.init(2).sample(5, (0.3, 0.9), warmup=1, thin=2, rule=rule)
    program = model.program(x=samples.last[x], sums=samples.sums(x), energy=samples.energies())
    expected, feeds = program.interpret(seed=3), program.feeds(seed=3)
    session = program.session(isa=isa, threads=1)
    kernels = {launch.kernel for segment in session.program.segments.values() for launch in segment.launches}  # pyright: ignore[reportAttributeAccessIssue]
    assert any(kernel.startswith("relax_grid") for kernel in kernels)
    found = dict(zip(expected, session.run(list(expected), feeds)))
    np.testing.assert_array_equal(found["x"], expected.x)
    np.testing.assert_array_equal(found["sums"], expected.sums)
    np.testing.assert_allclose(found["energy"], expected.energy, rtol=ENERGY_TOLERANCE)  # pyright: ignore[reportArgumentType, reportCallIssue]


@pytest.mark.parametrize("isa", [ISAS[0], *(pytest.param(isa, marks=pytest.mark.slow) for isa in ISAS[1:])])
@pytest.mark.parametrize(
    ("rule", "chains", "field"), [("gibbs", 1, 0.13), pytest.param("metropolis", 2, 0.0, marks=pytest.mark.slow)]
)
def test_threads_share_a_large_grid(isa: str, rule: str, chains: int, field: float) -> None:
    """A launch for each colour of each sweep: the interpreter's bits for any number of threads."""
    model = Model()
    x = model.spin(1024, 256, name="x")
    model.grid(x, 0.4)
    if field:
        model.linear(x, field)
    program = model.program(last=model.init(chains).sample(3, (0.3, 0.9), rule=rule).last[x])
    expected = program.interpret(seed=3, sweeps=2).last
    feeds = program.feeds(seed=3, sweeps=2)
    for threads in (1, 2, 3):
        session = program.session(isa=isa, threads=threads)
        launches = [launch for segment in session.program.segments.values() for launch in segment.launches]  # pyright: ignore[reportAttributeAccessIssue]
        assert any(launch.kernel.startswith("relax_color") for launch in launches)
        np.testing.assert_array_equal(session.run(None, feeds)[0], expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("chains", [3, 150])
def test_packed_chains(isa: str, chains: int) -> None:
    """Bits of 64 chains a word, some of them missing, equal the interpreter's."""
    model = Model()
    x = model.spin(4, 8, name="x")
    model.grid(x, -0.6)
    model.linear(x, 0.1)
    program = model.program(x=model.init(chains).sample(4, (0.2, 1.0), packed=True).last[x])
    expected = program.interpret(seed=5).x
    (found,) = program.session(isa=isa, threads=2).run(None, program.feeds(seed=5))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("columns", [8, 128])
def test_packed_chains_that_share_their_numbers(columns: int) -> None:
    model = Model()
    x = model.spin(4, columns, name="x")
    model.grid(x, 0.5)
    model.linear(x, -0.2)
    program = model.program(x=model.init(70).sample(5, (0.2, 1.0), packed=True, shared=True).last[x])
    (found,) = program.session(threads=2).run(None, program.feeds(seed=6))
    np.testing.assert_array_equal(found, program.interpret(seed=6).x)


def test_packed_chains_are_of_grids_alone() -> None:
    model = Model()
    x = model.spin(64, name="x")
    model.edges(x, np.arange(63), np.arange(1, 64), np.ones(63))
    program = model.program(x=model.init(64).sample(2, packed=True).last[x])
    with pytest.raises(Error, match=r"E615.*packed chains"):
        program.run()


@pytest.mark.parametrize("isa", [ISAS[0], *(pytest.param(isa, marks=pytest.mark.slow) for isa in ISAS[1:])])
def test_chains_that_exchange_have_the_interpreters_bits(isa: str) -> None:
    """Couplings of ±1 and halves, so that energies are exact in both."""
    model = Model()
    x = model.spin(7, 6, name="x")
    model.grid(x, 0.5, periodic=False)
    i, j = RNG.choice(42, (2, 60))
    model.edges(x, i[i != j], j[i != j], RNG.choice([-1.0, 1.0], int((i != j).sum())))
    ladder = [0.2, 0.3, 0.45, 0.6, 0.8]
    samples = model.init(5).sample(24, 1.0, ladder=ladder, exchange=3, warmup=4)
    program = model.program(x=samples.last[x], sums=samples.sums(x), energy=samples.energies())
    expected = program.interpret(seed=5)
    found = dict(zip(expected, program.session(isa=isa, threads=2).run(list(expected), program.feeds(seed=5))))
    np.testing.assert_array_equal(found["x"], expected.x)
    np.testing.assert_array_equal(found["sums"], expected.sums)
    np.testing.assert_array_equal(found["energy"], expected.energy)
