"""The figures of a comparison, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from neuc.compiler.accuracy import compare


def test_equal_results_have_no_error_even_where_infinite():
    x = np.array([[1.0, np.inf], [np.nan, -1.0]], np.float32)
    found = compare([[x]], [[x.copy()]])
    assert (found.max_abs, found.relative_l2, found.cosine_error) == (0, 0, 0)
    assert found.sqnr_db == float("inf")
    assert found.to_json()["sqnr_db"] is None
    assert found.to_json()["equal"]


def test_figures_by_hand():
    found = compare([[np.array([[3.0, 4.0]])]], [[np.array([[3.0, 3.0]])]])
    assert found.max_abs == 1
    assert found.mean_abs == 0.5
    assert found.relative_l2 == pytest.approx(1 / 5)
    assert found.cosine_error == pytest.approx(1 - 21 / (5 * np.sqrt(18)))
    assert found.sqnr_db == pytest.approx(10 * np.log10(25))
    assert found.argmax == 0
    assert not found.embedding
    assert found.error == found.relative_l2


def test_normalised_rows_are_judged_by_cosine():
    reference = np.array([[0.6, 0.8], [1.0, 0.0]])
    found = compare([[reference]], [[reference * [[2.0, 1.0]]]])
    assert found.embedding
    assert found.error == found.cosine_error
    assert found.measure == "mean cosine error"


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        compare([[np.zeros(2)]], [[np.zeros(3)]])


def test_nothing_to_compare_is_no_error():
    assert compare([[np.zeros((0, 3))]], [[np.zeros((0, 3))]]).max_abs == 0


def test_values_that_are_not_numbers_are_told() -> None:
    bad = np.array([[np.nan, np.inf, 1.0]], np.float32)
    agreement = compare([[bad]], [[bad]])
    assert agreement.not_finite == 2
    assert "2 reference values are not finite" in agreement.describe()
    assert agreement.to_json()["reference_not_finite"] == 2


def test_nothing_is_a_share_of_zeros():
    found = compare([[np.zeros((2, 3))]], [[np.ones((2, 3))]])
    assert found.describe() == "max abs 1.00e+00, mean abs 1.00e+00, and all of the reference is 0"
    assert found.to_json()["relative_l2"] is None
