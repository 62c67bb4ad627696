"""Samplers of `energy` draw from the right distribution: all moments of small random models against enumeration.

The same test must flag sweeps that update neighbours at once. Spins run natively and, to the bit, in the interpreter.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from neuc.compiler.energy import Model, Variable
from neuc.dialects.interp import energy_random
from neuc.errors import Error

MAX_Z = 4.5
"""Largest of about 40 z-scores: exceeded by chance with probability 3e-4."""
KL_SLACK = 1.25
"""KL of a histogram against the model, over that of independent draws, whose own spread is some per cent."""
SIDE, SPINS = 4, 16
CHAINS, SWEEPS, WARMUP = 64, 1500, 100
FIRST, SECOND = (
    np.array([a for a in range(SPINS) if a % SIDE < SIDE - 1] + list(range(SPINS - SIDE))),
    np.array([a + 1 for a in range(SPINS) if a % SIDE < SIDE - 1] + list(range(SIDE, SPINS))),
)
BETA = 0.8


def random_model(seed: int) -> tuple[Model, Variable, np.ndarray]:
    """A 4 x 4 grid with random couplings and fields, and −F of all 2^16 states."""
    rng = np.random.default_rng(seed)
    w, h = rng.normal(0, 0.6, len(FIRST)).astype(np.float32), rng.normal(0, 0.3, SPINS).astype(np.float32)
    model = Model()
    x = model.spin(SPINS, name="x")
    model.edges(x, FIRST, SECOND, w)
    model.linear(x, h)
    states = all_spins(SPINS)
    return model, x, (states[:, FIRST] * states[:, SECOND]) @ w + states @ h


def all_spins(count: int) -> np.ndarray:
    """Every state, site 0 the lowest bit."""
    return ((np.arange(1 << count)[:, None] >> np.arange(count)) & 1) * 2 - 1


def boltzmann(score: np.ndarray) -> np.ndarray:
    p = np.exp(BETA * (score - score.max()))
    return p / p.sum()


def max_z(per_chain: np.ndarray, exact: np.ndarray) -> float:
    """The largest deviation in standard errors, those from the spread over chains."""
    error = per_chain.std(0, ddof=1) / np.sqrt(len(per_chain))
    return float(np.abs((per_chain.mean(0) - exact) / error).max())


def kl(counts: np.ndarray, p: np.ndarray) -> float:
    q = counts / counts.sum()
    seen = q > 0
    return float((q[seen] * np.log(q[seen] / p[seen])).sum())


@pytest.mark.parametrize("rule", ["gibbs", "metropolis"])
@pytest.mark.parametrize("seed", [7, 8])
def test_spins(rule: str, seed: int) -> None:
    model, x, score = random_model(seed)
    samples = model.init(CHAINS).sample(SWEEPS, BETA, warmup=WARMUP, rule=rule)
    program = model.program(
        sums=samples.sums(x),
        pairs=samples.pairs(x, FIRST, SECOND),
        histogram=samples.histogram(x),
        last=samples.last[x],
    )
    found, p, states = program.run(seed=seed), boltzmann(score), all_spins(SPINS)
    kept = SWEEPS - WARMUP
    exact = np.concatenate([p @ states, p @ (states[:, FIRST] * states[:, SECOND])])
    assert max_z(np.concatenate([found.sums, found.pairs], 1) / kept, exact) < MAX_Z
    counts = found.histogram.sum(0)
    assert counts.sum() == CHAINS * kept
    if rule == "gibbs":
        # Neighbouring sweeps are alike, so a chain's histogram is that of fewer draws: compare every 4th.
        thinned = model_histogram(seed, thin=4)
        independent = np.random.default_rng(99).multinomial(thinned.sum(), p)
        assert kl(thinned, p) < KL_SLACK * kl(independent, p)


def model_histogram(seed: int, thin: int) -> np.ndarray:
    model, x, _ = random_model(seed)
    samples = model.init(CHAINS).sample(SWEEPS * thin, BETA, warmup=WARMUP, thin=thin)
    return model.program(histogram=samples.histogram(x)).run(seed=seed + 100).histogram.sum(0)


def test_updating_neighbours_at_once_is_flagged() -> None:
    """The control: a sweep over all sites at once, drawn with the same words, fails the same test by far."""
    _, _, score = random_model(7)
    rng = np.random.default_rng(7)
    w, h = rng.normal(0, 0.6, len(FIRST)), rng.normal(0, 0.3, SPINS)
    coupling = np.zeros((SPINS, SPINS))
    coupling[FIRST, SECOND] = coupling[SECOND, FIRST] = w
    x, sums, pairs = np.ones((CHAINS, SPINS)), np.zeros((CHAINS, SPINS)), np.zeros((CHAINS, len(FIRST)))
    for sweep in range(SWEEPS):
        numbers = energy_random.words(SPINS, sweep, CHAINS, energy_random.SITES, 7)
        argument = (2 * BETA * (x @ coupling + h)).astype(np.float32)
        x = np.where(numbers < energy_random.sigmoid_threshold(argument), 1.0, -1.0)
        if sweep >= WARMUP:
            sums, pairs = sums + x, pairs + x[:, FIRST] * x[:, SECOND]
    p, states = boltzmann(score), all_spins(SPINS)
    exact = np.concatenate([p @ states, p @ (states[:, FIRST] * states[:, SECOND])])
    assert max_z(np.concatenate([sums, pairs], 1) / (SWEEPS - WARMUP), exact) > 2 * MAX_Z


def test_blocks_that_join_neighbours_are_refused() -> None:
    model, x, _ = random_model(7)
    program = model.program(x=model.init(1).sample(10, 1.0).last[x])
    order = "dense<[" + ", ".join(map(str, range(SPINS))) + f"]> : tensor<{SPINS}xi32>"
    text = program.text().replace("energy.init(%", "energy.init(%", 1)
    lines = text.splitlines()
    made = next(i for i, line in enumerate(lines) if "energy.model(" in line)
    name = lines[made].split("=")[0].strip()
    lines.insert(made + 1, f"%order = store.constant value {order} : tensor<{SPINS}xi32>")
    colored = f"%c = energy.color({name}, %order) {{blocks = [0, {SPINS}]}}"
    lines.insert(made + 2, f"{colored} : (!energy.model, tensor<{SPINS}xi32>) -> !energy.model")
    text = "\n".join(line.replace(f"energy.sample({name},", "energy.sample(%c,") for line in lines)
    edited = program.edited(text)
    for run in (edited.interpret, edited.run):
        with pytest.raises(Error, match=r"E603.*share a factor and are in one block"):
            run()


def test_mixed_third_order_models() -> None:
    """Spins and categories, tables of three variables."""
    rng = np.random.default_rng(5)
    model = Model()
    s, c = model.spin(3, name="s"), model.categories(3, 3, name="c")
    pair = rng.normal(0, 0.5, (2, 3)).astype(np.float32)
    triple = rng.normal(0, 0.5, (2, 3, 3)).astype(np.float32)
    spins = rng.normal(0, 0.5, 1).astype(np.float32)
    bias = rng.normal(0, 0.3, (3, 3)).astype(np.float32)
    model.table([s, c], pair, [[0, 1], [0, 1]])
    model.table([s, c, c], triple, [[0, 2], [0, 1], [1, 2]])
    model.table([s, s, s], spins, [[0], [1], [2]])
    model.linear(c, bias)
    samples = model.init(CHAINS).sample(SWEEPS, BETA, warmup=WARMUP)
    found = model.program(s=samples.sums(s), c=samples.sums(c)).run(seed=3)
    values = list(itertools.product(*[(-1, 1)] * 3, *[range(3)] * 3))
    score = np.array(
        [
            a[0] * pair[0, a[3]]
            + a[1] * pair[1, a[4]]
            + a[0] * triple[0, a[3], a[4]]
            + a[2] * triple[1, a[4], a[5]]
            + a[0] * a[1] * a[2] * spins[0]
            + sum(bias[k, a[3 + k]] for k in range(3))
            for a in values
        ]
    )
    p, states = boltzmann(score), np.array(values)
    counts = np.stack([[p @ (states[:, 3 + k] == v) for v in range(3)] for k in range(3)])
    exact = np.concatenate([p @ states[:, :3], counts.reshape(-1)])
    per_chain = np.concatenate([found.s, found.c.reshape(CHAINS, -1)], 1) / (SWEEPS - WARMUP)
    assert max_z(per_chain, exact) < MAX_Z
