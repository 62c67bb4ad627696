"""Kendall's tau of predictions: against all pairs, with ties, and for many rows."""

from __future__ import annotations

import math
import random
import time
from itertools import combinations

import pytest

from neuc.compiler.npu.validate import kendall


def test_kendalls_tau():
    assert kendall([(1, 1), (2, 2), (3, 3)]) == 1
    assert kendall([(1, 3), (2, 2), (3, 1)]) == -1
    assert kendall([(1, 1)]) is None
    assert kendall([(1, 1), (1, 2)]) is None
    assert kendall([(1, 1), (1, 2), (2, 3)]) == pytest.approx(2 / math.sqrt(2 * 3))
    assert kendall([(0.1 + 0.2, 1), (0.3, 2), (1, 3)]) == pytest.approx(2 / math.sqrt(2 * 3)), "alike but for rounding"


@pytest.mark.parametrize("alike", [2, 3, 50])
def test_kendalls_tau_is_that_of_all_pairs(alike: int):
    """Tau-b by its definition: every pair, those that tie in one figure left out of that figure's count."""
    choose = random.Random(alike)
    for count in range(2, 14):
        rows = [(choose.randrange(alike), choose.randrange(alike)) for _ in range(count)]
        signs = [((a > c) - (a < c), (b > d) - (b < d)) for (a, b), (c, d) in combinations(rows, 2)]
        counted = sum(a * a for a, _ in signs) * sum(b * b for _, b in signs)
        expected = sum(a * b for a, b in signs) / math.sqrt(counted) if counted else None
        assert kendall(rows) == (expected if expected is None else pytest.approx(expected))


def test_ranking_many_rows_takes_no_minute():
    choose = random.Random(0)
    rows = [(value, value + choose.random()) for value in range(40_000)]
    began = time.process_time()
    assert kendall(rows) == pytest.approx(1)
    assert time.process_time() - began < 10, "all pairs of 40,000 rows take minutes"
