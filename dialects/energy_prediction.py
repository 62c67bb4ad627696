"""`energy.prediction`: a prediction term whose function is written out, as a region of `dense` operations.

Which operations a region may hold is said here; what their derivatives are is in `energy_derivatives.py` (scalar
bodies) and `interp/energy_prediction.py` (tensors).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from xdsl.dialects.builtin import Float32Type, FloatAttr, UnitAttr, f32
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    lazy_traits_def,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import HasParent, IsTerminator, Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_movement as movement
from neuc.dialects.dense import MapOp, ReduceOp
from neuc.dialects.dense_arithmetic import ConvOp, MatMulOp, PoolOp
from neuc.dialects.dense_attrs import NO_ACTIVATION, PadMode, PoolKind, ReduceKind, flag
from neuc.dialects.energy_derivatives import SCALAR_OPS
from neuc.dialects.energy_derivatives import is_affine as body_is_affine
from neuc.dialects.energy_terms import check_space, shape_of
from neuc.dialects.energy_types import EnergyOp, Space, TermType, VarType, var_type
from neuc.dialects.store import dims_of, element_of, tensor_type

CHAINS = "chains"
"""The first dim of whatever depends on a variable, inside a region."""


@irdl_op_definition
class PredictedOp(IRDLOperation):
    """What a region predicts."""

    name = "energy.predicted"
    value = operand_def()
    traits = lazy_traits_def(lambda: (IsTerminator(), HasParent(PredictionOp)))
    assembly_format = "$value attr-dict `:` type($value)"

    def __init__(self, value: SSAValue) -> None:
        super().__init__(operands=[value])


@irdl_op_definition
class PredictionOp(EnergyOp):
    """½ p Σ (x − f(z, …, θ, …))², f a region of `dense` operations; with `product`, −p Σ x·f(z, …, θ, …).

    Operands after x are variables (or ρ of some) and parameters; the region has an argument for each: [chains, …] of a
    variable, the array of a parameter. Its types say f32 whatever precision states have. Of F's two forms the first is
    a layer of predictive coding; the second, with a `quad` of x, a layer of a Hopfield network.
    """

    name = "energy.prediction"
    x = operand_def(VarType)
    args = var_operand_def()
    precision = prop_def(FloatAttr[Float32Type], default_value=FloatAttr(1.0, f32))
    product = opt_prop_def(UnitAttr)
    result = result_def(TermType)
    body = region_def("single_block")
    traits = traits_def(Pure())
    FLOATS: ClassVar = frozenset({"precision"})
    FLAGS: ClassVar = frozenset({"product"})
    HAS_REGION: ClassVar = True

    def __init__(
        self,
        x: SSAValue,
        args: Sequence[SSAValue],
        body: Region | None = None,
        *,
        precision: float = 1.0,
        product: bool = False,
    ) -> None:
        """Without a body: one with an empty block that has the right arguments."""
        if body is None:
            body = Region(Block(arg_types=[argument_type(value) for value in args]))
        properties = {"precision": FloatAttr(precision, f32), "product": flag(product)}
        super().__init__(operands=[x, args], result_types=[TermType()], properties=properties, regions=[body])

    @property
    def block(self) -> Block:
        """The region's operations."""
        return self.body.block

    @property
    def predicted(self) -> SSAValue:
        """What the region ends in."""
        last = self.block.last_op
        assert isinstance(last, PredictedOp)
        return last.value

    def verify_(self) -> None:
        x = check_space(self.x, "x", (Space.REAL,))
        for value in self.args:
            if isinstance(value.type, VarType):
                check_space(value, "a variable that a prediction reads", (Space.REAL, Space.PHASE))
            else:
                shape_of(value, "a parameter")
        expected = [argument_type(value) for value in self.args]
        if list(self.block.arg_types) != expected:
            found, wanted = (", ".join(map(str, types)) for types in (self.block.arg_types, expected))
            raise VerifyException(f"the region takes ({found}), should take ({wanted})")
        if not isinstance(self.block.last_op, PredictedOp):
            raise VerifyException("a prediction's region ends with energy.predicted")
        for op in self.block.ops:
            _check(op, self)
        if _dims(self.predicted) != (CHAINS, *map(str, x.shape)):
            raise VerifyException(f"the region predicts {self.predicted.type}, x has shape {list(x.shape)}")


def argument_type(value: SSAValue) -> Attribute:
    """The type of a region's argument for an operand."""
    if isinstance(value.type, VarType):
        return tensor_type(f32, (CHAINS, *var_type(value).shape))
    return tensor_type(f32, dims_of(value))


def moves(value: SSAValue) -> bool:
    """Whether a value inside a region depends on a variable."""
    dims = _dims(value)
    return bool(dims) and dims[0] == CHAINS


def is_affine(term: PredictionOp) -> bool:
    """Whether f is affine in the variables that it reads, all together."""
    for op in list(term.block.ops)[:-1]:
        moving = [moves(value) for value in op.operands]
        if isinstance(op, MapOp) and not body_is_affine(op.body.block, moving):
            return False
        if (isinstance(op, PoolOp) and op.kind.data is PoolKind.MAX) or (isinstance(op, MatMulOp) and all(moving[:2])):
            return False
    return True


def _dims(value: SSAValue) -> tuple[str, ...]:
    return tuple(str(dim) for dim in dims_of(value))


def _check(op: Operation, term: PredictionOp) -> None:
    """Raise a VerifyException unless an operation of the region is one that predictions are differentiated through."""
    if any(value.owner is not term.block and _block_of(value) is not term.block for value in op.operands):
        raise VerifyException(f"{op.name} in a prediction reads a value from outside: make it an operand of the term")
    if isinstance(op, PredictedOp):
        return
    refuses = REGION_OPS.get(type(op))
    if refuses is None:
        known = ", ".join(sorted(known.name for known in REGION_OPS))
        raise VerifyException(f"{op.name} has no derivative in predictions, which take {known}")
    if (why := refuses(op)) is not None:
        raise VerifyException(f"{op.name} in a prediction: {why}")
    op.verify()
    dims = _dims(op.results[0])
    if not dims[bool(dims) and dims[0] == CHAINS :] == tuple(d for d in dims if d.isdecimal()):
        raise VerifyException(f"{op.name} in a prediction gives {op.results[0].type}: chains are its first axis")
    if any(moves(value) for value in op.operands) and not moves(op.results[0]):
        raise VerifyException(f"{op.name} in a prediction mixes chains")
    if element_of(op.results[0]) != f32:
        raise VerifyException(f"{op.name} in a prediction gives {op.results[0].type}, should give f32")


def _block_of(value: SSAValue) -> Block | None:
    return value.owner.parent if isinstance(value.owner, Operation) else value.owner


def _map(op: Operation) -> str | None:
    assert isinstance(op, MapOp)
    odd = [inner.name for inner in list(op.body.block.ops)[:-1] if not isinstance(inner, SCALAR_OPS)]
    return f"{odd[0]} has no derivative here; there are {', '.join(o.name for o in SCALAR_OPS)}" if odd else None


def _matmul(op: Operation) -> str | None:
    assert isinstance(op, MatMulOp)
    if op.activation != NO_ACTIVATION:
        return "write its activation as a dense.map"
    if any(moves(value) and len(dims_of(value)) == 2 for value in (op.a, op.b)) and op.transpose_a is not None:
        return "it mixes chains"
    return "chains are in its second factor" if moves(op.b) and len(dims_of(op.b)) == 2 else None


def _conv(op: Operation) -> str | None:
    assert isinstance(op, ConvOp)
    return None if op.activation == NO_ACTIVATION else "write its activation as a dense.map"


def _reduce(op: Operation) -> str | None:
    assert isinstance(op, ReduceOp)
    if op.kind.data not in (ReduceKind.SUM, ReduceKind.MEAN):
        return f"kind {op.kind.data.value} has no derivative here; there are sum and mean"
    return "it mixes chains" if moves(op.x) and 0 in op.axes.get_values() else None


def _pad(op: Operation) -> str | None:
    assert isinstance(op, movement.PadOp)
    return None if op.mode.data is PadMode.CONSTANT else f"mode {op.mode.data.value} has no derivative here"


def _slice(op: Operation) -> str | None:
    assert isinstance(op, movement.SliceOp)
    first = (op.starts.data[0].data, op.steps.get_values()[0]) if moves(op.x) else ("0", 1)
    return None if first == ("0", 1) else "it mixes chains"


def _anything(op: Operation) -> str | None:
    return None


REGION_OPS: dict[type[Operation], Callable[[Operation], str | None]] = {
    MapOp: _map,
    MatMulOp: _matmul,
    ConvOp: _conv,
    PoolOp: _anything,
    ReduceOp: _reduce,
    movement.ReshapeOp: _anything,
    movement.TransposeOp: _anything,
    movement.SliceOp: _slice,
    movement.ConcatOp: _anything,
    movement.PadOp: _pad,
    movement.BroadcastOp: _anything,
}
"""What regions may hold, each with what tells why one is refused."""
