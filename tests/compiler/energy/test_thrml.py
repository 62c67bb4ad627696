"""Scripts in THRML's terms: samples against enumeration, states and blocks as THRML has them, JAX's transformations."""

from __future__ import annotations

import itertools
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest

from neuc import thrml
from neuc.compiler.energy.thrml.models import (
    CategoricalEBMFactor,
    CategoricalGibbsConditional,
    DiscreteEBMFactor,
    IsingSamplingProgram,
    IsingTrainingSpec,
    SpinEBMFactor,
    SpinGibbsConditional,
    estimate_kl_grad,
    estimate_moments,
    hinton_init,
)
from neuc.errors import Error
from neuc.thrml import (
    Block,
    BlockGibbsSpec,
    CategoricalNode,
    FactorSamplingProgram,
    MomentAccumulatorObserver,
    SamplingSchedule,
    SpinNode,
    sample_states,
    sample_with_observation,
)

MAX_Z = 4.5
"""Largest of at most 30 z-scores: exceeded by chance with probability 2e-4."""
CHAINS = 256
SCHEDULE = SamplingSchedule(n_warmup=50, n_samples=60, steps_per_sample=2)


def chain_model(names: ModuleType, models: ModuleType, bias: np.ndarray, weight: np.ndarray):
    """THRML's first example, a chain of spins in two blocks, with numbers of its own."""
    nodes = [names.SpinNode() for _ in bias]
    edges = list(itertools.pairwise(nodes))
    model = models.IsingEBM(nodes, edges, bias, weight, np.float32(0.7))
    blocks = [names.Block(nodes[::2]), names.Block(nodes[1::2])]
    return nodes, edges, model, blocks, models.IsingSamplingProgram(model, blocks, clamped_blocks=[])


def numbers(count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(0, 0.5, count).astype(np.float32), rng.normal(0, 0.8, count - 1).astype(np.float32)


def max_z(samples: np.ndarray, exact: np.ndarray) -> float:
    """Deviations of means over [chains, samples, …] in standard errors over chains."""
    means = samples.mean(1)
    return float(np.abs((means.mean(0) - exact) / (means.std(0, ddof=1) / np.sqrt(len(means)))).max())


def test_ising_chain_against_enumeration() -> None:
    bias, weight = numbers()
    nodes, _, model, blocks, program = chain_model(thrml, thrml.models, bias, weight)
    (states,) = sample_states(1, program, SCHEDULE, hinton_init(0, model, blocks, (CHAINS,)), [], [Block(nodes)])
    assert states.shape == (CHAINS, SCHEDULE.n_samples, 5)
    assert states.dtype == np.bool_
    every = np.array(list(itertools.product([False, True], repeat=5)))
    energy = model.energy([every], [Block(nodes)])
    s = 2.0 * every - 1.0
    np.testing.assert_allclose(energy, -0.7 * (s @ bias + (s[:, :-1] * s[:, 1:]) @ weight), rtol=1e-5, atol=1e-6)
    p = np.exp(-energy) / np.exp(-energy).sum()
    found = 2.0 * states - 1.0
    found = np.concatenate([found, found[..., :-1] * found[..., 1:]], -1)
    assert max_z(found, np.concatenate([p @ s, p @ (s[:, :-1] * s[:, 1:])])) < MAX_Z
    again = sample_states(1, program, SCHEDULE, hinton_init(0, model, blocks, (CHAINS,)), [], [Block(nodes)])
    np.testing.assert_array_equal(again[0], states)


def test_spins_and_categories_of_third_order_with_clamped_nodes_against_enumeration() -> None:
    rng = np.random.default_rng(5)
    spins, cats, fixed = [SpinNode() for _ in range(3)], [CategoricalNode() for _ in range(2)], SpinNode()
    triple = rng.normal(0, 0.7, (2, 3, 3)).astype(np.float32)
    pair = rng.normal(0, 0.7, (3, 3)).astype(np.float32)
    bias = rng.normal(0, 0.5, (2, 3)).astype(np.float32)
    coupling = rng.normal(0, 0.7, 3).astype(np.float32)
    factors = [
        DiscreteEBMFactor([Block(spins[:2])], [Block([cats[0]] * 2), Block([cats[1]] * 2)], triple),
        DiscreteEBMFactor([Block(spins)], [Block([cats[0]] * 3)], pair),
        CategoricalEBMFactor([Block(cats)], bias),
        SpinEBMFactor([Block(spins), Block([fixed] * 3)], coupling),
    ]
    free = [(Block(spins),), Block(cats[:1]), Block(cats[1:])]
    spec = BlockGibbsSpec(free, [Block([fixed])])
    samplers = [SpinGibbsConditional(), CategoricalGibbsConditional(3), CategoricalGibbsConditional(3)]
    program = FactorSamplingProgram(spec, samplers, factors, [])
    init = [np.zeros((CHAINS, 3), bool), np.zeros((CHAINS, 1), np.uint8), np.zeros((CHAINS, 1), np.uint8)]
    clamp = [np.ones((CHAINS, 1), bool)]
    found = sample_states(7, program, SCHEDULE, init, clamp, [Block(spins), Block(cats), Block([fixed])])
    assert found[1].dtype == np.uint8
    assert found[2].all()
    every = np.array(list(itertools.product(range(2), range(2), range(2), range(3), range(3))))
    model = thrml.models.FactorizedEBM(factors)
    one = np.ones((len(every), 1), bool)
    energy = model.energy([every[:, :3] > 0, every[:, 3:], one], [Block(spins), Block(cats), Block([fixed])])
    s = 2.0 * every[:, :3] - 1
    direct = s @ coupling + sum(s[:, k] * pair[k, every[:, 3]] for k in range(3))
    direct += sum(s[:, k] * triple[k, every[:, 3], every[:, 4]] for k in range(2))
    direct += bias[0, every[:, 3]] + bias[1, every[:, 4]]
    np.testing.assert_allclose(energy, -direct, rtol=1e-5, atol=1e-6)
    p = np.exp(direct) / np.exp(direct).sum()
    exact = np.concatenate([p @ s, *(np.stack([p @ (every[:, 3 + k] == v) for v in range(3)]) for k in range(2))])
    drawn = [2.0 * found[0] - 1.0, *((found[1][..., k : k + 1] == np.arange(3)) * 1.0 for k in range(2))]
    assert max_z(np.concatenate(drawn, -1), exact) < MAX_Z


def test_moments_observers_and_gradients() -> None:
    bias, weight = numbers()
    nodes, edges, model, blocks, program = chain_model(thrml, thrml.models, bias, weight)
    init = hinton_init(0, model, blocks, ())
    means, pairs = estimate_moments(3, nodes, edges, program, SCHEDULE, init, [])
    observer = MomentAccumulatorObserver([[(n,) for n in nodes], edges], lambda x, _: [2.0 * v - 1.0 for v in x])
    sums, _ = sample_with_observation(3, program, SCHEDULE, init, [], observer.init(), observer)
    assert isinstance(sums, list)
    np.testing.assert_allclose(sums[0] / SCHEDULE.n_samples, means, atol=1e-12)
    np.testing.assert_allclose(sums[1] / SCHEDULE.n_samples, pairs, atol=1e-12)
    spec = IsingTrainingSpec(model, [Block(nodes)], [], [], blocks, SCHEDULE, SCHEDULE)
    data = np.ones((4, 5), bool)
    dw, db, positive, _ = estimate_kl_grad(5, spec, nodes, edges, [data], [], [], hinton_init(0, model, blocks, (64,)))
    np.testing.assert_array_equal(positive[1], np.ones((1, 4, 4)))
    # All-up data has the largest moments there are: likelihood rises with every weight and bias.
    assert (dw < 0).all()
    assert (db < 0).all()


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (lambda n: [Block(n)], "E603"),
        (lambda n: [Block(n[::2]), Block(n[:2])], "two blocks"),
        (lambda n: [Block(n[::2])], "in no block"),
        (lambda n: [Block([])], "empty"),
    ],
)
def test_blocks_that_cannot_be_swept(blocks, message: str) -> None:
    bias, weight = numbers()
    nodes, _, model, _, _ = chain_model(thrml, thrml.models, bias, weight)

    def run() -> None:
        program = IsingSamplingProgram(model, blocks(nodes), [])
        sample_states(0, program, SCHEDULE, [np.zeros(len(b), bool) for b in blocks(nodes)], [], [])

    with pytest.raises(Error, match=message):
        run()


def test_what_is_not_compiled_or_makes_no_sense_is_named() -> None:
    bias, weight = numbers()
    nodes, _, model, blocks, program = chain_model(thrml, thrml.models, bias, weight)
    with pytest.raises(Error, match=r"E639.*shape \[2\]"):
        sample_states(0, program, SCHEDULE, [np.zeros(2, bool), np.zeros(2, bool)], [], [])
    with pytest.raises(Error, match=r"E639.*makes no sense"):
        SamplingSchedule(0, 0, 1)
    with pytest.raises(Error, match=r"E639.*interaction groups"):
        FactorSamplingProgram(BlockGibbsSpec(blocks, []), [SpinGibbsConditional()] * 2, model.factors, [object()])
    made = FactorSamplingProgram(BlockGibbsSpec(blocks, []), [CategoricalGibbsConditional(2)] * 2, model.factors, [])
    with pytest.raises(Error, match=r"E639.*Categorical.*not compiled for SpinNode"):
        sample_states(0, made, SCHEDULE, hinton_init(0, model, blocks, ()), [], [])
    with pytest.raises(Error, match=r"E639.*key of float"):
        sample_states(0.5, program, SCHEDULE, hinton_init(0, model, blocks, ()), [], [Block(nodes)])


def test_the_names_are_those_of_one_module() -> None:
    """`neuc.thrml.pgm` is the module that `neuc.thrml` takes its nodes from, not a copy."""
    code = "import neuc.thrml.pgm as a, neuc.thrml as b, neuc.thrml.models.ising; assert a.SpinNode is b.SpinNode"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_script_of_thrml_runs_with_jax_and_agrees_with_thrml() -> None:
    """Real THRML and neuc, one model: all moments of both within their errors; jit, vmap and typed keys."""
    jax = pytest.importorskip("jax")
    real = pytest.importorskip("thrml")
    bias, weight = numbers()
    found = []
    for names in (real, thrml):
        models = pytest.importorskip("thrml.models") if names is real else thrml.models
        given = (jax.numpy.asarray(bias), jax.numpy.asarray(weight))
        nodes, _, model, blocks, program = chain_model(names, models, *given)
        schedule = names.SamplingSchedule(50, 60, 2)
        init = models.hinton_init(jax.random.key(0), model, blocks, (CHAINS,))
        keys = jax.random.split(jax.random.key(1), CHAINS)
        wanted = [names.Block(nodes)]

        def run(key, state, names=names, program=program, schedule=schedule, wanted=wanted):
            return names.sample_states(key, program, schedule, state, [], wanted)

        (states,) = jax.jit(jax.vmap(run))(keys, [jax.numpy.asarray(v) for v in init])
        assert states.shape == (CHAINS, 60, 5)
        found.append(2.0 * np.asarray(states) - 1.0)
    means = [np.concatenate([s, s[..., :-1] * s[..., 1:]], -1).mean(1) for s in found]
    error = np.sqrt(sum(m.var(0, ddof=1) for m in means) / CHAINS)
    assert (np.abs(means[0].mean(0) - means[1].mean(0)) / error).max() < MAX_Z
