"""Factors as batches of weights between blocks, and programs made of them, named as THRML 0.1 names them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuc.compiler.energy.thrml.arrays import as_array
from neuc.compiler.energy.thrml.block_management import Block, thrml_error
from neuc.compiler.energy.thrml.block_sampling import BlockGibbsSpec, BlockSamplingProgram
from neuc.compiler.energy.thrml.conditional_samplers import AbstractConditionalSampler


class AbstractFactor:
    """Interactions between the i-th nodes of some blocks of one length, for each i."""

    def __init__(self, node_groups: Sequence[Block]) -> None:
        self.node_groups = list(node_groups)
        if not self.node_groups:
            raise thrml_error("a factor joins no blocks", "give it at least one block of nodes")
        sizes = sorted({len(group) for group in self.node_groups})
        if len(sizes) > 1:
            raise thrml_error(f"a factor joins blocks of {sizes} nodes", "its blocks have one length")


class WeightedFactor(AbstractFactor):
    """A factor with weights [nodes of a block, …], kept as f32."""

    def __init__(self, weights: object, node_groups: Sequence[Block]) -> None:
        super().__init__(node_groups)
        self.weights = as_array(weights, "weights").astype(np.float32)
        if self.weights.ndim < 1 or len(self.weights) != len(self.node_groups[0]):
            shape, count = list(self.weights.shape), len(self.node_groups[0])
            raise thrml_error(
                f"weights of shape {shape} for blocks of {count} nodes", "one weight tensor for each node"
            )


class FactorSamplingProgram(BlockSamplingProgram):
    """A program whose blocks are drawn from the conditional distributions of these factors.

    Args:
        gibbs_spec: free and clamped blocks.
        samplers: one for each free block.
        factors: of spins and categories.
        other_interaction_groups: none; interactions without an energy are not compiled.
    """

    def __init__(
        self,
        gibbs_spec: BlockGibbsSpec,
        samplers: Sequence[AbstractConditionalSampler],
        factors: Sequence[AbstractFactor],
        other_interaction_groups: Sequence[object],
    ) -> None:
        if other_interaction_groups:
            raise thrml_error("interaction groups of one's own are not compiled", "write them as DiscreteEBMFactor")
        # Seen through the folder and through the package, this file has two classes of one name for pyright.
        super().__init__(gibbs_spec, samplers, factors)  # pyright: ignore[reportArgumentType]
