"""Photonic meshes: decompositions by reconstruction, depths, and what imperfections do."""

from __future__ import annotations

import numpy as np
import pytest

from neuc.errors import Error
from neuc.runtime.analog.interferometers import decompose, transfer
from neuc.runtime.analog.photonic import PhotonicChip

EXACT = 1e-12
"""Per mode: some N rotations in f64 one after another."""


def random_unitary(n: int, *, real: bool = False) -> np.ndarray:
    rng = np.random.default_rng(n)
    matrix = rng.standard_normal((n, n)) + (0 if real else 1j * rng.standard_normal((n, n)))
    q, r = np.linalg.qr(matrix)
    return q * (np.diag(r) / abs(np.diag(r)))


@pytest.mark.parametrize("layout", ["clements", "reck"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 31, 64])
@pytest.mark.parametrize("real", [False, True])
def test_a_mesh_is_the_matrix_it_was_made_from(n: int, layout: str, real: bool) -> None:
    unitary = random_unitary(n, real=real)
    mesh = decompose(unitary, layout)
    assert len(mesh.modes) == n * (n - 1) // 2
    assert np.abs(transfer(mesh) - unitary).max() < EXACT * n
    depth = len(mesh.columns())
    if n > 2:
        assert depth == (n if layout == "clements" else 2 * n - 3)


def test_matrices_with_zeros_are_decomposed_too() -> None:
    for matrix in (np.eye(6), np.eye(6)[::-1], np.kron(np.eye(3), [[0, 1], [1, 0]])):
        for layout in ("clements", "reck"):
            assert np.abs(transfer(decompose(matrix, layout)) - matrix).max() < EXACT * 6  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("shape", [(7, 7), (9, 4), (3, 12), (1, 5)])
def test_a_layer_is_two_meshes_and_attenuators(shape: tuple[int, int]) -> None:
    weights = np.random.default_rng(0).standard_normal(shape)
    held = PhotonicChip(phase_error=0.0).program(weights, 0, 0)
    assert held.attenuators.max() == 1.0
    np.testing.assert_allclose(held.weights(0.0), weights, atol=1e-12)


def error_of(chip: PhotonicChip) -> float:
    weights = np.random.default_rng(0).standard_normal((16, 16))
    return float(np.linalg.norm(chip.program(weights, 0, 0).weights(0.0) - weights) / np.linalg.norm(weights))


def test_each_imperfection_adds_an_error_that_grows_with_it() -> None:
    for name, small, large in (
        ("phase_error", 0.005, 0.02),
        ("imbalance", 0.005, 0.02),
        ("loss_db", 0.05, 0.2),
        ("crosstalk", 0.001, 0.005),
        ("phase_bits", 12, 8),
    ):
        errors = [error_of(PhotonicChip(**{"phase_error": 0.0, name: value})) for value in (small, large)]
        assert 0 < errors[0] < errors[1] < 1, name


def test_loss_of_a_balanced_mesh_is_one_factor() -> None:
    """In a Clements mesh all paths pass about as many interferometers, so a digital factor undoes nearly all of it."""
    weights = np.random.default_rng(1).standard_normal((32, 32))

    def rest(layout: str) -> float:
        held = PhotonicChip(layout, phase_error=0.0, loss_db=0.2).program(weights, 0, 0).weights(0.0)
        return float(np.linalg.norm(held - weights) / np.linalg.norm(weights))

    assert rest("clements") < 0.5 * rest("reck")


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"layout": "square"}, "NEUC-E660"),
        ({"phase_error": -1.0}, "NEUC-E661"),
        ({"loss_db": float("nan")}, "NEUC-E661"),
        ({"phase_bits": 60}, "NEUC-E661"),
    ],
)
def test_chips_that_make_no_sense(parameters: dict[str, object], code: str) -> None:
    with pytest.raises(Error) as caught:
        PhotonicChip(**parameters)  # type: ignore[arg-type]
    assert caught.value.code == code


def test_what_is_not_unitary_is_refused() -> None:
    with pytest.raises(Error) as caught:
        decompose(np.ones((3, 3)))
    assert caught.value.code == "NEUC-E660"
