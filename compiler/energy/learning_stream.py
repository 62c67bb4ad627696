"""A recurrent Forward-Forward layer that learns a stream of symbols while it passes, a step at a time."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from neuc.compiler.energy.learning_layers import normalised
from neuc.compiler.energy.model import Model
from neuc.compiler.energy.program import Program
from neuc.compiler.energy.states import Value
from neuc.compiler.energy.tensors import Tensors
from neuc.errors import Error, Exit
from neuc.passes.scalar_builder import Scalar, exp, maximum, minimum

if TYPE_CHECKING:
    from neuc.runtime.session import Session


class StreamLearner:
    """h_t = relu(W [h_{t−1} normalised, symbol t] + b), for the symbol that comes and for those that do not.

    The symbol that comes raises the goodness mean h², one that does not come lowers it (Hinton 2022, section 3.4); no
    step looks back further than h_{t−1}, and none is stored. A step is one run of generated code.

    Args:
        symbols: how many there are.
        hidden: units.
        rate: step size.
        theta: the goodness that tells right from wrong.
        seed: of the weights.

    Attributes:
        w: weights f32 [hidden + symbols, hidden].
        b: biases f32 [hidden].
        h: activity f32 [hidden].

    Raises:
        Error: NEUC-E618, a size that makes no learner; NEUC-E619, a rate that is not above 0.
    """

    def __init__(
        self, symbols: int, hidden: int = 64, *, rate: float = 0.03, theta: float = 1.0, seed: int = 0
    ) -> None:
        if symbols < 2 or hidden < 1:
            what = f"{symbols} symbols and {hidden} units make no learner"
            raise Error("NEUC-E618", what, hint="at least two symbols, one unit", exit_code=Exit.USAGE)
        if not (np.isfinite(rate) and rate > 0):
            raise Error("NEUC-E619", f"rate = {rate}", hint="rates are above 0", exit_code=Exit.USAGE)
        self.symbols, self.rate = symbols, rate
        rng = np.random.default_rng(seed)
        self.w = (rng.standard_normal((hidden + symbols, hidden)) / np.sqrt(hidden)).astype(np.float32)
        self.w[hidden:] *= np.float32(np.sqrt(hidden))
        self.b, self.h = np.zeros(hidden, np.float32), np.zeros(hidden, np.float32)
        self._right, self._rate = np.zeros((symbols, 1), np.float32), np.zeros((), np.float32)
        session = _session(symbols, hidden, float(theta))
        binding = session.io_binding()
        before = {"w": self.w, "b": self.b, "h": self.h[None], "right": self._right, "rate": self._rate}
        for name, array in before.items():
            binding.bind_cpu_input(name, array)
        self._run = session.prepare(binding)

    def step(self, symbol: int, *, learn: bool = True) -> int:
        """Take the next symbol in.

        Returns:
            What was expected in its place.

        Raises:
            Error: NEUC-E616, there is no such symbol.
        """
        if not 0 <= symbol < self.symbols:
            what = f"symbol {symbol}, and there are {self.symbols}"
            raise Error("NEUC-E616", what, hint=f"symbols are 0 to {self.symbols - 1}", exit_code=Exit.USAGE)
        self._right[...] = 0.0
        self._right[symbol] = 1.0
        self._rate[...] = self.rate if learn else 0.0
        self._run()
        found = self._run.outputs
        self.w[...], self.b[...], self.h[...] = found["next_w"], found["next_b"], found["next_h"][0]
        return int(found["goodness"].argmax())


def stream_step(symbols: int, hidden: int, theta: float) -> Program:
    """The program of a step.

    Inputs, f32: ``w``, ``b``, ``h`` [1, hidden], ``right`` [symbols, 1] with a 1 for the symbol that comes, ``rate``.
    Results: ``next_w``, ``next_b``, ``next_h``, ``goodness`` [symbols, 1].
    """
    model = Model()
    t = Tensors(model)
    w, b, h = t.input("w", hidden + symbols, hidden), t.input("b", hidden), t.input("h", 1, hidden)
    right, rate = t.input("right", symbols, 1), t.input("rate")
    before = t.broadcast(normalised(t, h), (symbols, hidden))
    reads = t.concat([before, t.constant("symbols", np.eye(symbols, dtype=np.float32))], 1)
    activity = t.matmul(reads, w, b, relu=True)
    goodness = t.mean_square(activity)

    def push(goodness: Scalar, right: Scalar, rate: Scalar) -> Scalar:
        """Every other symbol is a wrong one; together they weigh as much as the right one."""
        sign = 2.0 * right - 1.0
        weight = right + (1.0 - right) * (1.0 / (symbols - 1))
        surprise = weight / (1.0 + exp(minimum(maximum(sign * (goodness - theta), -50.0), 50.0)))
        return rate * sign * surprise

    pushes = t.map(lambda p, a: p * a, t.map(push, goodness, right, rate), activity)
    results = {
        "next_w": t.sum(w, t.matmul(reads, pushes, transpose_a=True)),
        "next_b": t.sum(b, t.total(pushes)),
        "next_h": t.matmul(right, activity, transpose_a=True),
        "goodness": goodness,
    }
    return model.program(**{name: Value(model, value) for name, value in results.items()})


@lru_cache(maxsize=8)
def _session(symbols: int, hidden: int, theta: float) -> Session:
    return stream_step(symbols, hidden, theta).session(threads=1)
