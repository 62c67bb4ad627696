"""`Ternary`: the same weights at other scale granularities, and what a format refuses to hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuc.compiler.formats.block_format import rounding
from neuc.compiler.formats.hf_packed import HF_BITLINEAR
from neuc.compiler.formats.table import BLOCK_FORMATS
from neuc.compiler.formats.ternary import ROW, TENSOR, Granularity, Ternary, group
from neuc.errors import Error, InternalError

GRANULARITIES = [TENSOR, ROW, group(64), group(128), group(256)]


def random(rows: int, columns: int, granularity: Granularity, seed: int, *, distinct: int = 1000) -> Ternary:
    rng = np.random.default_rng(seed)
    levels = rng.integers(-1, 2, (rows, columns)).astype(np.int8)
    scales = rng.integers(1, distinct + 1, granularity.shape(rows, columns)).astype(np.float32)
    return Ternary(levels, scales, granularity)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 3),
    columns=st.sampled_from([64, 100, 128, 256, 300, 512]),
    have=st.sampled_from(GRANULARITIES),
    want=st.sampled_from(GRANULARITIES),
    distinct=st.sampled_from([1, 2, 1000]),
    seed=st.integers(0, 1000),
)
def test_scales_at_another_granularity_give_the_same_weights(
    rows: int, columns: int, have: Granularity, want: Granularity, distinct: int, seed: int
):
    value = random(rows, columns, have, seed, distinct=distinct)
    scales = value.scales_by(want)
    weights = value.dequantize()
    if scales is not None:
        np.testing.assert_array_equal(Ternary(value.levels, scales, want).dequantize(), weights)
        return
    # There must be two weights that share a scale in `want` and are not the same.
    width = want.size or columns
    sizes = np.where(value.levels != 0, np.abs(weights), np.nan)
    parts = [sizes] if want == TENSOR else [row[at : at + width] for row in sizes for at in range(0, columns, width)]
    assert any(np.unique(part[~np.isnan(part)]).size > 1 for part in parts)


def test_zeros_take_any_scale():
    levels = np.zeros((2, 256), np.int8)
    levels[0, 130] = levels[1, 70] = -1
    scales = np.array([[7, 7, 3, 9], [0, 3, 5, 0]], np.float32)
    value = Ternary(levels, scales, group(64))
    assert value.scales_by(TENSOR) == np.float32(3)
    np.testing.assert_array_equal(value.scales_by(group(128)), [[7, 3], [3, 5]])
    assert Ternary(np.zeros((2, 256), np.int8), scales, group(64)).scales_by(TENSOR) is not None


def test_sizes_that_do_not_fit_are_a_bug():
    with pytest.raises(InternalError):
        Ternary(np.zeros((2, 4), np.int8), np.ones((1, 1), np.float32), ROW)


def scaled(value: Ternary, scale: float) -> Ternary:
    return Ternary(value.levels, np.full_like(value.scales, scale), value.granularity)


OBJECTIONS = {
    "granularity": ("i2_s", random(2, 256, ROW, 0), "scales per row differ, and i2_s has one per tensor"),
    "coarser groups": ("tq2_0", random(2, 256, group(128), 0), "scales per group<128> differ"),
    "K": ("tq2_0", random(2, 128, TENSOR, 0), "K = 128 is not a multiple of 256"),
    "a fourth level": (
        "tq1_0",
        Ternary(np.full((1, 256), 2, np.int8), np.ones((1, 1), np.float32), TENSOR),
        "level 2 occurs, and tq1_0 has -1 to 1",
    ),
    "a level below": (
        "q2_0",
        Ternary(np.full((1, 64), -2, np.int8), np.ones((1, 1), np.float32), TENSOR),
        "level -2 occurs",
    ),
    "f16": ("q2_0", scaled(random(1, 64, TENSOR, 0), 0.1), "scales are not exact in float16 (relative error 2.4e-04)"),
}


@pytest.mark.parametrize("case", OBJECTIONS)
def test_what_a_format_cannot_hold(case: str):
    name, value, says = OBJECTIONS[case]
    assert says in BLOCK_FORMATS[name].objection(value)
    with pytest.raises(Error) as caught:
        BLOCK_FORMATS[name].encode(value, name="blk.0.w")
    assert caught.value.code == "NEUC-E123"
    assert "blk.0.w" in caught.value.message


def test_rounded_scales_have_to_be_asked_for():
    form, value = BLOCK_FORMATS["q2_0"], scaled(random(1, 64, TENSOR, 0), 0.1)
    back = form.decode(form.encode(value, lossy_scales=True), (1, 64))
    np.testing.assert_array_equal(back.levels, value.levels)
    assert back.scales[0, 0] == np.float32(np.float16(0.1))
    assert form.objection(scaled(value, 1e6), lossy_scales=True) == "a scale is outside the range of float16"


def test_reciprocals_that_do_not_come_back():
    value = random(4, 4, TENSOR, 0)
    one_way = [s for s in np.linspace(0.5, 1, 1000, dtype=np.float32) if np.float32(1) / (np.float32(1) / s) != s]
    assert one_way, "there are none, so this test tests nothing"
    assert "not the reciprocal of a float32" in HF_BITLINEAR.objection(scaled(value, float(one_way[0])))
    assert HF_BITLINEAR.objection(scaled(value, float(one_way[0])), lossy_scales=True) == ""
    assert HF_BITLINEAR.objection(scaled(value, 0.0)) == "its scale has no reciprocal"


def test_rounding_is_relative_and_sees_overflow():
    assert rounding(np.array([[1.0, 0.0, -0.5]], np.float32), np.float16) == 0
    assert rounding(np.array([[1 + 2**-12]], np.float32), np.float16) == pytest.approx(2**-12, rel=1e-3)
    assert rounding(np.array([[70000.0]], np.float32), np.float16) == np.inf
