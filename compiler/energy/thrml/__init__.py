"""THRML's names on neuc: a script that says `from neuc.thrml import …` samples with generated CPU code.

Nodes, blocks, factors, Ising models, schedules and observers are those of THRML 0.1 (Extropic, Apache-2.0), as its
documentation describes them; keys may be JAX's or integers, arrays JAX's or numpy's. JAX is not needed. Not compiled,
and refused with NEUC-E639: conditional samplers and interaction groups of one's own, other kinds of nodes.
"""

from __future__ import annotations

from neuc.compiler.energy.thrml import models
from neuc.compiler.energy.thrml.block_management import Block, BlockSpec
from neuc.compiler.energy.thrml.block_sampling import (
    BlockGibbsSpec,
    BlockSamplingProgram,
    SamplingSchedule,
    sample_blocks,
    sample_states,
    sample_with_observation,
)
from neuc.compiler.energy.thrml.conditional_samplers import AbstractConditionalSampler
from neuc.compiler.energy.thrml.factor import AbstractFactor, FactorSamplingProgram, WeightedFactor
from neuc.compiler.energy.thrml.observers import AbstractObserver, MomentAccumulatorObserver, StateObserver
from neuc.compiler.energy.thrml.pgm import AbstractNode, CategoricalNode, SpinNode

__all__ = [
    "AbstractConditionalSampler",
    "AbstractFactor",
    "AbstractNode",
    "AbstractObserver",
    "Block",
    "BlockGibbsSpec",
    "BlockSamplingProgram",
    "BlockSpec",
    "CategoricalNode",
    "FactorSamplingProgram",
    "MomentAccumulatorObserver",
    "SamplingSchedule",
    "SpinNode",
    "StateObserver",
    "WeightedFactor",
    "models",
    "sample_blocks",
    "sample_states",
    "sample_with_observation",
]
