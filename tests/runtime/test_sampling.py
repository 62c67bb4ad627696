"""Sampling against plain definitions on sorted probabilities."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuc.errors import Error, Exit
from neuc.runtime.sampling import Sampler, Sampling, largest

DRAWS = 1500
# A frequency of DRAWS draws lies within 5 standard deviations, √(p(1−p)/DRAWS) ≤ 1/(2√DRAWS), of its probability.
FREQUENCY_ATOL = 5 * 0.5 / np.sqrt(DRAWS)


def numbers(size: int, seed: int = 0, ties: bool = False) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)
    return np.round(drawn) if ties else drawn


@given(st.integers(1, 5000), st.integers(1, 300), st.integers(0, 1000), st.booleans())
@settings(deadline=None)
def test_largest_are_those_of_a_stable_sort(size: int, count: int, seed: int, ties: bool) -> None:
    values = numbers(size, seed, ties)
    np.testing.assert_array_equal(largest(values, count), np.sort(np.argsort(-values, kind="stable")[:count]))


def test_largest_at_the_end_of_a_long_vector() -> None:
    values = np.zeros(128_256 + 37, np.float32)
    values[-3:] = 1, 3, 2
    assert largest(values, 4).tolist() == [0, len(values) - 3, len(values) - 2, len(values) - 1]


def reference(logits: np.ndarray, s: Sampling, sequence: list[int]) -> np.ndarray:
    """The probability of each token."""
    x = logits.astype(np.float64)
    for token in set(sequence):
        x[token] = x[token] / s.repetition_penalty if x[token] > 0 else x[token] * s.repetition_penalty
    p = np.exp((x - x.max()) / s.temperature)
    order = np.argsort(-x, kind="stable")
    if s.top_k:
        p[order[s.top_k :]] = 0
    p /= p.sum()
    if s.top_p < 1:
        kept = np.searchsorted(np.cumsum(p[order]), s.top_p) + 1
        p[order[kept:]] = 0
    return p / p.sum()


@pytest.mark.parametrize("size", [7, 1000, 40_000])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.5, seed=1),
        Sampling(temperature=1.0, top_k=5, seed=2),
        Sampling(temperature=1.5, top_p=0.8, seed=3),
        Sampling(temperature=1.5, top_p=0.3, seed=3),
        Sampling(temperature=0.8, top_k=40, top_p=0.9, repetition_penalty=1.3, seed=4),
        Sampling(temperature=1.0, top_k=10**6, top_p=1.0, repetition_penalty=0.9, seed=5),
    ],
    ids=str,
)
def test_frequencies_are_the_probabilities(size: int, sampling: Sampling) -> None:
    logits, sequence = numbers(size), [0, 1, 1, 6]
    wanted = reference(logits, sampling, sequence)
    sampler, kept = Sampler(sampling), logits.copy()
    draws = Counter(sampler(logits, sequence) for _ in range(DRAWS if size < 10_000 else 100))
    np.testing.assert_array_equal(logits, kept)
    assert all(wanted[token] > 0 for token in draws)
    if size < 10_000:
        found = np.array([draws[token] for token in range(size)]) / DRAWS
        np.testing.assert_allclose(found, wanted, rtol=0, atol=FREQUENCY_ATOL)


def test_a_wide_nucleus_is_found() -> None:
    """Equal probabilities: the nucleus is far larger than what is looked at first."""
    logits = np.zeros(10_000, np.float32)
    sampler = Sampler(Sampling(temperature=1.0, top_p=0.75, seed=0))
    drawn = [sampler(logits) for _ in range(500)]
    assert 7000 < max(drawn) < 7500  # the lower of equal tokens come first


@given(st.integers(1, 3000), st.integers(0, 100))
@settings(deadline=None)
def test_greedy_is_the_first_of_the_largest(size: int, seed: int) -> None:
    logits = numbers(size, seed, ties=True)
    for sampling in (Sampling(), Sampling(temperature=0.7, top_k=1), Sampling(temperature=1e-45)):
        assert Sampler(sampling)(logits) == int(np.argmax(logits))


def test_the_penalty_also_counts_when_greedy() -> None:
    logits = np.array([1.0, 4.0, 3.0, -1.0], np.float32)
    assert Sampler(Sampling(repetition_penalty=2.0))(logits, [1]) == 2
    assert Sampler(Sampling(repetition_penalty=2.0))(-logits, [3, 0]) == 3
    assert Sampler(Sampling(repetition_penalty=2.0))(logits, []) == 1


def test_seeds() -> None:
    logits = numbers(1000)

    def drawn(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(temperature=2.0, seed=seed))
        return [sampler(logits) for _ in range(20)]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)
    assert drawn(None) != drawn(None)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers(bad: float) -> None:
    logits = numbers(100)
    logits[50] = bad
    for sampling in (Sampling(), Sampling(temperature=1.0, top_p=0.9, seed=0)):
        with pytest.raises(Error) as caught:
            Sampler(sampling)(logits)
        assert caught.value.code == "NEUC-E324"


def test_tokens_that_cannot_be_are_never_drawn() -> None:
    logits = np.full(100, -np.inf, np.float32)
    logits[[3, 7]] = 0.0
    sampler = Sampler(Sampling(temperature=1.0, top_p=0.99, seed=0))
    assert {sampler(logits) for _ in range(100)} == {3, 7}


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": 1e-300},
        {"repetition_penalty": 1e300},
        {"repetition_penalty": float("inf")},
        {"seed": -1},
    ],
)
def test_values_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(Error) as caught:
        Sampling(**wrong)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.exit_code) == ("NEUC-E323", Exit.USAGE)
