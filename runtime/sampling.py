"""Choosing the next token from logits: greedy, temperature, top-k, top-p, repetition penalty; numpy only.

Selections are exact, but rarely sort a whole vocabulary: candidates come from the maxima of blocks of logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error, Exit

Floats = NDArray[np.float32]

_COLDEST = 1e-30
_BLOCK = 64
_NUCLEUS = 256
"""Tokens among which a nucleus is looked for first."""


_LEAST_PENALTY, _MOST_PENALTY = 0.01, 100


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, in the order of the fields.

    Attributes:
        repetition_penalty: logits of tokens in the sequence are divided by it if positive, else multiplied (Keskar et
            al., CTRL, 2019); 1 leaves them.
        temperature: logits are divided by it; 0 takes the largest, and the lowest token of equal ones.
        top_k: only so many tokens of the largest logits; 0 for all.
        top_p: only the fewest most probable tokens whose probabilities sum up to it (Holtzman et al., 2020).
        seed: of the random choice; None for another one each time.
    """

    repetition_penalty: float = 1.0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        checks = (
            (
                "repetition_penalty",
                self.repetition_penalty,
                _LEAST_PENALTY <= self.repetition_penalty <= _MOST_PENALTY,
                "0.01 to 100",
            ),
            ("temperature", self.temperature, 0 <= self.temperature < math.inf, "0 or more"),
            ("top_k", self.top_k, self.top_k >= 0, "0 or more"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("seed", self.seed, self.seed is None or self.seed >= 0, "0 or more"),
        )
        for name, value, sound, wanted in checks:
            if not sound:
                message, hint = f"{name}={value} makes no sense", f"it has to be {wanted}"
                raise Error("NEUC-E323", message, hint=hint, exit_code=Exit.USAGE)


class Sampler:
    """Chooses tokens as a `Sampling` says; each has a random sequence of its own."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._random = np.random.default_rng(sampling.seed)

    def __call__(self, logits: Floats, sequence: Iterable[int] = ()) -> int:
        """The next token.

        Args:
            logits: f32 [vocabulary]; not changed.
            sequence: the tokens so far, for the repetition penalty.

        Raises:
            Error: NEUC-E324, the largest logit is no finite number.
        """
        s = self.sampling
        if s.repetition_penalty != 1:
            logits = _penalised(logits, sequence, s.repetition_penalty)
        best = int(np.argmax(logits))
        most = float(logits[best])
        if not math.isfinite(most):
            message = f"the model gave {most} as its largest logit"
            raise Error(
                "NEUC-E324", message, hint="the weights are damaged, or overflow: run `neuc verify` on the file"
            )
        # A temperature so small that f32 has no reciprocal of it is none.
        if s.temperature < _COLDEST or s.top_k == 1:
            return best
        tokens = largest(logits, s.top_k) if 0 < s.top_k < len(logits) else None
        among = logits if tokens is None else logits[tokens]
        weights = np.exp((among - np.float32(most)) / np.float32(s.temperature))
        if s.top_p < 1:
            tokens, weights = _nucleus(tokens, weights, s.top_p)
        place = _drawn(weights, self._random.random())
        return place if tokens is None else int(tokens[place])


def largest(values: Floats, count: int) -> NDArray[np.int64]:
    """Indices of the `count` largest values, ascending; of equal values those of lower index count as larger."""
    total = len(values)
    if count >= total:
        return np.arange(total)
    pool = values
    if 2 * _BLOCK * count < total:
        blocks = values[: total // _BLOCK * _BLOCK].reshape(_BLOCK, -1).max(axis=0)
        # `count` blocks, of every so manieth value, hold one at least as large as this.
        pool = values[values >= np.partition(blocks, len(blocks) - count)[len(blocks) - count]]
    return _down_to(values, np.partition(pool, len(pool) - count)[len(pool) - count], count)


def _down_to(values: Floats, least: np.float32, count: int) -> NDArray[np.int64]:
    """The `count` largest, of which the smallest is `least`."""
    above = np.flatnonzero(values > least)
    equal = np.flatnonzero(values == least)[: count - len(above)]
    return np.sort(np.concatenate((above, equal)))


def _drawn(weights: Floats, share: float) -> int:
    """An index, each with a probability that is its weight's part of the sum; `share` is the random number."""
    columns = len(weights) // _BLOCK
    table, rest = weights[: columns * _BLOCK].reshape(_BLOCK, columns), weights[columns * _BLOCK :]
    sums = np.cumsum(np.append(table.sum(axis=0), rest), dtype=np.float64)
    wanted = share * float(sums[-1])
    place = _place(sums, wanted)
    if place >= columns:
        return columns * _BLOCK + place - columns
    within = np.cumsum(table[:, place], dtype=np.float64)
    return _place(within, wanted - (float(sums[place - 1]) if place else 0.0)) * columns + place


def _place(sums: NDArray[np.float64], value: float) -> int:
    """Where in running sums a value falls; what rounding puts past the end falls on the last weight there is."""
    return min(int(sums.searchsorted(value, side="right")), int(sums.searchsorted(float(sums[-1]))))


def _nucleus(tokens: NDArray[np.int64] | None, weights: Floats, share: float) -> tuple[NDArray[np.int64], Floats]:
    """The fewest largest weights that make up `share` of their sum, and their tokens."""
    wanted = share * float(weights.sum(dtype=np.float64))
    ordered = np.sort(weights[largest(weights, _NUCLEUS)])[::-1]
    sums = np.cumsum(ordered, dtype=np.float64)
    if sums[-1] < wanted:
        ordered = np.sort(weights)[::-1]
        sums = np.cumsum(ordered, dtype=np.float64)
    count = min(int(sums.searchsorted(wanted)) + 1, len(sums))
    kept = _down_to(weights, ordered[count - 1], count)
    return (kept if tokens is None else tokens[kept]), weights[kept]


def _penalised(logits: Floats, sequence: Iterable[int], penalty: float) -> Floats:
    seen = np.array(sorted(set(sequence)), np.int64)
    changed = logits.copy()
    old = changed[seen]
    changed[seen] = np.where(old > 0, old / np.float32(penalty), old * np.float32(penalty))
    return changed
