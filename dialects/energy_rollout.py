"""`energy.rollout`: active-inference agents in a world of their own, from the first observation to the last action.

Registered by `energy.py`. A step alone is `energy.relax` and `energy.efe`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from xdsl.dialects.builtin import DenseArrayBase, Float32Type, FloatAttr, IntegerAttr, TensorType, f32, i32, i64
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, prop_def, result_def, traits_def, var_operand_def, var_result_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.dense_attrs import int_attr, ints
from neuc.dialects.energy_agent import factor_lists
from neuc.dialects.energy_terms import check_shape, shape_of
from neuc.dialects.energy_types import EnergyOp
from neuc.dialects.store import tensor_type

TIE = 1e-5
"""Actions whose probabilities differ by less are equally good: the first of them is taken."""


@dataclass(frozen=True)
class Arrays:
    """A generative model or process: per modality A [O, S…], per factor B [S', S…, U] and D [S]."""

    a: Sequence[SSAValue]
    b: Sequence[SSAValue]
    d: Sequence[SSAValue]


@irdl_op_definition
class RolloutOp(EnergyOp):
    """`steps` steps of `agents` agents, each in its world: observe, infer, act; the world moves.

    At step t the world's states are drawn, from D* at t = 0 and else from B*[…, u] of the states and actions before;
    then outcomes, from A*. Beliefs of an agent are `iterations` mean-field iterations from uniform ones, with ln A of
    the outcomes and, as prior, ln D or ln B[…, u]·q; −G of its policies is `energy.efe`; its actions u are those whose
    probability as a policy's first under softmax(γ·(−G)) is largest, the first within `TIE` of it. A draw reads one
    word: states of factor f position f, outcomes of modality m position factors + m of sweep t, in chain order.

    Operands: the agent's A…, B…, C…, D…; policies i32 [P, T, factors]; the world's A…, B…, D…, of the same shapes; the
    seed. Results: outcomes i32 [agents, steps, modalities]; states and actions i32 [agents, steps, factors]; −G f32
    [agents, steps, P]; beliefs f32 [agents, steps, S] of each factor.
    """

    name = "energy.rollout"
    args = var_operand_def(TensorType)
    factors = prop_def(IntegerAttr.constr(i64))
    modalities = prop_def(IntegerAttr.constr(i64))
    a_factors = prop_def(DenseArrayBase.constr(i64))
    b_factors = prop_def(DenseArrayBase.constr(i64))
    agents = prop_def(IntegerAttr.constr(i64))
    steps = prop_def(IntegerAttr.constr(i64))
    iterations = prop_def(IntegerAttr.constr(i64))
    gamma = prop_def(FloatAttr[Float32Type])
    outcomes = result_def(TensorType)
    states = result_def(TensorType)
    actions = result_def(TensorType)
    values = result_def(TensorType)
    beliefs = var_result_def(TensorType)
    traits = traits_def(Pure())
    FLOATS: ClassVar = frozenset({"gamma"})

    def __init__(
        self,
        agent: Arrays,
        preferences: Sequence[SSAValue],
        policies: SSAValue,
        world: Arrays,
        seed: SSAValue,
        dependencies: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]],
        *,
        agents: int,
        steps: int,
        iterations: int,
        gamma: float,
    ) -> None:
        """`dependencies`: the factors of the state axes of every A and of every B."""
        f, m = len(agent.d), len(agent.a)
        count = shape_of(policies, "policies")[0]
        per_step = [tensor_type(i32, (agents, steps, n)) for n in (m, f, f)]
        beliefs = [tensor_type(f32, (agents, steps, shape_of(d, "D")[0])) for d in agent.d]
        lists = [ints(v for deps in group for v in (*deps, -1)) for group in dependencies]
        super().__init__(
            operands=[[*agent.a, *agent.b, *preferences, *agent.d, policies, *world.a, *world.b, *world.d, seed]],
            result_types=[*per_step, tensor_type(f32, (agents, steps, count)), beliefs],
            properties={
                "factors": int_attr(f),
                "modalities": int_attr(m),
                "a_factors": lists[0],
                "b_factors": lists[1],
                "agents": int_attr(agents),
                "steps": int_attr(steps),
                "iterations": int_attr(iterations),
                "gamma": FloatAttr(gamma, f32),
            },
        )

    @property
    def agent(self) -> Arrays:
        """What the agent believes."""
        f, m = self.factors.value.data, self.modalities.value.data
        a = self.args
        return Arrays(a[:m], a[m : m + f], a[2 * m + f : 2 * m + 2 * f])

    @property
    def preferences(self) -> Sequence[SSAValue]:
        """C of each modality."""
        f, m = self.factors.value.data, self.modalities.value.data
        return self.args[m + f : 2 * m + f]

    @property
    def policies(self) -> SSAValue:
        return self.args[2 * (self.factors.value.data + self.modalities.value.data)]

    @property
    def world(self) -> Arrays:
        """How the world is."""
        f, m = self.factors.value.data, self.modalities.value.data
        a = self.args[2 * (f + m) + 1 : -1]
        return Arrays(a[:m], a[m : m + f], a[m + f :])

    @property
    def seed(self) -> SSAValue:
        return self.args[-1]

    def dependencies(self) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """The factors of the state axes of every A and every B."""
        return factor_lists(self.a_factors.get_values()), factor_lists(self.b_factors.get_values())

    def verify_(self) -> None:
        f, m = self.factors.value.data, self.modalities.value.data
        if f < 1 or m < 1 or len(self.args) != 4 * f + 3 * m + 2:
            raise VerifyException(f"{len(self.args)} operands, should be {4 * f + 3 * m + 2}")
        counts = {"agents": self.agents, "steps": self.steps, "iterations": self.iterations}
        for name, count in counts.items():
            if count.value.data < 1:
                raise VerifyException(f"{name} = {count.value.data}, should be at least 1")
        if not self.gamma.value.data > 0:
            raise VerifyException(f"gamma = {self.gamma.value.data}, should be above 0")
        a_factors, b_factors = self.dependencies()
        if (len(a_factors), len(b_factors)) != (m, f):
            raise VerifyException("there is one list of factors for each A and each B")
        if any(not 0 <= factor < f for deps in (*a_factors, *b_factors) for factor in deps):
            raise VerifyException("a list names a factor that is not there")
        sizes = [shape_of(d, "D")[0] for d in self.agent.d]
        outcomes = [shape_of(a, "A")[0] for a in self.agent.a]
        controls = [shape_of(b, "B")[-1] for b in self.agent.b]
        for of, arrays in (("the agent's", self.agent), ("the world's", self.world)):
            for a, o, deps in zip(arrays.a, outcomes, a_factors):
                check_shape(a, f"{of} A", (o, *(sizes[k] for k in deps)), f32)
            for b, size, u, deps in zip(arrays.b, sizes, controls, b_factors):
                check_shape(b, f"{of} B", (size, *(sizes[k] for k in deps), u), f32)
            for d, size in zip(arrays.d, sizes):
                check_shape(d, f"{of} D", (size,), f32)
        for c, o in zip(self.preferences, outcomes):
            check_shape(c, "C", (o,), f32)
        policies = shape_of(self.policies, "policies")
        if len(policies) != 3 or policies[2] != f:
            raise VerifyException(f"policies have shape {list(policies)}, should be [P, T, {f}]")
        check_shape(self.policies, "policies", policies, i32)
        check_shape(self.seed, "the seed", (), i64)
        lead = (self.agents.value.data, self.steps.value.data)
        for name, value, last in (
            ("outcomes", self.outcomes, m),
            ("states", self.states, f),
            ("actions", self.actions, f),
        ):
            check_shape(value, name, (*lead, last), i32)
        check_shape(self.values, "values", (*lead, policies[0]), f32)
        if len(self.beliefs) != f:
            raise VerifyException(f"{len(self.beliefs)} beliefs of {f} factors")
        for belief, size in zip(self.beliefs, sizes):
            check_shape(belief, "beliefs", (*lead, size), f32)
