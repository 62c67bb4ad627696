"""Relaxations as spiking networks: a quadratic energy over numbers at least 0 is solved by integrate-and-fire neurons.

Each neuron integrates what pulls at its variable and fires when a quantum of it has come together; a spike takes the
same quantum's force off all neurons it is coupled to. Rates are then the minimum of F (locally competitive algorithm:
Rozell et al. 2008; with spikes: Shapero et al. 2014, Tang et al. 2017). Sparse coding, non-negative least squares and
Hopfield networks with graded states have this form.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects.builtin import ModuleOp, f32, i32
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter

from neuc.compiler.energy.program import Program
from neuc.compiler.universe import new_context
from neuc.dialects import energy as e
from neuc.dialects import spike
from neuc.dialects.context import NeucContext
from neuc.dialects.dense import BroadcastOp, MatMulOp
from neuc.dialects.energy_factors import finite, symmetric_if_same
from neuc.dialects.energy_types import Space, var_type
from neuc.dialects.store import constant_value, dims_of, make_constant, tensor_type
from neuc.errors import Error, Exit
from neuc.passes.map_building import map_of
from neuc.passes.scalar_builder import Scalar, cast

Array = np.ndarray
TARGET = "cpu-spike"


@dataclass
class _Quadratic:
    """F = ½ xᵀ A x − (b + Σ z Z)·x.

    Attributes:
        a: f64 [N, N].
        b: f64 [N].
        inputs: (clamped variable, Z [Nz, N]).
    """

    a: Array
    b: Array
    inputs: list[tuple[SSAValue, Array]] = field(default_factory=list[tuple[SSAValue, Array]])


def spiking(program: Program, *, steps: int = 256, quantum: float | None = None, settle: int | None = None) -> Program:
    """The program with its relaxations done by spiking neurons, for target cpu-spike.

    Each relaxation is by flow or block minimisation of one real variable x, flat, in [0, high]; its model has quad,
    linear and bilinear terms, of x alone or with clamped variables, and parameters that are constant. What was x
    afterwards is then quantum · spikes / steps; how many steps the relaxation had does not matter. Clamped inputs are
    constant currents.

    Args:
        program: of the modelling API.
        steps: time steps, each at most one spike a neuron; errors fall as 1/steps.
        quantum: the largest x there can be; the box's upper bound where it is finite.
        settle: steps before spikes count, a quarter by default.

    Raises:
        Error: NEUC-E633, a relaxation that is of another form.
    """
    first = steps // 4 if settle is None else settle
    if steps < 1 or not 0 <= first < steps:
        raise _refused(f"{steps} steps, of which {first} do not count", "at least one step that counts")
    context = new_context(program.context.weights)
    module = program.module.clone()
    found = [op for op in module.walk() if isinstance(op, e.RelaxOp)]
    if not found:
        raise _refused("the program relaxes nothing", "state.relax(…)")
    for op in found:
        _Conversion(op, context, steps, first, quantum).replace()
    _drop_unread(module)
    return Program(module, context, target=TARGET)


class _Conversion:
    """One relaxation as a loop over time steps."""

    def __init__(self, op: e.RelaxOp, context: NeucContext, steps: int, settle: int, quantum: float | None) -> None:
        self.op, self.context, self.steps, self.settle = op, context, steps, settle
        self.rewriter = PatternRewriter(op)
        model = e.model_of(op.model)
        free = [v for v in model.variables if isinstance(v.owner, e.VarOp) and not v.owner.clamped]
        if len(free) != 1 or any(var_type(v).space is not Space.REAL for v in model.variables):
            raise _refused(f"{len(free)} free variables", "one free variable, all of them real")
        if op.nudge.value.data:
            raise _refused("a nudged relaxation", "costs have no spiking form")
        self.variables, self.x = list(model.variables), free[0]
        low, high = var_type(self.x).box
        if low != 0.0 or len(var_type(self.x).shape) != 1:
            raise _refused(f"a variable of shape {list(var_type(self.x).shape)} from {low:g}", "a vector in [0, high]")
        self.quantum = quantum if quantum is not None else high
        if not 0 < self.quantum < np.inf or self.quantum < high < np.inf:
            raise _refused(
                f"a quantum of {self.quantum:g} for x up to {high:g}", "quantum=…, the largest x there can be"
            )
        self.problem = self._quadratic(model)
        if not (self.problem.a.diagonal() > 0).all():
            raise _refused("the energy has no minimum over some neuron", "a quad term, or less coupling with itself")

    def replace(self) -> None:
        """Put the loop in the place of the relaxation."""
        state = self.op.state.owner
        if not isinstance(state, e.StateOp):
            raise _refused("a relaxation of a random or relaxed state", "one relaxation of a given state")
        given = dict(zip(self.variables, state.args[1:], strict=True))
        inverse = 1.0 / (self.quantum * self.problem.a.diagonal())
        current = self._drive(given, inverse)
        rates = self._loop(current, inverse)
        counted, quantum = self.steps - self.settle, self.quantum

        def rate(count: Scalar) -> Scalar:
            number = cast(count, f32)
            assert number is not None
            return number * (quantum / counted)

        given[self.x] = self._add(map_of([rates], rate))
        self.rewriter.replace(self.op, e.StateOp(self.op.model, [given[v] for v in self.variables]))

    def _drive(self, given: dict[SSAValue, SSAValue], inverse: Array) -> SSAValue:
        """The constant current of every neuron, in thresholds a step: [C, N]."""
        dims = dims_of(given[self.x])
        total = self._add(BroadcastOp(self._constant("drive", self.problem.b * inverse), tensor_type(f32, dims)))
        for variable, matrix in self.problem.inputs:
            weights = self._constant("input_weights", matrix * inverse)
            product = self._add(MatMulOp(given[variable], weights, None, tensor_type(f32, dims)))
            total = self._add(map_of([total, product], lambda a, b: a + b))
        return total

    def _loop(self, current: SSAValue, inverse: Array) -> SSAValue:
        """Spike counts i32 [C, N]."""
        dims, one = dims_of(current), tensor_type(f32, dims_of(current))
        lateral = -(self.problem.a - np.diag(self.problem.a.diagonal())).T * inverse * self.quantum
        weights = self._constant("lateral", lateral.T)
        threshold = self._constant("threshold", np.array(1.0))
        half, zero = self._constant("half", np.array(0.5)), self._constant("zero", np.array(0.0))
        none = self._add(make_constant("none", np.array(0, np.int32), self.context.weights))
        starts = [
            self._add(BroadcastOp(half, one)),
            self._add(BroadcastOp(zero, one)),
            self._add(BroadcastOp(none, tensor_type(i32, dims))),
        ]
        loop = spike.LoopOp([], starts, self.steps, [])
        potential, feedback, count = loop.states
        block = loop.body.block
        inside = map_of([current, feedback], lambda a, b: a + b)
        neuron = spike.IfOp(inside.result, [potential], [threshold])
        back = spike.LinearOp(neuron.events, weights)
        counted = spike.AccumulateOp(neuron.events, count, loop.step, start=self.settle)
        states = [neuron.next_potential, back.results[0], counted.next_total]
        block.add_ops([inside, neuron, back, counted, spike.YieldOp([], states)])
        self._add(loop)
        return loop.final[2]

    def _quadratic(self, model: e.ModelOp) -> _Quadratic:
        n = var_type(self.x).sites
        problem = _Quadratic(np.zeros((n, n)), np.zeros(n))
        for term in model.terms:
            match term.owner:
                case e.QuadOp() as op if op.x is self.x:
                    p = np.broadcast_to(self._array(op.precision).reshape(-1), n)
                    problem.a += np.diag(p)
                    if op.mean is not None:
                        problem.b += p * self._array(op.mean).reshape(-1)
                case e.LinearOp() as op if op.x is self.x:
                    problem.b += self._array(op.b)
                case e.BilinearOp() as op if op.x is self.x and op.y is self.x:
                    problem.a -= symmetric_if_same(self._array(op.w), op)
                case e.BilinearOp() as op if op.y is self.x and op.x in self.variables:
                    problem.inputs.append((op.x, self._array(op.w)))
                case e.BilinearOp() as op if op.x is self.x and op.y in self.variables:
                    problem.inputs.append((op.y, self._array(op.w).T))
                case _ as op:
                    hint = "quad, linear and bilinear terms of x, and of x with clamped variables"
                    raise _refused(f"{getattr(op, 'name', 'a term')} has no spiking form", hint)
        if any(len(var_type(v).shape) != 1 for v, _ in problem.inputs):
            raise _refused("a clamped variable with several axes", "vectors of inputs")
        return problem

    def _array(self, value: SSAValue) -> Array:
        array = constant_value(value, self.context.weights)
        if array is None:
            raise _refused("a parameter is an input of the program", "constants")
        return finite(array.astype(np.float64), "a parameter")

    def _constant(self, name: str, array: Array) -> SSAValue:
        return self._add(make_constant(name, np.ascontiguousarray(array, np.float32), self.context.weights))

    def _add(self, op: Operation) -> SSAValue:
        op.location = self.op.location
        made = self.rewriter.insert(op)
        return made.results[0]


def _drop_unread(module: ModuleOp) -> None:
    """Reads of a state become what it is made of, and models that nothing reads any more go."""
    main = next(op for op in module.ops if isinstance(op, FuncOp))
    for op in list(main.body.block.ops):
        if isinstance(op, e.ReadOp) and isinstance(op.state.owner, e.StateOp):
            state = op.state.owner
            variables = list(e.model_of(state.model).variables)
            PatternRewriter(op).replace(op, [], [state.args[1 + variables.index(e.variable_of(op.variable))]])
    for op in reversed(list(main.body.block.ops)):
        if op.results and op.name.startswith(("energy.", "store.")) and not any(r.first_use for r in op.results):
            op.detach()
            op.erase()


def _refused(what: str, hint: str) -> Error:
    return Error("NEUC-E633", what, hint=hint, exit_code=Exit.USAGE)
