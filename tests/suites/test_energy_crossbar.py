"""Energies on crossbars: couplings and resistors are tiles in every step, noise included; networks against ngspice."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from neuc import energy
from neuc.compiler.api import compile_model
from neuc.compiler.energy.netlist import netlist, read_voltages
from neuc.compiler.options import CompileOptions
from neuc.compiler.source import Source
from neuc.errors import Error
from neuc.runtime.session import Session

EXACT = 1e-5
"""Ideal devices in f32 against the interpreter in f64: 20 steps of sums of tens of products of size 1."""
SPICE = 1e-6
"""ngspice at reltol 1e-9; its diodes give way by a current over 1e9 siemens."""


def on(program: energy.Program, target: str) -> Session:
    source = Source(program.module.clone(), program.context, "energy", None, graph_level=False)
    return compile_model(source, CompileOptions(target=target)).session()


def run(session: Session, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [spec.name for spec in session.program.outputs]
    return dict(zip(names, session.run(None, feeds), strict=True))


def equilibrium(method: str, steps: int) -> tuple[energy.Program, dict[str, np.ndarray]]:
    """A network with a nudged phase, its slopes, and inputs."""
    rng = np.random.default_rng(0)
    model = energy.Model()
    x, y = model.real(12, name="x", clamped=True), model.real(2, 2, name="y", clamped=True)
    hidden, out = model.real(9, box=(0.0, 1.0), name="hidden"), model.real(2, 2, name="out")
    w1, w2 = (model.constant("w", rng.normal(0, 0.2, shape)) for shape in ((12, 9), (9, 4)))
    model.quad(hidden)
    model.quad(out, 1.5, rng.normal(size=(2, 2)))
    model.couple(x, w1, hidden)
    model.couple(hidden, w2, out)
    model.linear(hidden, rng.normal(size=9))
    model.cost(out, y)
    free = model.state("batch").relax(method, steps, dt=0.2)
    up, down = (free.relax(method, steps, dt=0.2, nudge=nudge) for nudge in (0.25, -0.25))
    slopes = energy.contrast([up, down], [w1, w2], scale=1 / 0.25)
    inputs = {"x": rng.random((5, 12)), "y": rng.random((5, 2, 2))}
    inputs |= {"hidden": np.zeros((5, 9)), "out": np.zeros((5, 2, 2))}
    return model.program(answer=free[out], nudged=up[hidden], dw1=slopes[0], dw2=slopes[1]), inputs


@pytest.mark.parametrize(("method", "steps"), [("block_min", 4), ("flow", 6)])
def test_ideal_tiles_relax_as_the_energy_says(method: str, steps: int) -> None:
    program, inputs = equilibrium(method, steps)
    expected, session = program.interpret(**inputs), on(program, "xbar-sim")
    found = run(session, program.feeds(**inputs))
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=EXACT, rtol=EXACT)


def test_devices_put_their_noise_into_every_step() -> None:
    program, inputs = equilibrium("block_min", 4)
    session, feeds, exact = on(program, "xbar-pcm"), program.feeds(**inputs), program.interpret(**inputs)
    assert session.analog is not None
    answers = []
    for seed in range(8):
        session.analog.set(3600.0, seed)
        answers.append(run(session, feeds)["answer"])
    spread = np.std(answers, 0).max()
    assert 1e-3 < spread < 0.5
    assert np.abs(np.mean(answers, 0) - exact.answer).max() < 5 * spread
    session.analog.set(3600.0, 0)
    np.testing.assert_array_equal(run(session, feeds)["answer"], answers[0])


def resistors(box: tuple[float, float] | None) -> tuple[energy.Model, energy.Program, dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    model = energy.Model()
    source = model.real(6, name="source", clamped=True)
    hidden, out = model.real(8, box=box, name="hidden"), model.real(3, name="out")
    model.resistors(source, rng.uniform(0.1, 1, (6, 8)) * (rng.random((6, 8)) < 0.7), hidden)
    model.resistors(hidden, rng.uniform(0.1, 1, (8, 3)), out)
    model.linear(hidden, rng.normal(0, 0.3, 8))
    settled = model.state(1).relax("block_min", 80)
    program = model.program(at_hidden=settled[hidden], at_out=settled[out])
    inputs = {"source": rng.normal(0, 2, (1, 6)), "hidden": np.zeros((1, 8)), "out": np.zeros((1, 3))}
    return model, program, inputs


@pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed (Debian package ngspice)")
@pytest.mark.parametrize("box", [None, (0.0, 0.6)])
def test_a_resistor_network_settles_as_in_ngspice(box: tuple[float, float] | None, tmp_path: Path) -> None:
    model, program, inputs = resistors(box)
    file = tmp_path / "network.cir"
    file.write_text(netlist(model, source=inputs["source"][0]))
    done = subprocess.run(["ngspice", "-b", str(file)], capture_output=True, text=True, check=False, timeout=120)
    volts = read_voltages(model, done.stdout)
    settled = program.interpret(**inputs)
    found = run(on(program, "xbar-sim"), program.feeds(**inputs))
    for name in ("hidden", "out"):
        np.testing.assert_allclose(settled[f"at_{name}"][0], volts[name], atol=SPICE)
        np.testing.assert_allclose(found[f"at_{name}"][0], volts[name], atol=EXACT)
    if box is not None:
        assert ((settled.at_hidden == box[0]) | (settled.at_hidden == box[1])).any()


def test_what_no_netlist_holds_and_what_no_tile_relaxes_is_named() -> None:
    model, _, _ = resistors(None)
    with pytest.raises(Error, match=r"E634.*source needs 6 voltages"):
        netlist(model)
    spins = energy.Model()
    spins.couple(spins.spin(2, name="s"), [[0, 1], [1, 0]])
    with pytest.raises(Error, match=r"E634.*s is spin"):
        netlist(spins)
    with pytest.raises(Error, match=r"E634.*printed no voltage of hidden\[0\]"):
        read_voltages(model, "v(n0_0) = 1.0")
    bad = energy.Model()
    x, y = bad.real(2, name="x", clamped=True), bad.real(2, name="y")
    bad.resistors(x, -np.ones((2, 2)), y)
    program = bad.program(y1=bad.state(1).relax("block_min", 1)[y])
    with pytest.raises(Error, match="E608"):
        on(program, "xbar-sim")


def test_what_stays_on_the_cpu_is_told_with_the_reason() -> None:
    model, x = energy.linear_system(np.eye(3), np.ones(3))
    sampled = model.state("batch").sample(sweeps=2, rule="ou_exact", dt=1.0)
    relaxed = model.state("batch").relax("bifurcation", 2, dt=0.1)
    for program, reason in (
        (model.program(last=sampled.last[x]), "rule ou_exact"),
        (model.program(last=relaxed[x]), "method bifurcation (only"),
    ):
        source = Source(program.module.clone(), program.context, "energy", None, graph_level=False)
        compiled = compile_model(source, CompileOptions(target="xbar-pcm"))
        assert len([hint for hint in compiled.report.hints if reason in hint]) == 1
