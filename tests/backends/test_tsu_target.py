"""Target tsu-sim: couplings are wires, sweeps the chip's two colours, what does not fit is named, costs are counted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from neuc.backends.tsu.chains import find_chains
from neuc.backends.tsu.embedding import embed, odd_cycle
from neuc.backends.tsu.machines import MACHINES
from neuc.compiler.cli import main
from neuc.compiler.energy import Model
from neuc.compiler.energy.ledger import ledger
from neuc.errors import Error, Exit
from neuc.runtime.session import load

Z1, G12 = MACHINES["z1"], MACHINES["g12"]


def random_subgraph(count: int, seed: int) -> np.ndarray:
    """Edges that a grid of Z1 has for certain: spins thrown on it, each coupled to some it is wired to; renumbered."""
    rng = np.random.default_rng(seed)
    cells = {(r, c) for r in range(count) for c in range(count)}
    chosen = [(count // 2, count // 2)]
    edges: list[tuple[int, int]] = []
    while len(chosen) < count:
        at = rng.integers(len(chosen))
        r, c = Z1.offsets[rng.integers(Z1.degree)]
        cell = (chosen[at][0] + r, chosen[at][1] + c)
        if cell in cells and cell not in chosen:
            edges.append((int(at), len(chosen)))
            chosen.append(cell)
    names = rng.permutation(count)
    return names[np.array(edges)]


@pytest.mark.parametrize("seed", range(5))
def test_placements_have_a_wire_for_every_coupling(seed: int) -> None:
    edges = random_subgraph(60, seed)
    cells = embed(60, edges, Z1, str)
    steps = {tuple(step) for step in (cells[edges[:, 1]] - cells[edges[:, 0]]).tolist()}
    assert steps <= set(Z1.offsets)
    assert len(np.unique(cells, axis=0)) == 60
    assert ((cells >= 0) & (cells < (Z1.rows, Z1.columns))).all()


def test_machines_are_bipartite_grids_of_their_degree() -> None:
    assert (Z1.degree, Z1.rows * Z1.columns, G12.degree) == (16, 269_568, 12)
    for machine in MACHINES.values():
        assert len(set(machine.offsets)) == machine.degree
        assert all((r + c) % 2 for r, c in machine.offsets)
        assert {(-r, -c) for r, c in machine.offsets} == set(machine.offsets)


def test_an_odd_cycle_is_a_cycle_of_odd_length() -> None:
    near = [[1, 4], [0, 2], [1, 3], [2, 4], [3, 0, 5], [4]]
    cycle = odd_cycle(near)
    assert len(cycle) % 2 == 1
    assert all(b in near[a] for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    assert odd_cycle([[1], [0, 2], [1]]) == []


def saved(tmp_path: Path, model: Model, chains: int = 3, **options: object) -> str:
    samples = model.init(chains).sample(sweeps=40, beta=0.4, **options)  # type: ignore[arg-type]
    spins = {f"last_{v.name}": samples.last[v] for v in model.variables}
    model.program(**spins).save(tmp_path / "model.mlir")
    return str(tmp_path / "model.mlir")


def test_an_open_grid_runs_on_the_chip_with_its_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Model()
    spins = model.spin(6, 8, name="spins")
    model.grid(spins, 0.7, periodic=False)
    text, artifact = saved(tmp_path, model), str(tmp_path / "model.neuc")
    assert main(["compile", text, "--target", "tsu-sim", "-o", artifact]) == Exit.OK
    assert "48 spins and 82 couplings on 6 x 8" in capsys.readouterr().err
    fact = load(artifact).manifest["tsu"]
    found = ledger(fact, {"beta": np.full(40, 0.4, np.float32)})
    assert found is not None
    assert (found.writes, found.samples, found.reads) == (48, 40 * 3 * 48, 3 * 48)
    assert found.energy == pytest.approx(48 * 153.6e-12 + 40 * 3 * 48 * 7.09e-15 + 3 * 48 * 1.692e-12)
    ramp = ledger(fact, {"beta": np.linspace(0.1, 1, 40, dtype=np.float32)})
    assert ramp is not None
    assert ramp.writes == 40 * 3 * 48
    # The chip's sweeps are those of the checkerboard that cpu-relax finds, so the same spins are drawn.
    assert main(["run", artifact, "--seed", "5", "-o", str(tmp_path / "a.npz")]) == Exit.OK
    assert main(["run", text, "--target", "cpu-relax", "--seed", "5", "-o", str(tmp_path / "b.npz")]) == Exit.OK
    with np.load(tmp_path / "a.npz") as chip, np.load(tmp_path / "b.npz") as cpu:
        np.testing.assert_array_equal(chip["last_spins"], cpu["last_spins"])


def test_sampled_moments_equal_enumeration(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    model = Model()
    spins, fixed = model.spin(5, name="spins"), model.spin(2, name="fixed", clamped=True)
    ring, weights = [0, 1, 2, 3, 4], rng.normal(0, 0.6, 4)
    model.edges(spins, ring[:-1], ring[1:], weights)
    model.edges(spins, [0, 4], [0, 1], [0.5, -0.8], fixed)
    samples = model.state("chains").sample(sweeps=60, beta=1.0)
    model.program(last=samples.last[spins]).save(tmp_path / "model.mlir")
    artifact = str(tmp_path / "model.neuc")
    assert main(["compile", str(tmp_path / "model.mlir"), "--target", "tsu-sim{grid=9x9}", "-o", artifact]) == Exit.OK
    chains = 4000
    given = {"spins": np.ones((chains, 5), np.int8), "fixed": np.ones((chains, 2), np.int8)}
    session = load(artifact)
    feeds = {**given, "beta": np.ones(60, np.float32), "seed": np.asarray(1, np.int64)}
    (last,) = session.run(None, {spec.name: feeds[spec.name] for spec in session.program.inputs})
    states = 2.0 * ((np.arange(32)[:, None] >> np.arange(5)) & 1) - 1
    score = (states[:, :-1] * states[:, 1:]) @ weights + 0.5 * states[:, 0] - 0.8 * states[:, 4]
    p = np.exp(score) / np.exp(score).sum()
    z = (last.mean(0) - p @ states) / np.sqrt((1 - (p @ states) ** 2) / chains)
    assert np.abs(z).max() < 4.5
    found = ledger(session.manifest["tsu"], feeds)
    assert found is not None
    assert (found.writes, found.samples) == (7 + chains * 7, 60 * chains * 5)


def dense_model(n: int = 6) -> tuple[Model, np.ndarray, np.ndarray]:
    """Spins that all pull at each other: odd cycles, which no cells have."""
    rng = np.random.default_rng(4)
    couplings, fields = np.triu(rng.normal(0, 0.3, (n, n)), 1), rng.normal(0, 0.3, n)
    model = Model()
    spins = model.spin(n, name="spins")
    model.couple(spins, couplings + couplings.T)
    model.linear(spins, fields)
    return model, couplings, fields


@pytest.mark.parametrize("started", ["random", "given"])
def test_chains_of_cells_stand_for_spins_of_dense_models(started: str, tmp_path: Path) -> None:
    (model, couplings, fields), chains, sweeps = dense_model(), 4000, 400
    state = model.init(chains) if started == "random" else model.state("chains")
    last = state.sample(sweeps, 1.0).last[model.variables[0]]
    model.program(last=last).save(tmp_path / "model.mlir")
    artifact = str(tmp_path / "model.neuc")
    assert main(["compile", str(tmp_path / "model.mlir"), "--target", "tsu-sim{chain=2}", "-o", artifact]) == Exit.OK
    session = load(artifact)
    feeds = {"beta": np.ones(sweeps, np.float32), "seed": np.asarray(3, np.int64)}
    feeds["spins"] = np.ones((chains, 6), np.int8)
    names = [spec.name for spec in session.program.outputs]
    found = dict(zip(names, session.run(None, {i.name: feeds[i.name] for i in session.program.inputs})))
    drawn = np.asarray(found["last"], np.float64)
    states = 2.0 * ((np.arange(64)[:, None] >> np.arange(6)) & 1) - 1
    score = np.einsum("ci,ij,cj->c", states, couplings, states) + states @ fields
    p = np.exp(score) / np.exp(score).sum()
    pairs = np.triu_indices(6, 1)
    for seen, exact in (
        (drawn.mean(0), p @ states),
        ((drawn.T @ drawn / chains)[pairs], (states.T * p @ states)[pairs]),
    ):
        assert (np.abs(seen - exact) / np.sqrt((1 - exact**2) / chains)).max() < 4.5
    # A broken coupling of strength 2 holds 2 * 2; at β = 1 one of four chains is broken about once in e^4 states.
    broken = np.asarray(found["chain_breaks"], float) / 4.0
    np.testing.assert_allclose(broken, broken.round(), atol=1e-4)
    assert 0 < (broken > 0).mean() < 0.2
    fact = session.manifest["tsu"]
    assert isinstance(fact, list)
    assert fact[0]["spins"] > 6


def test_chains_are_disjoint_connected_and_wired() -> None:
    pairs = [(a, b) for a in range(8) for b in range(a)]
    chains = find_chains(8, pairs, Z1)
    assert chains is not None
    cells = [cell for chain in chains for cell in chain]
    assert len(set(cells)) == len(cells)
    wires = set(Z1.offsets)

    def wired(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> bool:
        return any((r - p, c - q) in wires for p, q in one for r, c in other)

    assert all(wired(chains[a], chains[b]) for a, b in pairs)
    for chain in chains:
        reached, left = chain[:1], chain[1:]
        while left:
            near = [cell for cell in left if wired(reached, [cell])]
            assert near, chain
            reached, left = [*reached, *near], [cell for cell in left if cell not in near]


@pytest.mark.parametrize("what", ["observed", "evaluated"])
def test_chains_are_sampled_and_read_alone(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = dense_model()[0]
    samples = model.init(2).sample(5, 1.0)
    spins = model.variables[0]
    value = samples.sums(spins) if what == "observed" else samples.last.energy()
    model.program(value=value, last=samples.last[spins]).save(tmp_path / "model.mlir")
    assert main(["compile", str(tmp_path / "model.mlir"), "--target", "tsu-sim", "-o", str(tmp_path / "m.neuc")])
    assert re.search(r"E638.*chains of cells.*, for result value", capsys.readouterr().err.replace("\n", " "))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda m, s: m.couple(s, 1.0 - np.eye(20)), r"E637.*spins\[0\] has 19.*and 12 more"),
        (lambda m, s: m.grid(m.spin(8, 8), 1.0), r"E637.*periodic grid.*no wires"),
        (lambda m, s: m.edges(m.spin(50), [0, 1, 2], [1, 2, 0], np.ones(3)), r"E637.*x1\[.*odd cycle of 3"),
        (lambda m, s: m.table([s, s, s], np.ones(1), [[0], [1], [2]]), r"E638.*factor of 3 spins"),
        (lambda m, s: m.linear(m.categories(3, 2, name="colors"), np.ones((2, 3))), r"E638.*colors is cat"),
    ],
)
def test_what_does_not_fit_is_named(build, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Model()
    build(model, model.spin(20, name="spins"))
    assert main(["compile", saved(tmp_path, model), "--target", "tsu-sim", "-o", str(tmp_path / "m.neuc")]) != Exit.OK
    assert not (tmp_path / "m.neuc").exists()
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))


def test_grids_that_are_too_small_and_dense_neighbourhoods_are_refused() -> None:
    with pytest.raises(Error, match=r"E637.*300000 spins for 269568 cells"):
        embed(300_000, np.empty((0, 2), np.int64), Z1, str)
    # Four spins that share nine neighbours: bipartite and of small degree, but no cells of G12 have so many in common.
    dense = np.array([(a, 4 + b) for a in range(4) for b in range(9)])
    with pytest.raises(Error, match=r"E637.*no cells of g12"):
        embed(13, dense, G12, str)


@pytest.mark.parametrize("option", ["machine=z9", "grid=3", "grid=0x4", "grid=axb", "chain=strong", "chain=-1"])
def test_options_that_make_no_sense(option: str, tmp_path: Path) -> None:
    model = Model()
    model.grid(model.spin(4, 4, name="s"), 1.0, periodic=False)
    assert main(["compile", saved(tmp_path, model), "--target", f"tsu-sim{{{option}}}"]) == Exit.USAGE
