"""Models that THRML 0.1 offers: energies of spins and categories, and Ising models."""

from __future__ import annotations

from neuc.compiler.energy.thrml.conditional_samplers import CategoricalGibbsConditional, SpinGibbsConditional
from neuc.compiler.energy.thrml.models.discrete_ebm import (
    CategoricalEBMFactor,
    DiscreteEBMFactor,
    SpinEBMFactor,
    SquareCategoricalEBMFactor,
    SquareDiscreteEBMFactor,
)
from neuc.compiler.energy.thrml.models.ebm import AbstractEBM, AbstractFactorizedEBM, EBMFactor, FactorizedEBM
from neuc.compiler.energy.thrml.models.ising import (
    IsingEBM,
    IsingSamplingProgram,
    IsingTrainingSpec,
    estimate_kl_grad,
    estimate_moments,
    hinton_init,
)

__all__ = [
    "AbstractEBM",
    "AbstractFactorizedEBM",
    "CategoricalEBMFactor",
    "CategoricalGibbsConditional",
    "DiscreteEBMFactor",
    "EBMFactor",
    "FactorizedEBM",
    "IsingEBM",
    "IsingSamplingProgram",
    "IsingTrainingSpec",
    "SpinEBMFactor",
    "SpinGibbsConditional",
    "SquareCategoricalEBMFactor",
    "SquareDiscreteEBMFactor",
    "estimate_kl_grad",
    "estimate_moments",
    "hinton_init",
]
