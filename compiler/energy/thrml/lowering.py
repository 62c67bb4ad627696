"""A program in THRML's terms as a model of the `energy` dialect: nodes become sites, factors terms, blocks colours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from neuc.compiler.energy.model import Model, Variable
from neuc.compiler.energy.program import Program
from neuc.compiler.energy.thrml.arrays import as_array
from neuc.compiler.energy.thrml.block_management import Block, thrml_error
from neuc.compiler.energy.thrml.conditional_samplers import CategoricalGibbsConditional, SpinGibbsConditional
from neuc.compiler.energy.thrml.models.discrete_ebm import DiscreteEBMFactor
from neuc.compiler.energy.thrml.pgm import AbstractNode, CategoricalNode, SpinNode

if TYPE_CHECKING:
    from neuc.compiler.energy.thrml.block_sampling import BlockSamplingProgram
    from neuc.runtime.session import Session

Array = np.ndarray
State = dict[str, Array]
"""Values [chains, sites] by the name of the variable."""


@dataclass(frozen=True)
class Lowered:
    """A program that sweeps `beta`'s length over a state.

    Attributes:
        program: inputs are the variables, `beta` and `seed`; results ``last_<variable>``.
        variables: by name.
        place: the variable and the site of each node.
    """

    program: Program
    variables: dict[str, Variable]
    place: dict[AbstractNode, tuple[str, int]]

    @cached_property
    def _session(self) -> Session:
        return self.program.session()

    def packed(self, blocks: Sequence[Block], states: Sequence[object]) -> tuple[tuple[int, ...], State]:
        """The axes in front of the states [..., nodes] of blocks, and the states as [chains, sites] of variables."""
        if len(states) != len(blocks):
            raise thrml_error(f"{len(states)} states for {len(blocks)} blocks", "one for each free and clamped block")
        arrays = [as_array(state, "states") for state in states]
        for number, (array, block) in enumerate(zip(arrays, blocks, strict=True)):
            if array.shape[-1:] != (len(block),) or array.shape[:-1] != arrays[0].shape[:-1]:
                raise thrml_error(
                    f"the state of block {number} has shape {list(array.shape)}",
                    f"[..., {len(block)}], with the same axes in front for all blocks",
                )
        lead = arrays[0].shape[:-1]
        chains = int(np.prod(lead, dtype=np.int64))
        found = {
            name: np.empty((chains, variable.type.sites), np.int32 if variable.type.levels else np.int8)
            for name, variable in self.variables.items()
        }
        for number, (array, block) in enumerate(zip(arrays, blocks, strict=True)):
            name, sites = self._sites(block)
            values, k = array.reshape(chains, -1), self.variables[name].type.levels
            if k and not ((values >= 0) & (values < k)).all():
                raise thrml_error(f"the state of block {number} has categories beyond {k - 1}", "0 to K - 1")
            found[name][:, sites] = values if k else np.where(values > 0, 1, -1)
        return lead, found

    def reader(self, block: Block) -> Callable[[State, tuple[int, ...]], Array]:
        """From a state and its axes in front to the block's part, [..., nodes]: spins bool, categories u8."""
        missing = next((node for node in block if node not in self.place), None)
        if missing is not None:
            raise thrml_error(f"{missing} is in no block of the program", "sample nodes of free or clamped blocks")
        names = list(dict.fromkeys(self.place[node][0] for node in block))
        columns = {name: [k for k, node in enumerate(block) if self.place[node][0] == name] for name in names}
        sites = {name: [self.place[block[k]][1] for k in columns[name]] for name in names}
        spins = issubclass(block.node_type, SpinNode)

        def read(state: State, lead: tuple[int, ...]) -> Array:
            found = np.empty((len(next(iter(state.values()))), len(block)), np.bool_ if spins else np.uint8)
            for name in names:
                values = state[name][:, sites[name]]
                found[:, columns[name]] = values > 0 if spins else values
            return found.reshape(*lead, len(block))

        return read

    def sweep(self, state: State, sweeps: int, seed: int) -> State:
        """The state after so many sweeps."""
        feeds = {**state, "seed": np.asarray(seed, np.int64), "beta": np.ones(sweeps, np.float32)}
        names = [spec.name for spec in self._session.program.outputs]
        found = self._session.run(None, {name: feeds[name] for name in self.program.inputs})
        return {**state, **{name.removeprefix("last_"): array for name, array in zip(names, found, strict=True)}}

    def _sites(self, block: Block) -> tuple[str, list[int]]:
        places = [self.place[node] for node in block]
        return places[0][0], [site for _, site in places]


def lower(program: BlockSamplingProgram) -> Lowered:
    """The model and its sampler.

    Raises:
        Error: NEUC-E639, nodes, factors or samplers that are not compiled; NEUC-E603, dependent nodes in one block.
    """
    levels = _levels(program)
    spec, model = program.gibbs_spec, Model()
    sites: dict[str, list[AbstractNode]] = defaultdict(list)
    place: dict[AbstractNode, tuple[str, int]] = {}
    for clamped, blocks in ((False, spec.free_blocks), (True, spec.clamped_blocks)):
        for block in blocks:
            k = levels.get(block[0], 0)
            if any(levels.get(node, 0) != k for node in block):
                raise thrml_error("a block holds categories of several K", "one block for each K")
            name = ("clamped_" if clamped else "") + (f"categories{k}" if k else "spins")
            for node in block:
                place[node] = (name, len(sites[name]))
                sites[name].append(node)
    variables = {name: _variable(model, name, nodes, levels) for name, nodes in sites.items()}
    for factor in program.factors:
        assert isinstance(factor, DiscreteEBMFactor)
        _add(model, factor, variables, place)
    first = dict(zip(variables, np.cumsum([0, *(len(nodes) for nodes in sites.values())])))
    model.blocks(
        [[first[place[n][0]] + place[n][1] for block in together for n in block] for together in spec.superblocks]
    )
    samples = model.state("chains").sample(sweeps=1, beta=1.0)
    free = {name: v for name, v in variables.items() if not name.startswith("clamped_")}
    return Lowered(model.program(**{f"last_{name}": samples.last[v] for name, v in free.items()}), variables, place)


def _variable(model: Model, name: str, nodes: list[AbstractNode], levels: dict[AbstractNode, int]) -> Variable:
    clamped, k = name.startswith("clamped_"), levels.get(nodes[0], 0)
    if k:
        return model.categories(k, len(nodes), name=name, clamped=clamped)
    return model.spin(len(nodes), name=name, clamped=clamped)


def _levels(program: BlockSamplingProgram) -> dict[AbstractNode, int]:
    """K of each categorical node, by the weights of its factors and its sampler."""
    found: dict[AbstractNode, int] = {}

    def note(node: AbstractNode, k: int) -> None:
        if found.setdefault(node, k) != k:
            raise thrml_error(f"{node} has {found[node]} categories in one place and {k} in another", "one K a node")

    for factor in program.factors:
        if not isinstance(factor, DiscreteEBMFactor):
            raise thrml_error(f"{type(factor).__name__} is not compiled", "factors are DiscreteEBMFactor or its kinds")
        for axis, group in enumerate(factor.categorical_node_groups, 1):
            for node in group:
                note(node, factor.weights.shape[axis])
    for sampler, block in zip(program.samplers, program.gibbs_spec.free_blocks, strict=True):
        fits = SpinGibbsConditional if issubclass(block.node_type, SpinNode) else CategoricalGibbsConditional
        if type(sampler) is not fits:
            raise thrml_error(
                f"{type(sampler).__name__} is not compiled for {block.node_type.__name__}", f"use {fits.__name__}"
            )
        if isinstance(sampler, CategoricalGibbsConditional):
            for node in block:
                note(node, sampler.n_categories)
    for block in program.gibbs_spec.blocks:
        for node in block:
            if isinstance(node, CategoricalNode) and node not in found:
                raise thrml_error(f"{node} has no factor, so nothing says its K", "leave it out, or add a bias")
    return found


def _add(
    model: Model,
    factor: DiscreteEBMFactor,
    variables: dict[str, Variable],
    place: dict[AbstractNode, tuple[str, int]],
) -> None:
    """The terms of a factor: rows whose nodes are of the same variables go together."""
    rows: dict[tuple[str, ...], list[int]] = defaultdict(list)
    columns = list(zip(*(group.nodes for group in factor.node_groups), strict=True))
    for row, nodes in enumerate(columns):
        missing = next((node for node in nodes if node not in place), None)
        if missing is not None:
            raise thrml_error(f"{missing} has a factor and is in no block", "every node is free or clamped")
        rows[tuple(place[node][0] for node in nodes)].append(row)
    spins_alone = not factor.categorical_node_groups
    for names, chosen in rows.items():
        sites = np.array([[place[node][1] for node in columns[row]] for row in chosen], np.int64).T
        weights, of = factor.weights[chosen], [variables[name] for name in names]
        if len(names) == 1:
            total = np.zeros((of[0].type.sites, *weights.shape[1:]), np.float32)
            np.add.at(total, sites[0], weights)
            model.linear(of[0], total)
        elif spins_alone and len(names) == 2:
            model.edges(of[0], sites[0], sites[1], weights, of[1])
        else:
            model.table(of, weights, list(sites))
