"""Sweeps over spins and categories with tables equal the interpreter bit for bit, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import runnable_isas
from neuc.backends.cpu.target import isa_text
from neuc.compiler.energy import Model, Program
from neuc.errors import Error

ISAS = [isa_text(isa) for isa in runnable_isas()]


def mixed() -> Program:
    """Spins, categories and clamped categories beyond 127; factors of one, two and three; fields and edges."""
    rng = np.random.default_rng(5)
    model = Model()
    s, c = model.spin(3, name="s"), model.categories(3, 3, name="c")
    d = model.categories(200, 2, name="d", clamped=True)
    model.table([s, c], rng.normal(0, 0.5, (2, 3)), [[0, 1], [0, 1]])
    model.table([s, c, c], rng.normal(0, 0.5, (1, 3, 3)), [[0, 2], [0, 1], [1, 2]])
    model.table([s, s, s], rng.normal(size=1), [[0], [1], [2]])
    model.table([c, d], rng.normal(size=(1, 3, 200)), [[2], [1]])
    model.linear(c, rng.normal(size=(3, 3)))
    model.edges(s, [0], [1], [0.3])
    model.linear(s, [0.1, 0.2, 0.3])
    samples = model.init(5).sample(30, (0.3, 0.9), warmup=2, thin=3)
    last = samples.last
    return model.program(sums=samples.sums(s), counts=samples.sums(c), s=last[s], c=last[c], d=last[d])


@pytest.mark.parametrize("isa", ISAS)
def test_bits_equal_the_interpreters(isa: str) -> None:
    program = mixed()
    expected = program.interpret(seed=3)
    session = program.session(isa=isa, threads=2)
    for name, values in zip(expected, session.run(list(expected), program.feeds(seed=3))):
        np.testing.assert_array_equal(values, expected[name])


def test_states_that_are_given() -> None:
    model = Model()
    c = model.categories(4, 6, name="c")
    model.table([c, c], np.eye(4)[None], [np.arange(5), np.arange(1, 6)])
    program = model.program(last=model.state(2).sample(7, 0.9).last[c])
    start = np.array([[0, 1, 2, 3, 0, 1], [3, 3, 3, 3, 3, 3]])
    np.testing.assert_array_equal(program.run(seed=8, c=start).last, program.interpret(seed=8, c=start).last)


def test_what_the_kernels_do_not_take_is_said() -> None:
    model = Model()
    s, c = model.spin(4, 4, name="s"), model.categories(3, 16, name="c")
    model.grid(s, 1.0)
    model.table([s, c], np.ones((1, 3)), [np.arange(16), np.arange(16)])
    with pytest.raises(Error, match=r"E615.*a stencil and tables"):
        model.program(last=model.init(1).sample(3).last[s]).run()
    model = Model()
    c = model.categories(3, 2, name="c")
    model.linear(c, np.zeros((2, 3)))
    samples = model.init(1).sample(3, rule="metropolis")
    with pytest.raises(Error, match=r"E252.*"):
        model.program(last=samples.last[c]).run()
