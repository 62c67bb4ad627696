"""Energies in a few lines of Python: `from neuc import energy`.

A `Model` collects variables and terms, its states are sampled and relaxed, and `Model.program` gives a `Program`: IR
that can be printed, edited, interpreted and compiled. Importers turn Ising models, graphs and POMDPs into these.
"""

from __future__ import annotations

from neuc.compiler.energy.agent import Agent
from neuc.compiler.energy.importers import from_bqm, from_coo, from_graph, linear_system
from neuc.compiler.energy.model import Model, Parameter, Variable
from neuc.compiler.energy.program import Program, Results, read_program
from neuc.compiler.energy.states import Samples, State, Value, contrast

__all__ = [
    "Agent",
    "Model",
    "Parameter",
    "Program",
    "Results",
    "Samples",
    "State",
    "Value",
    "Variable",
    "contrast",
    "from_bqm",
    "from_coo",
    "from_graph",
    "linear_system",
    "read_program",
]
