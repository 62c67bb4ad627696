"""Ising models, their programs, moments and gradients, named as THRML 0.1 names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from neuc.compiler.energy.thrml.arrays import as_array, generator
from neuc.compiler.energy.thrml.block_management import Block
from neuc.compiler.energy.thrml.block_sampling import BlockGibbsSpec, SamplingSchedule, SuperBlock, sample_states
from neuc.compiler.energy.thrml.conditional_samplers import SpinGibbsConditional
from neuc.compiler.energy.thrml.factor import FactorSamplingProgram
from neuc.compiler.energy.thrml.models.discrete_ebm import SpinEBMFactor
from neuc.compiler.energy.thrml.models.ebm import AbstractFactorizedEBM, EBMFactor
from neuc.compiler.energy.thrml.pgm import AbstractNode

Array = np.ndarray
Edge = tuple[AbstractNode, AbstractNode]


class IsingEBM(AbstractFactorizedEBM):
    """E(s) = -β (Σ b s + Σ J s s).

    Args:
        nodes: spins with a bias.
        edges: pairs of spins with a weight.
        biases: [nodes].
        weights: [edges].
        beta: the inverse temperature, a number.
    """

    def __init__(
        self, nodes: Sequence[AbstractNode], edges: Sequence[Edge], biases: object, weights: object, beta: object
    ) -> None:
        super().__init__()
        self.nodes, self.edges = list(nodes), list(edges)
        self.biases, self.weights = as_array(biases, "biases"), as_array(weights, "weights")
        self.beta = as_array(beta, "beta")

    @property
    def factors(self) -> list[EBMFactor]:
        """One of fields, one of couplings; β is in their weights."""
        found: list[EBMFactor] = [SpinEBMFactor([Block(self.nodes)], self.beta * self.biases)]
        if self.edges:
            ends = [Block([edge[end] for edge in self.edges]) for end in (0, 1)]
            found.append(SpinEBMFactor(ends, self.beta * self.weights))
        return found


class IsingSamplingProgram(FactorSamplingProgram):
    """Block Gibbs sampling of an Ising model."""

    def __init__(self, ebm: IsingEBM, free_blocks: Sequence[SuperBlock], clamped_blocks: Sequence[Block]) -> None:
        spec = BlockGibbsSpec(free_blocks, clamped_blocks, ebm.node_shape_dtypes)
        super().__init__(spec, [SpinGibbsConditional()] * len(spec.free_blocks), ebm.factors, [])


class IsingTrainingSpec:
    """The two phases that the gradient of an Ising model's likelihood is estimated from."""

    def __init__(
        self,
        ebm: IsingEBM,
        data_blocks: Sequence[Block],
        conditioning_blocks: Sequence[Block],
        positive_sampling_blocks: Sequence[SuperBlock],
        negative_sampling_blocks: Sequence[SuperBlock],
        schedule_positive: SamplingSchedule,
        schedule_negative: SamplingSchedule,
    ) -> None:
        self.ebm = ebm
        self.schedule_positive, self.schedule_negative = schedule_positive, schedule_negative
        self.data_blocks = list(data_blocks)
        self.program_negative = IsingSamplingProgram(ebm, negative_sampling_blocks, list(conditioning_blocks))
        self.program_positive = (
            IsingSamplingProgram(ebm, positive_sampling_blocks, [*data_blocks, *conditioning_blocks])
            if positive_sampling_blocks
            else None
        )


def hinton_init(key: object, model: IsingEBM, blocks: Sequence[Block], batch_shape: tuple[int, ...]) -> list[Array]:
    """Independent spins with P(s = 1) = σ(β h): bool [*batch_shape, nodes] for each block."""
    place = {node: number for number, node in enumerate(model.nodes)}
    rng, found = generator(key), list[Array]()
    for block in blocks:
        h = model.biases[[place[node] for node in block]].astype(np.float64)
        p = 1.0 / (1.0 + np.exp(-float(model.beta) * h))
        found.append(rng.random((*batch_shape, len(block))) < p)
    return found


@dataclass(frozen=True)
class _Moments:
    """Means of spins and of products along edges, one row for each chain."""

    nodes: Array
    edges: Array


def estimate_moments(
    key: object,
    first_moment_nodes: Sequence[AbstractNode],
    second_moment_edges: Sequence[Edge],
    program: FactorSamplingProgram,
    schedule: SamplingSchedule,
    init_state: Sequence[object],
    clamped_data: Sequence[object],
) -> tuple[Array, Array]:
    """Means of spins [..., nodes] and of products along edges [..., edges] over a schedule's samples."""
    found = _moments(key, first_moment_nodes, second_moment_edges, program, schedule, init_state, clamped_data)
    return found.nodes, found.edges


def _moments(
    key: object,
    nodes: Sequence[AbstractNode],
    edges: Sequence[Edge],
    program: FactorSamplingProgram,
    schedule: SamplingSchedule,
    init_state: Sequence[object],
    clamped_data: Sequence[object],
) -> _Moments:
    wanted = list(dict.fromkeys([*nodes, *(end for edge in edges for end in edge)]))
    (states,) = sample_states(key, program, schedule, init_state, clamped_data, [Block(wanted)])
    return _moments_of(2.0 * np.asarray(states) - 1.0, wanted, nodes, edges)


def _moments_of(
    spins: Array, order: Sequence[AbstractNode], nodes: Sequence[AbstractNode], edges: Sequence[Edge]
) -> _Moments:
    """Over the samples of spins [..., samples, nodes in `order`]."""
    place = {node: number for number, node in enumerate(order)}
    first, second = ([place[edge[end]] for edge in edges] for end in (0, 1))
    pairs = (spins[..., first] * spins[..., second]).mean(-2)
    return _Moments(spins[..., [place[node] for node in nodes]].mean(-2), pairs)


def estimate_kl_grad(
    key: object,
    training_spec: IsingTrainingSpec,
    bias_nodes: Sequence[AbstractNode],
    weight_edges: Sequence[Edge],
    data: Sequence[object],
    conditioning_values: Sequence[object],
    init_state_positive: Sequence[object],
    init_state_negative: Sequence[object],
) -> tuple[Array, Array, tuple[Array, Array], tuple[Array, Array]]:
    """Gradients of the likelihood, -β (⟨ss⟩₊ - ⟨ss⟩₋) and -β (⟨s⟩₊ - ⟨s⟩₋), and the moments of both phases.

    Args:
        key: of random numbers.
        training_spec: model, programs and schedules.
        bias_nodes: nodes whose bias is learned.
        weight_edges: edges whose weight is learned.
        data: [batch, nodes] for each data block.
        conditioning_values: [nodes] for each conditioning block.
        init_state_positive: [chains, batch, nodes] for each positive block; empty where all nodes are data.
        init_state_negative: [chains, nodes] for each negative block.
    """
    spec, seeds = training_spec, generator(key).integers(0, 1 << 62, 2)
    shown = [as_array(values, "data") for values in data]
    fixed = [as_array(values, "conditioning values") for values in conditioning_values]
    batch = len(shown[0])
    if spec.program_positive is None:
        order = [node for block in spec.data_blocks for node in block]
        spins = 2.0 * np.concatenate(shown, 1) - 1.0
        positive = _moments_of(spins[None, :, None], order, bias_nodes, weight_edges)
    else:
        starts = [as_array(values, "initial states") for values in init_state_positive]
        chains = len(starts[0])
        clamped = [np.broadcast_to(v, (chains, *v.shape)) for v in shown]
        clamped += [np.broadcast_to(v, (chains, batch, *v.shape)) for v in fixed]
        positive = _moments(
            int(seeds[0]), bias_nodes, weight_edges, spec.program_positive, spec.schedule_positive, starts, clamped
        )
    starts = [as_array(values, "initial states") for values in init_state_negative]
    clamped = [np.broadcast_to(v, (len(starts[0]), *v.shape)) for v in fixed]
    negative = _moments(
        int(seeds[1]), bias_nodes, weight_edges, spec.program_negative, spec.schedule_negative, starts, clamped
    )
    beta = float(spec.ebm.beta)
    slopes = [
        -beta * (up.reshape(prod(up.shape[:-1]), -1).mean(0) - down.reshape(prod(down.shape[:-1]), -1).mean(0))
        for up, down in ((positive.edges, negative.edges), (positive.nodes, negative.nodes))
    ]
    return slopes[0], slopes[1], (positive.nodes, positive.edges), (negative.nodes, negative.edges)
