"""Products of a learning array through its converters, forwards and backwards: what training sees of the weights.

Steps are those of `crossbar.dac`, `.mvm` and `.adc` with noise drawn by numpy: training draws anew each time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neuc.errors import Error, Exit

MOST_BITS = 16
_LEAST = 1e-30
"""Stands for the largest number of a sample of zeros."""


@dataclass(frozen=True)
class ArrayConverters:
    """Converters of an array that learns; the defaults are aihwkit's `IOParameters`, without bound management.

    Attributes:
        dac_bits: of the input converters, whose range is each sample's largest magnitude; 0 for ideal ones.
        adc_bits: of the output converters; 0 for ideal ones.
        adc_bound: their range, in units of the weights times the largest input.
        out_noise: standard deviation of the noise at them, in the same units.
    """

    dac_bits: int = 7
    adc_bits: int = 9
    adc_bound: float = 12.0
    out_noise: float = 0.06

    def __post_init__(self) -> None:
        bits = all(value == 0 or 2 <= value <= MOST_BITS for value in (self.dac_bits, self.adc_bits))
        finite = math.isfinite(self.adc_bound) and math.isfinite(self.out_noise)
        if not bits or not finite or self.adc_bound <= 0 or self.out_noise < 0:
            what = f"converters of {self.dac_bits} and {self.adc_bits} bits, {self.adc_bound:g}, {self.out_noise:g}"
            hint = f"use 2 to {MOST_BITS} bits or 0, a range above 0, noise of 0 or more"
            raise Error("NEUC-E662", f"training in the array: {what}", hint=hint, exit_code=Exit.USAGE)

    def product(self, weights: np.ndarray, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``x · weightsᵀ`` as the array gives it.

        Args:
            weights: [lines out, lines in].
            x: samples [N, lines in].
            rng: what noise is drawn from.

        Returns:
            [N, lines out].
        """
        alpha = np.maximum(np.abs(x).max(axis=1, keepdims=True, initial=0), _LEAST)
        y = _rounded(x / alpha, self.dac_bits, 1.0) @ weights.T
        if self.out_noise:
            y = y + self.out_noise * rng.standard_normal(y.shape)
        return alpha * np.clip(_rounded(y, self.adc_bits, self.adc_bound), -self.adc_bound, self.adc_bound)


def _rounded(x: np.ndarray, bits: int, bound: float) -> np.ndarray:
    """The nearest of the symmetric converter's steps."""
    if not bits:
        return x
    step = 2 * bound / (2**bits - 2)
    return np.rint(x / step) * step
