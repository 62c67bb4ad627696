"""The `energy` dialect: models as sums of energy terms, and how they are sampled, relaxed and learned.

One form holds Ising models and p-bits, THRML's spin and category factors, Hopfield and equilibrium-propagation
networks, resistor networks, predictive coding, Ornstein-Uhlenbeck problems, oscillators, simulated bifurcation and
active inference. Operations are in the files `energy_*.py`; import them from here.
"""

from __future__ import annotations

from xdsl.ir import Dialect

from neuc.dialects.energy_agent import EfeOp
from neuc.dialects.energy_model import TERM_OPS, ModelOp, variable_of
from neuc.dialects.energy_networks import CostOp, LocalOp, LseOp, PredEdgesOp, PredOp, ResistorOp, VectorFieldOp
from neuc.dialects.energy_prediction import PredictedOp, PredictionOp
from neuc.dialects.energy_rollout import RolloutOp
from neuc.dialects.energy_run import RUN_OPS, ContrastOp, GradOp, ObserveOp, RelaxOp, SampleOp
from neuc.dialects.energy_state import (
    STATE_OPS,
    ClampOp,
    ColorOp,
    EvaluateOp,
    InitOp,
    ReadOp,
    ScheduleOp,
    StateOp,
    chains_of,
    model_of,
    state_model,
)
from neuc.dialects.energy_terms import BilinearOp, EdgesOp, LinearOp, QuadOp, RhoOp, StencilOp, TableOp, VarOp
from neuc.dialects.energy_types import (
    CostAttr,
    CostKind,
    Method,
    MethodAttr,
    ModelType,
    Observable,
    ObservableAttr,
    Ramp,
    RampAttr,
    RhoAttr,
    RhoKind,
    Role,
    RoleAttr,
    Rule,
    RuleAttr,
    Space,
    StateType,
    TermType,
    TrajectoryType,
    VarType,
    var_type,
)

__all__ = [
    "BilinearOp",
    "ClampOp",
    "ColorOp",
    "ContrastOp",
    "CostKind",
    "CostOp",
    "EdgesOp",
    "EfeOp",
    "EvaluateOp",
    "GradOp",
    "InitOp",
    "LinearOp",
    "LocalOp",
    "LseOp",
    "Method",
    "ModelOp",
    "ModelType",
    "Observable",
    "ObserveOp",
    "PredEdgesOp",
    "PredOp",
    "PredictedOp",
    "PredictionOp",
    "QuadOp",
    "Ramp",
    "ReadOp",
    "RelaxOp",
    "ResistorOp",
    "RhoKind",
    "RhoOp",
    "Role",
    "RolloutOp",
    "Rule",
    "SampleOp",
    "ScheduleOp",
    "Space",
    "StateOp",
    "StateType",
    "StencilOp",
    "TableOp",
    "TermType",
    "TrajectoryType",
    "VarOp",
    "VarType",
    "VectorFieldOp",
    "chains_of",
    "model_of",
    "state_model",
    "var_type",
    "variable_of",
]

Energy = Dialect(
    "energy",
    [VarOp, RhoOp, *TERM_OPS, PredictedOp, ModelOp, *STATE_OPS, *RUN_OPS, EfeOp, RolloutOp],
    [
        VarType,
        TermType,
        ModelType,
        StateType,
        TrajectoryType,
        RoleAttr,
        RhoAttr,
        CostAttr,
        RuleAttr,
        MethodAttr,
        ObservableAttr,
        RampAttr,
    ],
)
