"""Which convolutions of a spiking loop run by scatter, and which pools by adding up bytes: geometry and the cost model.

Launching them is `spike_layers.py`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xdsl.dialects.builtin import FloatAttr
from xdsl.ir import Operation

from neuc.dialects import spike
from neuc.dialects.spike_types import EventType
from neuc.dialects.store import ConstantOp, dims_of, element_of
from neuc.passes.analysis.neuron_sites import RATE

ASSUMED_RATE = 0.15
SCATTER_COST = 3.7
"""What adding a vector of weights to outputs in memory takes, in multiply-adds of a dense product in registers.

Measured with `benchmarks/spiking_engine.py`'s convolutions on an x86-64 server processor with AVX-512: 1.33 ns against
0.36 ns.
"""
_MOST_COUNT = 127


@dataclass(frozen=True)
class Choice:
    """How a convolution runs, and why.

    Attributes:
        scatter: by scatter; else densely.
        why: a sentence for the report.
    """

    scatter: bool
    why: str


def rate_of(op: Operation) -> tuple[float, str]:
    """The share of a synapse's inputs that are not 0, and where that is from."""
    given = op.attributes.get(RATE)
    if isinstance(given, FloatAttr):
        return float(given.value.data), "measured"
    return ASSUMED_RATE, "assumed"


def choose_conv(op: spike.ConvOp) -> Choice:
    """Scatter if there is a kernel for it and so few inputs are active that it takes less time."""
    obstacle = _no_scatter(op)
    if obstacle is not None:
        return Choice(False, f"dense: {obstacle}")
    rate, source = rate_of(op)
    inputs = prod(dim.value for dim in dims_of(op.x)[2:])
    outputs = prod(dim.value for dim in dims_of(op.current)[2:])
    cost = rate * SCATTER_COST * inputs / outputs
    said = f"at {source} rate {rate:.3f} scatter takes {cost:.2f} of a dense product's time"
    return Choice(cost < 1, f"{'scatter' if cost < 1 else 'dense'}: {said}")


def _no_scatter(op: spike.ConvOp) -> str | None:
    if op.trits is not None or not isinstance(op.weight.owner, ConstantOp):
        return "weights are ternary or not constant"
    if len(dims_of(op.x)) != 4 or not all(dim.is_static for dim in dims_of(op.x)[1:]):
        return "scatter is for images of a known size"
    if set(op.strides.get_values()) != {1} or op.group.value.data != 1:
        return "scatter is for stride 1 and one group"
    return None


def adds_bytes(op: spike.SumPoolOp) -> bool:
    """Whether a pool's sums are small whole numbers, which bytes hold: of events, without padding."""
    element = element_of(op.x)
    return (
        isinstance(element, EventType)
        and len(dims_of(op.x)) == 4
        and all(dim.is_static for dim in dims_of(op.x)[1:])
        and not any(op.pads.get_values())
        and prod(op.kernel.get_values()) * element.values[-1] <= _MOST_COUNT
    )
