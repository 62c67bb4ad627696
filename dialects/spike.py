"""The `spike` dialect: spiking networks with explicit time and state.

Neurons are in `spike_neurons.py` and `spike_levels.py`, synapses in `spike_synapses.py`, encoders, decoders and delays
in `spike_coding.py`, the time loop in `spike_time.py`, the type of spikes in `spike_types.py`; `interp/spike*.py` says
in numpy what each operation computes. Import operations from here.
"""

from __future__ import annotations

from xdsl.ir import Dialect

from neuc.dialects.spike_coding import (
    CODERS,
    AccumulateOp,
    DelayOp,
    EncodeDeltaOp,
    EncodeLatencyOp,
    EncodeRateOp,
    FirstSpikeOp,
    SilenceOp,
)
from neuc.dialects.spike_levels import LEVEL_NEURONS, DifferentialOp, LevelsOp, MultiThresholdOp
from neuc.dialects.spike_neurons import (
    DECAY_ONE,
    NEURONS,
    AdaptiveOp,
    AlphaOp,
    CubaLifOp,
    CubaLiOp,
    Fire,
    FireAttr,
    IfOp,
    IntegratorOp,
    LeakyOp,
    LifOp,
    LiOp,
    MembraneOp,
    NeuronOp,
    Reads,
    ReadsAttr,
    Reset,
    ResetAttr,
    ThresholdOp,
)
from neuc.dialects.spike_synapses import SYNAPSES, ConvOp, LinearOp, MaxPoolOp, ScaleOp, SumPoolOp, SynapseOp
from neuc.dialects.spike_time import STEP_TYPE, ExpectationOp, Form, FormAttr, LoopOp, YieldOp
from neuc.dialects.spike_types import BINARY, SIGNED, EventType, event_of, graded

__all__ = [
    "BINARY",
    "DECAY_ONE",
    "SIGNED",
    "STEP_TYPE",
    "AccumulateOp",
    "AdaptiveOp",
    "AlphaOp",
    "ConvOp",
    "CubaLiOp",
    "CubaLifOp",
    "DelayOp",
    "DifferentialOp",
    "EncodeDeltaOp",
    "EncodeLatencyOp",
    "EncodeRateOp",
    "EventType",
    "ExpectationOp",
    "Fire",
    "FirstSpikeOp",
    "Form",
    "IfOp",
    "IntegratorOp",
    "LeakyOp",
    "LevelsOp",
    "LiOp",
    "LifOp",
    "LinearOp",
    "LoopOp",
    "MaxPoolOp",
    "MembraneOp",
    "MultiThresholdOp",
    "NeuronOp",
    "Reads",
    "Reset",
    "ScaleOp",
    "SilenceOp",
    "Spike",
    "SumPoolOp",
    "SynapseOp",
    "ThresholdOp",
    "YieldOp",
    "event_of",
    "graded",
]

Spike = Dialect(
    "spike",
    [*NEURONS, *LEVEL_NEURONS, *SYNAPSES, *CODERS, LoopOp, YieldOp, ExpectationOp],
    [EventType, ResetAttr, FireAttr, ReadsAttr, FormAttr],
)
