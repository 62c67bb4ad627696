"""`energy.efe`: what the policies of an active-inference agent are expected to bring. Registered by `energy.py`.

Beliefs themselves are ordinary models of simplex variables and tables, relaxed by `energy.relax`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, TensorType, UnitAttr, f32, i32, i64
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, opt_prop_def, prop_def, result_def, traits_def, var_operand_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.dense_attrs import flag, int_attr, ints
from neuc.dialects.energy_terms import check_shape, shape_of
from neuc.dialects.energy_types import EnergyOp
from neuc.dialects.store import dims_of, tensor_type


@irdl_op_definition
class EfeOp(EnergyOp):
    """−G of every policy, f32 [C, P]: Σ over its steps of expected utility and information gain about states.

    A policy's actions move the beliefs, q_f ← B_f[…, u]·q; then o_m = A_m·q; utility is Σ_m o_m·C_m and the gain
    Σ_m H[o_m] − E_q H[A_m]. Operands: `factors` beliefs [C, S_f]; `modalities` arrays A [O, S…]; B [S', S…, U] of each
    factor; C [O] of each modality; policies i32 [P, T, factors]. `a_factors` and `b_factors` list the factors of
    the state axes of each A and B, each list closed by -1.
    """

    name = "energy.efe"
    args = var_operand_def(TensorType)
    factors = prop_def(IntegerAttr.constr(i64))
    modalities = prop_def(IntegerAttr.constr(i64))
    a_factors = prop_def(DenseArrayBase.constr(i64))
    b_factors = prop_def(DenseArrayBase.constr(i64))
    no_utility = opt_prop_def(UnitAttr)
    no_gain = opt_prop_def(UnitAttr)
    result = result_def(TensorType)
    traits = traits_def(Pure())
    FLAGS: ClassVar = frozenset({"no_utility", "no_gain"})

    def __init__(
        self,
        q: Sequence[SSAValue],
        a: Sequence[SSAValue],
        b: Sequence[SSAValue],
        c: Sequence[SSAValue],
        policies: SSAValue,
        a_factors: Sequence[Sequence[int]],
        b_factors: Sequence[Sequence[int]],
        *,
        utility: bool = True,
        gain: bool = True,
    ) -> None:
        properties = {
            "factors": int_attr(len(q)),
            "modalities": int_attr(len(a)),
            "a_factors": ints(v for deps in a_factors for v in (*deps, -1)),
            "b_factors": ints(v for deps in b_factors for v in (*deps, -1)),
            "no_utility": flag(not utility),
            "no_gain": flag(not gain),
        }
        result = tensor_type(f32, (dims_of(q[0])[0], dims_of(policies)[0]))
        super().__init__(operands=[[*q, *a, *b, *c, policies]], result_types=[result], properties=properties)

    def parts(self) -> tuple[Sequence[SSAValue], Sequence[SSAValue], Sequence[SSAValue], Sequence[SSAValue], SSAValue]:
        """Beliefs, A, B, C and policies."""
        f, m = self.factors.value.data, self.modalities.value.data
        args = self.args
        return args[:f], args[f : f + m], args[f + m : 2 * f + m], args[2 * f + m : -1], args[-1]

    def dependencies(self) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """The factors of the state axes of every A and every B."""
        return factor_lists(self.a_factors.get_values()), factor_lists(self.b_factors.get_values())

    def verify_(self) -> None:
        f, m = self.factors.value.data, self.modalities.value.data
        if f < 1 or m < 1 or len(self.args) != 2 * f + 2 * m + 1:
            raise VerifyException(f"{len(self.args)} operands, should be {2 * f + 2 * m + 1}")
        beliefs, likelihoods, transitions, preferences, policies = self.parts()
        a_factors, b_factors = self.dependencies()
        if (len(a_factors), len(b_factors)) != (m, f):
            raise VerifyException("there is one list of factors for each A and each B")
        if any(not 0 <= factor < f for deps in (*a_factors, *b_factors) for factor in deps):
            raise VerifyException("a list names a factor that is not there")
        sizes = [dims_of(q)[-1].value for q in beliefs]
        for a, c, deps in zip(likelihoods, preferences, a_factors):
            outcomes = shape_of(a, "A")[0]
            check_shape(a, "A", (outcomes, *(sizes[k] for k in deps)), f32)
            check_shape(c, "C", (outcomes,), f32)
        for index, (b, deps) in enumerate(zip(transitions, b_factors)):
            check_shape(b, "B", (sizes[index], *(sizes[k] for k in deps), shape_of(b, "B")[-1]), f32)
        if len(shape_of(policies, "policies")) != 3 or shape_of(policies, "policies")[2] != f:
            raise VerifyException(f"policies have shape {list(shape_of(policies, 'policies'))}, should be [P, T, {f}]")
        check_shape(policies, "policies", shape_of(policies, "policies"), i32)


def factor_lists(values: Sequence[int | float]) -> list[tuple[int, ...]]:
    """Lists of factors, each of which -1 closes."""
    found: list[tuple[int, ...]] = []
    current: list[int] = []
    for value in values:
        if value == -1:
            found.append(tuple(current))
            current = []
        else:
            current.append(int(value))
    return found
