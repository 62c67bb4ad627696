"""The `energy` operations that say what an energy is: variables, and terms of fields, couplings and tables.

All are pure. Meaning: `dialects/interp/energy_terms.py`. Terms of networks are in `energy_networks.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import (
    DenseArrayBase,
    IntegerAttr,
    TensorType,
    UnitAttr,
    i32,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.dense_attrs import flag, int_attr, ints
from neuc.dialects.energy_types import (
    EnergyOp,
    RhoAttr,
    RhoKind,
    Role,
    RoleAttr,
    Space,
    TermType,
    VarType,
    var_type,
)
from neuc.dialects.store import dims_of, element_of

CONTINUOUS = (Space.REAL, Space.PHASE, Space.COMPLEX)


def shape_of(value: SSAValue, name: str) -> tuple[int, ...]:
    """The static shape of a tensor operand.

    Raises:
        VerifyException: it is no tensor of a static shape.
    """
    try:
        dims = dims_of(value)
    except ValueError as error:
        raise VerifyException(f"{name}: {error}") from error
    if not all(d.is_static for d in dims):
        raise VerifyException(f"{name} has the shape [{', '.join(map(str, dims))}], which is not static")
    return tuple(d.value for d in dims)


def check_shape(value: SSAValue, name: str, expected: Sequence[int], element: Attribute | None = None) -> None:
    """Raise a VerifyException unless `value` has this shape and element type."""
    shape = shape_of(value, name)
    if shape != tuple(expected):
        raise VerifyException(f"{name} has shape {list(shape)}, should have {list(expected)}")
    if element is not None and element_of(value) != element:
        raise VerifyException(f"{name} holds {element_of(value)}, should hold {element}")


def check_space(value: SSAValue, name: str, allowed: Sequence[Space]) -> VarType:
    found = var_type(value)
    if found.space not in allowed:
        names = ", ".join(space.value for space in allowed)
        raise VerifyException(f"{name} ranges over {found.space.value}; this term takes {names}")
    return found


def check_edges(w: SSAValue, k: SSAValue | None, *sites: tuple[str, SSAValue]) -> None:
    """Raise a VerifyException unless lists of sites, and of weights that edges share, have one entry an edge."""
    weights = shape_of(w, "w")
    if len(weights) != 1:
        raise VerifyException(f"w has rank {len(weights)}, should have one weight an edge")
    edges = weights if k is None else shape_of(k, "k")
    if len(edges) != 1:
        raise VerifyException(f"k has rank {len(edges)}, should have one number an edge")
    for name, value in (*sites, *(() if k is None else (("k", k),))):
        check_shape(value, name, edges, i32)


@irdl_op_definition
class VarOp(EnergyOp):
    """A variable: an array of sites. `clamped` ones keep the values the state gives them."""

    name = "energy.var"
    role = prop_def(RoleAttr, default_value=RoleAttr(Role.FREE))
    result = result_def(VarType)
    traits = traits_def(Pure())
    ENUMS: ClassVar = {"role": RoleAttr}

    def __init__(self, type_: VarType, role: Role = Role.FREE) -> None:
        super().__init__(result_types=[type_], properties={"role": RoleAttr(role)})

    @property
    def clamped(self) -> bool:
        return self.role.data is Role.CLAMPED


@irdl_op_definition
class RhoOp(EnergyOp):
    """ρ(x) site by site, for terms to read instead of x; hardsigmoid is min(1, max(0, x))."""

    name = "energy.rho"
    x = operand_def(VarType)
    fn = prop_def(RhoAttr)
    result = result_def(VarType)
    traits = traits_def(Pure())
    ENUMS: ClassVar = {"fn": RhoAttr}

    def __init__(self, x: SSAValue, fn: RhoKind) -> None:
        super().__init__(operands=[x], result_types=[x.type], properties={"fn": RhoAttr(fn)})

    def verify_(self) -> None:
        check_space(self.x, "x", CONTINUOUS)
        if self.result.type != self.x.type:
            raise VerifyException("ρ(x) has the type of x")


@irdl_op_definition
class QuadOp(EnergyOp):
    """½ Σ p (x − μ)²; precision p and mean μ broadcast to x."""

    name = "energy.quad"
    x = operand_def(VarType)
    precision = operand_def(TensorType)
    mean = opt_operand_def(TensorType)
    result = result_def(TermType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, precision: SSAValue, mean: SSAValue | None = None) -> None:
        super().__init__(operands=[x, precision, mean], result_types=[TermType()])

    def verify_(self) -> None:
        space = check_space(self.x, "x", CONTINUOUS)
        for name, value in (("precision", self.precision), ("mean", self.mean)):
            if value is not None and shape_of(value, name) not in ((), space.shape):
                raise VerifyException(f"{name} has shape {list(shape_of(value, name))}, x {list(space.shape)}")


@irdl_op_definition
class LinearOp(EnergyOp):
    """−Σ b·x; for categories b has a last axis of K and reads −Σ b[x]."""

    name = "energy.linear"
    x = operand_def(VarType)
    b = operand_def(TensorType)
    result = result_def(TermType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, b: SSAValue) -> None:
        super().__init__(operands=[x, b], result_types=[TermType()])

    def verify_(self) -> None:
        x = var_type(self.x)
        levels = (x.levels,) if x.space in (Space.CAT, Space.SIMPLEX) else ()
        check_shape(self.b, "b", (*x.shape, *levels))


@irdl_op_definition
class BilinearOp(EnergyOp):
    """−xᵀ W y over flattened sites, W [Nx, Ny]; with y = x it is −½ xᵀ W x, and W must be symmetric."""

    name = "energy.bilinear"
    x = operand_def(VarType)
    w = operand_def(TensorType)
    y = operand_def(VarType)
    result = result_def(TermType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, w: SSAValue, y: SSAValue) -> None:
        super().__init__(operands=[x, w, y], result_types=[TermType()])

    def verify_(self) -> None:
        x, y = (check_space(v, n, (Space.SPIN, *CONTINUOUS)) for v, n in ((self.x, "x"), (self.y, "y")))
        check_shape(self.w, "W", (x.sites, y.sites))


@irdl_op_definition
class EdgesOp(EnergyOp):
    """−Σ_e w[e]·x[i[e]]·y[j[e]]: a sparse coupling; i and j are i32 site numbers.

    With k, i32 too, edges share weights: edge e has w[k[e]]. So a convolution is a list of edges.
    """

    name = "energy.edges"
    x = operand_def(VarType)
    y = operand_def(VarType)
    i = operand_def(TensorType)
    j = operand_def(TensorType)
    w = operand_def(TensorType)
    k = opt_operand_def(TensorType)
    result = result_def(TermType)
    traits = traits_def(Pure())

    def __init__(
        self, x: SSAValue, y: SSAValue, i: SSAValue, j: SSAValue, w: SSAValue, k: SSAValue | None = None
    ) -> None:
        super().__init__(operands=[x, y, i, j, w, k], result_types=[TermType()])

    def verify_(self) -> None:
        for name, value in (("x", self.x), ("y", self.y)):
            check_space(value, name, (Space.SPIN, *CONTINUOUS))
        check_edges(self.w, self.k, ("i", self.i), ("j", self.j))


@irdl_op_definition
class StencilOp(EnergyOp):
    """−J Σ_i Σ_o x_i·x_{i+o} over a grid, with the J of a single-element tensor; `periodic` wraps around.

    `offsets` lists the o one after the other, as many numbers each as the grid has axes.
    """

    name = "energy.stencil"
    x = operand_def(VarType)
    coupling = operand_def(TensorType)
    offsets = prop_def(DenseArrayBase.constr(i64))
    periodic = opt_prop_def(UnitAttr)
    result = result_def(TermType)
    traits = traits_def(Pure())
    FLAGS: ClassVar = frozenset({"periodic"})

    def __init__(
        self, x: SSAValue, coupling: SSAValue, offsets: Sequence[Sequence[int]], *, periodic: bool = False
    ) -> None:
        flat = [step for offset in offsets for step in offset]
        properties = {"offsets": ints(flat), "periodic": flag(periodic)}
        super().__init__(operands=[x, coupling], result_types=[TermType()], properties=properties)

    def steps(self) -> tuple[tuple[int, ...], ...]:
        """The offsets."""
        rank, flat = len(var_type(self.x).shape), self.offsets.get_values()
        return tuple(tuple(int(v) for v in flat[at : at + rank]) for at in range(0, len(flat), rank))

    def verify_(self) -> None:
        shape = check_space(self.x, "x", (Space.SPIN, *CONTINUOUS)).shape
        check_shape(self.coupling, "the coupling", (1,))
        flat = self.offsets.get_values()
        if not shape or not flat or len(flat) % len(shape):
            raise VerifyException(f"{len(flat)} numbers are no offsets on a grid of {len(shape)} axes")
        for step in self.steps():
            if all(d % n == 0 for d, n in zip(step, shape)) or any(abs(d) >= n for d, n in zip(step, shape)):
                raise VerifyException(f"offset {list(step)} leads nowhere on a grid of {list(shape)}")


@irdl_op_definition
class TableOp(EnergyOp):
    """−Σ_f Π spins · T[f, categories…]: a factor of any order (THRML's; ln A and ln B of a POMDP).

    Operands: `arity` variables, spins first, then categories or beliefs; as many i32 tensors [F] with the site each
    factor reads of each; the table [F, K…], or [1, K…] if all factors share it. Beliefs q enter as expectations.
    """

    name = "energy.table"
    args = var_operand_def()
    arity = prop_def(IntegerAttr.constr(i64))
    result = result_def(TermType)
    traits = traits_def(Pure())

    def __init__(self, variables: Sequence[SSAValue], sites: Sequence[SSAValue], table: SSAValue) -> None:
        properties = {"arity": int_attr(len(variables))}
        super().__init__(operands=[[*variables, *sites, table]], result_types=[TermType()], properties=properties)

    @property
    def variables(self) -> Sequence[SSAValue]:
        return self.args[: self.arity.value.data]

    @property
    def sites(self) -> Sequence[SSAValue]:
        return self.args[self.arity.value.data : -1]

    @property
    def table(self) -> SSAValue:
        return self.args[-1]

    def verify_(self) -> None:
        arity = self.arity.value.data
        if arity < 1 or len(self.args) != 2 * arity + 1:
            raise VerifyException(f"{len(self.args)} operands, should be {arity} variables, their sites and a table")
        types = [check_space(v, "a variable", (Space.SPIN, Space.CAT, Space.SIMPLEX)) for v in self.variables]
        levels = [t.levels for t in types if t.space is not Space.SPIN]
        if any(t.space is Space.SPIN for t in types[len(types) - len(levels) :]):
            raise VerifyException("spins come before categories and beliefs")
        factors = shape_of(self.sites[0], "sites")
        for value in self.sites:
            check_shape(value, "sites", factors, i32)
        table = shape_of(self.table, "the table")
        if table[1:] != tuple(levels) or table[:1] not in ((1,), factors):
            raise VerifyException(f"the table has shape {list(table)}, should have {[*factors, *levels]}")
