"""What a spiking network would cost on a neuromorphic chip: energy and latency from counts, by a stated machine model.

Counts are of simulated runs (`simulate.py`). Nothing here is derived from CPU time, and CPU time says nothing about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from neuc.compiler.snn.simulate import Activity
from neuc.errors import Error, Exit

_DAVIES = "M. Davies et al., Loihi, IEEE Micro 38(1), 2018, table 2 (simulated, Loihi 1)"
_BRIEF = "Intel, Loihi 2 technology brief, 2021"


@dataclass(frozen=True)
class Constant:
    """A number of the machine model.

    Attributes:
        value: in SI units, or a count.
        unit: of the value.
        status: whether somebody has published it for such a chip, or it is carried over or made up.
        source: where it is from, or why it is assumed.
    """

    value: float
    unit: str
    status: Literal["published", "assumed"]
    source: str


@dataclass(frozen=True)
class Chip:
    """A machine model: cores that hold neurons, exchange spikes and meet after each time step.

    Attributes:
        name: what it is like.
        synaptic_energy, update_energy, spike_energy: of a synaptic operation, a neuron's update in a step, and a spike
            that is sent to another core.
        synaptic_time, update_time: of the first two, one after the other in a core.
        barrier_time: until all cores have finished a step.
        cores, neurons_per_core: how many there are.
    """

    name: str
    synaptic_energy: Constant
    update_energy: Constant
    spike_energy: Constant
    synaptic_time: Constant
    update_time: Constant
    barrier_time: Constant
    cores: Constant
    neurons_per_core: Constant

    def constants(self) -> dict[str, Constant]:
        """All numbers by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Constant)}


LOIHI_2_LIKE = Chip(
    name="Loihi-2-like",
    synaptic_energy=Constant(23.6e-12, "J", "assumed", f"no figure for Loihi 2; as {_DAVIES}"),
    update_energy=Constant(81e-12, "J", "assumed", f"no figure for Loihi 2; an active neuron's, as {_DAVIES}"),
    spike_energy=Constant(1.7e-12 + 4.0e-12, "J", "assumed", f"within a tile, and one hop, as {_DAVIES}"),
    synaptic_time=Constant(3.5e-9 / 5, "s", "assumed", f"{_DAVIES}, five times faster: {_BRIEF}"),
    update_time=Constant(8.4e-9 / 2, "s", "assumed", f"{_DAVIES}, twice as fast: {_BRIEF}"),
    barrier_time=Constant(465e-9, "s", "assumed", f"the longest of {_DAVIES}"),
    cores=Constant(128, "cores", "published", _BRIEF),
    neurons_per_core=Constant(8192, "neurons", "published", f"the most of {_BRIEF}; synapses may allow fewer"),
)


@dataclass(frozen=True)
class ChipCost:
    """Energy and latency of one input.

    Attributes:
        chip: the model.
        steps: time steps.
        spikes, operations, updates: counts for one input.
        energy: joules by part: synapses, neurons, spikes.
        latency: seconds, layers of a step one after the other, each spread over its cores.
        used_cores: how many hold neurons.
        analog_operations: multiply-adds on numbers, which no such chip does: a host's, and not in the energy.
    """

    chip: Chip
    steps: int
    spikes: float
    operations: float
    updates: float
    energy: dict[str, float]
    latency: float
    used_cores: int
    analog_operations: float

    @property
    def total_energy(self) -> float:
        """Joules."""
        return sum(self.energy.values())

    def lines(self) -> list[str]:
        """For people: the estimate, then every constant with its source."""
        parts = ", ".join(f"{name} {value * 1e9:.3g}" for name, value in self.energy.items())
        found = [
            f"{self.chip.name} (estimate from counts, not measured): {self.total_energy * 1e9:.3g} nJ ({parts}), "
            f"{self.latency * 1e6:.3g} µs; T = {self.steps}, cores: {self.used_cores}",
            f"of one input: {self.spikes:.3g} spikes, {self.operations:.3g} synaptic operations, "
            f"{self.updates:.3g} neuron updates; not on the chip: {self.analog_operations:.3g} analog multiply-adds",
        ]
        if self.used_cores > self.chip.cores.value:
            found.append(f"{self.used_cores} cores are needed; a chip has {self.chip.cores.value:.0f}")
        for name, constant in self.chip.constants().items():
            label = name.replace("_", " ")
            found.append(f"  {label}: {constant.value:.3g} {constant.unit}, {constant.status}: {constant.source}")
        return found

    def to_json(self) -> dict[str, object]:
        """As plain data, constants and their sources included."""
        constants = {name: vars(constant) for name, constant in self.chip.constants().items()}
        plain = {key: value for key, value in vars(self).items() if key != "chip"}
        return {"chip": self.chip.name, "constants": constants, "total_energy": self.total_energy, **plain}


def chip_cost(activity: Activity, steps: int, chip: Chip = LOIHI_2_LIKE) -> ChipCost:
    """The cost of one input, the mean over those that `activity` counted.

    Each neuron is updated once a step. The neurons of a layer are spread over as few cores as hold them, which share
    its operations evenly; layers of a step follow one another, and a barrier ends it.

    Args:
        activity: what `SpikingModel.run_over_time` counted.
        steps: how many of its first steps.
        chip: the machine model.

    Raises:
        Error: NEUC-E542, nothing was counted, or not for so many steps.
    """
    counted = min((len(layer.spikes) for layer in activity.layers), default=0)
    if activity.samples < 1 or not 1 <= steps <= counted:
        raise Error(
            "NEUC-E542",
            f"a cost for {steps} steps from counts of {counted} steps of {activity.samples} inputs",
            hint="run the network with an Activity for at least as many steps",
            exit_code=Exit.USAGE,
        )
    per_input = 1 / activity.samples
    spikes = [sum(layer.spikes[:steps]) * per_input for layer in activity.layers]
    on_chip = [synapses for synapses in activity.synapses if synapses.spikes]
    operations = sum(sum(synapses.operations[:steps]) for synapses in on_chip) * per_input
    analog = sum(sum(s.operations[: 1 if s.once else steps]) for s in activity.synapses if not s.spikes) * per_input
    cores = [_cores(layer.neurons, chip) for layer in activity.layers]
    updates = float(sum(layer.neurons for layer in activity.layers) * steps)
    energy = {
        "synapses": operations * chip.synaptic_energy.value,
        "neurons": updates * chip.update_energy.value,
        "spikes": sum(spikes) * chip.spike_energy.value,
    }
    # What enters a layer is worked on by the cores that hold it; the products that lead to layers stand in their order.
    busy = sum(layer.neurons / count for layer, count in zip(activity.layers, cores, strict=True)) * steps
    met = sum(
        sum(synapses.operations[:steps]) * per_input / count
        for synapses, count in zip(on_chip, _following(cores, len(on_chip)), strict=True)
    )
    latency = busy * chip.update_time.value + met * chip.synaptic_time.value + steps * chip.barrier_time.value
    return ChipCost(chip, steps, sum(spikes), operations, updates, energy, latency, sum(cores), analog)


def _cores(neurons: int, chip: Chip) -> int:
    return max(1, -(-neurons // int(chip.neurons_per_core.value)))


def _following(cores: Sequence[int], count: int) -> list[int]:
    """The cores behind each product: those of the layers after the first, then one for what is read out."""
    later = [*cores[1:], *[1] * count]
    return later[:count]
