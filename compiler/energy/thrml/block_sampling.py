"""Programs, schedules and sampling, named as THRML 0.1 names them; `lowering.py` says what is compiled."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from neuc.compiler.energy.thrml.arrays import as_array, generator, is_traced, key_words
from neuc.compiler.energy.thrml.block_management import Block, BlockSpec, thrml_error
from neuc.compiler.energy.thrml.conditional_samplers import AbstractConditionalSampler
from neuc.compiler.energy.thrml.observers import AbstractObserver
from neuc.compiler.energy.thrml.pgm import AbstractNode, SpinNode

if TYPE_CHECKING:
    from neuc.compiler.energy.thrml.factor import AbstractFactor
    from neuc.compiler.energy.thrml.lowering import Lowered, State

Array = np.ndarray
SuperBlock: TypeAlias = "Block | tuple[Block, ...]"


class BlockGibbsSpec(BlockSpec):
    """Which blocks are swept, in which order, and which are clamped.

    Args:
        free_super_blocks: blocks, or tuples of blocks that are updated at the same time.
        clamped_blocks: blocks whose states are given.
        node_shape_dtypes: taken for THRML's sake.
    """

    def __init__(
        self,
        free_super_blocks: Sequence[SuperBlock],
        clamped_blocks: Sequence[Block],
        node_shape_dtypes: Mapping[type, object] | None = None,
    ) -> None:
        self.superblocks = [(b,) if isinstance(b, Block) else tuple(b) for b in free_super_blocks]
        self.free_blocks = [block for together in self.superblocks for block in together]
        self.clamped_blocks = list(clamped_blocks)
        super().__init__([*self.free_blocks, *self.clamped_blocks], node_shape_dtypes)
        if not self.free_blocks:
            raise thrml_error("no block is free", "what is clamped is not sampled")


class BlockSamplingProgram:
    """Blocks and the factors they are sampled from; compiled when it is first run."""

    def __init__(
        self,
        gibbs_spec: BlockGibbsSpec,
        samplers: Sequence[AbstractConditionalSampler],
        factors: Sequence[AbstractFactor],
    ) -> None:
        if len(samplers) != len(gibbs_spec.free_blocks):
            raise thrml_error(f"{len(samplers)} samplers for {len(gibbs_spec.free_blocks)} free blocks", "one for each")
        self.gibbs_spec, self.samplers, self.factors = gibbs_spec, list(samplers), list(factors)

    @cached_property
    def lowered(self) -> Lowered:
        """The model in neuc's dialect, and its compiled sampler."""
        from neuc.compiler.energy.thrml.lowering import lower

        # Seen through the folder and through the package, this file has two classes of one name for pyright.
        return lower(self)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class SamplingSchedule:
    """Sweeps before the first sample, samples, and sweeps from one sample to the next."""

    n_warmup: int
    n_samples: int
    steps_per_sample: int

    def __post_init__(self) -> None:
        if self.n_warmup < 0 or self.n_samples < 1 or self.steps_per_sample < 1:
            raise thrml_error(f"{self} makes no sense", "warmup at least 0, samples and steps at least 1")


def sample_states(
    key: object,
    program: BlockSamplingProgram,
    schedule: SamplingSchedule,
    init_state_free: Sequence[object],
    state_clamp: Sequence[object],
    nodes_to_sample: Sequence[Block],
) -> list[Array]:
    """The states of some blocks at every sample: [..., samples, nodes] each, spins bool, categories u8.

    States may have axes in front, one chain for each place. Inside jax.jit and jax.vmap it is a call back to the
    compiled sampler; what is mapped over becomes chains.

    Args:
        key: an integer or a key of JAX.
        program: what to sample.
        schedule: when.
        init_state_free: [..., nodes] for each free block.
        state_clamp: [..., nodes] for each clamped block.
        nodes_to_sample: the blocks to return.

    Raises:
        Error: NEUC-E639, states that are not those of the program's blocks; NEUC-E603, blocks whose nodes depend on
            each other.
    """
    given = [key, *init_state_free, *state_clamp]
    if is_traced(given):
        return _call_back(key, program, schedule, list(init_state_free), list(state_clamp), nodes_to_sample)
    readers = [program.lowered.reader(block) for block in nodes_to_sample]
    found: list[list[Array]] = [[] for _ in readers]
    for lead, state in _walk(key, program, schedule, init_state_free, state_clamp):
        for kept, read in zip(found, readers, strict=True):
            kept.append(read(state, lead))
    stacked = [np.stack(kept, -2) for kept in found]
    jax = sys.modules.get("jax")
    if jax is not None and any(isinstance(value, jax.Array) for value in given):
        return [jax.numpy.asarray(array) for array in stacked]
    return stacked


def sample_with_observation(
    key: object,
    program: BlockSamplingProgram,
    schedule: SamplingSchedule,
    init_chain_state: Sequence[object],
    state_clamp: Sequence[object],
    observation_carry_init: object,
    f_observe: AbstractObserver,
) -> tuple[object, object]:
    """Sample, and show the observer every sample: its last carry, and what it recorded, stacked."""
    carry, records = observation_carry_init, list[object]()
    clamped = [as_array(values, "states") for values in state_clamp]
    readers = [program.lowered.reader(block) for block in program.gibbs_spec.free_blocks]
    for number, (lead, state) in enumerate(_walk(key, program, schedule, init_chain_state, state_clamp)):
        free = [read(state, lead) for read in readers]
        carry, record = f_observe(program, free, clamped, carry, number)  # pyright: ignore[reportArgumentType]
        records.append(record)
    if records[0] is None:
        return carry, None
    if isinstance(records[0], list | tuple):
        return carry, [np.stack([np.asarray(part) for part in parts]) for parts in zip(*records, strict=True)]  # pyright: ignore
    return carry, np.stack([np.asarray(record) for record in records])


def sample_blocks(
    key: object, state_free: Sequence[object], clamp_state: Sequence[object], program: BlockSamplingProgram
) -> list[Array]:
    """One sweep: the free blocks' states after it."""
    return sample_states(
        key, program, SamplingSchedule(1, 1, 1), state_free, clamp_state, program.gibbs_spec.free_blocks
    )


def _walk(
    key: object,
    program: BlockSamplingProgram,
    schedule: SamplingSchedule,
    init: Sequence[object],
    clamped: Sequence[object],
) -> Iterator[tuple[tuple[int, ...], State]]:
    """For every sample, the axes in front of its chains, and the state."""
    spec, lowered = program.gibbs_spec, program.lowered
    lead, state = lowered.packed([*spec.free_blocks, *spec.clamped_blocks], [*init, *clamped])
    seeds = generator(key).integers(0, np.iinfo(np.int64).max, schedule.n_samples)
    for number, seed in enumerate(seeds):
        sweeps = schedule.steps_per_sample if number else schedule.n_warmup
        if sweeps:
            state = lowered.sweep(state, sweeps, int(seed))
        yield lead, state


def _call_back(
    key: object,
    program: BlockSamplingProgram,
    schedule: SamplingSchedule,
    free: list[object],
    clamped: list[object],
    wanted: Sequence[Block],
) -> list[Array]:
    """`sample_states` inside a JAX transformation: what is mapped over comes as axes in front, and becomes chains."""
    jax = sys.modules["jax"]
    if str(getattr(key, "dtype", "")).startswith("key<"):
        key = jax.random.key_data(key)

    def run(words: object, states: list[object], fixed: list[object]) -> list[Array]:
        chains = np.asarray(states[0]).shape[:-1]
        return [
            array.reshape(*chains, schedule.n_samples, len(block))
            for array, block in zip(
                sample_states(key_words(words), program, schedule, _plain(states), _plain(fixed), wanted),
                wanted,
                strict=True,
            )
        ]

    shapes = [jax.ShapeDtypeStruct((schedule.n_samples, len(block)), _dtype(block.node_type)) for block in wanted]
    return jax.pure_callback(run, shapes, key, free, clamped, vmap_method="broadcast_all")


def _plain(states: list[object]) -> list[Array]:
    return [np.asarray(state) for state in states]


def _dtype(kind: type[AbstractNode]) -> type[np.generic]:
    return np.bool_ if issubclass(kind, SpinNode) else np.uint8
