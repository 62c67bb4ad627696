"""What one value of a network is over the time steps of a simulation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass
class Signal:
    """One value of the network over time.

    Rate coding: `static` where it is the same in every step, else `steps`; the number it stands for is their mean.
    Differential coding: the number after step t is `static` + Σ steps/t.

    Attributes:
        static: the constant part.
        steps: one array a step; None where nothing changes.
        counted: rate coding, behind a delayed read-out: what read-outs make of it after each step that they count.
    """

    static: Array | None
    steps: list[Array] | None = None
    counted: list[Array] | None = None

    def means(self, count: int, coding: str) -> list[Array]:
        """The number it stands for after each of `count` steps."""
        if self.steps is None:
            assert self.static is not None
            return [self.static] * count
        if coding == "rate":
            total = np.cumsum(np.stack(self.steps), axis=0, dtype=np.float32)
            return [total[t] / np.float32(t + 1) for t in range(count)]
        made, mean = [], self.static if self.static is not None else np.float32(0)
        for t, step in enumerate(self.steps, start=1):
            mean = mean + step / np.float32(t)
            made.append(mean)
        return made

    def means_from(self, start: int, count: int) -> list[Array]:
        """Rate coding: what a read-out has after each of the steps `start` … `count` - 1, which it counts."""
        if self.counted is not None:
            return self.counted
        later = None if self.steps is None else self.steps[start:]
        return Signal(self.static, later).means(count - start, "rate")
