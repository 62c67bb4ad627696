"""How arrays learn: products of errors and inputs as coincidences of random pulses, and rules built of them.

Lines fire at random, inputs with probabilities proportional to |x|, outputs to |d|; a device where both lines fire gets
a pulse, so that the mean change is -rate·d·x at the cost of one parallel operation (T. Gokmen, Y. Vlasov, 2016). What a
pulse does is the business of `pulsed_devices.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neuc.errors import Error, Exit
from neuc.runtime.analog.devices import Floats
from neuc.runtime.analog.pulsed_devices import Counts, PulsedArray, PulsedDevice


@dataclass(frozen=True)
class PulseTrains:
    """How many pulses an update may take, and how they are shared out.

    Attributes:
        length: most slots of a train.
        managed: trains are as long as the largest product needs, and probabilities of the two sides are balanced by
            their largest numbers (update management: T. Gokmen, M. Onen, W. Haensch, Front. Neurosci. 11:538, 2017).
    """

    length: int = 31
    managed: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.length <= 1000:
            hint = "use 1 to 1000"
            raise Error("NEUC-E662", f"pulse trains of {self.length} slots", hint=hint, exit_code=Exit.USAGE)

    def counts(self, x: Floats, d: Floats, rate: float, step: float, rng: np.random.Generator) -> Counts:
        """Pulses for the change -rate·d·x of one sample, [outputs, inputs], negative where weights go down.

        Args:
            x: inputs, [inputs].
            d: errors, [outputs].
            rate: learning rate.
            step: mean step of a pulse.
            rng: what the lines' coincidences are drawn from.
        """
        largest_x, largest_d = float(np.max(np.abs(x), initial=0)), float(np.max(np.abs(d), initial=0))
        if not largest_x or not largest_d:
            return np.zeros((len(d), len(x)), np.int64)
        length, balance = self.length, 1.0
        if self.managed:
            length = min(length, math.ceil(rate * largest_x * largest_d / step))
            balance = math.sqrt(largest_d / largest_x)
        strength = math.sqrt(rate / (step * length))
        fires_x = rng.random((length, len(x))) < strength * balance * np.abs(x)
        fires_d = rng.random((length, len(d))) < strength / balance * np.abs(d)
        both = fires_d.T.astype(np.float32) @ fires_x.astype(np.float32)
        return (both * -np.sign(d)[:, None] * np.sign(x)).astype(np.int64)


DEFAULT_TRAINS = PulseTrains()


class LearningRule(ABC):
    """A layer's weights on pulsed devices, and how they change."""

    name: ClassVar[str]

    def __init__(self, device: PulsedDevice, weights: Floats, rng: np.random.Generator, trains: PulseTrains) -> None:
        """Put `weights` [outputs, inputs] on new devices."""
        self.device = device
        self.trains = trains
        self.rng = rng
        self.array = PulsedArray(device, (weights.shape[0], weights.shape[1]), rng)
        self.array.write(weights)

    @property
    def weights(self) -> Floats:
        """What forward and backward passes see, [outputs, inputs]."""
        return self.array.weights

    @abstractmethod
    def update(self, x: Floats, d: Floats, rate: float) -> None:
        """Learn from a batch, sample after sample: inputs [B, inputs], slopes of the loss [B, outputs]."""

    def _descend(self, array: PulsedArray, x: Floats, d: Floats, rate: float) -> None:
        array.pulse(self.trains.counts(x, d, rate, self.device.step, self.rng))


class PulsedSgd(LearningRule):
    """Plain stochastic gradient descent: every sample's product goes to the weights as pulses."""

    name = "sgd"

    def update(self, x: Floats, d: Floats, rate: float) -> None:
        for inputs, errors in zip(x, d, strict=True):
            self._descend(self.array, inputs, errors, rate)


class TikiTaka(LearningRule):
    """Gradients are gathered on a fast array about its symmetric point, and moved column by column to the weights.

    T. Gokmen, W. Haensch, Front. Neurosci. 14:103, 2020, with γ = 0. Every `every` samples the next column of the fast
    array, less its symmetric point (the reference devices), is read and sent to the weights as pulses.
    """

    name = "tiki-taka"
    every: ClassVar[int] = 1
    fast_rate: ClassVar[float] = 1.0
    """Rate of the fast array relative to the learning rate."""

    def __init__(self, device: PulsedDevice, weights: Floats, rng: np.random.Generator, trains: PulseTrains) -> None:
        super().__init__(device, weights, rng, trains)
        self.fast = PulsedArray(device, (weights.shape[0], weights.shape[1]), rng)
        self.reference = self.fast.symmetric_point()
        self.fast.write(self.reference)
        self._seen = self._column = 0

    def update(self, x: Floats, d: Floats, rate: float) -> None:
        for inputs, errors in zip(x, d, strict=True):
            self._descend(self.fast, inputs, errors, self.fast_rate * rate)
            self._seen += 1
            if self._seen % self.every == 0:
                column = self._column
                self._transfer(column, self.fast.weights[:, column] - self.reference[:, column], rate)
                self._column = (column + 1) % self.weights.shape[1]

    def _transfer(self, column: int, found: Floats, rate: float) -> None:
        only = np.zeros(self.weights.shape[1])
        only[column] = 1.0
        self._descend(self.array, only, -found, rate)


class TikiTaka2(TikiTaka):
    """Tiki-Taka with a digital buffer between the arrays: a weight gets one pulse when a whole step has gathered.

    T. Gokmen, Front. Artif. Intell. 4:699148, 2021. What is left in the buffer stays there.
    """

    name = "tiki-taka-2"

    def __init__(self, device: PulsedDevice, weights: Floats, rng: np.random.Generator, trains: PulseTrains) -> None:
        super().__init__(device, weights, rng, trains)
        self.buffer = np.zeros_like(self.weights)

    def _transfer(self, column: int, found: Floats, rate: float) -> None:
        held = self.buffer[:, column] + rate * found
        pulses = np.clip(np.trunc(held / self.device.step), -1, 1)
        self.buffer[:, column] = held - pulses * self.device.step
        counts = np.zeros(self.weights.shape, np.int64)
        counts[:, column] = pulses.astype(np.int64)
        self.array.pulse(counts)


RULES: dict[str, type[LearningRule]] = {rule.name: rule for rule in (PulsedSgd, TikiTaka, TikiTaka2)}
"""Learning rules by name."""
