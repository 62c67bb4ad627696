"""Learning rules: their slopes against the dialect's, differences and backpropagation; learning; bad input; ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import neuc
from neuc import energy
from neuc.compiler.energy.learning_rules import (
    Backpropagation,
    Layers,
    forward,
    glorot,
    label_appended,
    normalised,
)
from neuc.errors import Error

SLOPE_TOLERANCE = 1e-9
"""Both sides in f64; sums of tens of terms of size 1, the scale 1/β included."""
STEP = 1e-5
DIFFERENCE_TOLERANCE = 1e-7
"""Central differences with step 1e-5 in f64: truncation 1e-10, rounding 1e-11, on numbers of size 1."""
SCORE_TOLERANCE = 1e-4
"""f32, up to 20 sweeps in another order of sums, on scores of size 1 to 10."""
ORDER_TOLERANCE = 0.15
"""The next order is β = 0.08 times smaller, twice that on a quotient."""
CHANCE = 0.1
CLEAR_MARGIN = 0.2
"""Scores of two labels further apart than this cannot change places by rounding."""
SIZES = (12, 9, 7, 4)
RNG = np.random.default_rng


def batch(count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(3)
    return rng.random((count, SIZES[0])), np.eye(SIZES[-1])[rng.integers(0, SIZES[-1], count)]


def precise(layers: Layers) -> Layers:
    """In f64, with biases that are not 0."""
    rng = RNG(4)
    return [(w.astype(np.float64), rng.normal(0, 0.1, b.shape)) for w, b in layers]


def flat(layers: Layers) -> np.ndarray:
    return np.concatenate([a.reshape(-1) for layer in layers for a in layer])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def from_program(rule: object, layers: Layers, *, transposed: bool, **inputs: np.ndarray) -> np.ndarray:
    found = energy.learning_program(rule, layers, precise=True).interpret(**inputs)  # type: ignore[arg-type]
    slopes = [
        (found[f"dw{n}"].T if transposed else found[f"dw{n}"], found[f"db{n}"]) for n in range(1, len(layers) + 1)
    ]
    return flat(slopes)


@pytest.mark.parametrize("centred", [True, False])
def test_equilibrium_propagation_is_the_contrast_of_the_dialect(centred: bool) -> None:
    rule = energy.EquilibriumPropagation(centred=centred)
    layers, (x, y) = precise(rule.start(SIZES, RNG(0))), batch()
    zeros = {f"layer{n}": np.zeros((len(x), size)) for n, size in enumerate(SIZES[1:], 1)}
    np.testing.assert_allclose(
        flat(rule.slopes(layers, x, y, RNG(0))),
        from_program(rule, layers, transposed=False, x=x, y=y, **zeros),
        atol=SLOPE_TOLERANCE,
    )


def test_predictive_coding_is_the_gradient_of_the_dialect() -> None:
    rule = energy.PredictiveCoding()
    layers, (x, y) = precise(rule.start(SIZES, RNG(0))), batch()
    starts = {f"layer{n}": z for n, z in enumerate(forward(layers, x)[:-1], 1)}
    np.testing.assert_allclose(
        flat(rule.slopes(layers, x, y, RNG(0))),
        from_program(rule, layers, transposed=True, x=x, y=y, **starts),
        atol=SLOPE_TOLERANCE,
    )


def test_forward_forward_is_the_goodness_of_the_dialect() -> None:
    rule, (x, y) = energy.ForwardForward(theta=0.7), batch()
    layers = precise(rule.start(SIZES, RNG(0)))
    wrong = np.eye(SIZES[-1])[(y.argmax(1) + RNG(5).integers(1, SIZES[-1], len(y))) % SIZES[-1]]
    reads: dict[str, np.ndarray] = {}
    for name, labels in (("right", y), ("wrong", wrong)):
        a = label_appended(x, labels)
        for number, (w, b) in enumerate(layers, 1):
            reads[f"{name}{number}"] = normalised(a)
            a = np.maximum(reads[f"{name}{number}"] @ w + b, 0.0)
    np.testing.assert_allclose(
        flat(rule.slopes(layers, x, y, RNG(5))),
        0.5 * from_program(rule, layers, transposed=True, **reads),  # the dialect adds both kinds, the rule averages
        atol=SLOPE_TOLERANCE,
    )


def test_the_first_step_of_predictive_coding_is_backpropagations_direction() -> None:
    """The lower layer's error is dt times backpropagation's after one step from the predictions."""
    rule, (x, y) = energy.PredictiveCoding(steps=1, dt=0.01), batch()
    layers = precise(glorot((SIZES[0], 9, SIZES[-1]), RNG(0)))
    exact = Backpropagation(squared=True).slopes(layers, x, y, RNG(0))
    found = rule.slopes(layers, x, y, RNG(0))
    np.testing.assert_allclose(found[0][0] / rule.dt, exact[0][0], atol=SLOPE_TOLERANCE)
    assert cosine(flat(found[1:]), flat(exact[1:])) > 1 - rule.dt


def test_centred_equilibrium_propagation_goes_down_the_cost() -> None:
    """Against differences of ½|o − y|² through the settled state: the error is O(β²), one-sided O(β)."""
    x, y = batch()
    settled = energy.EquilibriumPropagation(answer_steps=100)
    layers = precise(settled.start((SIZES[0], 9, SIZES[-1]), RNG(0)))
    layers = [(0.3 * w, np.full(b.shape, 0.5)) for w, b in layers]
    for state in settled.settle(layers, x, settled.rest(layers, len(x)), settled.answer_steps):
        assert 0.05 < state.min() < state.max() < 0.95  # at the edges of the box the cost has kinks

    def cost() -> float:
        return float(0.5 * ((settled.scores(layers, x) - y) ** 2).sum(1).mean())

    numeric: list[np.ndarray] = []
    for array in (a for layer in layers for a in layer):
        slope = np.zeros_like(array)
        for at in np.ndindex(array.shape):
            kept = array[at]
            array[at] = kept + STEP
            up = cost()
            array[at] = kept - STEP
            slope[at] = (up - cost()) / (2 * STEP)
            array[at] = kept
        numeric.append(slope.reshape(-1))
    exact = np.concatenate(numeric)

    def error(beta: float, *, centred: bool) -> float:
        rule = energy.EquilibriumPropagation(beta=beta, free_steps=100, nudged_steps=100, centred=centred)
        return float(np.linalg.norm(flat(rule.slopes(layers, x, y, RNG(0))) - exact))

    assert error(0.04, centred=True) < 0.01 * np.linalg.norm(exact)
    assert error(0.08, centred=True) / error(0.04, centred=True) == pytest.approx(4.0, rel=ORDER_TOLERANCE)
    assert error(0.08, centred=False) / error(0.04, centred=False) == pytest.approx(2.0, rel=ORDER_TOLERANCE)


def test_backpropagations_slopes_equal_differences() -> None:
    rule, (x, y) = Backpropagation(), batch()
    layers = precise(rule.start(SIZES, RNG(0)))

    def loss() -> float:
        logits = rule.scores(layers, x)
        return float((np.log(np.exp(logits).sum(1)) - (logits * y).sum(1)).mean())

    found = rule.slopes(layers, x, y, RNG(0))
    for (w, _), (slope, _) in zip(layers, found, strict=True):
        for at in ((0, 0), (2, 3), (5, 1)):
            kept = w[at]
            w[at] = kept + STEP
            up = loss()
            w[at] = kept - STEP
            assert abs((up - loss()) / (2 * STEP) - slope[at]) < DIFFERENCE_TOLERANCE
            w[at] = kept


def digits() -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = load_digits(return_X_y=True)
    return np.asarray(pixels) / 16, np.asarray(labels)


LEARNERS = {"ep": (64, 32, 10), "pc": (64, 32, 10), "ff": (64, 48, 48, 10), "bp": (64, 32, 10)}


@pytest.mark.parametrize("method", LEARNERS)
def test_a_few_digits_are_learnt_and_the_onnx_file_answers_alike(method: str, tmp_path: Path) -> None:
    """Six times chance on unseen images after a few epochs over 500; the same answers where scores are clear."""
    images, labels = digits()
    held_out = images[500:800], labels[500:800]
    options: dict[str, Any] = {"answer_steps": 6} if method == "ep" else {}  # few sweeps: the file has a node for each
    trained = energy.train(
        LEARNERS[method], images[:500], labels[:500], method, epochs=12, batch=20, test=held_out, curve=True, **options
    )
    assert trained.accuracy(*held_out) == trained.test_curve[-1] > 6 * CHANCE
    assert trained.train_curve[-1] > trained.train_curve[0]
    assert trained.cpu_seconds > 0
    assert trained.peak_bytes > sum(w.nbytes for w, _ in trained.layers)
    trained.to_onnx(tmp_path / "digits.onnx")
    few = images[500:532].astype(np.float32)
    (found,) = neuc.compile(tmp_path / "digits.onnx").session().run(None, {"image": few})
    scores, expected = np.asarray(found, np.float32), np.asarray(trained.scores(few), np.float32)
    np.testing.assert_allclose(scores, expected, rtol=SCORE_TOLERANCE, atol=SCORE_TOLERANCE)
    ordered = np.sort(expected, 1)
    clear = ordered[:, -1] - ordered[:, -2] > CLEAR_MARGIN
    assert clear.sum() > 0
    np.testing.assert_array_equal(scores.argmax(1)[clear], trained.predict(few)[clear])


def test_the_same_seed_gives_the_same_weights() -> None:
    images, labels = digits()
    runs = [energy.train((64, 8, 10), images[:64], labels[:64], "ff", epochs=1, seed=seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(flat(runs[0].layers), flat(runs[1].layers))
    assert not np.array_equal(flat(runs[0].layers), flat(runs[2].layers))


GOOD = {"sizes": (3, 4, 2), "images": np.ones((8, 3)), "labels": np.array([0, 1] * 4), "epochs": 1, "batch": 4}
HOLED = np.ones((8, 3))
HOLED[5, 1] = np.nan
BAD: list[tuple[str, str, dict[str, object]]] = [
    ("NEUC-E616", "label 1 is 2", {"labels": np.array([0, 2] * 4)}),
    ("NEUC-E616", "label 0 is -1", {"labels": np.array([-1, 1] * 4)}),
    ("NEUC-E616", "float64", {"labels": np.array([0.5, 1] * 4)}),
    ("NEUC-E616", "7 labels for 8 images", {"labels": np.array([0, 1, 0, 1, 0, 1, 0])}),
    ("NEUC-E616", "label 0 is 5", {"test": (np.ones((1, 3)), np.array([5]))}),
    ("NEUC-E617", "image 5 holds NaN", {"images": HOLED}),
    ("NEUC-E617", r"shape \[8, 4\]", {"images": np.ones((8, 4))}),
    ("NEUC-E617", r"shape \[0, 3\]", {"images": np.ones((0, 3)), "labels": np.zeros(0, int)}),
    ("NEUC-E618", r"\(3, 2\)", {"sizes": (3, 2)}),
    ("NEUC-E618", r"\(3, 0, 2\)", {"sizes": (3, 0, 2)}),
    ("NEUC-E619", "0 epochs", {"epochs": 0}),
    ("NEUC-E619", "batches of 9", {"batch": 9}),
    ("NEUC-E619", "free_steps = 0", {"free_steps": 0}),
    ("NEUC-E619", "nudged_steps = 0", {"method": energy.EquilibriumPropagation(nudged_steps=0)}),
    ("NEUC-E619", "steps = 2.5", {"method": "pc", "steps": 2.5}),
    ("NEUC-E619", "made already", {"method": energy.PredictiveCoding(), "steps": 2}),
    ("NEUC-E619", "beta = 0", {"beta": 0.0}),
    ("NEUC-E619", "beta = 1", {"beta": 1.0}),
    ("NEUC-E619", "rate = nan", {"rate": float("nan")}),
    ("NEUC-E619", "'hebb'", {"method": "hebb"}),
    ("NEUC-E619", "'gamma'", {"gamma": 1.0}),
    ("NEUC-E620", "epoch 1", {"method": "pc", "dt": 1e6, "rate": 1e6}),
]


@pytest.mark.parametrize(("code", "message", "change"), BAD, ids=[m for _, m, _ in BAD])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_input_is_named(code: str, message: str, change: dict[str, object]) -> None:
    with pytest.raises(Error, match=message) as caught:
        energy.train(**{**GOOD, **change})  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.hint
