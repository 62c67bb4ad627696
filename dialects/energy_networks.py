"""Terms of `energy` that networks are made of: predictions, resistors, memories, local losses, costs, free forces.

Meaning: `dialects/interp/energy_networks.py`.
"""

from __future__ import annotations

from typing import ClassVar

from xdsl.dialects.builtin import (
    Float32Type,
    FloatAttr,
    TensorType,
    UnitAttr,
    f32,
)
from xdsl.ir import SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.dense_attrs import flag
from neuc.dialects.energy_terms import check_edges, check_shape, check_space, shape_of
from neuc.dialects.energy_types import (
    CostAttr,
    CostKind,
    EnergyOp,
    Space,
    TermType,
    VarType,
)


@irdl_op_definition
class PredOp(EnergyOp):
    """½ p Σ (x − W ρ(z) − b − g z)²: a layer of a predictive-coding network; W [Nx, Nz], precision p.

    ρ is what z was given by `energy.rho`; `skip` is g, the weight of an identity connection (0: none).
    """

    name = "energy.pred"
    x = operand_def(VarType)
    w = operand_def(TensorType)
    z = operand_def(VarType)
    bias = opt_operand_def(TensorType)
    precision = prop_def(FloatAttr[Float32Type], default_value=FloatAttr(1.0, f32))
    skip = prop_def(FloatAttr[Float32Type], default_value=FloatAttr(0.0, f32))
    result = result_def(TermType)
    traits = traits_def(Pure())
    FLOATS: ClassVar = frozenset({"precision", "skip"})

    def __init__(
        self,
        x: SSAValue,
        w: SSAValue,
        z: SSAValue,
        bias: SSAValue | None = None,
        *,
        precision: float = 1.0,
        skip: float = 0.0,
    ) -> None:
        properties = {"precision": FloatAttr(precision, f32), "skip": FloatAttr(skip, f32)}
        super().__init__(operands=[x, w, z, bias], result_types=[TermType()], properties=properties)

    def verify_(self) -> None:
        x, z = check_space(self.x, "x", (Space.REAL,)), check_space(self.z, "z", (Space.REAL,))
        check_shape(self.w, "W", (x.sites, z.sites))
        if self.bias is not None:
            check_shape(self.bias, "b", x.shape)
        if self.skip.value.data and x.shape != z.shape:
            raise VerifyException("an identity connection needs x and z of one shape")


@irdl_op_definition
class PredEdgesOp(EnergyOp):
    """½ p Σ_a (x_a − Σ w[k[e]]·ρ(z)[j[e]] − b_a)², each sum over the edges e with i[e] = a.

    `energy.pred` whose W is a list of edges that share weights: convolutions, locally connected layers.
    """

    name = "energy.pred_edges"
    x = operand_def(VarType)
    z = operand_def(VarType)
    i = operand_def(TensorType)
    j = operand_def(TensorType)
    k = operand_def(TensorType)
    w = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    precision = prop_def(FloatAttr[Float32Type], default_value=FloatAttr(1.0, f32))
    result = result_def(TermType)
    traits = traits_def(Pure())
    FLOATS: ClassVar = frozenset({"precision"})

    def __init__(
        self,
        x: SSAValue,
        z: SSAValue,
        edges: tuple[SSAValue, SSAValue, SSAValue],
        w: SSAValue,
        bias: SSAValue | None = None,
        *,
        precision: float = 1.0,
    ) -> None:
        properties = {"precision": FloatAttr(precision, f32)}
        super().__init__(operands=[x, z, *edges, w, bias], result_types=[TermType()], properties=properties)

    def verify_(self) -> None:
        x = check_space(self.x, "x", (Space.REAL,))
        check_space(self.z, "z", (Space.REAL,))
        check_edges(self.w, self.k, ("i", self.i), ("j", self.j))
        if self.bias is not None:
            check_shape(self.bias, "b", x.shape)


@irdl_op_definition
class ResistorOp(EnergyOp):
    """½ Σ g[i, j] (x_i − y_j)²: conductances g ≥ 0 between the nodes of a resistor network."""

    name = "energy.resistor"
    x = operand_def(VarType)
    g = operand_def(TensorType)
    y = operand_def(VarType)
    result = result_def(TermType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, g: SSAValue, y: SSAValue) -> None:
        super().__init__(operands=[x, g, y], result_types=[TermType()])

    def verify_(self) -> None:
        x, y = check_space(self.x, "x", (Space.REAL,)), check_space(self.y, "y", (Space.REAL,))
        check_shape(self.g, "g", (x.sites, y.sites))


@irdl_op_definition
class LseOp(EnergyOp):
    """½ |x|² − (1/β) ln Σ_p exp(β X_p·x), patterns X [P, Nx]: the modern Hopfield energy."""

    name = "energy.lse"
    x = operand_def(VarType)
    patterns = operand_def(TensorType)
    sharpness = prop_def(FloatAttr[Float32Type])
    result = result_def(TermType)
    traits = traits_def(Pure())
    FLOATS: ClassVar = frozenset({"sharpness"})

    def __init__(self, x: SSAValue, patterns: SSAValue, sharpness: float) -> None:
        properties = {"sharpness": FloatAttr(sharpness, f32)}
        super().__init__(operands=[x, patterns], result_types=[TermType()], properties=properties)

    def verify_(self) -> None:
        x, patterns = check_space(self.x, "x", (Space.REAL,)), shape_of(self.patterns, "patterns")
        if len(patterns) != 2 or patterns[1] != x.sites:
            raise VerifyException(f"patterns have shape {list(patterns)}, should have [P, {x.sites}]")
        if not self.sharpness.value.data > 0:
            raise VerifyException("β of a log-sum-exp is above 0")


@irdl_op_definition
class LocalOp(EnergyOp):
    """ln(1 + exp(∓(G − θ))), G = mean ρ(W x + b)²: what a Forward-Forward layer lowers, upper sign unless `negative`.

    x is clamped data (Hinton, The Forward-Forward Algorithm, 2022); ρ = relu.
    """

    name = "energy.local"
    x = operand_def(VarType)
    w = operand_def(TensorType)
    b = operand_def(TensorType)
    theta = prop_def(FloatAttr[Float32Type])
    negative = opt_prop_def(UnitAttr)
    result = result_def(TermType)
    traits = traits_def(Pure())
    FLOATS: ClassVar = frozenset({"theta"})
    FLAGS: ClassVar = frozenset({"negative"})

    def __init__(self, x: SSAValue, w: SSAValue, b: SSAValue, *, theta: float, negative: bool = False) -> None:
        properties = {"theta": FloatAttr(theta, f32), "negative": flag(negative)}
        super().__init__(operands=[x, w, b], result_types=[TermType()], properties=properties)

    def verify_(self) -> None:
        x, w = check_space(self.x, "x", (Space.REAL,)), shape_of(self.w, "W")
        if len(w) != 2 or w[1] != x.sites:
            raise VerifyException(f"W has shape {list(w)}, should have [M, {x.sites}]")
        check_shape(self.b, "b", w[:1])


@irdl_op_definition
class CostOp(EnergyOp):
    """The cost that `nudge` of a relaxation multiplies: mse ½|x − y|², ce −Σ y ln softmax(x); y a clamped variable."""

    name = "energy.cost"
    x = operand_def(VarType)
    target = operand_def(VarType)
    kind = prop_def(CostAttr)
    result = result_def(TermType)
    traits = traits_def(Pure())
    ENUMS: ClassVar = {"kind": CostAttr}

    def __init__(self, x: SSAValue, target: SSAValue, kind: CostKind = CostKind.MSE) -> None:
        super().__init__(operands=[x, target], result_types=[TermType()], properties={"kind": CostAttr(kind)})

    def verify_(self) -> None:
        x, y = (check_space(v, n, (Space.REAL, Space.COMPLEX)) for v, n in ((self.x, "x"), (self.target, "target")))
        if x.shape != y.shape:
            raise VerifyException(f"x has shape {list(x.shape)}, its target {list(y.shape)}")


@irdl_op_definition
class VectorFieldOp(EnergyOp):
    """A force W y on x, W [Nx, Ny], that need not come from an energy (asymmetric feedback, dendrites).

    A model with one has dynamics but no energy: it can flow, and can be neither sampled nor contrasted.
    """

    name = "energy.vector_field"
    x = operand_def(VarType)
    w = operand_def(TensorType)
    y = operand_def(VarType)
    result = result_def(TermType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, w: SSAValue, y: SSAValue) -> None:
        super().__init__(operands=[x, w, y], result_types=[TermType()])

    def verify_(self) -> None:
        x, y = (check_space(v, n, (Space.REAL,)) for v, n in ((self.x, "x"), (self.y, "y")))
        check_shape(self.w, "W", (x.sites, y.sites))
