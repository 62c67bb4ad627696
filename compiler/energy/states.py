"""What is done with a model: states, samples and their observables, gradients. Every call appends one operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from neuc.compiler.energy.usage import DefaultSweeps, check_schedule, chosen
from neuc.dialects import energy as e
from neuc.dialects.dims import Dim

if TYPE_CHECKING:
    from neuc.compiler.energy.model import Model, Parameter, Variable

_SWEEPS = DefaultSweeps(1000)


@dataclass(frozen=True)
class Value:
    """A tensor that a program can return."""

    model: Model
    value: SSAValue


@dataclass(frozen=True)
class State:
    """The values of all variables, for a number of chains."""

    model: Model
    value: SSAValue

    def __getitem__(self, x: Variable) -> Value:
        """The values of one variable, [chains, …]."""
        return Value(self.model, self.model.add(e.ReadOp(self.value, x.value, self.model.element_of(x.type))))

    def clamp(self, x: Variable, values: ArrayLike | Parameter) -> State:
        """The state with other values of one variable."""
        value = self.model.weights(values)
        return State(self.model, self.model.add(e.ClampOp(self.value, x.value, value)))

    def energy(self, nudge: float = 0.0) -> Value:
        """F of every chain."""
        return Value(self.model, self.model.add(e.EvaluateOp(self.model.model(), self.value, nudge)))

    def relax(self, method: str, steps: int, *, dt: float = 0.0, scale: float = 1.0, nudge: complex = 0.0) -> State:
        """Steps downhill: flow, block_min, mean_field, messages, bifurcation; see `energy.relax`."""
        op = e.RelaxOp(
            self.model.model(), self.value, chosen(e.Method, method, "method"), steps, dt=dt, scale=scale, nudge=nudge
        )
        return State(self.model, self.model.add(op))

    def gradient(self, *parameters: Parameter) -> list[Value]:
        """dF/dθ, the mean over chains."""
        op = e.GradOp(self.model.model(), self.value, [p.value for p in parameters])
        self.model.add(op)
        return [Value(self.model, result) for result in op.results]

    def sample(
        self,
        sweeps: int | None = _SWEEPS,
        beta: float | Sequence[float] = 1.0,
        *,
        ramp: str = "linear",
        rule: str = "gibbs",
        warmup: int = 0,
        thin: int = 1,
        ladder: Sequence[float] = (),
        exchange: int = 0,
        dt: float = 0.0,
        packed: bool = False,
        shared: bool = False,
    ) -> Samples:
        """Sweeps at an inverse temperature, or from one to another along a linear or geometric ramp.

        Args:
            sweeps: how many, 1000 by default; the program's input `beta` has one number for each, so a run may have
                more or fewer. Not needed where `beta` has one for each.
            beta: one number, a pair (first, last), or one for each sweep.
            ramp: ``linear`` or ``geometric``.
            rule: ``gibbs``, ``metropolis``, ``langevin`` or ``ou_exact``.
            warmup: sweeps that nothing is kept of.
            thin: keep every so many.
            ladder: an inverse temperature for each chain, in place of `beta`: replica exchange.
            exchange: sweeps between exchanges.
            dt: time step of langevin and ou_exact.
            packed: random numbers of 64 chains drawn together, for bit-sliced kernels.
            shared: with `packed`, the same numbers for all chains: many times as fast, and each chain is a right
                sample, but they depend on each other: never take error bars from their spread.

        Raises:
            Error: NEUC-E605, a schedule that makes no sense, or two in one call.
        """
        model = self.model
        plan = check_schedule(sweeps, beta, warmup, ramp, ladder)
        if isinstance(plan, tuple):
            fact = {"ramp": ramp, "first": plan[0], "last": plan[1], "sweeps": None if sweeps is None else int(sweeps)}
            model.default("beta", fact)
            betas = model.input("beta", f32, (Dim.of("sweeps"),))
        else:
            betas = model.weights(plan)
        op = e.SampleOp(
            model.model(),
            self.value,
            betas,
            model.seed(),
            rule=chosen(e.Rule, rule, "rule"),
            warmup=warmup,
            thin=thin,
            exchange=exchange,
            dt=dt,
            packed=packed,
            shared=shared,
        )
        model.add(op)
        return Samples(model, State(model, op.last), op.trajectory)


@dataclass(frozen=True)
class Samples:
    """Sweeps: the state they end in, and what is observed on the way.

    Attributes:
        last: the state after the last sweep.
    """

    model: Model
    last: State
    trajectory: SSAValue

    def sums(self, x: Variable) -> Value:
        """Σ of spins, or counts of categories, over the kept sweeps of each chain; i32."""
        return self._observe(e.Observable.SUM, x.value)

    def pairs(self, x: Variable, i: ArrayLike, j: ArrayLike) -> Value:
        """Σ x_i·x_j over the kept sweeps of each chain; i32 [chains, pairs]."""
        return self._observe(e.Observable.PAIRS, x.value, self.model.integers(i), self.model.integers(j))

    def histogram(self, x: Variable) -> Value:
        """How often each joint state of at most 20 spins occurred; i32 [chains, 2^n]."""
        return self._observe(e.Observable.HISTOGRAM, x.value)

    def energies(self) -> Value:
        """F after every kept sweep; f32 [kept, chains]."""
        return self._observe(e.Observable.ENERGY)

    def _observe(self, what: e.Observable, *operands: SSAValue) -> Value:
        return Value(self.model, self.model.add(e.ObserveOp(self.trajectory, what, *operands)))


def contrast(states: Sequence[State], parameters: Sequence[Parameter], scale: float = 1.0) -> list[Value]:
    """Re (scale/N) Σ_k e^(−2πik/N) dF/dθ(state k); see `energy.contrast`."""
    model = states[0].model
    op = e.ContrastOp(model.model(), [s.value for s in states], [p.value for p in parameters], scale)
    model.add(op)
    return [Value(model, result) for result in op.results]
