"""A converted network on a machine of the NPU's machine files: time and energy of one input, from counted spikes.

The closed form of a time step is `backends/npu/predictions.py`'s; here layers and their spikes become its arguments.
`chip_cost.py` estimates from other constants (Loihi 1's published energies), layers one after the other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.predictions import Prediction, loihi_step
from neuc.compiler.snn.data import Data
from neuc.compiler.snn.model import SpikingModel
from neuc.compiler.snn.simulate import Activity
from neuc.errors import Error, Exit

ASSUMPTIONS = (
    "each layer works on what the one before sent a step earlier, so that an input takes a step more for each layer",
    "a synapse is a byte of its core's memory, and weights of convolutions are not shared",
    "what is read out is a layer of neurons without spikes",
    "energy is that of synaptic operations: the machine file has none of neurons, of messages, and of idling",
)


@dataclass(frozen=True)
class MachineRun:
    """One input on a machine, by its machine file.

    Attributes:
        machine: its name.
        steps: T of the network; the machine takes one more for each layer.
        seconds: from the first step to the last output.
        joules: of synaptic operations.
        events: synaptic operations.
        limiters: what sets the time, and of how many of the machine's steps.
        assumed: figures of the machine file that are not published.
    """

    machine: str
    steps: int
    seconds: float
    joules: float
    events: float
    limiters: dict[str, int]
    assumed: tuple[str, ...]

    def text(self) -> str:
        """For people: the prediction, and all that is assumed."""
        why = ", ".join(f"{name} in {count} steps" for name, count in self.limiters.items())
        return "\n".join((
            f"{self.machine} (predicted from counted spikes, not measured): {self.seconds * 1e6:.3g} µs and "
            f"{self.joules * 1e9:.3g} nJ an input, {self.events:.3g} synaptic operations in T = {self.steps}",
            f"  time is set by {why}",
            *(f"  assumed: {text}" for text in ASSUMPTIONS),
            f"  assumed figures of the machine file: {', '.join(self.assumed) or 'none'}",
        ))  # fmt: skip


def predict_on_machine(
    model: SpikingModel, x: Data, *, steps: int | None = None, machine: str = "npu-loihi2"
) -> MachineRun:
    """What one input would take on a machine of Loihi's family, the mean over `x`.

    Args:
        model: a converted network.
        x: inputs whose spikes are counted, as of `SpikingModel.run`.
        steps: T; the model's by default.
        machine: the name of a machine, or the path of a machine file.

    Raises:
        Error: NEUC-E688, the machine is of another family, or too small; NEUC-E523, steps make no sense; or x does not
            fit.
    """
    activity, count = Activity(), model.steps if steps is None else steps
    (output, *_) = model.run_over_time(x, count, activity)
    return predicted(activity, count, output[0, 0].size, machine)


def predicted(activity: Activity, steps: int, outputs: int, machine: str = "npu-loihi2") -> MachineRun:
    """As `predict_on_machine`, from what a run has counted.

    Args:
        activity: of a run of `steps` steps or more.
        steps: T.
        outputs: numbers that are read out.
        machine: as of `predict_on_machine`.

    Raises:
        Error: NEUC-E542, nothing was counted, or not for so many steps; NEUC-E688.
    """
    counted = min((len(layer.spikes) for layer in activity.layers), default=0)
    if activity.samples < 1 or not 1 <= steps <= counted:
        what = f"a prediction for {steps} steps from counts of {counted} steps of {activity.samples} inputs"
        hint = "run the network with an Activity for at least as many steps"
        raise Error("NEUC-E542", what, hint=hint, exit_code=Exit.USAGE)
    found = find_machine(machine)
    # What comes from numbers is a host's work: the first layer gets currents.
    products = [synapses for synapses in activity.synapses if synapses.spikes]
    sizes = [layer.neurons for layer in activity.layers[1:]] + [outputs]
    # Products stand in the order of the layers that they lead to; where there are more, all others lead to the last.
    fed: list[tuple[int, int, list[float]]] = [(activity.layers[0].neurons, 0, [0.0] * steps)]
    for place, synapses in enumerate(products):
        size = sizes[place] if place < len(sizes) else 0
        fed.append((size, int(synapses.dense), [n / activity.samples for n in synapses.operations[:steps]]))
    done: list[Prediction] = []
    for step in range(steps + len(fed) - 1):
        now = [
            (size, synapses, events[step - late] if 0 <= step - late < steps else 0.0)
            for late, (size, synapses, events) in enumerate(fed)
        ]
        done.append(loihi_step(found, now))
    return MachineRun(
        found.name,
        steps,
        sum(step.seconds for step in done),
        sum(step.joules for step in done),
        sum(sum(events) for _, _, events in fed),
        dict(Counter(step.limiter for step in done)),
        done[0].assumed,
    )
