"""Colourings: proper on any graph, two colours exactly where there is no odd cycle, as few as networkx's greedy one."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuc.passes.graph_coloring import colored

MORE_COLORS = 2
"""Another order among equal degrees may cost so many."""


def edges_of(graph: nx.Graph) -> np.ndarray:
    return np.array(graph.edges(), np.int64).reshape(-1, 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.floats(0.0, 1.0), st.integers(0, 1000))
def test_random_graphs(vertices: int, density: float, seed: int) -> None:
    graph = nx.gnp_random_graph(vertices, density, seed=seed)
    edges = edges_of(graph)
    colors = colored(vertices, np.concatenate([edges, edges[::2, ::-1]]))
    assert colors.shape == (vertices,)
    assert colors.min() >= 0
    assert (colors[edges[:, 0]] != colors[edges[:, 1]]).all()
    if nx.is_bipartite(graph):
        assert colors.max() <= 1
    else:
        greedy = max(nx.greedy_color(graph, strategy="largest_first").values())
        assert 2 <= colors.max() <= greedy + MORE_COLORS


@pytest.mark.parametrize("graph", [nx.path_graph(3000), nx.grid_2d_graph(30, 40), nx.hypercube_graph(9)])
def test_long_bipartite_graphs_have_two_colors(graph: nx.Graph) -> None:
    numbered = nx.convert_node_labels_to_integers(graph)
    edges = edges_of(numbered)
    colors = colored(len(numbered), edges)
    assert colors.max() == 1
    assert (colors[edges[:, 0]] != colors[edges[:, 1]]).all()


def test_a_complete_graph_needs_every_color() -> None:
    assert sorted(colored(50, edges_of(nx.complete_graph(50)))) == list(range(50))
