"""Neurons of `spike` as nodes of NIR: from decays and gains back to time constants in steps of dt.

The inverse of `compiler/importers/nir/neurons.py`: τ = dt/(1 − decay), R = gain/(1 − decay). NIR fires above its
threshold, so a neuron that fires at its threshold gets the next smaller f32 number. Nothing here knows the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray


class Inexpressible(Exception):
    """NIR has no such thing; the message is the reason."""


@dataclass(frozen=True)
class Neuron:
    """A membrane of `spike` with all its numbers, broadcast to the neurons' shape.

    Attributes:
        op: name of the operation, without the dialect.
        shape: the neurons' shape.
        parameters: by the name of the operand, f64.
        gain, offset: what its input is multiplied by, and what is added.
        start: what its potential begins with.
        soft: whether a spike takes something off.
        at: whether it fires at its threshold, too.
    """

    op: str
    shape: tuple[int, ...]
    parameters: dict[str, Array]
    gain: Array
    offset: Array
    start: Array
    soft: bool = False
    at: bool = True


@dataclass
class NirNode:
    """Type, fields and metadata of a node."""

    kind: str
    fields: dict[str, Array]
    metadata: dict[str, object] = field(default_factory=dict[str, object])


def fires_above(threshold: Array, at: bool) -> Array:
    """The threshold that is to be passed: u ≥ θ is u > the f32 number before θ, for every f32 u."""
    theta = threshold.astype(np.float32)
    return np.nextafter(theta, np.float32(-np.inf)) if at else theta


def node_of(neuron: Neuron, dt: float) -> NirNode:
    """The node for a neuron; a soft reset is in its metadata.

    Raises:
        Inexpressible: NIR has none.
    """
    decay = neuron.parameters.get("decay")
    spikes = "threshold" in neuron.parameters
    if neuron.op.startswith("cuba"):
        made = _cuba(neuron, dt)
    elif decay is None or (decay == 1).all():
        if neuron.offset.any():
            raise Inexpressible("something constant is added to the current, which I and IF do not have")
        made = NirNode("IF" if spikes else "I", {"r": _rounded(neuron.gain / dt)})
    else:
        share = _share(decay)
        made = NirNode(
            "LIF" if spikes else "LI",
            {
                "tau": _tau(decay, dt),
                "r": _rounded(neuron.gain / share),
                "v_leak": _rounded(neuron.offset / share),
            },
        )
    if neuron.start.any():
        made.metadata["v0"] = _rounded(neuron.start)
    if spikes:
        _add_threshold(made, neuron)
    return made


def _cuba(neuron: Neuron, dt: float) -> NirNode:
    parameters = neuron.parameters
    if neuron.offset.any():
        raise Inexpressible("something constant is added to the current, which CubaLIF does not have")
    synapse, share = _share(parameters["synapse_decay"]), _share(parameters["decay"])
    fields = {
        "tau_syn": _tau(parameters["synapse_decay"], dt),
        "tau_mem": _tau(parameters["decay"], dt),
        "r": _rounded(parameters["gain"] / share),
        "v_leak": np.zeros(neuron.shape, np.float32),
        "w_in": _rounded(neuron.gain / synapse),
    }
    return NirNode("CubaLIF" if "threshold" in parameters else "CubaLI", fields)


def _add_threshold(made: NirNode, neuron: Neuron) -> None:
    theta = neuron.parameters["threshold"]
    above = fires_above(theta, neuron.at)
    value = neuron.parameters.get("reset_value")
    made.fields["v_threshold"] = above
    made.fields["v_reset"] = np.zeros(neuron.shape, np.float32)
    if neuron.at:
        made.metadata["fires"] = "at threshold"
        made.metadata["threshold"] = theta.astype(np.float32)
    if not neuron.soft:
        made.metadata["reset"] = "zero"
        made.fields["v_reset"] = _rounded(np.zeros(neuron.shape) if value is None else value)
        return
    made.metadata["reset"] = "subtract"
    taken = theta if value is None else value
    if (taken.astype(np.float32) != above).any():
        made.metadata["reset_value"] = _rounded(taken)


@dataclass(frozen=True)
class SoftReset:
    """A soft reset in plain NIR: an integrator, a threshold behind it, and weights back from there."""

    membrane: NirNode
    threshold: Array
    feedback: Array


def subgraph_of(neuron: Neuron, dt: float) -> SoftReset:
    """A neuron with a soft reset as I or LI -> Threshold -> feedback.

    The feedback arrives one step later, when what is left of the spike has decayed once. A potential that does not
    begin with 0 is a lower threshold, as long as nothing decays.

    Raises:
        Inexpressible: the neuron is none that can be written so.
    """
    theta, decay = neuron.parameters["threshold"], neuron.parameters.get("decay", np.ones(neuron.shape))
    if neuron.op not in ("if", "lif"):
        raise Inexpressible("its soft reset would pass its synapse; --soft-reset metadata can say it")
    if neuron.start.any() and (decay != 1).any():
        raise Inexpressible("its potential begins with something that decays; --soft-reset metadata can say it")
    if (neuron.gain == 0).any():
        raise Inexpressible("its input has no weight, so that nothing can come back through it")
    parameters = {name: array for name, array in neuron.parameters.items() if name == "decay"}
    still = Neuron("li", neuron.shape, parameters, neuron.gain, neuron.offset, np.zeros(neuron.shape))
    taken = neuron.parameters.get("reset_value", theta)
    feedback = -decay * taken / neuron.gain
    return SoftReset(node_of(still, dt), fires_above(theta - neuron.start, neuron.at), _rounded(feedback))


def _share(decay: Array) -> Array:
    share = 1 - decay
    if (share <= 0).any() or (share > 1).any():
        raise Inexpressible("its decay is not in [0, 1), so there is no time constant")
    return share


def _tau(decay: Array, dt: float) -> Array:
    """dt/(1 − decay): in f32 if its decay can be found again, else in f64."""
    tau = dt / _share(decay)
    narrow = tau.astype(np.float32)
    again = (1 - dt / narrow.astype(np.float64)).astype(np.float32)
    return narrow if (again == decay.astype(np.float32)).all() else tau


def _rounded(value: Array) -> Array:
    """f32 where that is exact, else f64: what was f32 before a division is found again by the product."""
    narrow = value.astype(np.float32)
    return narrow if (narrow == value).all() else value
