"""Which conditional distribution a block is drawn from, named as THRML 0.1 names it; the drawing is generated code."""

from __future__ import annotations

from dataclasses import dataclass


class AbstractConditionalSampler:
    """The base of samplers. neuc compiles those below; others are refused with NEUC-E639."""


class SpinGibbsConditional(AbstractConditionalSampler):
    """P(s = 1) = σ(2γ), γ = Σ Π other spins · W[categories]."""


@dataclass(frozen=True)
class CategoricalGibbsConditional(AbstractConditionalSampler):
    """P(x = k) = softmax θ, θ_k = Σ Π spins · W[…, k, …].

    Attributes:
        n_categories: K.
    """

    n_categories: int
