"""The pass `unroll-relaxation`: relaxations over couplings and resistors become matrix products and maps.

Machines that multiply by constant matrices, such as crossbars, then do the products of every step, noise included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32, f64
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter

from neuc.dialects import energy as e
from neuc.dialects.context import store_of
from neuc.dialects.dense import MatMulOp, ReshapeOp
from neuc.dialects.dims import Dim
from neuc.dialects.energy_factors import finite
from neuc.dialects.energy_types import CostKind, EnergyOp, Method, Space, var_type
from neuc.dialects.store import ConstantOp, constant_value, dims_of, element_of, make_constant, tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.passes.map_building import map_of
from neuc.passes.module_facts import add_notes
from neuc.passes.scalar_builder import Scalar, maximum, minimum

Array = np.ndarray
MAX_UPDATES = 2048


@dataclass(frozen=True)
class UnrollRelaxation(ModulePass):
    """Replace each `energy.relax` by flow or block minimisation of real variables by what its steps compute.

    1. Terms are quadratic, linear, bilinear between two variables, resistors between two variables, and squared costs.
    2. A product of a coupling with a variable that has not changed since is made once; others are made anew in every
       step, so that a device's noise is drawn anew. W and Wᵀ are two matrices.
    3. What does not fit, or would take more than `updates` updates of a variable, stays and is noted with the reason.

    ``%s1 = energy.relax(%m, %s0) {method = block_min, steps = 2}`` becomes ``dense.matmul(%x, %W)``, maps that add
    fields, divide by curvatures and clip, and ``%s1 = energy.state(%m, …)``.

    Options:
        updates: most updates of a variable, over all steps.
    """

    name = "unroll-relaxation"
    updates: int = MAX_UPDATES

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        store = store_of(ctx)
        for inner in list(op.walk()):
            if isinstance(inner, e.SampleOp):
                add_notes(op, f"a sampler stays on the CPU as it is: rule {inner.rule.data.value} makes no products")
            if isinstance(inner, e.RelaxOp):
                reason = self._reason(inner, store)
                if reason:
                    add_notes(op, f"a relaxation stays on the CPU as it is: {reason}")
                else:
                    _Unrolled(inner, store).replace()
        for inner in list(op.walk()):
            if isinstance(inner, e.ReadOp) and isinstance(inner.state.owner, e.StateOp):
                _read_through(inner)

    def _reason(self, op: e.RelaxOp, store: WeightStore) -> str:
        """Why a relaxation is not unrolled; empty if it can be."""
        model = e.model_of(op.model)
        if op.method.data not in (Method.FLOW, Method.BLOCK_MIN):
            return f"method {op.method.data.value} (only flow and block_min become products)"
        if op.nudge_imag.value.data:
            return "its nudge is complex"
        if any(var_type(v).space is not Space.REAL for v in model.variables):
            return "it has other variables than real ones"
        if op.steps.value.data * len(_free(model)) > self.updates:
            return f"{op.steps.value.data} steps of {len(_free(model))} variables are more than {self.updates} updates"
        for term in model.terms:
            owner = term.owner
            assert isinstance(owner, EnergyOp)
            if not isinstance(owner, e.QuadOp | e.LinearOp | e.BilinearOp | e.ResistorOp | e.CostOp):
                return f"it has {owner.name}"
            if isinstance(owner, e.CostOp) and owner.kind.data is not CostKind.MSE:
                return "its cost is not a squared one"
            if isinstance(owner, e.BilinearOp | e.ResistorOp) and owner.operands[0] is owner.operands[2]:
                return f"{owner.name} couples a variable to itself"
            for operand in owner.operands:
                if isinstance(operand.owner, e.RhoOp):
                    return "a term reads a variable through ρ"
                if not isinstance(operand.type, e.VarType) and constant_value(operand, store) is None:
                    return f"a parameter of {owner.name} is not constant"
                if not isinstance(operand.type, e.VarType) and element_of(operand) == f64:
                    return "its parameters are f64"
        return ""


@dataclass
class _Forces:
    """What pulls at a variable: F is ½ curvature x² − (pull + Σ products)·x in it.

    Attributes:
        curvature: f64 [N].
        pull: f64 [N].
        products: (matrix [inputs, N], the variable it multiplies).
        costs: targets of costs.
    """

    curvature: Array
    pull: Array
    products: list[tuple[Array, SSAValue]] = field(default_factory=list[tuple[Array, SSAValue]])
    costs: list[SSAValue] = field(default_factory=list[SSAValue])

    @cached_property
    def inverse(self) -> Array:
        """1 / curvature."""
        return 1.0 / self.curvature


class _Unrolled:
    """One relaxation in the making."""

    def __init__(self, op: e.RelaxOp, store: WeightStore) -> None:
        self.op, self.store = op, store
        self.model = e.model_of(op.model)
        self.rewriter = PatternRewriter(op)
        self.nudge = op.nudge.value.data
        self.values: dict[SSAValue, SSAValue] = {}
        self.forces = {v: self._forces_on(v) for v in _free(self.model)}
        self._constants: dict[tuple[str, int], SSAValue] = {}
        self._products: dict[tuple[int, SSAValue], SSAValue] = {}

    def replace(self) -> None:
        """Put the unrolled steps in the place of the operation."""
        for variable in self.model.variables:
            given = self._given(variable)
            self.values[variable] = self._reshaped(given, (dims_of(given)[0], Dim.of(var_type(variable).sites)))
        block_min = self.op.method.data is Method.BLOCK_MIN
        for _ in range(self.op.steps.value.data):
            if block_min:
                for variable in self.forces:
                    self.values[variable] = self._minimum(variable)
            else:
                self.values |= {variable: self._moved(variable) for variable in self.forces}
        tensors = [
            self._reshaped(self.values[v], (dims_of(self.values[v])[0], *map(Dim.of, var_type(v).value_shape)))
            for v in self.model.variables
        ]
        made = e.StateOp(self.op.model, tensors)
        made.location = self.op.location
        self.rewriter.replace(self.op, made)

    def _given(self, variable: SSAValue) -> SSAValue:
        state = self.op.state.owner
        if isinstance(state, e.StateOp):
            return state.args[1 + list(self.model.variables).index(variable)]
        return self._add(e.ReadOp(self.op.state, variable, f32))

    def _forces_on(self, variable: SSAValue) -> _Forces:
        """The terms of the model as this variable feels them.

        Raises:
            Error: NEUC-E601 or E608, parameters that make no energy.
        """
        sites = var_type(variable).sites
        forces = _Forces(np.zeros(sites), np.zeros(sites))
        for term in self.model.terms:
            match term.owner:
                case e.QuadOp() as op if op.x is variable:
                    p = np.broadcast_to(self._parameter(op.precision, "the precision").reshape(-1), sites)
                    forces.curvature = forces.curvature + p
                    if op.mean is not None:
                        forces.pull = forces.pull + p * self._parameter(op.mean, "the mean").reshape(-1)
                case e.LinearOp() as op if op.x is variable:
                    forces.pull = forces.pull + self._parameter(op.b, "b").reshape(-1)
                case e.BilinearOp() as op if variable in (op.x, op.y):
                    w = self._parameter(op.w, "W")
                    forces.products.append((w, op.x) if op.y is variable else (w.T, op.y))
                case e.ResistorOp() as op if variable in (op.x, op.y):
                    g = self._parameter(op.g, "g")
                    if (g < 0).any():
                        hint = "g is at least 0: use two nodes of opposite sign"
                        raise Error("NEUC-E608", "a conductance is negative", hint=hint)
                    forces.curvature = forces.curvature + g.sum(0 if op.y is variable else 1)
                    forces.products.append((g, op.x) if op.y is variable else (g.T, op.y))
                case e.CostOp() as op if op.x is variable and self.nudge:
                    forces.curvature = forces.curvature + self.nudge
                    forces.costs.append(op.target)
                case _:
                    pass
        if self.op.method.data is Method.BLOCK_MIN and not (forces.curvature > 0).all():
            raise Error("NEUC-E610", "the energy has no minimum over a variable", hint="give it an energy.quad term")
        return forces

    def _parameter(self, value: SSAValue, name: str) -> Array:
        array = constant_value(value, self.store)
        assert array is not None
        return finite(array.astype(np.float64), name)

    def _inputs(self, variable: SSAValue) -> list[SSAValue]:
        """What pulls at a variable now: products, then targets of costs."""
        forces = self.forces[variable]
        products = [self._product(number, variable) for number in range(len(forces.products))]
        return [*products, *(self.values[target] for target in forces.costs)]

    def _product(self, number: int, variable: SSAValue) -> SSAValue:
        """A product with the other variable as it is now; made once while that does not change."""
        matrix, other = self.forces[variable].products[number]
        x = self.values[other]
        if (id(matrix), x) not in self._products:
            result = tensor_type(f32, (dims_of(x)[0], Dim.of(matrix.shape[1])))
            self._products[id(matrix), x] = self._add(MatMulOp(x, self._constant("coupling", matrix), None, result))
        return self._products[id(matrix), x]

    def _minimum(self, variable: SSAValue) -> SSAValue:
        """The minimum of F over the variable, in its box."""
        forces = self.forces[variable]
        costs = len(forces.costs)
        constants = [self._constant("field", forces.pull), self._constant("inverse", forces.inverse)]

        def body(_: Scalar, *scalars: Scalar) -> Scalar:
            *pulls, b, inverse = scalars
            return self._boxed(variable, self._summed(pulls, costs, b) * inverse)

        # The value before gives the number of chains where all else is constant.
        return self._add(map_of([self.values[variable], *self._inputs(variable), *constants], body))

    def _moved(self, variable: SSAValue) -> SSAValue:
        """A step down the gradient, in the box."""
        forces, dt = self.forces[variable], self.op.dt.value.data
        costs = len(forces.costs)
        constants = [self._constant("field", forces.pull), self._constant("curvature", forces.curvature)]

        def body(x: Scalar, *scalars: Scalar) -> Scalar:
            *pulls, b, curvature = scalars
            return self._boxed(variable, x + (self._summed(pulls, costs, b) - curvature * x) * dt)

        return self._add(map_of([self.values[variable], *self._inputs(variable), *constants], body))

    def _summed(self, pulls: list[Scalar], costs: int, field_: Scalar) -> Scalar:
        total = field_
        for number, pull in enumerate(pulls):
            total = total + (pull * self.nudge if number >= len(pulls) - costs else pull)
        return total

    def _boxed(self, variable: SSAValue, x: Scalar) -> Scalar:
        low, high = var_type(variable).box
        x = x if np.isinf(low) else maximum(x, low)
        return x if np.isinf(high) else minimum(x, high)

    def _constant(self, name: str, array: Array) -> SSAValue:
        """A constant of an array of `forces`, made where it is needed first."""
        if (name, id(array)) not in self._constants:
            made = make_constant(name, np.ascontiguousarray(array, np.float32), self.store)
            self._constants[name, id(array)] = self._add(made)
        return self._constants[name, id(array)]

    def _reshaped(self, value: SSAValue, dims: tuple[Dim, ...]) -> SSAValue:
        return value if dims_of(value) == dims else self._add(ReshapeOp(value, tensor_type(f32, dims)))

    def _add(self, op: Operation) -> SSAValue:
        op.location = self.op.location
        return self.rewriter.insert(op).results[0]


def _free(model: e.ModelOp) -> list[SSAValue]:
    """The variables that a relaxation changes, in the model's order."""
    return [v for v in model.variables if isinstance(v.owner, e.VarOp) and not v.owner.clamped]


def _read_through(op: e.ReadOp) -> None:
    """What is read of a state is what the state was made of, if their elements are alike."""
    state = op.state.owner
    assert isinstance(state, e.StateOp)
    variables = list(e.model_of(state.model).variables)
    value = state.args[1 + variables.index(e.variable_of(op.variable))]
    if value.type == op.result.type and not isinstance(value.owner, ConstantOp):
        PatternRewriter(op).replace(op, [], [value])
