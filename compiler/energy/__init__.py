"""Energies in a few lines of Python: `from neuc import energy`.

A `Model` collects variables and terms, its states are sampled and relaxed, and `Model.program` gives a `Program`: IR
that can be printed, edited, interpreted and compiled. Importers turn Ising models, graphs and POMDPs into these.
`train` teaches layered networks by local rules.
"""

from __future__ import annotations

from neuc.compiler.energy.acting import Life
from neuc.compiler.energy.agent import Agent, World
from neuc.compiler.energy.importers import from_bqm, from_coo, from_graph, linear_system
from neuc.compiler.energy.learning import Trained, train
from neuc.compiler.energy.learning_local import DendriticLearning, SelfContrastive
from neuc.compiler.energy.learning_maps import Conv
from neuc.compiler.energy.learning_models import learning_program
from neuc.compiler.energy.learning_rules import EquilibriumPropagation, ForwardForward, PredictiveCoding
from neuc.compiler.energy.learning_step import training_step
from neuc.compiler.energy.learning_stream import StreamLearner
from neuc.compiler.energy.learning_variants import (
    ContrastiveDivergence,
    ContrastiveHebbian,
    HolomorphicEquilibriumPropagation,
    IncrementalPredictiveCoding,
    ScaledPredictiveCoding,
)
from neuc.compiler.energy.model import Model, Parameter, Variable
from neuc.compiler.energy.netlist import netlist
from neuc.compiler.energy.networks import Layer, Network, from_onnx, network
from neuc.compiler.energy.program import Program, Results, read_program
from neuc.compiler.energy.spiking import spiking
from neuc.compiler.energy.states import Samples, State, Value, contrast
from neuc.compiler.energy.thermodynamic import inverse, log_determinant, solve

__all__ = [
    "Agent",
    "ContrastiveDivergence",
    "ContrastiveHebbian",
    "Conv",
    "DendriticLearning",
    "EquilibriumPropagation",
    "ForwardForward",
    "HolomorphicEquilibriumPropagation",
    "IncrementalPredictiveCoding",
    "Layer",
    "Life",
    "Model",
    "Network",
    "Parameter",
    "PredictiveCoding",
    "Program",
    "Results",
    "Samples",
    "ScaledPredictiveCoding",
    "SelfContrastive",
    "State",
    "StreamLearner",
    "Trained",
    "Value",
    "Variable",
    "World",
    "contrast",
    "from_bqm",
    "from_coo",
    "from_graph",
    "from_onnx",
    "inverse",
    "learning_program",
    "linear_system",
    "log_determinant",
    "netlist",
    "network",
    "read_program",
    "solve",
    "spiking",
    "train",
    "training_step",
]
