"""Segments of ternary and lut operations: lowered and run, they equal the interpreters bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.ir import Operation, SSAValue

from kernel_harness import runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.lowering import lower_segment, unsupported_reason
from neuc.backends.cpu.lowerings.ternary_products import too_many_columns
from neuc.dialects.context import NeucContext
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.store import tensor_type
from neuc.dialects.ternary import ConvOp, LinearOp, PackOp, QuantizeOp
from neuc.dialects.ternary_types import EncodingAttr, ScaleAttr, TritsType, Window
from neuc.dialects.ternary_weights import make_weight
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.passes.tile_lut import TileLut
from segment_harness import expected_of, function_of, run_segment

ISAS = runnable_isas()
WIDEST = ISAS[0]


def weight(
    store: WeightStore, planes: int, n: int, k: int, scale: ScaleAttr, levels: tuple[int, ...] = (-1, 0, 1)
) -> Operation:
    random = np.random.default_rng(n)
    values = random.choice(np.array(levels, np.int8), (planes, n, k))
    groups = scale.groups(k)
    scales = random.standard_normal((planes, n, groups)).astype(np.float32)
    return make_weight(f"w{n}", values, scales, store, scale=scale, levels=levels)


def linear(
    store: WeightStore, n: int, k: int, scale: ScaleAttr, planes: int = 2, levels: tuple[int, ...] = (-1, 0, 1)
) -> func.FuncOp:
    """Quantise f32 [B, S, K] and multiply, with bias and relu."""

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize = QuantizeOp(args[0])
        w = weight(store, planes, n, k, scale, levels)
        relu = ActivationAttr.of("relu")
        return [quantize, w, LinearOp(quantize.q, quantize.s, w.results[0], args[1], relu)]

    return function_of([tensor_type(f32, ["B", "S", k]), tensor_type(f32, [n])], build)


def tiled(function: func.FuncOp, store: WeightStore, options: TileLut) -> func.FuncOp:
    module = ModuleOp([function])
    options.apply(NeucContext(weights=store), module)
    module.verify()
    function = next(op for op in module.ops if isinstance(op, func.FuncOp))
    function.detach()
    return function


def assert_as_interpreted(function: func.FuncOp, arrays: Sequence[np.ndarray], isa: Isa, store: WeightStore) -> None:
    expected = expected_of(function, arrays, store)
    for found, wanted in zip(run_segment(function, arrays, isa, store), expected, strict=True):
        assert np.array_equal(found, wanted)


def inputs(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(7)
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("options", [TileLut("tl2"), TileLut("i2"), TileLut("t5"), TileLut("i8"), None], ids=str)
def test_linear(options: TileLut | None, isa: Isa) -> None:
    store = WeightStore()
    function = linear(store, 21, 75, ScaleAttr.of("row"))
    if options is not None:
        function = tiled(function, store, options)
    assert_as_interpreted(function, inputs((2, 3, 75), (21,)), isa, store)


@pytest.mark.parametrize("encoding", ["tl2", "i2", "t5", "i4", "i8"])
def test_scale_groups(encoding: str) -> None:
    store = WeightStore()
    function = tiled(linear(store, 21, 200, ScaleAttr.of("group", 64), planes=3), store, TileLut(encoding))
    assert_as_interpreted(function, inputs((1, 2, 200), (21,)), WIDEST, store)


@pytest.mark.parametrize(("g", "bm", "bk"), [(3, 16, 24), (3, 192, 120), (2, 64, 8), (1, 48, 400)])
def test_edited_tiles_keep_the_result(g: int, bm: int, bk: int) -> None:
    store = WeightStore()
    function = tiled(linear(store, 21, 75, ScaleAttr.of("row")), store, TileLut("tl2", g, bm, bk))
    assert_as_interpreted(function, inputs((2, 3, 75), (21,)), WIDEST, store)


LEVEL_SETS = [(-2, -1, 0, 1), (-3, -1, 1, 3), (1, 2), tuple(range(-8, 8)), (-3, 0, 3, 5, 7)]


@pytest.mark.parametrize("levels", LEVEL_SETS, ids=str)
def test_other_levels(levels: tuple[int, ...]) -> None:
    store = WeightStore()
    function = linear(store, 9, 33, ScaleAttr.of("row"), 1, levels)
    assert_as_interpreted(function, inputs((1, 2, 33), (9,)), WIDEST, store)


def conv(store: WeightStore, group: int, window: Window, planes: int = 2) -> func.FuncOp:
    """Quantise [B, 6, H, W] image by image, convolve to 10 channels, with bias."""
    channels, n = 6, 10

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize = QuantizeOp(args[0], axes=3)
        columns = channels // group * window.kernel[0] * window.kernel[1]
        w = weight(store, planes, n, columns, ScaleAttr.of("row"))
        return [quantize, w, ConvOp(quantize.q, quantize.s, w.results[0], window, args[1], group)]

    return function_of([tensor_type(f32, ["B", channels, "H", "W"]), tensor_type(f32, [n])], build)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("group", [1, 2])
def test_conv(group: int, isa: Isa) -> None:
    store = WeightStore()
    window = Window((3, 3), (2, 1), (1, 1, 0, 1), (1, 2))
    assert_as_interpreted(conv(store, group, window), inputs((2, 6, 9, 12), (10,)), isa, store)


@pytest.mark.parametrize("encoding", ["tl2", "i2"])
def test_tiled_conv(encoding: str) -> None:
    store = WeightStore()
    function = tiled(conv(store, 1, Window((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))), store, TileLut(encoding))
    assert_as_interpreted(function, inputs((2, 6, 5, 7), (10,)), WIDEST, store)


def test_products_share_one_table() -> None:
    """Tables are as long as the reader with the largest step needs."""
    store = WeightStore()

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize = QuantizeOp(args[0])
        first, second = weight(store, 1, 200, 40, ScaleAttr.of("row")), weight(store, 1, 16, 40, ScaleAttr.of("row"))
        products = [LinearOp(quantize.q, quantize.s, w.results[0]) for w in (first, second)]
        wide = LinearOp(quantize.q, quantize.s, second.results[0], None, ActivationAttr.of("relu"))
        return [quantize, first, second, *products, wide]

    function = tiled(function_of([tensor_type(f32, ["B", 40])], build), store, TileLut("tl2"))
    assert [op.name for op in function.body.block.ops].count("lut.build") == 1
    assert_as_interpreted(function, inputs((5, 40)), WIDEST, store)


def test_no_rows() -> None:
    store = WeightStore()
    function = tiled(linear(store, 21, 75, ScaleAttr.of("row")), store, TileLut("tl2"))
    assert_as_interpreted(function, inputs((0, 3, 75), (21,)), WIDEST, store)


def test_reasons() -> None:
    """What cannot be lowered is refused by name."""
    store = WeightStore()
    small = weight(store, 1, 4, 12, ScaleAttr.of("group", 6))
    tl2 = PackOp(small.results[0], EncodingAttr.of("tl2", 3), 16, 12)
    assert unsupported_reason(tl2) == "scale groups of 6 columns are not a multiple of 4·g = 12"


@pytest.mark.parametrize("encoding", ["tl1", "tl2", "bitserial"])
def test_scale_groups_that_tables_would_straddle_are_refused(encoding: str) -> None:
    """By the lowering, too: edited IR comes this way without anyone having asked before."""
    store = WeightStore()
    function = tiled(linear(store, 16, 200, ScaleAttr.of("group", 25)), store, TileLut(encoding, 1, 16, 100))
    with pytest.raises(Error, match="no CPU kernel runs") as caught:
        lower_segment(function, WIDEST, store, {})
    assert [(node.op_type, node.reason) for node in caught.value.nodes] == [
        ("ternary.pack", "scale groups of 25 columns are not a multiple of 4·g = 4")
    ]


@pytest.mark.parametrize(
    ("trits", "fits"),
    [
        (TritsType.of(8, 1 << 20, ScaleAttr.of("row"), 1), True),
        (TritsType.of(8, 140_000, ScaleAttr.of("row"), 1, (-15, 0, 15)), True),
        (TritsType.of(8, 1 << 24, ScaleAttr.of("group", 128), 1), True),
        (TritsType.of(8, 1 << 24, ScaleAttr.of("row"), 1), False),
        (TritsType.of(8, 1 << 18, ScaleAttr.of("row"), 1, tuple(range(-64, 65))), False),
    ],
    ids=str,
)
def test_as_many_columns_as_int32_sums_stand(trits: TritsType, fits: bool) -> None:
    assert (too_many_columns(trits) is None) == fits
