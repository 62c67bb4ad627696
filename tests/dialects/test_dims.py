"""Dim is a ring with floor division, max and min that agrees with Python's integers for every binding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuc.dialects.dims import Dim, product

SYMBOLS = ("B", "S", "H")


def exprs() -> st.SearchStrategy[str]:
    leaf = st.one_of(st.sampled_from(SYMBOLS), st.integers(0, 9).map(str))

    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        pair = st.tuples(inner, inner)
        return st.one_of(
            pair.map(lambda p: f"({p[0]} + {p[1]})"),
            pair.map(lambda p: f"({p[0]} - {p[1]})"),
            pair.map(lambda p: f"({p[0]} * {p[1]})"),
            pair.map(lambda p: f"max({p[0]}, {p[1]})"),
            pair.map(lambda p: f"min({p[0]}, {p[1]})"),
            st.tuples(inner, st.integers(1, 7)).map(lambda p: f"(({p[0]}) // {p[1]})"),
        )

    return st.recursive(leaf, grow, max_leaves=8)


bindings = st.fixed_dictionaries({name: st.integers(0, 50) for name in SYMBOLS})


@given(exprs(), bindings)
def test_parse_means_what_python_means(text: str, values: dict[str, int]) -> None:
    expected = eval(text, {"max": max, "min": min}, dict(values))
    dim = Dim.parse(text)
    assert dim.evaluate(values) == expected
    assert Dim.parse(str(dim)).evaluate(values) == expected
    assert dim.substitute(values) == expected


@given(exprs())
def test_text_reads_back_as_the_same_dim(text: str) -> None:
    dim = Dim.parse(text)
    assert Dim.parse(str(dim)) == dim


def test_equal_expressions_are_equal() -> None:
    b, s = Dim.symbol("B"), Dim.symbol("S")
    assert b * s + s * b == 2 * (b * s)
    assert (b * s * 4) // (b * 2) == s * 2
    assert (b * 4 + 6) // 4 == b + 1
    assert product([b, 1, s]) == s * b
    assert b.maximum(b + 3) == b + 3
    assert b.minimum(b * 2) == b
    assert str(b.maximum(s)) == "max(B, S)"


def test_extrema_keep_only_what_can_decide() -> None:
    small, large = (Dim.parse(f"{n}*B*((H + 3)//(4))") for n in (192, 384))
    assert large.maximum(Dim.parse("B").maximum(small)) == Dim.parse("max(B, 384*B*((H + 3)//(4)))")
    assert small.minimum(Dim.parse("B").minimum(large)) == Dim.parse("min(B, 192*B*((H + 3)//(4)))")
    assert Dim.parse("max(B, max(S, H))") == Dim.parse("max(max(H, B), max(S, B))")
    assert Dim.parse("max(B, min(B, S))") == Dim.parse("min(max(B, S), B)") == Dim.symbol("B")


def test_halving_goes_inside_extrema() -> None:
    once = (Dim.symbol("H") // 2).maximum(1)
    assert str((once // 2).maximum(1)) == "max(((H)//(4)), 1)"
    assert (once * 5) // 4 == once + once // 4


def test_a_difference_may_be_negative() -> None:
    shorter = Dim.parse("(B - 3)//2")
    assert shorter.maximum(0) != shorter
    assert (shorter * 2).maximum(shorter).evaluate({"B": 1}) == -1


def test_foreign_names_become_identifiers() -> None:
    assert str(Dim.symbol("unk__12:0")) == "unk__12_0"
    assert Dim.symbol("0").symbols == frozenset({"d_0"})


@pytest.mark.parametrize(
    "text",
    ["", "a +", "a ** 2", "__import__('os')", "a.b", "1.5", "a / 2", "x" * 70000, "-" * 60000 + "1", "a if b else c"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="dimension expression"):
        Dim.parse(text)


def test_dividing_by_zero_is_refused() -> None:
    with pytest.raises(ZeroDivisionError):
        Dim.parse("B // 0")
