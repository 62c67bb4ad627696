"""Energies as sums of factors, named as THRML 0.1 names them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from neuc.compiler.energy.thrml.arrays import as_array
from neuc.compiler.energy.thrml.block_management import Block
from neuc.compiler.energy.thrml.factor import AbstractFactor
from neuc.compiler.energy.thrml.pgm import AbstractNode, SpinNode


class EBMFactor(AbstractFactor, ABC):
    """A factor that has an energy."""

    @abstractmethod
    def energy_of(self, values: Mapping[AbstractNode, np.ndarray]) -> np.ndarray:
        """The energy of states [...] given for each node: spins bool, categories integers."""


class AbstractEBM(ABC):
    """What has an energy for each state."""

    @abstractmethod
    def energy(self, state: Sequence[object], blocks: Sequence[Block]) -> np.ndarray:
        """The energy of a state given block by block, [..., nodes] each; f64 [...]."""


class AbstractFactorizedEBM(AbstractEBM):
    """An energy that is a sum of factors."""

    def __init__(self, node_shape_dtypes: Mapping[type, object] | None = None) -> None:
        self.node_shape_dtypes = dict(node_shape_dtypes or {})

    @property
    @abstractmethod
    def factors(self) -> list[EBMFactor]:
        """The factors."""

    def energy(self, state: Sequence[object], blocks: Sequence[Block]) -> np.ndarray:
        values: dict[AbstractNode, np.ndarray] = {}
        for array, block in zip(state, blocks, strict=True):
            kind = bool if issubclass(block.node_type, SpinNode) else np.int64
            columns = np.moveaxis(as_array(array, "states").astype(kind), -1, 0)
            values |= dict(zip(block, columns, strict=True))
        return np.asarray(sum((factor.energy_of(values) for factor in self.factors), np.zeros(())))


class FactorizedEBM(AbstractFactorizedEBM):
    """The energy of these factors."""

    def __init__(self, factors: Sequence[EBMFactor], node_shape_dtypes: Mapping[type, object] | None = None) -> None:
        super().__init__(node_shape_dtypes)
        self._factors = list(factors)

    @property
    def factors(self) -> list[EBMFactor]:
        return self._factors
