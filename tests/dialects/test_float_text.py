"""`dense_reads_back` is right about what xDSL's printer and parser do to a float."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, DenseIntOrFPElementsAttr, Float32Type, Float64Type, VectorType, f32, f64
from xdsl.parser import Parser

from neuc.dialects.float_text import dense_reads_back, float_bits


def survives(value: float, element: Float32Type | Float64Type) -> bool:
    attribute = DenseIntOrFPElementsAttr.from_list(VectorType(element, [2]), [value, 1.0])
    context = Context()
    context.load_dialect(Builtin)
    read = Parser(context, str(attribute)).parse_attribute()
    assert isinstance(read, DenseIntOrFPElementsAttr)
    form = "<2f" if isinstance(element, Float32Type) else "<2d"
    return struct.pack(form, *read.get_values()) == struct.pack(form, value, 1.0)


@given(st.floats(width=32))
@example(12582912.0)
@example(float("-inf"))
@example(1e-5)
def test_f32(value: float) -> None:
    if dense_reads_back([value], 32):
        assert survives(value, f32)


@given(st.floats())
def test_f64(value: float) -> None:
    if dense_reads_back([value], 64):
        assert survives(value, f64)


@pytest.mark.parametrize("value", [12582912.0, float("inf"), float("nan")])
def test_what_does_not_survive_is_known(value: float) -> None:
    assert not survives(value, f32)
    assert not dense_reads_back([1.0, value], 32)


@given(st.floats(width=32))
def test_bits(value: float) -> None:
    assert struct.pack("<i", float_bits(value, 32)) == struct.pack("<f", value)
