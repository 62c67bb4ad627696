"""Spins that learned digits draw them: a classifier of real digits names what is drawn, noise is taken off."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from example_files import load_example

AGREEMENT = 0.9
"""Of drawn digits, the classifier has to name so many as asked for; measured: 0.94 to 0.98, chance 0.1."""
FLIPS = 0.12


def load(name: str) -> ModuleType:
    return load_example(f"energy/digits/{name}.py")


@pytest.fixture(scope="module")
def classifier() -> SVC:
    pixels, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
    return SVC().fit(pixels / 16, labels)


def test_drawn_digits_are_recognised_and_differ(classifier: SVC) -> None:
    labels = np.repeat(np.arange(10), 12)
    images = load("draw").draw(labels)
    assert (classifier.predict(images) == labels).mean() > AGREEMENT
    # Not one stored picture each: pixels of one class vary from drawing to drawing.
    assert images.reshape(10, 12, 64).std(1).mean() > 0.05


def test_noise_is_taken_off(classifier: SVC) -> None:
    (_, _), (images, labels) = load("train").digits()
    images, labels = images[:80], labels[:80]
    rng = np.random.default_rng(1)
    clean = np.where(images > 0.5, 1, -1)
    noisy = np.where(rng.random(clean.shape) < FLIPS, -clean, clean)
    cleaned = load("draw").draw(labels, noisy=noisy, flips=FLIPS)
    wrong_before = (noisy != clean).mean()
    wrong_after = (np.where(cleaned > 0.5, 1, -1) != clean).mean()
    assert wrong_after < 0.75 * wrong_before


def test_learning_goes_downhill_from_nothing() -> None:
    """A short training run: hidden spins come to depend on labels and pixels, and weights stay finite."""
    trained = load("train").train(hidden=16, epochs=8, rate=0.02, chains=20, sweeps=1, decay=1e-3, seed=0)
    assert {name: array.shape for name, array in trained.items()} == {
        "w": (64, 16),
        "b": (64,),
        "c": (16,),
        "u": (16, 10),
    }
    assert all(np.isfinite(array).all() for array in trained.values())
    assert np.abs(trained["w"]).mean() > 0.03
