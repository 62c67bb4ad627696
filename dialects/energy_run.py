"""The `energy` operations that do something with a model: sampling, observing, relaxing, gradients.

Meaning: `dialects/interp/energy*.py`. States are in `energy_state.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import (
    Float32Type,
    FloatAttr,
    IntegerAttr,
    TensorType,
    UnitAttr,
    f32,
    i32,
    i64,
)
from xdsl.ir import SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.dense_attrs import flag, int_attr
from neuc.dialects.dims import Dim
from neuc.dialects.energy_model import term_operands
from neuc.dialects.energy_state import Dynamics, chains_of, model_of, refuse_vector_fields
from neuc.dialects.energy_terms import VarOp, check_shape
from neuc.dialects.energy_types import (
    EnergyOp,
    Method,
    MethodAttr,
    ModelType,
    Observable,
    ObservableAttr,
    Rule,
    RuleAttr,
    Space,
    StateType,
    TrajectoryType,
    var_type,
)
from neuc.dialects.store import dims_of, element_of, tensor_type


@irdl_op_definition
class SampleOp(Dynamics):
    """Sweeps t = 0 … S − 1 of every chain at inverse temperature β[t] (or β[t, c]), blocks one after the other.

    gibbs: each site from its conditional distribution. metropolis: spins flip with probability min(1, e^(−βΔF)).
    langevin: x += −dt ∇F + √(2 dt/β) ξ. ou_exact: of a quadratic energy, the exact transition over a time dt.
    Kept for the trajectory are sweeps from `warmup` on, every `thin`-th. `exchange = k` swaps states of neighbouring
    chains (β is a ladder then) after every k-th sweep with the replica-exchange probability. Random numbers are Philox
    4x32-10 of (position, sweep, chain) under the seed, so they depend on no order. `packed` draws the numbers of 64
    chains bit plane by bit plane: another stream, for bit-sliced kernels. `shared` (with `packed`) gives chain 0's
    numbers to all chains: each is a right sample by itself, but they depend on each other; their spread says nothing.
    """

    name = "energy.sample"
    model = operand_def(ModelType)
    state = operand_def(StateType)
    beta = operand_def(TensorType)
    seed = operand_def(TensorType)
    rule = prop_def(RuleAttr, default_value=RuleAttr(Rule.GIBBS))
    warmup = prop_def(IntegerAttr.constr(i64), default_value=int_attr(0))
    thin = prop_def(IntegerAttr.constr(i64), default_value=int_attr(1))
    exchange = prop_def(IntegerAttr.constr(i64), default_value=int_attr(0))
    dt = prop_def(FloatAttr[Float32Type], default_value=FloatAttr(0.0, f32))
    packed = opt_prop_def(UnitAttr)
    shared = opt_prop_def(UnitAttr)
    last = result_def(StateType)
    trajectory = result_def(TrajectoryType)
    traits = traits_def(Pure())
    ENUMS: ClassVar = {"rule": RuleAttr}
    FLOATS: ClassVar = frozenset({"dt"})
    FLAGS: ClassVar = frozenset({"packed", "shared"})

    def __init__(
        self,
        model: SSAValue,
        state: SSAValue,
        beta: SSAValue,
        seed: SSAValue,
        *,
        rule: Rule = Rule.GIBBS,
        warmup: int = 0,
        thin: int = 1,
        exchange: int = 0,
        dt: float = 0.0,
        packed: bool = False,
        shared: bool = False,
    ) -> None:
        numbers = {name: int_attr(v) for name, v in (("warmup", warmup), ("thin", thin), ("exchange", exchange))}
        flags = {"packed": flag(packed), "shared": flag(shared)}
        properties = {"rule": RuleAttr(rule), **numbers, "dt": FloatAttr(dt, f32), **flags}
        operands = [model, state, beta, seed]
        super().__init__(operands=operands, result_types=[StateType(), TrajectoryType()], properties=properties)

    @property
    def kept(self) -> Dim:
        """How many sweeps the trajectory has."""
        sweeps = dims_of(self.beta)[0]
        return (sweeps - self.warmup.value.data).maximum(0) // self.thin.value.data

    def verify_(self) -> None:
        refuse_vector_fields(self.model, "cannot be sampled")
        check_shape(self.seed, "the seed", (), i64)
        beta = dims_of(self.beta)
        if len(beta) not in (1, 2) or element_of(self.beta) != f32:
            raise VerifyException("β is f32 [S] or [S, C]")
        if len(beta) == 2 and beta[1] != chains_of(self.state):
            raise VerifyException(f"β has a ladder of {beta[1]}, the state {chains_of(self.state)} chains")
        if self.warmup.value.data < 0 or self.thin.value.data < 1 or self.exchange.value.data < 0:
            raise VerifyException("warmup and exchange are at least 0, thin at least 1")
        if self.shared is not None and self.packed is None:
            raise VerifyException("chains that share numbers are packed ones")
        if self.exchange.value.data and len(beta) != 2:
            raise VerifyException("chains at one temperature have nothing to exchange: give β as [S, C]")
        continuous = self.rule.data in (Rule.LANGEVIN, Rule.OU_EXACT)
        if continuous and not self.dt.value.data > 0:
            raise VerifyException(f"{self.rule.data.value} needs a time step dt above 0")
        allowed = (Space.REAL, Space.PHASE) if continuous else (Space.SPIN, Space.CAT)
        for variable in model_of(self.model).variables:
            assert isinstance(variable.owner, VarOp)
            if not variable.owner.clamped and var_type(variable).space not in allowed:
                raise VerifyException(
                    f"{self.rule.data.value} does not sample {var_type(variable).space.value} variables"
                )


@irdl_op_definition
class ObserveOp(EnergyOp):
    """What a trajectory adds up to, chain by chain, in integers (so parts of runs add up exactly).

    sum(var): Σ of spins i32 [C, …], or counts of categories i32 [C, …, K]. pairs(var, i, j): Σ x_i·x_j i32 [C, E] of
    spins. histogram(var): how often each joint state occurred, i32 [C, 2^n] of n ≤ 20 spins, site 0 the lowest bit, +1
    a set one. energy: F after every kept sweep, f32 [kept, C].
    """

    name = "energy.observe"
    args = var_operand_def()
    what = prop_def(ObservableAttr)
    result = result_def(TensorType)
    traits = traits_def(Pure())
    ENUMS: ClassVar = {"what": ObservableAttr}

    def __init__(self, trajectory: SSAValue, what: Observable, *operands: SSAValue) -> None:
        properties = {"what": ObservableAttr(what)}
        sample = trajectory.owner
        assert isinstance(sample, SampleOp)
        result = self.result_type(sample, what, operands)
        super().__init__(operands=[[trajectory, *operands]], result_types=[result], properties=properties)

    @staticmethod
    def result_type(sample: SampleOp, what: Observable, operands: Sequence[SSAValue]) -> TensorType:
        """The type of what is observed."""
        chains = chains_of(sample.state)
        if what is Observable.ENERGY:
            return tensor_type(f32, (sample.kept, chains))
        type_ = var_type(operands[0])
        match what:
            case Observable.PAIRS:
                return tensor_type(i32, (chains, *dims_of(operands[1])))
            case Observable.HISTOGRAM:
                return tensor_type(i32, (chains, 1 << type_.sites))
            case _:
                return tensor_type(i32, (chains, *type_.shape, *([type_.levels] if type_.space is Space.CAT else [])))

    def verify_(self) -> None:
        if not self.args or not isinstance(self.args[0].owner, SampleOp):
            raise VerifyException("what is observed is the trajectory of an energy.sample in the same function")
        what, rest = self.what.data, self.args[1:]
        count = {Observable.ENERGY: 0, Observable.PAIRS: 3}.get(what, 1)
        if len(rest) != count:
            raise VerifyException(f"{what.value} takes {count} operands after the trajectory, got {len(rest)}")
        if rest and not var_type(rest[0]).discrete:
            raise VerifyException(f"{what.value} counts spins and categories")
        if what in (Observable.PAIRS, Observable.HISTOGRAM) and var_type(rest[0]).space is not Space.SPIN:
            raise VerifyException(f"{what.value} is of spins")
        if what is Observable.HISTOGRAM and var_type(rest[0]).sites > 20:
            raise VerifyException("a histogram is of at most 20 spins")
        sample = self.args[0].owner
        expected = self.result_type(sample, what, rest)
        if self.result.type != expected:
            raise VerifyException(f"the result has type {self.result.type}, should have {expected}")


@irdl_op_definition
class RelaxOp(Dynamics):
    """`steps` steps downhill in F, nudged by `nudge` times the costs.

    flow: x += dt·(−∇F), clipped to its box, all variables at once. block_min: each variable in turn to the exact
    minimum of F over it, the others held (of a quadratic F in the box; spins to the sign of their field). mean_field:
    beliefs q ← softmax of the expected −∂F/∂q, all at once (pymdp's fixed-point iteration). bifurcation: ballistic
    simulated bifurcation (Goto et al. 2021), y += dt·(−(1 − t/steps)·x − scale·∇F), x += dt·y, walls at ±1. messages:
    marginal message passing along tables of two beliefs (ln B), step size dt.
    """

    name = "energy.relax"
    model = operand_def(ModelType)
    state = operand_def(StateType)
    method = prop_def(MethodAttr)
    steps = prop_def(IntegerAttr.constr(i64))
    dt = prop_def(FloatAttr[Float32Type], default_value=FloatAttr(0.0, f32))
    scale = prop_def(FloatAttr[Float32Type], default_value=FloatAttr(1.0, f32))
    nudge = prop_def(FloatAttr[Float32Type], default_value=FloatAttr(0.0, f32))
    nudge_imag = prop_def(FloatAttr[Float32Type], default_value=FloatAttr(0.0, f32))
    result = result_def(StateType)
    traits = traits_def(Pure())
    ENUMS: ClassVar = {"method": MethodAttr}
    FLOATS: ClassVar = frozenset({"dt", "scale", "nudge", "nudge_imag"})

    def __init__(
        self,
        model: SSAValue,
        state: SSAValue,
        method: Method,
        steps: int,
        *,
        dt: float = 0.0,
        scale: float = 1.0,
        nudge: complex = 0.0,
    ) -> None:
        numbers = (("dt", dt), ("scale", scale), ("nudge", nudge.real), ("nudge_imag", nudge.imag))
        floats = {name: FloatAttr(value, f32) for name, value in numbers}
        properties = {"method": MethodAttr(method), "steps": int_attr(steps), **floats}
        super().__init__(operands=[model, state], result_types=[StateType()], properties=properties)

    def verify_(self) -> None:
        if self.steps.value.data < 1:
            raise VerifyException("a relaxation has at least one step")
        if self.method.data in (Method.FLOW, Method.BIFURCATION, Method.MESSAGES) and not self.dt.value.data > 0:
            raise VerifyException(f"{self.method.data.value} needs a step dt above 0")
        if self.method.data is not Method.FLOW:
            refuse_vector_fields(self.model, "can only flow")


class _Gradient(EnergyOp):
    """What `energy.grad` and `energy.contrast` share: a model, states, parameters of its terms."""

    args = var_operand_def()
    gradients = var_result_def(TensorType)

    @property
    def count(self) -> int:
        """How many states there are."""
        return 1

    @property
    def model(self) -> SSAValue:
        return self.args[0]

    @property
    def states(self) -> Sequence[SSAValue]:
        return self.args[1 : 1 + self.count]

    @property
    def parameters(self) -> Sequence[SSAValue]:
        return self.args[1 + self.count :]

    def verify_(self) -> None:
        refuse_vector_fields(self.model, "has no gradient")
        if [p.type for p in self.parameters] != [r.type for r in self.gradients]:
            raise VerifyException("there is one result of the type of each parameter")
        read = {v for term in model_of(self.model).terms for v in term_operands(term)}
        if not set(self.parameters) <= read:
            raise VerifyException("a parameter is not read by any term of the model")


@irdl_op_definition
class GradOp(_Gradient):
    """dF/dθ of each parameter θ (operands after model and state), the mean over chains; without costs."""

    name = "energy.grad"
    traits = traits_def(Pure())

    def __init__(self, model: SSAValue, state: SSAValue, parameters: Sequence[SSAValue]) -> None:
        super().__init__(operands=[[model, state, *parameters]], result_types=[[p.type for p in parameters]])


@irdl_op_definition
class ContrastOp(_Gradient):
    """Re (scale/N) Σ_k e^(−2πik/N) dF/dθ(state k), k = 0 … N − 1: the first Fourier coefficient over nudges.

    N = 2, states at nudges b and −b, scale 1/b: centred equilibrium propagation. N = 2, states nudged and free, scale
    2/b: one-sided; data and model, scale 2: contrastive divergence. N > 2, nudges b·e^(2πik/N), scale 1/b: holomorphic
    (Laborieux and Zenke 2022).
    """

    name = "energy.contrast"
    scale = prop_def(FloatAttr[Float32Type], default_value=FloatAttr(1.0, f32))
    phases = prop_def(IntegerAttr.constr(i64), default_value=int_attr(2))
    traits = traits_def(Pure())
    FLOATS: ClassVar = frozenset({"scale"})

    def __init__(
        self, model: SSAValue, states: Sequence[SSAValue], parameters: Sequence[SSAValue], scale: float = 1.0
    ) -> None:
        super().__init__(
            operands=[[model, *states, *parameters]],
            result_types=[[p.type for p in parameters]],
            properties={"scale": FloatAttr(scale, f32), "phases": int_attr(len(states))},
        )

    @property
    def count(self) -> int:
        return self.phases.value.data


RUN_OPS: tuple[type[EnergyOp], ...] = (SampleOp, ObserveOp, RelaxOp, GradOp, ContrastOp)
