"""Integer expressions over named dimensions, as programs store them; no other arithmetic belongs here.

The grammar is ``+ - * //``, ``max(...)``, ``min(...)``, parentheses, names and non-negative integers. An expression is
checked against that list once, then compiled to a Python code object.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType

from neuc.errors import Error

MAX_VALUE = 2**62
"""Results beyond this in either direction are refused: sizes and offsets must fit 64 bits with room for a sum."""

_MAX_CHARS = 65536
_MAX_DEPTH = 150
_MAX_DIGITS = 19
_TOKEN = re.compile(r" +|[A-Za-z_][A-Za-z0-9_]*|[0-9]+(?![A-Za-z0-9_])|//|[-+*(),]")
_FUNCTIONS = {"max": max, "min": min}
_SCOPE: dict[str, object] = {"__builtins__": {}, **_FUNCTIONS}


@dataclass(frozen=True)
class Expr:
    """A checked expression: ``text`` as written, the ``names`` it uses, and its value if it uses none."""

    text: str
    names: frozenset[str]
    constant: int | None
    _code: CodeType

    @staticmethod
    def of(source: int | str) -> Expr:
        """Check and compile an expression; an integer stands for itself."""
        return _compile(source if isinstance(source, str) else str(source))

    def evaluate(self, symbols: Mapping[str, int]) -> int:
        """The value under ``symbols``; unknown names, division by zero and overflow are errors."""
        if self.constant is not None:
            return self.constant
        return _evaluate(self.text, self._code, symbols)


def _refuse(text: str, why: str) -> Error:
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return Error(
        "NEUC-E303",
        f"dimension expression '{shown}': {why}",
        hint="expressions use + - * // max min, names and integers; compile the model again",
    )


@lru_cache(maxsize=8192)
def _compile(text: str) -> Expr:
    _check_tokens(text)
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refuse(text, "it cannot be parsed") from error
    names = _check_tree(text, tree)
    try:
        code = compile(tree, "<dimension>", "eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refuse(text, "it is nested too deeply") from error
    constant = None if names else _evaluate(text, code, {})
    return Expr(text, names, constant, code)


def _check_tokens(text: str) -> None:
    """Bound size and nesting before Python's parser sees the text, so that it cannot be made to recurse."""
    if not text or len(text) > _MAX_CHARS:
        raise _refuse(text, "it is empty" if not text else f"it is longer than {_MAX_CHARS} characters")
    position = depth = signs = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _refuse(text, f"'{text[position]}' is not allowed")
        position, token = match.end(), match.group()
        if token.isspace():
            continue
        depth += (token == "(") - (token == ")")
        signs = signs + 1 if token in "+-" else 0
        if depth > _MAX_DEPTH or signs > 3:
            raise _refuse(text, "it is nested too deeply")
        if token.isdigit() and len(token) > _MAX_DIGITS:
            raise _refuse(text, "a number in it is too large")


def _check_tree(text: str, tree: ast.Expression) -> frozenset[str]:
    names: set[str] = set()
    pending: list[tuple[ast.expr, int]] = [(tree.body, 1)]
    while pending:
        node, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise _refuse(text, "it is nested too deeply")
        match node:
            case ast.Constant(value=int() as value) if not isinstance(value, bool):
                if value > MAX_VALUE:
                    raise _refuse(text, "a number in it is too large")
            case ast.Name(id=name) if name not in _FUNCTIONS:
                names.add(name)
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.FloorDiv(), right=right):
                pending += [(left, depth + 1), (right, depth + 1)]
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                pending.append((operand, depth + 1))
            case ast.Call(func=ast.Name(id="max" | "min"), args=[_, _, *_] as arguments, keywords=[]):
                pending += [(argument, depth + 1) for argument in arguments]
            case _:
                raise _refuse(text, f"'{ast.unparse(node)[:40]}' is not allowed")
    return frozenset(names)


def _evaluate(text: str, code: CodeType, symbols: Mapping[str, int]) -> int:
    try:
        value = int(eval(code, _SCOPE, symbols))
    except NameError as error:
        raise _refuse(text, f"no value for '{error.name}'") from error
    except ZeroDivisionError as error:
        raise _refuse(text, f"division by zero with {_shown(symbols)}") from error
    if not -MAX_VALUE <= value <= MAX_VALUE:
        raise _refuse(text, f"the value is out of range with {_shown(symbols)}")
    return value


def _shown(symbols: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in symbols.items()) or "no symbols"
