"""Solutions, inverses and determinants by sampling, within the errors that the numbers of samples leave."""

from __future__ import annotations

import numpy as np
import pytest

from neuc.compiler.energy.thermodynamic import inverse, log_determinant, solve
from neuc.errors import Error

SAMPLES = 20_000
MAX_Z = 4.5
"""Largest of at most 25 z-scores: exceeded by chance with probability 2e-4."""


def system(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    root = rng.normal(0, 0.4, (5, 5))
    return root @ root.T + np.eye(5), rng.normal(size=5)


def test_moments_solve_and_invert() -> None:
    a, b = system(0)
    exact = np.linalg.inv(a)
    spread = np.sqrt(exact.diagonal())
    z = (solve(a, b, samples=SAMPLES) - exact @ b) / (spread / np.sqrt(SAMPLES))
    assert np.abs(z).max() < MAX_Z
    # The variance of a sample covariance is (Σ_ii Σ_jj + Σ_ij²) / n.
    error = np.sqrt((np.outer(spread, spread) ** 2 + exact**2) / SAMPLES)
    assert (np.abs(inverse(a, samples=SAMPLES, seed=1) - exact) / error).max() < MAX_Z


def test_the_determinant_by_integration() -> None:
    a, _ = system(3)
    exact = np.linalg.slogdet(a)[1]
    rest = a - np.diag(a.diagonal())
    # The variance of xᵀ R x is 2 tr((Σ R)²); at most that of A's own samples counts at every point.
    each = np.sqrt(2 * np.trace(np.linalg.inv(a) @ rest @ np.linalg.inv(a) @ rest) / SAMPLES)
    assert abs(log_determinant(a, points=4, samples=SAMPLES) - exact) < MAX_Z * each
    assert abs(np.log(a.diagonal()).sum() - exact) > 10 * each


def test_matrices_and_numbers_that_make_no_sense() -> None:
    with pytest.raises(Error, match=r"E611.*not positive definite"):
        solve(-np.eye(2), np.ones(2))
    with pytest.raises(Error, match=r"E631.*0 samples"):
        inverse(np.eye(2), samples=0)
    with pytest.raises(Error, match=r"E631.*b of shape \[3\]"):
        solve(np.eye(2), np.ones(3))
    with pytest.raises(Error, match=r"E631.*0 points"):
        log_determinant(np.eye(2), points=0)
