"""A coloured graph of spins as the arrays that sweep kernels read. Plain numpy: no IR, no kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuc.dialects.energy_factors import FactorGraph
from neuc.dialects.interp.energy_random import GROUP, LANES

Array = np.ndarray


@dataclass(frozen=True)
class Layout:
    """Places are positions, then clamped sites, then one that is always 0.

    Attributes:
        positions: P, a multiple of 64.
        places: R, a multiple of 64.
        order: i32 [R], the site of a place; -1 where there is none.
        place: i32 [n], the place of a site.
        fields: f32 [P].
        degrees: i32 [P/16], the most neighbours of a vector's positions.
        neighbours: i32, 16 places for each degree of each vector.
        weights: f32 as `neighbours`.
        grid: neighbours of the stencil per site; 0 without one.
        near: i32 [P/16, grid, 16] places.
        coupling: of the stencil.
    """

    positions: int
    places: int
    order: Array
    place: Array
    fields: Array
    degrees: Array
    neighbours: Array
    weights: Array
    grid: int
    near: Array
    coupling: float


def layout(graph: FactorGraph, order: Array) -> Layout:
    """The arrays of a graph without tables and with at most one stencil."""
    positions = _up(len(order))
    clamped = np.flatnonzero(~graph.free)
    zero = positions + len(clamped)
    places = _up(zero + 1)
    sites = np.full(places, -1, np.int32)
    sites[: len(order)] = order
    sites[positions:zero] = clamped
    place = np.empty(graph.sites, np.int32)
    place[sites[sites >= 0]] = np.flatnonzero(sites >= 0)
    swept = sites[:positions]
    fields = np.where(swept >= 0, graph.field[swept], 0).astype(np.float32)
    degrees, neighbours, weights = _edges(graph, swept, place, zero)
    stencil = graph.stencils[0] if graph.stencils else None
    near = np.empty(0, np.int32)
    if stencil is not None:
        width = stencil.neighbours.shape[1]
        table = np.full((positions, width), zero, np.int32)
        inside = (swept >= stencil.first) & (swept < stencil.first + len(stencil.neighbours))
        rows = stencil.neighbours[swept[inside] - stencil.first]
        table[inside] = np.where(rows >= 0, place[rows], zero)
        near = np.ascontiguousarray(table.reshape(-1, LANES, width).swapaxes(1, 2))
    return Layout(
        positions=positions,
        places=places,
        order=sites,
        place=place,
        fields=fields,
        degrees=degrees,
        neighbours=neighbours,
        weights=weights,
        grid=0 if stencil is None else stencil.neighbours.shape[1],
        near=near,
        coupling=0.0 if stencil is None else float(stencil.coupling),
    )


def _up(count: int) -> int:
    return -(-count // GROUP) * GROUP


def _edges(graph: FactorGraph, swept: Array, place: Array, zero: int) -> tuple[Array, Array, Array]:
    """Degrees of vectors, and neighbours and weights, filled up with the place that is 0."""
    start, near, weight = graph.adjacency()
    begin = np.where(swept >= 0, start[swept], 0)
    degree = np.where(swept >= 0, start[swept + 1] - start[swept], 0)
    most = degree.reshape(-1, LANES).max(1)
    first = np.concatenate([[0], np.cumsum(most)]) * LANES
    neighbours = np.full(int(first[-1]), zero, np.int32)
    weights = np.zeros(int(first[-1]), np.float32)
    position = np.repeat(np.arange(len(swept)), degree)
    rank = np.arange(len(position)) - np.repeat(np.cumsum(degree) - degree, degree)
    target = first[position // LANES] + rank * LANES + position % LANES
    source = np.repeat(begin, degree) + rank
    neighbours[target] = place[near[source]]
    weights[target] = weight[source]
    return most.astype(np.int32), neighbours, weights
