"""Symbolic integer dimensions: the one expression type every shape in neuc is made of.

A `Dim` is an immutable polynomial with integer coefficients over atoms; an atom is a named symbol or an irreducible
``floordiv``, ``max`` or ``min`` of two dims. Symbols are sizes and so never negative. Equal polynomials compare equal,
so `B * S == S * B`. ``str(dim)`` is an expression that Python (and the runtime's evaluator) can compute.
Nothing here knows about tensors.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, Union

DimLike: TypeAlias = Union["Dim", int, str]
_Monomial: TypeAlias = tuple["_Atom", ...]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_MAX_CHARS = 65536
"""As many as the runtime's evaluator takes: a memory plan's offsets are sums of many sizes."""


@dataclass(frozen=True)
class _Atom:
    """A symbol (``op == ""``, named ``name``) or an irreducible binary operation on two dims."""

    name: str
    op: str = ""
    lhs: Dim | None = None
    rhs: Dim | None = None

    def __str__(self) -> str:
        if not self.op:
            return self.name
        if self.op == "//":
            return f"(({self.lhs})//({self.rhs}))"
        return f"{self.op}({self.lhs}, {self.rhs})"


class Dim:
    """An integer expression over named symbols.

    Raises:
        ValueError: from `of` and `parse` when the text is not such an expression.
        ZeroDivisionError: dividing by the constant 0.
    """

    __slots__ = ("_hash", "_terms", "_text")

    def __init__(self, terms: Mapping[_Monomial, int]) -> None:
        self._terms: tuple[tuple[_Monomial, int], ...] = tuple(
            sorted(((m, c) for m, c in terms.items() if c), key=lambda t: (len(t[0]), [str(a) for a in t[0]]))
        )
        self._hash = hash(self._terms)
        self._text: str | None = None

    @staticmethod
    def of(value: DimLike) -> Dim:
        """A Dim from an int, an expression text, or a Dim."""
        if isinstance(value, Dim):
            return value
        if isinstance(value, str):
            return Dim.parse(value)
        return Dim({(): int(value)})

    @staticmethod
    def symbol(name: str) -> Dim:
        """The symbol `name`; other characters than letters, digits and ``_`` become ``_``."""
        if not _NAME.match(name):
            name = re.sub(r"[^A-Za-z0-9_]", "_", name) or "_"
            name = name if _NAME.match(name) else f"d_{name}"
        return Dim({(_Atom(name),): 1})

    @staticmethod
    @lru_cache(maxsize=4096)
    def parse(text: str) -> Dim:
        """Read an expression of ints, names, ``+ - * //``, ``max(a, b)`` and ``min(a, b)``."""
        if len(text) > _MAX_CHARS:
            raise ValueError(f"dimension expression is longer than {_MAX_CHARS} characters")
        try:
            return _from_ast(ast.parse(text.strip(), mode="eval").body, text)
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError(f"not a dimension expression: {text[:100]!r}") from error

    @property
    def is_static(self) -> bool:
        """True if no symbol occurs."""
        return not self._terms or (len(self._terms) == 1 and self._terms[0][0] == ())

    @property
    def value(self) -> int:
        """The integer of a static dim.

        Raises:
            ValueError: the dim is symbolic.
        """
        if not self.is_static:
            raise ValueError(f"{self} is symbolic")
        return self._terms[0][1] if self._terms else 0

    @property
    def symbols(self) -> frozenset[str]:
        """All symbols that occur."""
        found: set[str] = set()
        for monomial, _ in self._terms:
            for atom in monomial:
                if atom.op:
                    assert atom.lhs is not None
                    assert atom.rhs is not None
                    found |= atom.lhs.symbols | atom.rhs.symbols
                else:
                    found.add(atom.name)
        return frozenset(found)

    def evaluate(self, symbols: Mapping[str, int]) -> int:
        """The value with every symbol bound.

        Raises:
            KeyError: a symbol is missing.
        """
        total = 0
        for monomial, coefficient in self._terms:
            product = coefficient
            for atom in monomial:
                product *= _atom_value(atom, symbols)
            total += product
        return total

    def substitute(self, values: Mapping[str, DimLike]) -> Dim:
        """The dim with some symbols replaced."""
        total = Dim.of(0)
        for monomial, coefficient in self._terms:
            product = Dim.of(coefficient)
            for atom in monomial:
                product = product * _atom_substitute(atom, values)
            total = total + product
        return total

    def __add__(self, other: DimLike) -> Dim:
        terms = dict(self._terms)
        for monomial, coefficient in Dim.of(other)._terms:
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return Dim(terms)

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return Dim({m: -c for m, c in self._terms})

    def __sub__(self, other: DimLike) -> Dim:
        return self + (-Dim.of(other))

    def __rsub__(self, other: DimLike) -> Dim:
        return Dim.of(other) - self

    def __mul__(self, other: DimLike) -> Dim:
        terms: dict[_Monomial, int] = {}
        for left, a in self._terms:
            for right, b in Dim.of(other)._terms:
                monomial = tuple(sorted(left + right, key=str))
                terms[monomial] = terms.get(monomial, 0) + a * b
        return Dim(terms)

    __rmul__ = __mul__

    def __floordiv__(self, other: DimLike) -> Dim:
        divisor = Dim.of(other)
        if divisor.is_static and divisor.value == 0:
            raise ZeroDivisionError(f"{self} // 0")
        exact = _divide_exactly(self, divisor)
        if exact is not None:
            return exact
        if self.is_static and divisor.is_static:
            return Dim.of(self.value // divisor.value)
        if divisor.is_static and divisor.value > 0:
            inner = self._as_quotient()
            if inner is not None:
                # floor((floor(a / b) + c) / d) == floor((a + c*b) / (b*d)): chains of strided layers stay short.
                a, b, c = inner
                return (a + c * b) // (b * divisor.value)
            # (q*d + r) // d == q + r // d holds for every integer q, so whole multiples come out.
            d = divisor.value
            whole = Dim({m: c // d for m, c in self._terms})
            rest = Dim({m: c % d for m, c in self._terms})
            if rest.is_static:
                return whole + rest.value // d
            nest = rest._extremum_atom()
            if nest is not None and nest.lhs is not None and nest.rhs is not None:
                # Dividing keeps order, so it may be done inside: sizes that are at least 1 stay short when halved.
                return whole + _extremum(nest.op, nest.lhs // d, nest.rhs // d)
            if whole._terms:
                return whole + Dim({(_Atom("", "//", rest, divisor),): 1})
        return Dim({(_Atom("", "//", self, divisor),): 1})

    def _extremum_atom(self) -> _Atom | None:
        """The atom if this is ``max(a, b)`` or ``min(a, b)``."""
        if len(self._terms) != 1:
            return None
        ((monomial, coefficient),) = self._terms
        return monomial[0] if coefficient == 1 and len(monomial) == 1 and monomial[0].op in ("max", "min") else None

    def _as_quotient(self) -> tuple[Dim, int, int] | None:
        """(a, b, c) if this is ``a // b + c`` with whole numbers b > 0 and c."""
        constant = sum(c for m, c in self._terms if not m)
        rest = [(m, c) for m, c in self._terms if m]
        if len(rest) != 1 or rest[0][1] != 1 or len(rest[0][0]) != 1:
            return None
        atom = rest[0][0][0]
        if atom.op != "//" or atom.lhs is None or atom.rhs is None or not atom.rhs.is_static or atom.rhs.value <= 0:
            return None
        return atom.lhs, atom.rhs.value, constant

    def __rfloordiv__(self, other: DimLike) -> Dim:
        return Dim.of(other) // self

    def ceildiv(self, other: DimLike) -> Dim:
        """The quotient rounded up."""
        divisor = Dim.of(other)
        return (self + divisor - 1) // divisor

    def maximum(self, other: DimLike) -> Dim:
        """The larger of two dims."""
        return _extremum("max", self, Dim.of(other))

    def minimum(self, other: DimLike) -> Dim:
        """The smaller of two dims."""
        return _extremum("min", self, Dim.of(other))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int):
            return self.is_static and self.value == other
        return isinstance(other, Dim) and self._terms == other._terms

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        if self._text is None:
            self._text = _format(self._terms)
        return self._text

    def __repr__(self) -> str:
        return f"Dim({str(self)!r})"


def product(dims: Iterable[DimLike]) -> Dim:
    """The product of dims; 1 for none."""
    result = Dim.of(1)
    for dim in dims:
        result = result * dim
    return result


def _format(terms: tuple[tuple[_Monomial, int], ...]) -> str:
    if not terms:
        return "0"
    parts: list[str] = []
    for monomial, coefficient in reversed(terms):
        factors = [str(atom) for atom in monomial]
        if not factors or abs(coefficient) != 1:
            factors.insert(0, str(abs(coefficient)))
        sign = "-" if coefficient < 0 else "+"
        parts.append(f" {sign} " + "*".join(factors))
    text = "".join(parts)
    return text[3:] if text.startswith(" + ") else "-" + text[3:]


def _divide_exactly(dividend: Dim, divisor: Dim) -> Dim | None:
    if len(divisor._terms) != 1:
        return Dim.of(1) if dividend == divisor else None
    ((by, coefficient),) = divisor._terms
    result: dict[_Monomial, int] = {}
    for monomial, c in dividend._terms:
        rest = list(monomial)
        for atom in by:
            if atom not in rest:
                return None
            rest.remove(atom)
        if c % coefficient:
            return None
        result[tuple(rest)] = c // coefficient
    return Dim(result)


def _extremum(op: str, a: Dim, b: Dim) -> Dim:
    """The extremum of all operands of both sides, without those another one makes superfluous, in a fixed order."""
    kept: list[Dim] = []
    for dim in (*_operands(op, a), *_operands(op, b)):
        if not any(_covers(op, other, dim) for other in kept):
            kept = [other for other in kept if not _covers(op, dim, other)] + [dim]
    *others, result = sorted(kept, key=str)
    for dim in reversed(others):
        result = Dim({(_Atom("", op, dim, result),): 1})
    return result


def _operands(op: str, dim: Dim) -> tuple[Dim, ...]:
    """What a nest of `op` takes the extremum of; `dim` itself if it is none."""
    atom = dim._extremum_atom()
    if atom is None or atom.op != op:
        return (dim,)
    assert atom.lhs is not None
    assert atom.rhs is not None
    return (*_operands(op, atom.lhs), *_operands(op, atom.rhs))


def _covers(op: str, a: Dim, b: Dim) -> bool:
    """Whether the extremum of two dims is `a`, whatever the symbols; ``max(a, min(a, …))`` is ``a``, too."""
    dual = _operands("min" if op == "max" else "max", b)
    return (len(dual) > 1 and a in dual) or _never_negative(a - b if op == "max" else b - a)


def _never_negative(dim: Dim) -> bool:
    """Whether `dim` is at least 0 because its symbols are: they are sizes."""
    return all(c > 0 and all(map(_atom_never_negative, monomial)) for monomial, c in dim._terms)


def _atom_never_negative(atom: _Atom) -> bool:
    if not atom.op:
        return True
    assert atom.lhs is not None
    assert atom.rhs is not None
    lhs, rhs = _never_negative(atom.lhs), _never_negative(atom.rhs)
    return lhs or rhs if atom.op == "max" else lhs and rhs


def _atom_value(atom: _Atom, symbols: Mapping[str, int]) -> int:
    if not atom.op:
        return symbols[atom.name]
    assert atom.lhs is not None
    assert atom.rhs is not None
    lhs, rhs = atom.lhs.evaluate(symbols), atom.rhs.evaluate(symbols)
    if atom.op == "//":
        return lhs // rhs
    return max(lhs, rhs) if atom.op == "max" else min(lhs, rhs)


def _atom_substitute(atom: _Atom, values: Mapping[str, DimLike]) -> Dim:
    if not atom.op:
        return Dim.of(values[atom.name]) if atom.name in values else Dim({(atom,): 1})
    assert atom.lhs is not None
    assert atom.rhs is not None
    lhs, rhs = atom.lhs.substitute(values), atom.rhs.substitute(values)
    if atom.op == "//":
        return lhs // rhs
    return _extremum(atom.op, lhs, rhs)


def _from_ast(node: ast.expr, text: str) -> Dim:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return Dim.of(value)
        case ast.Name(id=name):
            return Dim.symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_from_ast(operand, text)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _from_ast(left, text), _from_ast(right, text)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.FloorDiv():
                    return a // b
        case ast.Call(func=ast.Name(id="max" | "min" as name), args=[left, right], keywords=[]):
            return _extremum(name, _from_ast(left, text), _from_ast(right, text))
    raise ValueError(f"not a dimension expression: {text[:100]!r}")
