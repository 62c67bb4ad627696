"""Linear algebra by sampling: solutions, inverses and determinants from moments of an Ornstein-Uhlenbeck process.

Samples of F = ½ xᵀ A x − bᵀ x have mean A⁻¹ b and covariance A⁻¹ (Aifer et al., Thermodynamic linear algebra, 2023).
Errors fall as one over the square root of the samples; a digital solver is exact and faster, this is what a physical
one would do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from neuc.compiler.energy.importers import linear_system
from neuc.errors import Error, Exit

Array = np.ndarray
_RELAXATIONS = 12.0
"""Relaxation times of the slowest mode between start and sample: what is left of the start is e^-12."""


def solve(a: ArrayLike, b: ArrayLike, *, samples: int = 10_000, seed: int = 0) -> Array:
    """A⁻¹ b as a mean of samples; f64 [n].

    Args:
        a: symmetric and positive definite, [n, n].
        b: [n].
        samples: independent ones.
        seed: of the samples.

    Raises:
        Error: NEUC-E600, E611, A is not symmetric or not positive definite; NEUC-E631, numbers that make no sense.
    """
    return _drawn(np.asarray(a, np.float64), np.asarray(b, np.float64), samples, seed).mean(0)


def inverse(a: ArrayLike, *, samples: int = 10_000, seed: int = 0) -> Array:
    """A⁻¹ as a covariance of samples; f64 [n, n]. Arguments and errors are those of `solve`."""
    matrix = np.asarray(a, np.float64)
    x = _drawn(matrix, None, samples, seed)
    return x.T @ x / len(x)


def log_determinant(a: ArrayLike, *, points: int = 8, samples: int = 10_000, seed: int = 0) -> float:
    """Ln det A by thermodynamic integration from the diagonal D of A: ∫ tr(Aₛ⁻¹ (A − D)) ds, Aₛ = D + s (A − D).

    The trace is a mean of xᵀ (A − D) x over samples; the integral is Gauss's at some points. Other arguments and errors
    are those of `solve`.
    """
    matrix = np.asarray(a, np.float64)
    if points < 1:
        raise _wrong(f"{points} points of integration", "at least one; 8 are plenty")
    _slowest(matrix)
    diagonal = np.diag(matrix.diagonal())
    rest, total = matrix - diagonal, float(np.log(matrix.diagonal()).sum())
    nodes, weights = np.polynomial.legendre.leggauss(points)
    for number, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
        x = _drawn(diagonal + 0.5 * (node + 1) * rest, None, samples, seed + number)
        total += 0.5 * weight * float(((x @ rest) * x).sum(1).mean())
    return total


def _drawn(a: Array, b: Array | None, samples: int, seed: int) -> Array:
    """Independent samples f64 [samples, n], each the end of a chain of its own."""
    if samples < 1 or (b is not None and b.shape != a.shape[:1]):
        given = "" if b is None else f" and b of shape {list(b.shape)}"
        raise _wrong(f"{samples} samples of A {list(a.shape)}{given}", "at least one sample, A [n, n], b [n]")
    model, x = linear_system(a, b)
    end = model.state("chains").sample(sweeps=1, beta=1.0, rule="ou_exact", dt=_RELAXATIONS / _slowest(a)).last
    program = model.program(drawn=end[x])
    return program.run(seed=seed, x=np.zeros((samples, len(a)))).drawn.astype(np.float64)


def _slowest(a: Array) -> float:
    """The smallest eigenvalue: how fast the slowest mode forgets.

    Raises:
        Error: NEUC-E611, it is not above 0.
    """
    least = float(np.linalg.eigvalsh(a)[0]) if a.ndim == 2 and a.shape[0] == a.shape[1] and a.size else 0.0
    if not least > 0:
        hint = "symmetric matrices with positive eigenvalues; others by normal equations"
        raise Error("NEUC-E611", f"A of shape {list(a.shape)} is not positive definite", hint=hint)
    return least


def _wrong(what: str, hint: str) -> Error:
    return Error("NEUC-E631", what, hint=hint, exit_code=Exit.USAGE)
