"""`color-blocks`: cut the sites of a discrete model into blocks that may be updated at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from neuc.dialects.context import store_of
from neuc.dialects.energy import ColorOp, SampleOp, model_of
from neuc.dialects.energy_factors import FactorGraph
from neuc.dialects.energy_state import POSITIONS
from neuc.dialects.energy_types import Rule
from neuc.dialects.store import constant_value, make_constant
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.passes.graph_coloring import colored

Array = np.ndarray


@dataclass(frozen=True)
class ColorBlocks(ModulePass):
    """Give every model that `energy.sample` sweeps over an `energy.color`, if it has none.

    1. Grids whose offsets all lead from even to odd places are a checkerboard.
    2. Other models are graphs with an edge for each two sites that share a factor: two colours where the graph is
       bipartite, else greedy colours, largest degree first.
    3. Within a block sites of one degree follow each other, and each degree begins at a multiple of 16 positions, so
       that vectors of sites have equally many neighbours.

    ``%s, %t = energy.sample(%m, …)`` becomes ``%c = energy.color(%m, %order) {blocks = [0, 32, 64]} …
    %s, %t = energy.sample(%c, …)``.
    """

    name = "color-blocks"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Colour the models of all samplers."""
        store, colored = store_of(ctx), dict[SSAValue, SSAValue]()
        for sample in list(op.walk()):
            if not isinstance(sample, SampleOp) or sample.rule.data in (Rule.LANGEVIN, Rule.OU_EXACT):
                continue
            if isinstance(sample.model.owner, ColorOp):
                continue
            if sample.model not in colored:
                colored[sample.model] = _insert(sample, store)
            sample.operands[0] = colored[sample.model]


def _insert(sample: SampleOp, store: WeightStore) -> SSAValue:
    """An `energy.color` right after the model."""
    model = model_of(sample.model)
    graph = FactorGraph.of(model, lambda value: known(value, store))
    order, blocks = partition(graph)
    constant = make_constant("order", order, store)
    made = ColorOp(model.result, constant.result, blocks)
    for op in (constant, made):
        op.location = model.location
    block = model.parent_block()
    assert block is not None
    block.insert_ops_after([constant, made], model)
    return made.result


def known(value: SSAValue, store: WeightStore) -> Array:
    """The array of a parameter.

    Raises:
        Error: NEUC-E612, it is not constant.
    """
    array = constant_value(value, store)
    if array is None:
        raise Error(
            "NEUC-E612",
            "a parameter of a sampled model is computed at run time",
            hint="compiled samplers need constant couplings: make them store.constant",
        )
    return array


def partition(graph: FactorGraph, colors: Array | None = None) -> tuple[Array, list[int]]:
    """`order` and `blocks` of `energy.color` for a graph, with these colours [sites] or such as are found."""
    if colors is None:
        colors = _checkerboard(graph)
    if colors is None:
        colors = colored(graph.sites, graph.conflicts())
    degree = np.bincount(graph.edges.reshape(-1), minlength=graph.sites)
    kind = np.where(graph.levels > 0, degree.max(initial=0) + 1 + graph.levels, degree)
    parts, blocks = list[Array](), [0]
    for color in range(int(colors[graph.free].max()) + 1):
        members = np.flatnonzero(graph.free & (colors == color))
        for value in np.unique(kind[members]):
            part = members[kind[members] == value]
            parts.append(np.pad(part, (0, -len(part) % POSITIONS), constant_values=-1))
        blocks.append(sum(map(len, parts)))
    return np.concatenate(parts).astype(np.int32), blocks


def _checkerboard(graph: FactorGraph) -> Array | None:
    """Parity colours, if stencils are all there is and each offset changes the parity."""
    if (
        not graph.stencils
        or len(graph.edges)
        or any(t.spins.shape[1] + t.categories.shape[1] > 1 for t in graph.tables)
    ):
        return None
    colors = np.zeros(graph.sites, np.int64)
    for stencil in graph.stencils:
        if any(sum(step) % 2 == 0 for step in stencil.steps):
            return None
        moves = [axis for axis in range(len(stencil.shape)) if any(step[axis] for step in stencil.steps)]
        if stencil.periodic and any(stencil.shape[axis] % 2 for axis in moves):
            return None
        parity = np.indices(stencil.shape).sum(0).reshape(-1) % 2
        colors[stencil.first : stencil.first + len(parity)] = parity
    return colors
