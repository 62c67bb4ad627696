"""Derivatives of scalar bodies, as scalar bodies: reverse-mode differentiation of a `dense.map` of `energy.prediction`.

At a tie of maximum or minimum the second operand has the slope, so that max(x, 0) has slope 0 at 0; |x| has slope 1
there. Comparisons have no slope.
"""

from __future__ import annotations

import math as pymath
from collections.abc import Callable, Sequence

from xdsl.dialects import arith, math
from xdsl.dialects.builtin import FloatAttr, f32
from xdsl.ir import Block, Operation, SSAValue

from neuc.dialects.dense import YieldOp

Gradients = Sequence[SSAValue | None]
"""What an operation adds to the gradient of each operand; None where nothing."""


class _Writer:
    """Appends operations to a block."""

    def __init__(self, block: Block) -> None:
        self.block = block

    def add(self, op: Operation) -> SSAValue:
        self.block.add_op(op)
        return op.results[0]

    def number(self, value: float) -> SSAValue:
        return self.add(arith.ConstantOp(FloatAttr(value, f32)))

    def times(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self.add(arith.MulfOp(a, b))

    def over(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self.add(arith.DivfOp(a, b))

    def minus(self, a: SSAValue) -> SSAValue:
        return self.add(arith.NegfOp(a))

    def where(self, condition: SSAValue, yes: SSAValue, no: SSAValue) -> SSAValue:
        return self.add(arith.SelectOp(condition, yes, no))

    def shared(self, condition: SSAValue, g: SSAValue) -> Gradients:
        """G to the first of two operands where a condition holds, else to the second."""
        zero = self.number(0.0)
        return self.where(condition, g, zero), self.where(condition, zero, g)


def _larger(w: _Writer, op: Operation, g: SSAValue) -> Gradients:
    return w.shared(w.add(arith.CmpfOp(op.operands[0], op.operands[1], "ogt")), g)


def _smaller(w: _Writer, op: Operation, g: SSAValue) -> Gradients:
    return w.shared(w.add(arith.CmpfOp(op.operands[0], op.operands[1], "olt")), g)


def _product(w: _Writer, op: Operation, g: SSAValue) -> Gradients:
    x, y = op.operands
    return w.times(g, y), w.times(g, x)


def _quotient(w: _Writer, op: Operation, g: SSAValue) -> Gradients:
    first = w.over(g, op.operands[1])
    return first, w.minus(w.times(first, op.results[0]))


def _absolute(w: _Writer, op: Operation, g: SSAValue) -> Gradients:
    negative = w.add(arith.CmpfOp(op.operands[0], w.number(0.0), "olt"))
    return (w.where(negative, w.minus(g), g),)


def _tanh(w: _Writer, op: Operation, g: SSAValue) -> Gradients:
    slope = w.add(arith.SubfOp(w.number(1.0), w.times(op.results[0], op.results[0])))
    return (w.times(g, slope),)


def _erf(w: _Writer, op: Operation, g: SSAValue) -> Gradients:
    bell = w.add(math.ExpOp(w.minus(w.times(op.operands[0], op.operands[0]))))
    return (w.times(g, w.times(bell, w.number(2.0 / pymath.sqrt(pymath.pi)))),)


_RULES: dict[type[Operation], Callable[[_Writer, Operation, SSAValue], Gradients]] = {
    arith.ConstantOp: lambda w, op, g: (),
    arith.CmpfOp: lambda w, op, g: (None, None),
    arith.AddfOp: lambda w, op, g: (g, g),
    arith.SubfOp: lambda w, op, g: (g, w.minus(g)),
    arith.MulfOp: _product,
    arith.DivfOp: _quotient,
    arith.NegfOp: lambda w, op, g: (w.minus(g),),
    arith.MaximumfOp: _larger,
    arith.MinimumfOp: _smaller,
    arith.SelectOp: lambda w, op, g: (None, *w.shared(op.operands[0], g)),
    math.AbsFOp: _absolute,
    math.ExpOp: lambda w, op, g: (w.times(g, op.results[0]),),
    math.LogOp: lambda w, op, g: (w.over(g, op.operands[0]),),
    math.Log1pOp: lambda w, op, g: (w.over(g, w.add(arith.AddfOp(op.operands[0], w.number(1.0)))),),
    math.ExpM1Op: lambda w, op, g: (w.times(g, w.add(arith.AddfOp(op.results[0], w.number(1.0)))),),
    math.SqrtOp: lambda w, op, g: (w.over(w.times(g, w.number(0.5)), op.results[0]),),
    math.TanhOp: _tanh,
    math.ErfOp: _erf,
    math.SinOp: lambda w, op, g: (w.times(g, w.add(math.CosOp(op.operands[0]))),),
    math.CosOp: lambda w, op, g: (w.minus(w.times(g, w.add(math.SinOp(op.operands[0])))),),
}

SCALAR_OPS: tuple[type[Operation], ...] = tuple(_RULES)
"""What bodies of maps in a prediction may hold."""


def derivative(body: Block, operand: int) -> Block:
    """The body that computes g · ∂body/∂(argument number `operand`) from the same arguments and, last, g."""
    block = Block(arg_types=[*body.arg_types, f32])
    w, copies = _Writer(block), dict[SSAValue, SSAValue](zip(body.args, block.args))
    *inner, last = body.ops
    clones = [op.clone(copies) for op in inner]
    for clone in clones:
        block.add_op(clone)
    gradients: dict[SSAValue, SSAValue] = {copies[last.operands[0]]: block.args[-1]}
    for clone in reversed(clones):
        g = gradients.get(clone.results[0])
        if g is None:
            continue
        for value, part in zip(clone.operands, _RULES[type(clone)](w, clone, g)):
            if part is not None:
                known = gradients.get(value)
                gradients[value] = part if known is None else w.add(arith.AddfOp(known, part))
    wanted = gradients.get(block.args[operand])
    block.add_op(YieldOp(w.number(0.0) if wanted is None else wanted))
    _drop_unused(block)
    return block


def is_affine(body: Block, moving: Sequence[bool]) -> bool:
    """Whether a body is affine in those of its arguments that `moving` says, all together."""
    degrees: dict[SSAValue, int] = {argument: int(moves) for argument, moves in zip(body.args, moving)}
    for op in list(body.ops)[:-1]:
        found = [degrees[v] for v in op.operands]
        match op:
            case arith.AddfOp() | arith.SubfOp() | arith.NegfOp():
                degree = max(found)
            case arith.MulfOp():
                degree = sum(found)
            case arith.DivfOp():
                degree = found[0] + 2 * found[1]
            case _:
                degree = 2 * max(found, default=0)
        degrees[op.results[0]] = degree
    last = body.last_op
    assert last is not None
    return degrees[last.operands[0]] <= 1


def _drop_unused(block: Block) -> None:
    """Erase what only the other operands' derivatives would have needed."""
    for op in reversed(list(block.ops)):
        if op.results and all(result.first_use is None for result in op.results):
            op.detach()
            op.erase()
