"""From the models of others: binary quadratic models, graphs, sparse matrices, linear systems.

Packages are not imported: what has the attributes of a dimod model or of a networkx graph is one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from neuc.compiler.energy.model import Model, Variable
from neuc.errors import Error


class QuadraticModel(Protocol):
    """What a dimod BinaryQuadraticModel has."""

    linear: Mapping[Hashable, float]
    quadratic: Mapping[tuple[Hashable, Hashable], float]
    vartype: Any


class Graph(Protocol):
    """What a networkx Graph has."""

    nodes: Any
    edges: Any


def from_bqm(bqm: QuadraticModel, name: str = "spins") -> tuple[Model, Variable, list[Hashable]]:
    """An Ising or QUBO model E(s) = Σ h s + Σ J s s (dimod's sign), as F = E up to a constant.

    QUBO variables 0, 1 are (1 + s)/2 of spins.

    Returns:
        The model, its spins, and the label of each site.
    """
    labels = list(bqm.linear)
    place = {label: index for index, label in enumerate(labels)}
    field = -np.array([bqm.linear[label] for label in labels], np.float64)
    pairs = list(bqm.quadratic)
    i, j = (np.array([place[pair[end]] for pair in pairs], np.int64) for end in (0, 1))
    weight = -np.array([bqm.quadratic[pair] for pair in pairs], np.float64)
    if getattr(bqm.vartype, "name", str(bqm.vartype)) == "BINARY":
        weight = weight / 4
        field = field / 2
        np.add.at(field, i, weight)
        np.add.at(field, j, weight)
    model, spins = from_coo(i, j, weight, field, name=name)
    return model, spins, labels


def from_coo(i: ArrayLike, j: ArrayLike, w: ArrayLike, field: ArrayLike, name: str = "spins") -> tuple[Model, Variable]:
    """Spins with F = −Σ w s_i s_j − Σ h s; each pair (i, j) once.

    Raises:
        Error: NEUC-E601, E602, weights that are no numbers, sites that are not there.
    """
    h = np.asarray(field, np.float32)
    model = Model()
    spins = model.spin(len(h), name=name)
    if h.any():
        model.linear(spins, h)
    model.edges(spins, i, j, w)
    return model, spins


def from_graph(graph: Graph, weight: str = "weight", field: str = "field") -> tuple[Model, Variable, list[Hashable]]:
    """Spins on the nodes of a graph; F = −Σ w s s − Σ h s with edge and node attributes (default 1 and 0).

    Returns:
        The model, its spins, and the node of each site.
    """
    labels = list(graph.nodes)
    place = {label: index for index, label in enumerate(labels)}
    edges: Iterable[tuple[Hashable, Hashable, float]] = graph.edges(data=weight, default=1.0)
    rows = [(place[a], place[b], w) for a, b, w in edges]
    h = [float(h) for _, h in graph.nodes(data=field, default=0.0)]
    i, j, w = (np.array([row[k] for row in rows]) for k in range(3))
    model, spins = from_coo(i, j, w, h)
    return model, spins, labels


def linear_system(a: ArrayLike, b: ArrayLike | None = None, *, precise: bool = False) -> tuple[Model, Variable]:
    """F = ½ xᵀ A x − bᵀ x: at β = 1 its samples have mean A⁻¹ b and covariance A⁻¹ (thermodynamic linear algebra).

    Args:
        a: A, symmetric [n, n].
        b: the right side [n]; zeros where it is left out.
        precise: f64 states, for the interpreter alone.

    Raises:
        Error: NEUC-E600, A is not symmetric; NEUC-E601, it holds NaN or infinity.
    """
    matrix = np.asarray(a, np.float64)
    if not np.isfinite(matrix).all():
        raise Error("NEUC-E601", "A holds NaN or infinity", hint="repair its entries")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise Error("NEUC-E600", f"A has shape {list(matrix.shape)}", hint="a square matrix [n, n]")
    if not np.allclose(matrix, matrix.T):
        raise Error("NEUC-E600", "A is not symmetric", hint="solve Aᵀ A x = Aᵀ b instead")
    model = Model(precise=precise)
    x = model.real(len(matrix), name="x")
    model.couple(x, -0.5 * (matrix + matrix.T))
    if b is not None:
        model.linear(x, b)
    return model, x
