"""What a spiking network asks of a chip: neurons, synapses, memory of layers, delays, counted in its `spike.loop`.

Counts are for one sample. A layer is a population of neurons with the synapses that lead to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, log2, prod

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from neuc.dialects import dense, spike
from neuc.dialects.locations import node_names
from neuc.dialects.store import constant_value, dims_of
from neuc.dialects.ternary import WeightOp
from neuc.dialects.ternary_weights import weight_arrays
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error


@dataclass
class Synapses:
    """A synapse operation: connections between neurons, and the weights they share.

    Attributes:
        name: what it is called.
        connections: pairs of neurons with a weight that is not 0.
        fan_out: the most connections of one input.
        weights: words of weights, laid out as DYNAP-CNN cores do: each of kernel and outputs up to a power of two.
        biases: words of biases.
        kernel: the largest side of its window, 1 without one.
        bits: of integers that its weights are, times a scale for each output; None if they are floats.
    """

    name: str
    connections: int
    fan_out: int
    weights: int
    biases: int
    kernel: int
    bits: int | None


@dataclass
class Population:
    """Neurons of one operation.

    Attributes:
        name: what they are called.
        kind: the operation, without the dialect.
        size: how many.
        words: memory words they take where sides are rounded up to powers of two.
        reset: soft, hard, or nothing.
        binary: whether their spikes are.
    """

    name: str
    kind: str
    size: int
    words: int
    reset: str
    binary: bool


@dataclass
class Footprint:
    """What a network needs."""

    populations: list[Population] = field(default_factory=list[Population])
    synapses: list[Synapses] = field(default_factory=list[Synapses])
    others: list[str] = field(default_factory=list[str])
    amounts: dict[str, int] = field(default_factory=dict[str, int])


_WHOLE = 1e-4
"""How far a multiple may be from an integer: f32 rounds a scale by 6e-8, and integers here are below 2^15."""


def footprint(module: ModuleOp, store: WeightStore) -> Footprint:
    """Count what the module's one `spike.loop` needs.

    Raises:
        Error: NEUC-E510, there is not exactly one loop.
    """
    loops = [op for op in module.walk() if isinstance(op, spike.LoopOp)]
    if len(loops) != 1:
        hint = "give a spiking network; `neuc convert --to snn` makes one"
        raise Error("NEUC-E510", f"it has {len(loops)} time loops, not one", hint=hint)
    found, (loop,) = Footprint(), loops
    entry = next(op for op in module.ops if isinstance(op, func.FuncOp))
    delay = recurrent = 0
    before = [op for op in entry.body.block.ops if isinstance(op, (spike.SynapseOp, dense.MatMulOp, dense.ConvOp))]
    for op in (*before, *loop.body.block.ops):
        match op:
            case spike.LinearOp() | spike.ConvOp() | dense.MatMulOp() | dense.ConvOp():
                found.synapses.append(_synapses(op, store))
                recurrent += op.operands[0] in loop.states
            case spike.DelayOp():
                delay = max(delay, dims_of(op.ring)[0].value)
            case spike.MembraneOp() | spike.LevelsOp() | spike.ThresholdOp():
                found.populations.append(_population(op))
            case spike.ExpectationOp() | spike.MaxPoolOp() | spike.EncodeRateOp() | spike.EncodeDeltaOp():
                found.others.append(f"{_name(op)} ({op.name})")
            case _:
                pass
    sizes = [p.size for p in found.populations]
    outputs = _outputs(loop)
    found.amounts = {
        "neurons": sum(sizes),
        "neurons_in_a_core": -(-sum(sizes) // 128),
        "synapses": sum(s.connections for s in found.synapses),
        "inputs": max((prod(d.value for d in dims_of(a)[1:] if d.is_static) for a in entry.body.block.args), default=0),
        "outputs": outputs,
        "hidden_neurons": sum(sizes) - (outputs if sizes and outputs == sizes[-1] else 0),
        "fan_out": max((s.fan_out for s in found.synapses[1:]), default=0),
        "delay": delay,
        "recurrent_layers": recurrent,
        "kernel": max((s.kernel for s in found.synapses), default=1),
    }
    return found


def _outputs(loop: spike.LoopOp) -> int:
    values = [*loop.outputs, *(v for v in loop.final if v.uses)]
    lead = {value: 2 if value in loop.outputs else 1 for value in values}
    return max((prod(d.value for d in dims_of(v)[lead[v] :] if d.is_static) for v in values), default=0)


def _name(op: Operation) -> str:
    names = node_names(op)
    return names[0] if names else op.name


def _sides(value: SSAValue) -> list[int]:
    return [d.value for d in dims_of(value)[1:] if d.is_static]


def _rounded(size: int) -> int:
    return 1 << ceil(log2(max(1, size)))


def _population(op: spike.MembraneOp | spike.LevelsOp | spike.ThresholdOp) -> Population:
    channels, *sides = _sides(op.operands[0]) or [1]
    event = spike.event_of(op.results[0])
    reset = "soft" if isinstance(op, spike.LevelsOp) else ""
    if isinstance(op, spike.NeuronOp):
        reset = op.reset.data.value
    return Population(
        _name(op),
        op.name.removeprefix("spike."),
        channels * prod(sides),
        channels * prod(_rounded(side) for side in sides),
        reset,
        event is None or event.is_binary,
    )


def _weight(value: SSAValue, store: WeightStore) -> np.ndarray | None:
    if isinstance(value.owner, WeightOp):
        return weight_arrays(value.owner, store)[0][0]
    return constant_value(value, store)


def _bits(rows: np.ndarray) -> int | None:
    """Bits of the integers that each row is, times its smallest magnitude; None if more than 16 would be needed."""
    steps = np.min(np.where(rows != 0, np.abs(rows), np.inf), axis=1, keepdims=True, initial=np.inf)
    multiples = np.where(np.isfinite(steps), np.abs(rows) / steps, 0)
    largest = np.max(multiples, initial=0)
    if (np.abs(multiples - np.rint(multiples)) > _WHOLE).any() or largest >= 1 << 15:
        return None
    return 1 + ceil(log2(1 + round(float(largest))))


def _synapses(op: spike.LinearOp | spike.ConvOp | dense.MatMulOp | dense.ConvOp, store: WeightStore) -> Synapses:
    weight = _weight(op.operands[1], store)
    if weight is None:
        raise Error("NEUC-E510", f"{_name(op)} has a weight that is computed", hint="constants can be counted")
    if isinstance(op, dense.MatMulOp) and op.transpose_b is None:
        weight = weight.T
    rows = weight.reshape(weight.shape[0], -1)
    biases = 0 if len(op.operands) < 3 else weight.shape[0]
    used = rows != 0
    bits = _bits(rows)
    if isinstance(op, (spike.LinearOp, dense.MatMulOp)):
        words = weight.shape[-1] * _rounded(weight.shape[0])
        fan = int(used.sum(axis=0).max(initial=0))
        return Synapses(_name(op), int(used.sum()), fan, words, biases, 1, bits)
    kernel = weight.shape[2:] if weight.ndim > 2 else tuple(getattr(op, "kernel").get_values())  # noqa: B009
    positions = prod(_sides(op.results[0])[1:])
    channels = rows.shape[1] // prod(kernel)
    words = channels * _rounded(prod(kernel)) * _rounded(weight.shape[0])
    fan = int(used.sum()) // max(1, channels)
    return Synapses(_name(op), int(used.sum()) * positions, fan, words, biases, max(kernel), bits)
