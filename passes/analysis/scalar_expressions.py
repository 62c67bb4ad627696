"""The body of a `dense.map` as an algebraic expression in a normal form, so that passes recognise what it computes.

``0.5 * x * (1 + erf(x / 1.4142135))`` and ``(x * 0.5) * (erf(x * 0.70710677) + 1)`` have one form: sums of products
with numeric coefficients, division as a negative power. Only for recognising: the form says nothing about rounding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from xdsl.dialects import arith
from xdsl.dialects import math as math_dialect
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, f32
from xdsl.ir import Block, Operation, SSAValue

TOLERANCE = 1e-6
"""Coefficients this close (relative) count as equal: √2 and its reciprocal are written to 7 digits in models."""


@dataclass(frozen=True)
class Argument:
    """Block argument number `index`."""

    index: int


@dataclass(frozen=True)
class Sum:
    """constant + Σ coefficient · term."""

    constant: float
    terms: tuple[tuple[Expression, float], ...]


@dataclass(frozen=True)
class Product:
    """Π factor ^ exponent."""

    factors: tuple[tuple[Expression, int], ...]


@dataclass(frozen=True)
class Call:
    """Any other operation: its name and operands."""

    name: str
    args: tuple[Expression, ...]


Expression = Argument | Sum | Product | Call


def number(value: float) -> Sum:
    """A constant expression."""
    return Sum(value, ())


def constant_of(e: Expression) -> float | None:
    """The value of a constant expression."""
    return e.constant if isinstance(e, Sum) and not e.terms else None


def add(*operands: Expression) -> Expression:
    """The sum in normal form."""
    constant, terms = 0.0, dict[Expression, float]()
    for e in operands:
        parts = e if isinstance(e, Sum) else Sum(0.0, ((e, 1.0),))
        constant += parts.constant
        for term, coefficient in parts.terms:
            terms[term] = terms.get(term, 0.0) + coefficient
    kept = [(t, c) for t, c in terms.items() if c != 0.0]
    if constant == 0.0 and len(kept) == 1 and kept[0][1] == 1.0:
        return kept[0][0]
    return Sum(constant, tuple(sorted(kept, key=lambda t: _order(t[0]))))


def scale(e: Expression, by: float) -> Expression:
    """`e` times a number."""
    parts = e if isinstance(e, Sum) else Sum(0.0, ((e, 1.0),))
    return add(Sum(parts.constant * by, tuple((t, c * by) for t, c in parts.terms)))


def multiply(*operands: Expression) -> Expression:
    """The product in normal form."""
    coefficient, factors = 1.0, dict[Expression, int]()
    for e in operands:
        c, parts = _factors(e)
        coefficient *= c
        for factor, exponent in parts:
            factors[factor] = factors.get(factor, 0) + exponent
    kept = [(f, n) for f, n in factors.items() if n]
    if not kept:
        return number(coefficient)
    if len(kept) == 1 and kept[0][1] == 1:
        return scale(kept[0][0], coefficient)
    return scale(Product(tuple(sorted(kept, key=lambda f: _order(f[0])))), coefficient)


def reciprocal(e: Expression) -> Expression:
    """1 / e in normal form."""
    coefficient, factors = _factors(e)
    if not factors:
        return number(1 / coefficient if coefficient else math.copysign(math.inf, coefficient))
    return scale(Product(tuple((f, -n) for f, n in factors)), 1 / coefficient)


def _factors(e: Expression) -> tuple[float, Sequence[tuple[Expression, int]]]:
    """`e` as a coefficient and factors; a sum among them is scaled to a leading 1."""
    match e:
        case Sum(constant, ()):
            return constant, ()
        case Sum(0.0, ((term, coefficient),)):
            inner, factors = _factors(term)
            return inner * coefficient, factors
        case Sum(constant, terms):
            lead = constant if constant != 0.0 else terms[0][1]
            return lead, ((scale(e, 1 / lead), 1),)
        case Product(factors):
            return 1.0, factors
        case _:
            return 1.0, ((e, 1),)


def _order(e: Expression) -> str:
    """A sorting key that does not look at numbers, which may differ in their last digits."""
    return re.sub(r"-?\d+\.\d+(e-?\d+)?|inf|nan", "#", repr(e))


def similar(a: Expression, b: Expression) -> bool:
    """Whether two expressions are the same up to `TOLERANCE` in their numbers."""
    match a, b:
        case Argument(), Argument():
            return a == b
        case Sum(), Sum():
            return (
                len(a.terms) == len(b.terms)
                and _close(a.constant, b.constant)
                and all(_close(c, d) and similar(s, t) for (s, c), (t, d) in zip(a.terms, b.terms))
            )
        case Product(), Product():
            return len(a.factors) == len(b.factors) and all(
                m == n and similar(s, t) for (s, m), (t, n) in zip(a.factors, b.factors)
            )
        case Call(), Call():
            same = a.name == b.name and len(a.args) == len(b.args)
            return same and all(similar(s, t) for s, t in zip(a.args, b.args))
        case _:
            return False


def _close(a: float, b: float) -> bool:
    return a == b or math.isclose(a, b, rel_tol=TOLERANCE)


def mentions(e: Expression, index: int) -> bool:
    """Whether argument `index` occurs in `e`."""
    match e:
        case Argument():
            return e.index == index
        case Sum():
            return any(mentions(t, index) for t, _ in e.terms)
        case Product():
            return any(mentions(f, index) for f, _ in e.factors)
        case Call():
            return any(mentions(a, index) for a in e.args)


_BUILD: dict[type[Operation], Callable[..., Expression]] = {
    arith.AddfOp: add,
    arith.SubfOp: lambda a, b: add(a, scale(b, -1.0)),
    arith.MulfOp: multiply,
    arith.DivfOp: lambda a, b: multiply(a, reciprocal(b)),
    arith.NegfOp: lambda a: scale(a, -1.0),
    math_dialect.RsqrtOp: lambda a: reciprocal(Call("math.sqrt", (a,))),
}
_COMMUTATIVE = (arith.MaximumfOp, arith.MinimumfOp)


def expression_of(body: Block, substitutions: Mapping[int, Expression] | None = None) -> Expression | None:
    """What a map body computes, with some arguments replaced by expressions; None unless it is all f32."""
    known: dict[SSAValue, Expression] = {}
    for arg in body.args:
        known[arg] = (substitutions or {}).get(arg.index, Argument(arg.index))
        if arg.type != f32:
            return None
    for op in body.ops:
        if op is body.last_op:
            return known[op.operands[0]]
        if isinstance(op, arith.ConstantOp):
            if not isinstance(op.value, FloatAttr | IntegerAttr):
                return None
            known[op.result] = number(float(op.value.value.data))
            continue
        args = [known[v] for v in op.operands]
        build = _BUILD.get(type(op))
        if build is not None:
            known[op.results[0]] = build(*args)
            continue
        if isinstance(op, _COMMUTATIVE):
            args.sort(key=lambda e: (constant_of(e) is not None, _order(e)))
        name = op.name if not isinstance(op, arith.CmpfOp) else f"{op.name} {op.predicate.value.data}"
        known[op.results[0]] = Call(name, tuple(args))
    return None
