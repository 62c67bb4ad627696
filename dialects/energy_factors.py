"""The discrete part of an energy as one list of sites and factors: what samplers work on.

`FactorGraph.of` reads the terms of a model; interpreters and lowerings share it, so that they add the same numbers in
the same order. Sites are numbered through the discrete variables in the model's order. No sampling here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from xdsl.ir import SSAValue

from neuc.dialects.energy_model import ModelOp
from neuc.dialects.energy_terms import BilinearOp, EdgesOp, LinearOp, StencilOp, TableOp, VarOp
from neuc.dialects.energy_types import Space, var_type
from neuc.errors import Error

Array = np.ndarray
Read = Callable[[SSAValue], Array]


@dataclass(frozen=True)
class Stencil:
    """A coupling times the sum of a site's neighbours: `neighbours` i32 [n, k], -1 where there is none."""

    first: int
    coupling: np.float32
    neighbours: Array
    shape: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]
    periodic: bool


@dataclass(frozen=True)
class Table:
    """Factors of any order: sites of spins [F, a] and of categories [F, b], values f32 [F or 1, K…]."""

    spins: Array
    categories: Array
    values: Array


@dataclass
class FactorGraph:
    """Sites and factors; F = −Σ h s − Σ stencils − Σ w s_i s_j − Σ tables.

    Attributes:
        levels: i32 [n]: K of categories, 0 of spins.
        free: bool [n]: not clamped.
        offsets: the number of the first site of each discrete variable.
        field: f32 [n].
        stencils: uniform couplings on grids.
        edges: i32 [E, 2] and f32 [E].
        tables: the other factors.
    """

    levels: Array
    free: Array
    offsets: dict[SSAValue, int]
    field: Array
    stencils: list[Stencil] = dataclasses.field(default_factory=list[Stencil])
    edges: Array = dataclasses.field(default_factory=lambda: np.empty((0, 2), np.int32))
    weights: Array = dataclasses.field(default_factory=lambda: np.empty(0, np.float32))
    tables: list[Table] = dataclasses.field(default_factory=list[Table])

    @property
    def sites(self) -> int:
        return len(self.levels)

    @staticmethod
    def of(model: ModelOp, read: Read) -> FactorGraph:
        """The factor graph of a model whose parameters `read` knows.

        Raises:
            Error: NEUC-E600 to E604, parameters that make no energy, or a term samplers do not take.
        """
        levels, free, offsets, count = list[Array](), list[Array](), dict[SSAValue, int](), 0
        for variable in model.variables:
            type_ = var_type(variable)
            if type_.discrete:
                assert isinstance(variable.owner, VarOp)
                offsets[variable] = count
                count += type_.sites
                levels.append(np.full(type_.sites, type_.levels, np.int32))
                free.append(np.full(type_.sites, not variable.owner.clamped))
        if not levels:
            raise Error("NEUC-E604", "the model has no spins or categories to sample", hint="use rule = langevin")
        graph = FactorGraph(np.concatenate(levels), np.concatenate(free), offsets, np.zeros(count, np.float32))
        pairs, weights = list[Array](), list[Array]()
        for term in model.terms:
            found = graph._add(term, read)
            if found is not None:
                pairs.append(found[0])
                weights.append(found[1])
        if pairs:
            graph.edges, graph.weights = np.concatenate(pairs), np.concatenate(weights)
        return graph

    def _add(self, term: SSAValue, read: Read) -> tuple[Array, Array] | None:
        """Take one term in; edges are handed back, to be joined at the end."""
        match term.owner:
            case LinearOp() as op if op.x in self.offsets:
                values, base, type_ = finite(read(op.b), "b"), self.offsets[op.x], var_type(op.x)
                if type_.space is Space.SPIN:
                    self.field[base : base + type_.sites] += values.reshape(-1).astype(np.float32)
                else:
                    sites = (base + np.arange(type_.sites, dtype=np.int32))[:, None]
                    table = values.reshape(type_.sites, type_.levels).astype(np.float32)
                    self.tables.append(Table(np.empty((type_.sites, 0), np.int32), sites, table))
            case BilinearOp() as op if op.x in self.offsets and op.y in self.offsets:
                return self._dense(op, read)
            case EdgesOp() as op if op.x in self.offsets and op.y in self.offsets:
                ends = [
                    self.offsets[v] + _sites(read(index), var_type(v).sites)
                    for v, index in ((op.x, op.i), (op.y, op.j))
                ]
                edges, weights = np.stack(ends, 1).astype(np.int32), edge_weights(op, read).astype(np.float32)
                if (edges[:, 0] == edges[:, 1]).any():
                    raise Error(
                        "NEUC-E602", "an edge joins a site to itself", hint="a spin's square is 1: leave it out"
                    )
                return edges, weights
            case StencilOp() as op if op.x in self.offsets:
                coupling = np.float32(finite(read(op.coupling), "the coupling").reshape(-1)[0])
                shape = var_type(op.x).shape
                near = stencil_neighbours(shape, op.steps(), periodic=op.periodic is not None)
                near = np.where(near < 0, -1, near + self.offsets[op.x]).astype(np.int32)
                first = self.offsets[op.x]
                self.stencils.append(Stencil(first, coupling, near, shape, op.steps(), op.periodic is not None))
            case TableOp() as op if all(v in self.offsets for v in op.variables):
                sites = [
                    self.offsets[v] + _sites(read(index), var_type(v).sites) for v, index in zip(op.variables, op.sites)
                ]
                spins = sum(var_type(v).space is Space.SPIN for v in op.variables)
                columns = np.stack(sites, 1).astype(np.int32)
                values = finite(read(op.table), "the table").astype(np.float32)
                self.tables.append(Table(columns[:, :spins], columns[:, spins:], values))
            case _:
                raise Error(
                    "NEUC-E604",
                    f"{getattr(term.owner, 'name', 'a term')} is no term of spins and categories alone",
                    hint="samplers of discrete variables take linear, bilinear, edges, stencil and table terms",
                )
        return None

    def _dense(self, op: BilinearOp, read: Read) -> tuple[Array, Array]:
        w = symmetric_if_same(finite(read(op.w), "W"), op)
        if op.x is op.y and w.diagonal().any():
            raise Error("NEUC-E602", "W couples spins to themselves", hint="make its diagonal zero")
        i, j = np.nonzero(np.triu(w) if op.x is op.y else w)
        edges = np.stack([i + self.offsets[op.x], j + self.offsets[op.y]], 1)
        return edges.astype(np.int32), w[i, j].astype(np.float32)

    def adjacency(self) -> tuple[Array, Array, Array]:
        """The edges of each site in the order of edges: (start [n + 1], neighbour, weight)."""
        source = np.concatenate([self.edges[:, 0], self.edges[:, 1]])
        target = np.concatenate([self.edges[:, 1], self.edges[:, 0]])
        number = np.tile(np.arange(len(self.edges)), 2)
        order = np.lexsort((number, source))
        start = np.zeros(self.sites + 1, np.int64)
        np.cumsum(np.bincount(source, minlength=self.sites), out=start[1:])
        return start, target[order], np.tile(self.weights, 2)[order]

    def conflicts(self) -> Array:
        """Pairs of sites [*, 2] that some factor joins."""
        found = [self.edges]
        for stencil in self.stencils:
            own = stencil.first + np.arange(len(stencil.neighbours))
            found += [np.stack([own, column], 1)[column >= 0] for column in stencil.neighbours.T[: len(stencil.steps)]]
        for table in self.tables:
            sites = np.concatenate([table.spins, table.categories], 1)
            width = sites.shape[1]
            found += [sites[:, [a, b]] for a in range(width) for b in range(a + 1, width)]
        return np.concatenate(found)

    def check_blocks(self, order: Array, blocks: Sequence[int]) -> None:
        """Refuse a block partition that is no partition, or has dependent sites in one block.

        Raises:
            Error: NEUC-E603.
        """
        sites = order[order >= 0]
        expected = np.flatnonzero(self.free)
        if not np.array_equal(np.sort(sites), expected):
            raise Error(
                "NEUC-E603",
                f"the blocks hold {len(sites)} sites, the model has {len(expected)} free ones, each once",
                hint="run color-blocks, or list every free site once",
            )
        block = np.full(self.sites, -1)
        for number, (begin, end) in enumerate(pairwise(blocks)):
            members = order[begin:end]
            block[members[members >= 0]] = number
        pairs = self.conflicts()
        inside = (block[pairs[:, 0]] == block[pairs[:, 1]]) & (block[pairs[:, 0]] >= 0)
        if inside.any():
            a, b = pairs[np.flatnonzero(inside)[0]]
            raise Error(
                "NEUC-E603",
                f"sites {a} and {b} share a factor and are in one block ({int(inside.sum())} such pairs)",
                hint="sites that are updated at once must be independent: run color-blocks",
            )


def stencil_neighbours(shape: Sequence[int], steps: Sequence[Sequence[int]], *, periodic: bool) -> Array:
    """Site numbers [n, 2·offsets]: those at +o of all offsets, then those at −o; -1 outside an open grid."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1).reshape(-1, len(shape))
    size = np.asarray(shape)
    columns: list[Array] = []
    for sign in (1, -1):
        for step in steps:
            moved = grid + sign * np.asarray(step)
            inside = ((moved >= 0) & (moved < size)).all(1)
            flat = np.ravel_multi_index(tuple((moved % size).T), tuple(shape))
            columns.append(np.asarray(flat) if periodic else np.where(inside, flat, -1))
    return np.stack(columns, 1)


def finite(values: Array, name: str) -> Array:
    """The values, unless one is NaN or infinite.

    Raises:
        Error: NEUC-E601.
    """
    if not np.isfinite(values).all():
        raise Error("NEUC-E601", f"{name} holds NaN or infinity", hint="check where the numbers come from")
    return values


def edge_weights(op: EdgesOp, read: Read) -> Array:
    """The weight of each edge, shared or not.

    Raises:
        Error: NEUC-E601 or E602.
    """
    w = finite(read(op.w), "w")
    return w if op.k is None else w[_sites(read(op.k), len(w))]


def symmetric_if_same(w: Array, op: BilinearOp) -> Array:
    """W, which must be symmetric where it couples a variable to itself.

    Raises:
        Error: NEUC-E600.
    """
    if op.x is op.y and not np.array_equal(w, w.T):
        raise Error(
            "NEUC-E600",
            "W couples a variable to itself and is not symmetric",
            hint="use (W + Wᵀ)/2, or energy.vector_field for forces without an energy",
        )
    return w


def _sites(index: Array, count: int) -> Array:
    if index.size and not 0 <= int(index.min()) <= int(index.max()) < count:
        raise Error("NEUC-E602", f"a site number is outside 0 … {count - 1}", hint="sites are numbered row by row")
    return index
