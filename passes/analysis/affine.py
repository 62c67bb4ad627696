"""Which `dense` operations are affine in those of their operands that change from step to step.

An affine operation can run on each step's spikes by itself; anything else has to see the mean of all steps so far.
"""

from __future__ import annotations

from collections.abc import Collection

from xdsl.ir import Operation

from neuc.dialects.dense import (
    BroadcastOp,
    ConcatOp,
    ConvOp,
    GatherOp,
    MapOp,
    MatMulOp,
    PadOp,
    PoolOp,
    ReduceOp,
    ReshapeOp,
    SliceOp,
    TransposeOp,
)
from neuc.dialects.dense_attrs import NO_ACTIVATION, PadMode, PoolKind, ReduceKind
from neuc.passes.analysis.scalar_expressions import Argument, Expression, Product, Sum, expression_of, mentions

MOVEMENT = (ReshapeOp, TransposeOp, SliceOp, BroadcastOp, ConcatOp)
"""Operations that move elements and take any element type."""


def moves(op: Operation) -> bool:
    """Whether `op` only moves elements, and what it adds is 0: it takes events as they are."""
    if isinstance(op, PadOp):
        return op.mode.data is not PadMode.CONSTANT or op.value.value.data == 0.0
    return isinstance(op, (*MOVEMENT, GatherOp))


def is_affine(op: Operation, changing: Collection[int]) -> bool:
    """Whether `op` is affine in the operands with the numbers `changing`, the others being fixed."""
    match op:
        case MapOp():
            return map_is_affine(op, changing)
        case MatMulOp():
            both = {0, 1} <= set(changing)
            return op.activation == NO_ACTIVATION and not both
        case ConvOp():
            return op.activation == NO_ACTIVATION and set(changing) <= {0}
        case PoolOp():
            return op.kind.data is PoolKind.AVG
        case ReduceOp():
            return op.kind.data in (ReduceKind.SUM, ReduceKind.MEAN)
        case GatherOp():
            return set(changing) <= {0}
        case PadOp():
            return True
        case _:
            return isinstance(op, MOVEMENT)


def map_is_affine(op: MapOp, changing: Collection[int]) -> bool:
    """Whether the body is a sum of terms with at most one changing operand each, to the first power."""
    expression = expression_of(op.body.block)
    if expression is None:
        return False
    terms: list[Expression] = [t for t, _ in expression.terms] if isinstance(expression, Sum) else [expression]
    return all(_degree(term, changing) in (0, 1) for term in terms)


def _degree(e: Expression, changing: Collection[int]) -> int:
    """0: does not change; 1: proportional to one changing operand; 2: anything else."""
    match e:
        case Argument(index):
            return 1 if index in changing else 0
        case Product(factors):
            degrees = [(_degree(f, changing), n) for f, n in factors]
            if any(degree == 2 or (degree == 1 and n != 1) for degree, n in degrees):
                return 2
            return min(2, sum(degree for degree, _ in degrees))
        case Sum(_, terms):
            return max((_degree(t, changing) for t, _ in terms), default=0)
        case _:
            return 2 if any(mentions(e, index) for index in changing) else 0
