"""Ternary and look-up arithmetic against plain numpy: integer parts equal, float parts by the stated formula."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

from neuc.dialects import lut, ternary
from neuc.dialects.dense_attrs import NO_ACTIVATION, ActivationAttr
from neuc.dialects.interp.core import interpret
from neuc.dialects.interp.lut import balanced_digits
from neuc.dialects.interp.ternary import pack_tl2, quantize
from neuc.dialects.store import make_constant, tensor_type
from neuc.dialects.ternary_encodings import ENCODINGS, LEVELS
from neuc.dialects.ternary_types import EncodingAttr, PackedType, ScaleAttr, TritsType, Window
from neuc.dialects.ternary_weights import make_weight
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error

F32_STEPS = 1e-5
"""Relative rounding of a few dozen f32 operations, as against the same sum in f64."""


def random_trits(rng: np.random.Generator, planes: int, n: int, k: int) -> np.ndarray:
    return rng.integers(-1, 2, (planes, n, k)).astype(np.int8)


class Builder:
    """A module with one function, built operation by operation."""

    def __init__(self, *shapes: tuple[int | str, ...]) -> None:
        types = [tensor_type(f32, shape) for shape in shapes]
        self.function = FuncOp("main", (types, []))
        self.store = WeightStore()

    @property
    def args(self) -> tuple[SSAValue, ...]:
        return tuple(self.function.body.block.args)

    def add(self, op: Operation) -> Operation:
        self.function.body.block.add_op(op)
        return op

    def weight(
        self, trits: np.ndarray, scales: np.ndarray, scale: ScaleAttr, levels: Sequence[int] = LEVELS
    ) -> SSAValue:
        return self.add(make_weight("w", trits, scales, self.store, scale=scale, levels=levels)).results[0]

    def constant(self, array: np.ndarray) -> SSAValue:
        return self.add(make_constant("c", array, self.store)).results[0]

    def run(self, *inputs: np.ndarray, results: tuple[SSAValue, ...]) -> list[np.ndarray]:
        self.add(ReturnOp(*results))
        self.function.update_function_type()
        module = ModuleOp([self.function])
        module.verify()
        return interpret(module, inputs, self.store)


SIZES = st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 40), st.integers(1, 3), st.integers(0, 99))


@given(SIZES)
@settings(max_examples=40, deadline=None)
def test_quantize(size: tuple[int, int, int, int, int]) -> None:
    batch, rows, k, axes, seed = size
    x = np.random.default_rng(seed).normal(0, 3, (batch, rows, k)).astype(np.float32)
    q, s = quantize(x, axes)
    assert q.dtype == np.int8
    assert s.dtype == np.float32
    assert s.shape == x.shape[: 3 - axes]
    assert q.min(initial=0) >= -127
    wide = s.reshape(s.shape + (1,) * axes)
    assert np.abs(x - q * wide).max(initial=0) <= 0.5001 * wide.max(initial=1)  # half a code and the rounding of s


def test_quantize_rounds_half_to_even_and_survives_extremes() -> None:
    x = np.array([[127, 0.5, 1.5, -2.5], [0, 0, 0, 0], [1e-7, 0, 0, 0], [3e38, -3e38, 1, 0]], np.float32)
    q, s = quantize(x, 1)
    assert q.tolist() == [[127, 0, 2, -2], [0, 0, 0, 0], [1, 0, 0, 0], [127, -127, 0, 0]]
    assert s[1] == s[2] == np.float32(1) / (np.float32(127) / np.float32(1e-5))
    assert np.isfinite(s).all()


@pytest.mark.parametrize("g", [1, 2, 3])
def test_digits_name_every_entry_once(g: int) -> None:
    digits = balanced_digits(g)
    assert (digits @ (3 ** np.arange(g - 1, -1, -1)) == np.arange(len(digits))).all()
    assert len({tuple(d) for d in (*digits.tolist(), *(-digits).tolist())}) == 3**g


@given(st.integers(1, 3), st.integers(1, 8), st.integers(1, 30), st.integers(0, 99))
def test_tl2_codes_decode(g: int, n: int, k: int, seed: int) -> None:
    rows = random_trits(np.random.default_rng(seed), 1, n, k)[0]
    codes = pack_tl2(rows, g)
    signs = np.where(codes & 16, -1, 1)[:, :, None]
    decoded = (balanced_digits(g)[codes & 15] * signs).reshape(n, -1)
    assert (decoded[:, :k] == rows).all()
    assert not decoded[:, k:].any()
    assert (codes & 15).max() <= 13


def accumulated(
    q_of: np.ndarray, trits: np.ndarray, scale: ScaleAttr, encoding: EncodingAttr, levels: Sequence[int]
) -> list[np.ndarray]:
    """The codes, and acc of tiled operations on them."""
    k = q_of.shape[1]
    b = Builder(("B", k))
    planes, n, _ = trits.shape
    scales = np.ones((planes, n, scale.groups(k)), np.float32)
    weight = b.weight(trits, scales, scale, levels)
    quantized = b.add(ternary.QuantizeOp(b.args[0]))
    q = quantized.results[0]
    bk = 4 * encoding.g.data * (1 if scale.kind.data != "group" else scale.size.data // encoding.g.data)
    packed = b.add(ternary.PackOp(weight, encoding, 16, bk)).results[0]
    if encoding.rule.lookup:
        table = b.add(lut.BuildOp(q, encoding.g.data, encoding.rule.table_levels(levels))).results[0]
        acc = b.add(lut.AccumulateOp(table, packed, ternary.dims_of(q)[:-1], 16, bk))
    else:
        acc = b.add(ternary.AccumulateOp(q, packed))
    return b.run(q_of, results=(q, acc.results[0]))


LEVEL_SETS = (LEVELS, (-1, 1), (-3, -1, 1, 3), (-1, 0, 1, 2), tuple(range(-8, 8)), (-4, -1, 1, 4))
FITTING = [
    (rule.name, g, levels)
    for rule in ENCODINGS.values()
    for g in rule.groups
    for levels in LEVEL_SETS
    if rule.reason_against(levels, g) is None
]
"""Every encoding with every g and the level sets it holds."""


@given(SIZES, st.sampled_from(FITTING), st.sampled_from(["row", "tensor", "group"]))
@settings(max_examples=100, deadline=None)
def test_accumulators_equal_int32_products(
    size: tuple[int, int, int, int, int], how: tuple[str, int, tuple[int, ...]], kind: str
) -> None:
    batch, n, k, planes, seed = size
    name, g_of, levels = how
    encoding = EncodingAttr.of(name, g_of)
    scale = ScaleAttr.of(kind, 12 if kind == "group" else 0)
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (batch, k)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = 1000.0  # saturated codes
    trits = rng.choice(np.array(levels, np.int8), (planes, n, k))
    q, acc = accumulated(x, trits, scale, encoding, levels)
    width = scale.group_size(k)
    for g in range(scale.groups(k)):
        part = slice(g * width, (g + 1) * width)
        rows = trits.reshape(planes * n, k)[:, part].astype(np.int32)
        assert (acc[:, g] == q[:, part].astype(np.int32) @ rows.T).all()


@pytest.mark.parametrize("kind", ["row", "tensor", "group"])
@pytest.mark.parametrize("shape", [(3, 20), (2, 3, 20), (0, 20), (20,)])
def test_linear_is_the_scaled_product(kind: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    scale = ScaleAttr.of(kind, 8 if kind == "group" else 0)
    trits, bias = random_trits(rng, 2, 17, 20), rng.normal(size=17).astype(np.float32)
    scales = rng.uniform(0.1, 1, (2, 17, scale.groups(20))).astype(np.float32)
    x = rng.normal(size=shape).astype(np.float32)
    b = Builder(shape)
    weight = b.weight(trits, scales, scale)
    q_value, s_value = b.add(ternary.QuantizeOp(b.args[0])).results
    linear = ternary.LinearOp(q_value, s_value, weight, b.constant(bias), ActivationAttr.of("relu"))
    (y,) = b.run(x, results=(b.add(linear).results[0],))
    q, s = quantize(x, 1)
    wide = np.repeat(scales, scale.group_size(20), axis=2)[:, :, :20]
    dense = (trits * wide.astype(np.float64)).sum(0)
    expected = np.maximum(q.astype(np.float64) @ dense.T * s[..., None] + bias, 0)
    assert y.dtype == np.float32
    assert y.shape == (*shape[:-1], 17)
    np.testing.assert_allclose(y, expected, rtol=F32_STEPS, atol=F32_STEPS)


WINDOWS = [
    Window((3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    Window((3, 2), (2, 1), (0, 1, 2, 0), (1, 2)),
    Window((1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    Window((5,), (2,), (4, 0), (1,)),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("group", [1, 2])
def test_conv_equals_float_conv_of_the_codes(window: Window, group: int) -> None:
    """The oracle is `dense.conv` on q·s with the weights the trits stand for."""
    from neuc.dialects.dense import ConvOp

    rng = np.random.default_rng(2)
    spatial = (9, 8)[: len(window.kernel)]
    per_group = 4 // group
    k = per_group * int(np.prod(window.kernel))
    trits, bias = random_trits(rng, 2, 6, k), rng.normal(size=6).astype(np.float32)
    scales = rng.uniform(0.1, 1, (2, 6, 1)).astype(np.float32)
    x = rng.normal(size=(3, 4, *spatial)).astype(np.float32)
    q, s = quantize(x, 1 + len(spatial))

    b = Builder(("B", 4, *spatial))
    weight = b.weight(trits, scales, ScaleAttr.of("row"))
    q_value, s_value = b.add(ternary.QuantizeOp(b.args[0], axes=1 + len(spatial))).results
    conv = ternary.ConvOp(q_value, s_value, weight, window, b.constant(bias), group)
    (y,) = b.run(x, results=(b.add(conv).results[0],))

    oracle = Builder(x.shape)
    dense = (trits * scales).sum(0).reshape(6, per_group, *window.kernel).astype(np.float32)
    float_conv = ConvOp(
        oracle.args[0],
        oracle.constant(dense),
        oracle.constant(bias),
        tensor_type(f32, y.shape),
        strides=window.strides,
        pads=window.pads,
        dilations=window.dilations,
        group=group,
        activation=NO_ACTIVATION,
    )
    dequantized = q * s.reshape(-1, *[1] * (1 + len(spatial)))
    (expected,) = oracle.run(dequantized, results=(oracle.add(float_conv).results[0],))
    np.testing.assert_allclose(y, expected, rtol=F32_STEPS, atol=F32_STEPS * np.abs(expected).max())


def test_im2col_rows_are_weight_rows() -> None:
    """im2col then a product with flattened weights is the convolution."""
    rng = np.random.default_rng(3)
    window = WINDOWS[1]
    b = Builder((2, 3, 7, 6))
    q, s = b.add(ternary.QuantizeOp(b.args[0], axes=3)).results
    patches = b.add(ternary.Im2ColOp(q, window)).results[0]
    scale = ScaleAttr.of("row")
    weight = b.weight(random_trits(rng, 1, 5, 18), np.ones((1, 5, 1), np.float32), scale)
    conv = b.add(ternary.ConvOp(q, s, weight, window)).results[0]
    linear = b.add(ternary.PackOp(weight, EncodingAttr.of("i8"), 16, 20)).results[0]
    acc = b.add(ternary.AccumulateOp(patches, linear)).results[0]
    y = b.add(ternary.DequantizeOp(acc, s, weight)).results[0]
    by_conv, by_rows = b.run(rng.normal(size=(2, 3, 7, 6)).astype(np.float32), results=(conv, y))
    assert (np.moveaxis(by_rows, 2, 1).reshape(by_conv.shape) == by_conv).all()


def test_wide_sums_stay_exact() -> None:
    """Beyond 2^24 the products still are integers: K = 140000 saturated codes."""
    k = 140_000
    trits = np.ones((1, 1, k), np.int8)
    trits[0, 0, ::7] = -1
    q, acc = accumulated(np.ones((1, k), np.float32), trits, ScaleAttr.of("row"), EncodingAttr.of("i8"), LEVELS)
    assert (q == 127).all()
    assert acc[0, 0, 0] == 127 * int(trits.sum())


@pytest.mark.parametrize("change", ["shape", "content", "missing"])
def test_weights_that_do_not_match_are_refused(change: str) -> None:
    b = Builder((1, 8))
    weight = b.weight(np.ones((1, 2, 8), np.int8), np.ones((1, 2, 1), np.float32), ScaleAttr.of("row"))
    q, s = b.add(ternary.QuantizeOp(b.args[0])).results
    y = b.add(ternary.LinearOp(q, s, weight)).results[0]
    other = WeightStore()
    if change != "missing":
        trits = np.zeros((1, 2, 8), np.int8) if change == "content" else np.ones((1, 2, 9), np.int8)
        other.add("w.trits", trits)
        other.add("w.scales", np.ones((1, 2, 1), np.float32))
    b.store = other
    with pytest.raises(Error, match=r"w\.trits"):
        b.run(np.ones((1, 8), np.float32), results=(y,))


@pytest.mark.parametrize(
    "other",
    [
        TritsType.of(9, 16, ScaleAttr.of("row"), 1),
        TritsType.of(8, 17, ScaleAttr.of("row"), 1),
        TritsType.of(8, 16, ScaleAttr.of("tensor"), 1),
        TritsType.of(8, 16, ScaleAttr.of("row"), 2),
        TritsType.of(8, 16, ScaleAttr.of("row"), 1, (-1, 1)),
    ],
    ids=str,
)
def test_types_differ_in_every_parameter(other: TritsType) -> None:
    one, encoding = TritsType.of(8, 16, ScaleAttr.of("row"), 1), EncodingAttr.of("i2")
    assert one == TritsType.of(8, 16, ScaleAttr.of("row"), 1)
    assert one != other
    assert PackedType.of(one, encoding) != PackedType.of(other, encoding)
