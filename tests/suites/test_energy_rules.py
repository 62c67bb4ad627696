"""Learning rules beside the first three: their slopes against definitions, what they learn, convolutions, bad input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_digits

from neuc import energy
from neuc.compiler.energy.learning_engines import NativeEngine, NumpyEngine, Rates
from neuc.compiler.energy.learning_maps import ConvMap, Sizes
from neuc.compiler.energy.learning_methods import METHODS
from neuc.compiler.energy.learning_rules import Backpropagation, Layers, Network, Rule, maps_in, normalised
from neuc.errors import Error

STEP = 1e-5
DIFFERENCE_TOLERANCE = 1e-7
"""Central differences with step 1e-5 in f64, on numbers of size 1."""
NATIVE_TOLERANCE = 2e-5
"""f32 against f32 in another order of sums, slopes of size 1 and below."""
WEIGHT_TOLERANCE = 1e-6
"""f32: a few roundings a step of weights of size 1."""
SCORE_TOLERANCE = 2e-3
"""f32, up to 20 sweeps in another order of sums, on scores up to 10."""
CHANCE = 0.1
RNG = np.random.default_rng
SIZES = (8, 7, 4)
IMAGES: Sizes = ((1, 8, 8), energy.Conv(6, 3, stride=2, pad=1), energy.Conv(8, 3), 10)


def batch(count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(3)
    return rng.random((count, SIZES[0])), np.eye(SIZES[-1])[rng.integers(0, SIZES[-1], count)]


def precise(layers: Layers) -> Network:
    """In f64, with biases that are not 0."""
    rng = RNG(4)
    made = [(w.astype(np.float64), rng.normal(0, 0.1, b.shape)) for w, b in layers]
    return Network(made, maps_in(layers))


def flat(layers: Layers) -> np.ndarray:
    return np.concatenate([a.reshape(-1) for layer in layers for a in layer])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def differences(loss: Callable[[Network], float], layers: Layers, places: Sequence[tuple[int, int]]) -> list[float]:
    """Central differences of a loss by (layer, flat weight number)."""
    found: list[float] = []
    for number, place in places:
        values: list[float] = []
        for sign in (1, -1):
            moved = [(w.copy(), b) for w, b in layers]
            moved[number][0].reshape(-1)[place] += sign * STEP
            values.append(float(loss(Network(moved, maps_in(layers)))))
        found.append((values[0] - values[1]) / (2 * STEP))
    return found


def test_holomorphic_error_falls_with_the_number_of_nudges() -> None:
    """The error is O(β^N): 4 times smaller at half the radius for N = 2, and smaller with more nudges."""
    x, y = batch()
    steps: dict[str, Any] = {"free_steps": 200, "nudged_steps": 100}
    layers = precise(energy.HolomorphicEquilibriumPropagation().start(SIZES, RNG(0)))
    settled = energy.HolomorphicEquilibriumPropagation(**steps)
    places = [(0, 3), (0, 40), (1, 5)]
    exact = np.array(differences(lambda at: 0.5 * ((settled.scores(at, x) - y) ** 2).sum(1).mean(), layers, places))

    def error(beta: float, nudges: int) -> float:
        rule = energy.HolomorphicEquilibriumPropagation(beta=beta, nudges=nudges, **steps)
        found = rule.slopes(layers, x, y, RNG(0))
        return float(np.abs([found[n][0].reshape(-1)[k] for n, k in places] - exact).max())

    assert error(0.1, 2) / error(0.05, 2) == pytest.approx(4.0, rel=0.1)
    assert error(0.1, 4) < 0.1 * error(0.1, 2)
    assert error(0.1, 8) < DIFFERENCE_TOLERANCE


def test_contrastive_hebbian_holds_the_output_where_an_endless_nudge_would() -> None:
    x, y = batch()
    rule = energy.ContrastiveHebbian(free_steps=60, nudged_steps=60)
    layers = precise(rule.start(SIZES, RNG(0)))
    free = rule.settle(layers, x, rule.rest(layers, len(x)), rule.free_steps)
    nudged = rule.settle(layers, x, free, rule.nudged_steps, 1e9, y)
    pairs = [free[0].T @ free[1] - nudged[0].T @ nudged[1], x.T @ (free[0] - nudged[0])]
    found = rule.slopes(layers, x, y, RNG(0))
    np.testing.assert_allclose(found[1][0], pairs[0] / len(x), atol=1e-6)
    np.testing.assert_allclose(found[0][0], pairs[1] / len(x), atol=1e-6)


def test_contrastive_divergence_goes_up_the_likelihood() -> None:
    """Against the slope of −ln P(data) by enumeration of a small machine."""
    rule, rng = energy.ContrastiveDivergence(), RNG(1)
    w, c, a = rng.normal(0, 0.5, (5, 4)), rng.normal(0, 0.3, 4), rng.normal(0, 0.3, (5, 1))
    layers: Layers = [(w, c), (a, np.zeros(1))]
    x, y = (rng.random((40, 3)) < 0.6).astype(float), np.eye(2)[rng.integers(0, 2, 40)]
    found = sum(flat(rule.slopes(layers, x, y, RNG(k))) for k in range(60))
    pixels = (np.arange(8)[:, None] >> np.arange(3)) & 1
    states = np.concatenate([np.repeat(pixels, 2, 0), np.tile(np.eye(2), (8, 1))], 1)

    def by_parameters(v: np.ndarray) -> tuple[np.ndarray, ...]:
        hidden = 1 / (1 + np.exp(-(v @ w + c)))
        return v[:, :, None] * hidden[:, None], hidden, v

    score = np.logaddexp(0, states @ w + c).sum(1) + states @ a[:, 0]
    p = np.exp(score - score.max())
    p /= p.sum()
    data, model = by_parameters(np.concatenate([x, y], 1)), by_parameters(states)
    exact = [np.tensordot(p, m, 1) - d.mean(0) for d, m in zip(data, model)]
    assert cosine(np.asarray(found)[: 20 + 4 + 5], np.concatenate([e.reshape(-1) for e in exact])) > 0.8


def test_incremental_predictive_coding_begins_as_one_step_and_goes_on_from_there() -> None:
    x, y = batch()
    rule, one = energy.IncrementalPredictiveCoding(steps=3), energy.PredictiveCoding(steps=1)
    layers = precise(one.start(SIZES, RNG(0)))
    passes = list(rule.passes(layers, x, y, RNG(0)))
    np.testing.assert_allclose(flat(passes[0]), flat(one.slopes(layers, x, y, RNG(0))))
    three = energy.PredictiveCoding(steps=3).slopes(layers, x, y, RNG(0))
    np.testing.assert_allclose(flat(passes[-1]), flat(three))


def test_scaled_predictions_do_not_depend_on_width() -> None:
    x = RNG(0).standard_normal((200, 30)).astype(np.float32)
    spreads: list[float] = []
    for width in (32, 512):
        rule = energy.ScaledPredictiveCoding()
        layers = rule.scaled(rule.start((30, width, width, 10), RNG(1)))
        hidden = x
        for w, b in layers[:-1]:
            hidden = np.maximum(hidden, 0.0) @ w + b if hidden is not x else hidden @ w + b
        spreads.append(float(hidden.std()))
    assert spreads[1] == pytest.approx(spreads[0], rel=0.25)


def test_self_contrast_is_the_slope_of_each_layers_loss() -> None:
    x, y = batch()
    rule = energy.SelfContrastive(theta=0.6)
    layers = precise(rule.start(SIZES, RNG(0)))
    other = x[RNG(7).permutation(len(x))]
    reads = normalised(np.concatenate([x + x, x + other]))
    sign = np.repeat([1.0, -1.0], len(x))

    def loss(at: Layers) -> float:
        w, b = at[0]
        goodness = (np.maximum(reads @ w + b, 0.0) ** 2).mean(1)
        return float(np.logaddexp(0.0, -sign * (goodness - rule.theta)).mean())

    found = rule.slopes(layers, x, y, RNG(7))[0][0].reshape(-1)
    np.testing.assert_allclose(found[[2, 30]], differences(loss, layers, [(0, 2), (0, 30)]), atol=DIFFERENCE_TOLERANCE)


def test_dendrites_come_to_agree_with_backpropagation() -> None:
    """Feedback starts at random: directions of the first layer agree little at first, and well after learning."""
    pixels, labels = load_digits(return_X_y=True)
    x, t = (np.asarray(pixels) / 16)[:600], np.asarray(labels)[:600]
    y, rule = np.eye(10)[t], energy.DendriticLearning(loss=0.02)

    def agreement(layers: Layers) -> float:
        ups = rule.parts(layers)[0]
        somas, basal = rule.activities(layers, x)
        exact = x.T @ (((basal[-1] - y) @ ups[1][0].T) * (1 - somas[0] ** 2)) / len(x)
        local = rule.slopes(layers, x, y, RNG(0))[0][0] - rule.loss * ups[0][0]
        return cosine(exact.reshape(-1), local.reshape(-1))

    trained = energy.train((64, 32, 10), x, t, rule, epochs=100, engine="numpy")
    assert agreement(rule.start((64, 32, 10), RNG(0))) < 0.5
    assert agreement(trained.layers) > 0.9
    assert trained.accuracy(x, t) > 0.9


def test_a_neuron_with_dendrites_solves_exclusive_or() -> None:
    x, t = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]), np.array([0, 1, 1, 0])
    assert all(
        energy.train((2, 6, 2), x, t, "dendritic", epochs=600, batch=4, seed=seed, rate=0.2, engine="numpy").accuracy(
            x, t
        )
        == 1.0
        for seed in range(3)
    )


def test_a_step_of_a_stream_raises_what_comes_and_lowers_what_does_not() -> None:
    """Against the step as Hinton 2022, section 3.4, has it, in numpy."""
    learner = energy.StreamLearner(3, 5, rate=0.1, theta=0.7, seed=1)
    w, b, h = learner.w.astype(np.float64), learner.b.astype(np.float64), learner.h.astype(np.float64)
    for symbol in (0, 2, 1, 1):
        reads = np.concatenate([np.tile(normalised(h[None]), (3, 1)), np.eye(3)], 1)
        activity = np.maximum(reads @ w + b, 0.0)
        goodness = (activity**2).mean(1)
        assert learner.step(symbol) == goodness.argmax()
        right = np.eye(3)[symbol]
        push = right / (1 + np.exp(goodness - 0.7)) - (1 - right) / 2 / (1 + np.exp(0.7 - goodness))
        w, b = w + 0.1 * reads.T @ (push[:, None] * activity), b + 0.1 * push @ activity
        h = activity[symbol]
        for found, expected in ((learner.w, w), (learner.b, b), (learner.h, h)):
            np.testing.assert_allclose(found, expected, atol=WEIGHT_TOLERANCE)
    assert learner.step(2, learn=False) in range(3)
    np.testing.assert_allclose(learner.w, w, atol=WEIGHT_TOLERANCE)


def test_a_stream_is_learnt_step_by_step() -> None:
    """The next symbol depends on the two before: who remembers one only does little better than chance."""
    rng, symbols = RNG(0), [0, 1]
    for _ in range(4000):
        noisy = rng.random() < 0.05
        symbols.append(int(rng.integers(4)) if noisy else (symbols[-2] + 2 * symbols[-1] + 1) % 4)
    learner = energy.StreamLearner(4, 64, rate=0.01)
    right = [learner.step(symbol) == symbol for symbol in symbols]
    pairs = np.zeros((4, 4))
    np.add.at(pairs, (symbols[:-1], symbols[1:]), 1)
    best_of_one = pairs.max(1).sum() / pairs.sum()
    assert best_of_one < 0.4
    assert np.mean(right[-2000:]) > best_of_one + 0.15
    with pytest.raises(Error, match="NEUC-E616"):
        learner.step(4)


@pytest.mark.parametrize("method", ["chl", "hep", "cd", "ipc", "mupc", "scff", "dendritic"])
def test_a_few_digits_are_learnt_and_the_onnx_file_answers_alike(method: str, tmp_path: Path) -> None:
    pixels, labels = load_digits(return_X_y=True)
    x, t = (np.asarray(pixels) / 16)[:500].astype(np.float32), np.asarray(labels)[:500]
    sizes = (64, 48, 48, 10) if method == "scff" else (64, 48, 10)
    trained = energy.train(sizes, x, t, method, epochs=25 if method == "cd" else 8, engine="numpy")
    assert trained.accuracy(x, t) > 5 * CHANCE
    trained.to_onnx(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    scores = np.asarray(session.run(["scores"], {"image": x[:50]})[0])
    np.testing.assert_allclose(scores, trained.scores(x[:50]), rtol=SCORE_TOLERANCE, atol=SCORE_TOLERANCE)


FEWER: dict[str, dict[str, float]] = {
    "ep": {"free_steps": 6, "nudged_steps": 3},
    "chl": {"free_steps": 6, "nudged_steps": 3},
    "pc": {"steps": 4},
    "mupc": {"steps": 4},
    "hep": {"free_steps": 4, "nudged_steps": 3, "nudges": 5},
    "cd": {"sweeps": 2},
}
"""Options with which programs are short."""
STEPS = 3
QUICK = ("ep", "pc", "ff", "cd")
"""Tested by default; of each kind of program one."""
DENSE = {method: (8, 7, 4) if method == "cd" else (8, 7, 6, 4) for method in METHODS if method != "ipc"}


@pytest.mark.parametrize(
    ("method", "sizes"),
    [
        *((method, DENSE[method]) for method in QUICK),
        *(pytest.param(m, sizes, marks=pytest.mark.slow) for m, sizes in DENSE.items() if m not in QUICK),
        *(
            pytest.param(m, IMAGES, marks=pytest.mark.slow)
            for m in ("ep", "pc", "chl", "mupc", "hep", "dendritic", "bp")
        ),
    ],
)
def test_generated_code_computes_the_rules_slopes_and_the_optimisers_steps(method: str, sizes: Sizes) -> None:
    """Some steps after another, on batches of a size that fills no vector."""
    rule: Rule = METHODS[method](**FEWER.get(method, {}))  # type: ignore[arg-type]
    layers = rule.start(sizes, RNG(0))
    inputs, classes = maps_in(layers)[0].inputs if sizes is IMAGES else 8, 10 if sizes is IMAGES else 4
    native = NativeEngine(rule, layers, (21, inputs, classes))
    copied = Network([(w.copy(), b.copy()) for w, b in layers], maps_in(layers))
    optimiser, rates = NumpyEngine(rule, copied), Rates(rule)
    for step in range(STEPS):
        x = RNG(step).random((21, inputs)).astype(np.float32)
        y = np.eye(classes, dtype=np.float32)[RNG(step).integers(0, classes, 21)]
        expected = flat(rule.slopes(native.layers, x, y, RNG(step)))
        native.step(x, y, RNG(step), step)
        np.testing.assert_allclose(flat(native.slopes), expected, atol=NATIVE_TOLERANCE)
        optimiser.descend([a for layer in native.slopes for a in layer], *rates.next(step))
        np.testing.assert_allclose(flat(native.layers), flat(optimiser.layers), atol=WEIGHT_TOLERANCE)


def test_generated_code_makes_the_steps_of_incremental_predictive_coding() -> None:
    """Each step of the latents sees the weights that the one before it left."""
    rule = energy.IncrementalPredictiveCoding(steps=3, adaptive=False, rate=0.1)
    x, y = (a.astype(np.float32) for a in batch(21))
    layers = rule.start((8, 9, 7, 4), RNG(0))
    native, numpy = NativeEngine(rule, layers, (21, 8, 4)), NumpyEngine(rule, layers)
    for _ in range(STEPS):
        native.step(x, y, RNG(0), 0)
        numpy.step(x, y, RNG(0), 0)
    np.testing.assert_allclose(flat(native.layers), flat(numpy.layers), atol=WEIGHT_TOLERANCE)


@pytest.mark.parametrize("method", ["ep", "pc", "bp"])
def test_convolutions_learn_and_leave_as_onnx(method: str, tmp_path: Path) -> None:
    pixels, labels = load_digits(return_X_y=True)
    x, t = (np.asarray(pixels) / 16)[:400].astype(np.float32), np.asarray(labels)[:400]
    options = {"rate": 0.5, "free_steps": 10, "nudged_steps": 5} if method == "ep" else {}
    trained = energy.train(IMAGES, x, t, method, epochs=6, batch=20, **options)
    assert trained.accuracy(x, t) > 3 * CHANCE
    trained.to_onnx(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    scores = np.asarray(session.run(["scores"], {"image": x[:30]})[0])
    expected = trained.scores(x[:30])
    if method == "ep":  # the file settles in `answer_steps` sweeps, as the network does
        assert (scores.argmax(1) == expected.argmax(1)).mean() > 0.9
    np.testing.assert_allclose(scores, expected, atol=SCORE_TOLERANCE)


def test_the_places_of_sites_in_patches_are_the_patches_turned_around() -> None:
    map_ = maps_in(energy.PredictiveCoding().start(IMAGES, RNG(0)))[0]
    assert isinstance(map_, ConvMap)
    for site, places in enumerate(map_.landings):
        np.testing.assert_array_equal(places[places >= 0], np.flatnonzero(map_.patches.reshape(-1) == site))


def test_convolutional_backpropagation_is_the_gradient() -> None:
    rule = Backpropagation(squared=True)
    layers = precise(rule.start(IMAGES, RNG(0)))
    x, y = RNG(1).random((4, 64)), np.eye(10)[[1, 2, 3, 9]]
    found = rule.slopes(layers, x, y, RNG(0))
    places = [(0, 3), (1, 100), (2, 7)]
    exact = differences(lambda at: 0.5 * ((rule.scores(at, x) - y) ** 2).sum(1).mean(), layers, places)
    np.testing.assert_allclose([found[n][0].reshape(-1)[k] for n, k in places], exact, atol=DIFFERENCE_TOLERANCE)


@pytest.mark.parametrize(
    ("sizes", "method"),
    [
        (((1, 8, 8), energy.Conv(4), 10), "ff"),
        (((1, 8, 8), energy.Conv(4, 9), 10), "ep"),
        ((64, energy.Conv(4), 10), "ep"),
        (((1, 8, 8), 20, energy.Conv(4), 10), "pc"),
        ((64, 20, 20, 10), "cd"),
    ],
)
def test_networks_that_cannot_be_are_named(sizes: Sizes, method: str) -> None:
    with pytest.raises(Error, match="NEUC-E618"):
        energy.train(sizes, np.zeros((20, 64)), np.arange(20) % 10, method, batch=10)


def test_steps_that_cannot_be_written_are_named() -> None:
    class Mine(energy.PredictiveCoding):
        """A rule of one's own."""

    layers = Mine().start(SIZES, RNG(0))
    with pytest.raises(Error, match=r"NEUC-E619.*Mine"):
        energy.training_step(Mine(), layers, (5, 8, 4))
    for shape in ((5, 9, 4), (5, 8, 3), (0, 8, 4)):
        with pytest.raises(Error, match="NEUC-E618"):
            energy.training_step(energy.PredictiveCoding(), layers, shape)
