"""Training in the array from the public interface: digits are learnt, the network compiles, nonsense is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import neuc
from neuc.compiler.analog.array_products import ArrayConverters
from neuc.compiler.analog.in_array import InArrayResult
from neuc.errors import Error

TRAINED_ON = 500


def digits() -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = load_digits(return_X_y=True)
    return np.asarray(pixels) / 16, np.asarray(labels)


def trained(**settings: object) -> InArrayResult:
    x, y = digits()
    test = (x[TRAINED_ON : TRAINED_ON + 400], y[TRAINED_ON : TRAINED_ON + 400])
    return neuc.train_in_array((64, 10), x[:TRAINED_ON], y[:TRAINED_ON], test=test, **settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("rule", "epochs"), [("sgd", 3), ("tiki-taka", 3), ("tiki-taka-2", 10)])
def test_digits_are_learnt(rule: str, epochs: int) -> None:
    """With buffers, a weight moves by one step a turn of its column at most, so it takes more epochs."""
    found = trained(rule=rule, epochs=epochs, seed=1)
    assert found.accuracies[-1] > 0.6
    assert len(found.accuracies) == epochs


def test_digits_are_learnt_through_converters() -> None:
    found = trained(rule="sgd", device="ecram", epochs=3, seed=1, converters=ArrayConverters())
    assert found.accuracies[-1] > 0.6
    coarse = trained(rule="sgd", device="ecram", epochs=3, seed=1, converters=ArrayConverters(adc_bits=2, out_noise=1))
    assert coarse.accuracies[-1] < found.accuracies[-1] - 0.1


def test_converters_round_clip_and_scale_as_a_tile_does() -> None:
    rng = np.random.default_rng(0)
    w, x = rng.uniform(-1, 1, (5, 9)), rng.uniform(-3, 3, (4, 9))
    x[2] = 0
    np.testing.assert_allclose(ArrayConverters(0, 0, 100.0, 0.0).product(w, x, rng), x @ w.T, rtol=1e-12)
    alpha = np.abs(x).max(axis=1, keepdims=True)
    v = np.rint(np.divide(x, alpha, out=np.zeros_like(x), where=alpha > 0) * 3) / 3
    y = np.clip(np.rint(v @ w.T / (2 / 6)) * (2 / 6), -1, 1) * alpha
    np.testing.assert_allclose(ArrayConverters(3, 3, 1.0, 0.0).product(w, x, rng), y, atol=1e-12)
    noise = ArrayConverters(0, 0, 100.0, 0.5).product(np.zeros((5, 9)), np.ones((20_000, 9)), rng)
    assert noise.std() == pytest.approx(0.5, rel=5 / np.sqrt(2 * noise.size))  # five standard errors


@pytest.mark.parametrize("numbers", [(1, 9, 12.0, 0.0), (7, 40, 12.0, 0.0), (7, 9, 0.0, 0.0), (7, 9, 12.0, -1.0)])
def test_converters_that_make_no_sense(numbers: tuple[int, int, float, float]) -> None:
    with pytest.raises(Error) as caught:
        ArrayConverters(*numbers)
    assert caught.value.code == "NEUC-E662"


def test_a_seed_is_one_training_and_the_network_compiles(tmp_path: Path) -> None:
    first, second, other = (trained(rule="sgd", epochs=1, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.layers[0][0], second.layers[0][0])
    assert not np.array_equal(first.layers[0][0], other.layers[0][0])
    x = digits()[0][:20]
    first.to_onnx(tmp_path / "net.onnx")
    session = neuc.compile(tmp_path / "net.onnx").session()
    found = np.asarray(session.run(None, {"x": x.astype(np.float32)})[0], np.float32)
    np.testing.assert_allclose(found, first.scores(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"rule": "adam"},
        {"device": "memristor"},
        {"rate": 0.0},
        {"batch": 501},
        {"epochs": 0},
    ],
)
def test_trainings_that_make_no_sense(settings: dict[str, object]) -> None:
    with pytest.raises(Error) as caught:
        trained(**settings)
    assert caught.value.code == "NEUC-E662"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("sizes", "x", "labels"),
    [
        ((4,), np.zeros((3, 4)), np.zeros(3, int)),
        ((4, 2), np.zeros((3, 5)), np.zeros(3, int)),
        ((4, 2), np.full((3, 4), np.nan), np.zeros(3, int)),
        ((4, 2), np.zeros((3, 4)), np.array([0, 1, 2])),
        ((4, 2), np.zeros((3, 4)), np.zeros(3)),
        ((4, 9999), np.zeros((3, 4)), np.zeros(3, int)),
    ],
)
def test_samples_that_make_no_sense(sizes: tuple[int, ...], x: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(Error) as caught:
        neuc.train_in_array(sizes, x, labels)
    assert caught.value.code == "NEUC-E662"


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"rate": np.nan}, "rate nan will"), ({"batch": 4}, "batch 4 will"), ({"epochs": 0}, "0 epochs will")],
)
def test_the_wrong_number_alone_is_named(settings: dict[str, float], named: str) -> None:
    call = {"batch": 1, **settings}
    with pytest.raises(Error, match=named):
        neuc.train_in_array((4, 2), np.zeros((3, 4)), np.zeros(3, int), **call)  # pyright: ignore[reportArgumentType]


def test_samples_with_nan_are_counted() -> None:
    with pytest.raises(Error, match="1 of 3 samples with NaN or infinity"):
        neuc.train_in_array((4, 2), np.array([[0.0] * 4, [np.nan] * 4, [1.0] * 4]), np.zeros(3, int))
