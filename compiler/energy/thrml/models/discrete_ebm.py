"""Factors of spins and categories, E = -Σ s₁ … s_M W[c₁, …, c_N], named as THRML 0.1 names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from neuc.compiler.energy.thrml.block_management import Block, thrml_error
from neuc.compiler.energy.thrml.conditional_samplers import CategoricalGibbsConditional, SpinGibbsConditional
from neuc.compiler.energy.thrml.factor import WeightedFactor
from neuc.compiler.energy.thrml.models.ebm import EBMFactor
from neuc.compiler.energy.thrml.pgm import AbstractNode, SpinNode

__all__ = [
    "CategoricalEBMFactor",
    "CategoricalGibbsConditional",
    "DiscreteEBMFactor",
    "SpinEBMFactor",
    "SpinGibbsConditional",
    "SquareCategoricalEBMFactor",
    "SquareDiscreteEBMFactor",
]


class DiscreteEBMFactor(EBMFactor, WeightedFactor):
    """Factors of spins and categories.

    Args:
        spin_node_groups: blocks of spins.
        categorical_node_groups: blocks of categories.
        weights: [nodes, K₁, …, K_N], an axis for each block of categories.

    Raises:
        Error: NEUC-E639, blocks and weights that do not go together.
    """

    def __init__(
        self, spin_node_groups: Sequence[Block], categorical_node_groups: Sequence[Block], weights: object
    ) -> None:
        WeightedFactor.__init__(self, weights, [*spin_node_groups, *categorical_node_groups])
        self.spin_node_groups, self.categorical_node_groups = list(spin_node_groups), list(categorical_node_groups)
        for group in self.node_groups:
            if (group in self.spin_node_groups) != issubclass(group.node_type, SpinNode):
                raise thrml_error(f"{group[0]} is given as the other kind", "spins first, then categories")
        if self.weights.ndim != 1 + len(self.categorical_node_groups):
            axes = len(self.categorical_node_groups)
            raise thrml_error(f"weights of shape {list(self.weights.shape)}", f"[nodes] and {axes} axes of categories")

    def energy_of(self, values: Mapping[AbstractNode, np.ndarray]) -> np.ndarray:
        """The energy of states [...] given for each node: spins bool, categories integers."""
        total = np.zeros(())
        for row, nodes in enumerate(zip(*(group.nodes for group in self.node_groups), strict=True)):
            spins = [2.0 * values[node] - 1.0 for node in nodes[: len(self.spin_node_groups)]]
            chosen = tuple(values[node] for node in nodes[len(self.spin_node_groups) :])
            total = total - np.prod(spins, axis=0) * self.weights[(row, *chosen)].astype(np.float64)
        return total


class SquareDiscreteEBMFactor(DiscreteEBMFactor):
    """A factor whose categories all have one K."""

    def __init__(
        self, spin_node_groups: Sequence[Block], categorical_node_groups: Sequence[Block], weights: object
    ) -> None:
        super().__init__(spin_node_groups, categorical_node_groups, weights)
        if len(set(self.weights.shape[1:])) > 1:
            raise thrml_error(f"weights of shape {list(self.weights.shape)} are not square", "use DiscreteEBMFactor")


class SpinEBMFactor(SquareDiscreteEBMFactor):
    """A factor of spins alone, weights [nodes]."""

    def __init__(self, node_groups: Sequence[Block], weights: object) -> None:
        super().__init__(node_groups, [], weights)


class CategoricalEBMFactor(DiscreteEBMFactor):
    """A factor of categories alone."""

    def __init__(self, node_groups: Sequence[Block], weights: object) -> None:
        super().__init__([], node_groups, weights)


class SquareCategoricalEBMFactor(SquareDiscreteEBMFactor):
    """A factor of categories alone that all have one K."""

    def __init__(self, node_groups: Sequence[Block], weights: object) -> None:
        super().__init__([], node_groups, weights)
