"""`energy.model`, and who made what: the way from a model to its variables and terms."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import (
    IntegerAttr,
    i64,
)
from xdsl.ir import SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.dense_attrs import int_attr
from neuc.dialects.energy_networks import CostOp, LocalOp, LseOp, PredEdgesOp, PredOp, ResistorOp, VectorFieldOp
from neuc.dialects.energy_prediction import PredictionOp
from neuc.dialects.energy_terms import BilinearOp, EdgesOp, LinearOp, QuadOp, RhoOp, StencilOp, TableOp, VarOp
from neuc.dialects.energy_types import (
    EnergyOp,
    ModelType,
    TermType,
    VarType,
)


@irdl_op_definition
class ModelOp(EnergyOp):
    """Variables (the first `arity` operands) and the sum of terms over them; a state has their values in this order."""

    name = "energy.model"
    args = var_operand_def()
    arity = prop_def(IntegerAttr.constr(i64))
    result = result_def(ModelType)
    traits = traits_def(Pure())

    def __init__(self, variables: Sequence[SSAValue], terms: Sequence[SSAValue]) -> None:
        properties = {"arity": int_attr(len(variables))}
        super().__init__(operands=[[*variables, *terms]], result_types=[ModelType()], properties=properties)

    @property
    def variables(self) -> Sequence[SSAValue]:
        return self.args[: self.arity.value.data]

    @property
    def terms(self) -> Sequence[SSAValue]:
        return self.args[self.arity.value.data :]

    def verify_(self) -> None:
        for value in self.variables:
            if not isinstance(value.owner, VarOp):
                raise VerifyException("a model's variables are results of energy.var")
        known = set(self.variables)
        for term in self.terms:
            if not isinstance(term.type, TermType):
                raise VerifyException(f"{term.type} is no term")
            missing = set(term_variables(term)) - known
            if missing:
                raise VerifyException("a term reads a variable that the model does not have")


def variable_of(value: SSAValue) -> SSAValue:
    """The variable itself behind `energy.rho`."""
    return variable_of(value.owner.x) if isinstance(value.owner, RhoOp) else value


def term_variables(term: SSAValue) -> list[SSAValue]:
    """The variables a term reads, each occurrence."""
    return [variable_of(v) for v in term_operands(term) if isinstance(v.type, VarType)]


def term_operands(term: SSAValue) -> Sequence[SSAValue]:
    """The operands of the operation that makes a term."""
    owner = term.owner
    if not isinstance(owner, TERM_OPS):
        raise VerifyException("a term must be made by an operation in the same function")
    return owner.operands


TERM_OPS: tuple[type[EnergyOp], ...] = (
    QuadOp,
    LinearOp,
    BilinearOp,
    EdgesOp,
    StencilOp,
    TableOp,
    PredEdgesOp,
    PredOp,
    PredictionOp,
    ResistorOp,
    LseOp,
    LocalOp,
    CostOp,
    VectorFieldOp,
)
