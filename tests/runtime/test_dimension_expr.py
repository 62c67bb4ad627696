"""The evaluator of dimension expressions: agrees with Python where it answers, refuses the rest."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuc.errors import Error
from neuc.runtime.expr import MAX_VALUE, Expr

_LEAF = st.one_of(st.integers(0, 1000).map(str), st.sampled_from(["B", "S"]))
_TREE = st.recursive(
    _LEAF,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(["max", "min"]), inner, inner).map(lambda t: f"{t[0]}({t[1]},{t[2]})"),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(_TREE, st.integers(0, 50), st.integers(0, 50))
def test_agrees_with_python(text: str, batch: int, length: int) -> None:
    symbols = {"B": batch, "S": length}
    try:
        want = eval(text, {"max": max, "min": min}, symbols)
    except ZeroDivisionError:
        with pytest.raises(Error, match="division by zero"):
            Expr.of(text).evaluate(symbols)
        return
    assert Expr.of(text).evaluate(symbols) == want


def test_names_and_constants() -> None:
    assert Expr.of("max(B*4, S)+1").names == {"B", "S"}
    assert Expr.of("3*4").constant == 12
    assert Expr.of(7).evaluate({}) == 7
    assert Expr.of("-B + 2").evaluate({"B": 5}) == -3


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "a**b", "a.b", "a[0]", "f(x)", "max(a)", "max()", "max(a, b", "1/2", "a % b", "1.5", "0x10", "1_000",
        "a if b else c", "lambda: 1", "a or b", "not a", "a < b", "True", "None", "'a'", "a b", "1 2", "max", "a = 1",
        "a\n", "a;b", "#a", "max(a, *b)", "max(a, key=b)", "(a, b)", "[a]", "{a}", "a := 1", "~a", "a @ b",
        "__import__('os')", "(" * 300 + "1" + ")" * 300, "-" * 200 + "1", "9" * 30, "a" + "+a" * 30000, "x" * 70000,
        "é", "1e400", "().__class__", "min(" * 140 + "1" + ",1)" * 140 + ")",
    ],
)  # fmt: skip
def test_refuses(text: str) -> None:
    with pytest.raises(Error) as caught:
        Expr.of(text)
    assert caught.value.code == "NEUC-E303"


def test_refuses_values_out_of_range() -> None:
    big = Expr.of("*".join(["B"] * 100))
    assert big.evaluate({"B": 1}) == 1
    for batch in (2, 10**6, -2):
        with pytest.raises(Error, match="out of range"):
            big.evaluate({"B": batch})
    assert Expr.of("B").evaluate({"B": MAX_VALUE}) == MAX_VALUE
    with pytest.raises(Error, match="out of range"):
        Expr.of("B+1").evaluate({"B": MAX_VALUE})


def test_names_what_is_missing() -> None:
    with pytest.raises(Error, match="no value for 'S'"):
        Expr.of("B+S").evaluate({"B": 1})
