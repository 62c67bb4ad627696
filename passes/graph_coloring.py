"""Colours of a graph's vertices so that no edge joins two of one colour: two where that is possible, else greedy.

Plain numpy, a few array operations for each level of dependence; nothing here knows energies or IR.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def colored(vertices: int, edges: Array) -> Array:
    """Colours 0, 1, … of each vertex, i64 [vertices].

    Args:
        vertices: how many there are.
        edges: [*, 2]; one may be listed twice, and none joins a vertex to itself.
    """
    ends = np.sort(edges.reshape(-1, 2).astype(np.int64), axis=1)
    codes = np.unique(ends[:, 0] * vertices + ends[:, 1])
    a, b = codes // vertices, codes % vertices
    two = _two_colors(vertices, a, b)
    return _greedy(vertices, a, b) if two is None else two


def _two_colors(vertices: int, a: Array, b: Array) -> Array | None:
    """Colours of a bipartite graph; None of another.

    In its double cover, where (v, 0) and (w, 1) are joined for each edge, the two copies of a vertex hang together if
    and only if an odd cycle reaches it.
    """
    first = np.concatenate([a, a + vertices])
    second = np.concatenate([b + vertices, b])
    label = np.arange(2 * vertices)
    while True:
        one, other = label[first], label[second]
        apart = one != other
        if not apart.any():
            return (label[:vertices] > label[vertices:]).astype(np.int64)
        first, second = first[apart], second[apart]
        least = np.minimum(one[apart], other[apart])
        np.minimum.at(label, one[apart], least)
        np.minimum.at(label, other[apart], least)
        while (label != (up := label[label])).any():
            label = up
        if (label[:vertices] == label[vertices:]).any():
            return None


def _greedy(vertices: int, a: Array, b: Array) -> Array:
    """The smallest colour that no vertex before it has, in the order of falling degree, chance among equals.

    A vertex waits for its neighbours that come before it alone, so all that wait for none are coloured at once; chance
    keeps chains of waiting short.
    """
    degree = np.bincount(a, minlength=vertices) + np.bincount(b, minlength=vertices)
    rank = np.empty(vertices, np.int64)
    rank[np.lexsort((np.random.default_rng(0).permutation(vertices), -degree))] = np.arange(vertices)
    before, after = np.where(rank[a] < rank[b], a, b), np.where(rank[a] < rank[b], b, a)
    followers, follow_start = _by_vertex(vertices, before, after)
    leaders, lead_start = _by_vertex(vertices, after, before)
    waiting = np.diff(lead_start)
    colors = np.full(vertices, -1)
    ready = np.flatnonzero(waiting == 0)
    while len(ready):
        colors[ready] = _least_absent(colors, leaders, lead_start, ready)
        reached = followers[_ranges(follow_start, ready)]
        np.subtract.at(waiting, reached, 1)
        ready = np.unique(reached[waiting[reached] == 0])
    return colors


def _by_vertex(vertices: int, source: Array, target: Array) -> tuple[Array, Array]:
    """Targets in the order of sources, and where each source's begin."""
    start = np.zeros(vertices + 1, np.int64)
    np.cumsum(np.bincount(source, minlength=vertices), out=start[1:])
    return target[np.argsort(source, kind="stable")], start


def _ranges(start: Array, chosen: Array) -> Array:
    """The numbers start[v] … start[v + 1] − 1 of the chosen v, one after another."""
    count = start[chosen + 1] - start[chosen]
    return np.repeat(start[chosen] - (np.cumsum(count) - count), count) + np.arange(int(count.sum()))


def _least_absent(colors: Array, leaders: Array, start: Array, chosen: Array) -> Array:
    """For each of the chosen, the smallest colour that its leaders leave free."""
    count = start[chosen + 1] - start[chosen]
    owner = np.repeat(np.arange(len(chosen)), count)
    if not len(owner):
        return np.zeros(len(chosen), np.int64)
    taken = colors[leaders[_ranges(start, chosen)]]
    width = int(taken.max()) + 1
    pairs = np.unique(owner * width + taken)
    owner, taken = pairs // width, pairs % width
    place = np.arange(len(pairs)) - np.searchsorted(owner, owner)
    found = np.bincount(owner, minlength=len(chosen))
    gap = taken != place
    np.minimum.at(found, owner[gap], place[gap])
    return found
