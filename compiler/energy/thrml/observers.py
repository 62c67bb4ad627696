"""What is looked at while sampling, named as THRML 0.1 names it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from neuc.compiler.energy.thrml.block_management import Block
from neuc.compiler.energy.thrml.pgm import AbstractNode

if TYPE_CHECKING:
    from neuc.compiler.energy.thrml.block_sampling import BlockSamplingProgram

Array = np.ndarray


class AbstractObserver(ABC):
    """Called after every sample with the states of all blocks."""

    @abstractmethod
    def __call__(
        self,
        program: BlockSamplingProgram,
        state_free: list[Array],
        state_clamped: list[Array],
        carry: object,
        iteration: int,
    ) -> tuple[object, object]:
        """The carry of the next call, and what is recorded of this one (None: nothing)."""

    def init(self) -> object:
        """The first carry."""
        return None


def _by_node(program: BlockSamplingProgram, state: Sequence[Array]) -> dict[AbstractNode, Array]:
    spec = program.gibbs_spec
    blocks = [*spec.free_blocks, *spec.clamped_blocks]
    return {n: array[..., k] for block, array in zip(blocks, state, strict=True) for k, n in enumerate(block)}


class StateObserver(AbstractObserver):
    """Records the states of some blocks."""

    def __init__(self, blocks_to_sample: Sequence[Block]) -> None:
        self.blocks_to_sample = list(blocks_to_sample)

    def __call__(
        self,
        program: BlockSamplingProgram,
        state_free: list[Array],
        state_clamped: list[Array],
        carry: object,
        iteration: int,
    ) -> tuple[object, object]:
        values = _by_node(program, [*state_free, *state_clamped])
        return carry, [np.stack([values[node] for node in block], -1) for block in self.blocks_to_sample]


class MomentAccumulatorObserver(AbstractObserver):
    """Adds up Σ f(x₁) f(x₂) … over samples.

    Args:
        moment_spec: for each kind of moment, the tuples of nodes it is taken of.
        f_transform: called with the states of blocks and the blocks; returns the transformed states.
    """

    def __init__(
        self,
        moment_spec: Sequence[Sequence[Sequence[AbstractNode]]],
        f_transform: Callable[[list[Array], list[Block]], Sequence[Array]] = lambda state, blocks: state,
    ) -> None:
        self.moments = [[tuple(nodes) for nodes in kind] for kind in moment_spec]
        self.f_transform = f_transform
        nodes = list(dict.fromkeys(node for kind in self.moments for group in kind for node in group))
        kinds = list(dict.fromkeys(type(node) for node in nodes))
        self.blocks_to_sample = [Block([node for node in nodes if type(node) is kind]) for kind in kinds]

    def init(self) -> list[Array]:
        """Zeros, one for each moment."""
        return [np.zeros(len(kind)) for kind in self.moments]

    def __call__(
        self,
        program: BlockSamplingProgram,
        state_free: list[Array],
        state_clamped: list[Array],
        carry: object,
        iteration: int,
    ) -> tuple[object, object]:
        assert isinstance(carry, list)
        values = _by_node(program, [*state_free, *state_clamped])
        states = [np.stack([values[node] for node in block], -1) for block in self.blocks_to_sample]
        changed: dict[AbstractNode, Array] = {}
        for block, array in zip(self.blocks_to_sample, self.f_transform(states, self.blocks_to_sample), strict=True):
            changed |= {node: np.asarray(array)[..., k] for k, node in enumerate(block)}
        sums = [
            total + np.stack([np.prod([changed[node] for node in group], 0) for group in kind], -1)
            for total, kind in zip(carry, self.moments, strict=True)
        ]
        return sums, None
