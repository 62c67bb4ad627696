"""`tile-lut` keeps every bit, and its cost model keeps its promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.context import NeucContext
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.interp.core import interpret
from neuc.dialects.lut import AccumulateOp, BuildOp
from neuc.dialects.store import make_constant, tensor_type
from neuc.dialects.ternary import ConvOp, LinearOp, PackOp, QuantizeOp
from neuc.dialects.ternary_packed import verify_tile
from neuc.dialects.ternary_types import EncodingAttr, PackedType, ScaleAttr, TritsType, Window
from neuc.dialects.ternary_weights import make_weight
from neuc.errors import Error
from neuc.passes.analysis.tile_cost import ACCUMULATOR_BYTES, TABLE_BYTES, choose_tile, largest_group
from neuc.passes.tile_lut import TileLut


def network(
    context: NeucContext, scale: ScaleAttr, planes: int, k: int, *, levels: tuple[int, ...] = (-1, 0, 1)
) -> ModuleOp:
    """Two linear layers on one value and two convolutions on another, with and without offset."""
    rng = np.random.default_rng(k)
    function = FuncOp("main", ([tensor_type(f32, ["B", k]), tensor_type(f32, ["B", 3, 7, "W"])], []))
    block = function.body.block

    def weight(n: int, columns: int) -> object:
        trits = rng.choice(levels, (planes, n, columns)).astype(np.int8)
        scales = rng.uniform(0.1, 1, (planes, n, scale.groups(columns))).astype(np.float32)
        op = make_weight("w", trits, scales, context.weights, scale=scale, levels=levels)
        block.add_op(op)
        return op.result

    x, image = block.args
    block.add_op(codes := QuantizeOp(x))
    block.add_op(bias := make_constant("b", rng.normal(size=19).astype(np.float32), context.weights))
    results = []
    for activation, offset in (("none", 0), ("gelu", 128)):
        linear = LinearOp(codes.q, codes.s, weight(19, k), bias.result, ActivationAttr.of(activation), offset=offset)  # type: ignore[arg-type]
        block.add_op(linear)
        results.append(linear.result)
    block.add_op(pixels := QuantizeOp(image, axes=3))
    for pads, offset in (((1, 0, 1, 1), 0), ((0, 0, 0, 0), -3)):
        window = Window((3, 2), (2, 1), pads, (1, 1))
        relu = ActivationAttr.of("relu")
        conv = ConvOp(pixels.q, pixels.s, weight(5, 18), window, activation=relu, offset=offset)  # type: ignore[arg-type]
        block.add_op(conv)
        results.append(conv.result)
    block.add_op(ReturnOp(*results))
    function.update_function_type()
    module = ModuleOp([function])
    module.verify()
    return module


@pytest.mark.parametrize("k", [16, 37, 48])
@pytest.mark.parametrize("scale", [ScaleAttr.of("row"), ScaleAttr.of("tensor"), ScaleAttr.of("group", 8)], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"encoding": "i2"}, {"encoding": "i8"}, {"group": 2}, {"group": 1, "bm": 48, "bk": 8}], ids=str
)
def test_results_are_equal_bit_for_bit(k: int, scale: ScaleAttr, options: dict[str, object]) -> None:
    context = NeucContext()
    module = network(context, scale, 2, k)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape).astype(np.float32) for shape in ((5, k), (5, 3, 7, 6))]
    inputs[0][2] = 0
    expected = interpret(module, inputs, context.weights)
    TileLut(**options).apply(context, module)  # type: ignore[arg-type]
    module.verify()
    assert not any(isinstance(op, LinearOp | ConvOp) for op in module.walk())
    found = interpret(module, inputs, context.weights)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(expected, found, strict=True))


def test_one_table_for_all_products_of_a_value() -> None:
    context = NeucContext()
    module = network(context, ScaleAttr.of("row"), 3, 48)
    TileLut().apply(context, module)
    assert sum(isinstance(op, BuildOp) for op in module.walk()) == 3  # two windows on one image
    assert sum(isinstance(op, AccumulateOp) for op in module.walk()) == 4


@pytest.mark.parametrize(
    ("levels", "encoding"),
    [((-3, -1, 1, 3), "i2"), ((-1, 0, 1, 2), "i2"), (tuple(range(-8, 8)), "i4"), ((-5, 0, 9), "i8")],
    ids=str,
)
def test_other_levels_get_an_encoding_that_holds_them(levels: tuple[int, ...], encoding: str) -> None:
    context = NeucContext()
    module = network(context, ScaleAttr.of("row"), 1, 20, levels=levels)
    inputs = [np.ones((2, 20), np.float32), np.ones((2, 3, 7, 5), np.float32)]
    expected = interpret(module, inputs, context.weights)
    TileLut().apply(context, module)
    module.verify()
    assert {op.packed.encoding.kind.data for op in module.walk() if isinstance(op, PackOp)} == {encoding}
    found = interpret(module, inputs, context.weights)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(expected, found, strict=True))


SCALES = st.one_of(
    st.sampled_from([ScaleAttr.of("row"), ScaleAttr.of("tensor")]),
    st.sampled_from([8, 12, 32, 64, 96, 128, 256]).map(lambda size: ScaleAttr.of("group", size)),
)


@given(
    st.integers(1, 5000),
    st.integers(1, 9000),
    st.integers(1, 4),
    SCALES,
    st.sampled_from(["tl2", "i2", "i8"]),
    st.sampled_from([2048, 32768, 49152]),
    st.sampled_from([1 << 18, 1 << 20]),
)
@settings(max_examples=200, deadline=None)
def test_tiles_are_legal_and_fit(n: int, k: int, planes: int, scale: ScaleAttr, kind: str, l1: int, l2: int) -> None:
    trits = TritsType.of(n, k, scale, planes)
    encoding = EncodingAttr.of(kind, largest_group(trits) if kind == "tl2" else 1)
    tile = choose_tile(trits, encoding, l1=l1, l2=l2)
    verify_tile(PackedType.of(trits, encoding), tile.bm, tile.bk)
    quad = 4 * encoding.g.data
    held = tile.bk // encoding.g.data * TABLE_BYTES if kind == "tl2" else tile.bk
    assert held <= l1 // 2 + quad * TABLE_BYTES  # rounding up to whole quads
    assert tile.bk <= k + max(quad, scale.size.data)
    assert tile.bm == 16 or tile.bm * ACCUMULATOR_BYTES <= l1 // 4
    assert tile.bm == 16 or tile.bm * tile.bk * {"tl2": 5 / encoding.g.data, "i2": 2, "i8": 8}[kind] / 8 <= l2 // 2


def test_no_table_straddles_two_scales() -> None:
    trits = TritsType.of(8, 256, ScaleAttr.of("group", 128), 1)
    assert largest_group(trits) == 2
    with pytest.raises(Error, match=r"g = 3 does not divide the 128 columns") as caught:
        TileLut(group=3).layout(trits)
    assert caught.value.code == "NEUC-E230"
    with pytest.raises(VerifyException, match="BK = 24 and the scale groups of 128"):
        verify_tile(PackedType.of(trits, EncodingAttr.of("tl2", 2)), 16, 24)


@pytest.mark.parametrize("options", [{"encoding": "tl9"}, {"group": 4}, {"bm": -16}, {"bm": 8}, {"bk": 10}, {"l1": 0}])
def test_bad_options(options: dict[str, object]) -> None:
    context = NeucContext()
    with pytest.raises(Error) as caught:
        TileLut(**options).apply(context, network(context, ScaleAttr.of("row"), 1, 24))  # type: ignore[arg-type]
    assert caught.value.code == "NEUC-E230"
