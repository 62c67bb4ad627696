"""Convolutions in one launch equal the interpreter bit for bit, and are only taken where nothing else looks on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.ir import Operation, SSAValue

from kernel_harness import assert_guards, guarded, run_kernel, runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.channels_last import RUN, ChannelsLastKernel
from neuc.backends.cpu.lowering import lower_segment
from neuc.dialects.context import NeucContext
from neuc.dialects.cpu_launch import LaunchOp
from neuc.dialects.dense import ConcatOp
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.dims import Dim
from neuc.dialects.store import dims_of, tensor_type
from neuc.dialects.ternary import ConvOp, Im2ColOp, QuantizeOp
from neuc.dialects.ternary_types import ScaleAttr, Window
from neuc.dialects.ternary_weights import make_weight
from neuc.dialects.weight_store import WeightStore
from neuc.passes.tile_lut import TileLut
from segment_harness import expected_of, function_of, run_segment

ISAS = runnable_isas()
FUSED_ISAS = [isa for isa in ISAS if isa.name != "scalar"]

# Images, spatial sizes, channels, outputs, planes, kernel, strides, pads (begins then ends), dilations.
CASES = [
    # More pixels than a block has, blocks across lines and a last one that is not full.
    ((2, (9, 17), 16, 37, 2), Window((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))),
    # Channels that no vector fills, runs of single positions, uneven padding.
    ((1, (8, 21), 5, 16, 1), Window((3, 2), (2, 1), (0, 2, 1, 1), (1, 2))),
    ((3, (70,), 24, 33, 3), Window((5,), (2,), (3, 0), (1,))),
    ((1, (4, 5, 6), 3, 7, 1), Window((2, 3, 2), (1, 1, 2), (1, 0, 0, 0, 1, 1), (1, 1, 1))),
    # Many runs, and runs longer than what is written out.
    ((1, (9, 9), 20, 5, 1), Window((4, 4), (1, 1), (2, 2, 1, 1), (2, 2))),
    ((2, (3, 5), 600, 18, 1), Window((1, 1), (1, 1), (0, 0, 0, 0), (1, 1))),
]


def convolution(
    store: WeightStore,
    spatial: int,
    channels: int,
    outputs: int,
    planes: int,
    window: Window,
    scale: ScaleAttr,
    count: int = 1,
    groups: int = 1,
) -> func.FuncOp:
    """Quantise [B, channels, …] and convolve with bias and relu; `count` convolutions of the same value, joined."""
    columns = channels // groups * int(np.prod(window.kernel))
    random = np.random.default_rng(columns)

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize = QuantizeOp(args[0], axes=spatial + 1)
        ops: list[Operation] = [quantize]
        for index in range(count):
            values = random.integers(-1, 2, (planes, outputs, columns)).astype(np.int8)
            scales = random.standard_normal((planes, outputs, scale.groups(columns))).astype(np.float32)
            weight = make_weight(f"w{index}", values, scales, store, scale=scale)
            relu = ActivationAttr.of("relu")
            ops += [weight, ConvOp(quantize.q, quantize.s, weight.results[0], window, args[1], groups, relu)]
        convolved = [op for op in ops if isinstance(op, ConvOp)]
        if count > 1:
            dims = dims_of(convolved[0].result)
            joined = tensor_type(f32, [dims[0], count * outputs, *dims[2:]])
            ops.append(ConcatOp([op.result for op in convolved], 1, joined))
        return ops

    sizes = [Dim.symbol(f"D{axis}") for axis in range(spatial)]
    return function_of([tensor_type(f32, ["B", channels, *sizes]), tensor_type(f32, [outputs])], build)


def tiled(function: func.FuncOp, store: WeightStore, encoding: str) -> func.FuncOp:
    module = ModuleOp([function])
    TileLut(encoding).apply(NeucContext(weights=store), module)
    module.verify()
    function.detach()
    return function


def families(function: func.FuncOp, store: WeightStore, isa: Isa) -> list[str]:
    """Names of the launched kernels."""
    program = lower_segment(function.clone(), isa, store, {})
    return [op.kernel.root_reference.data for op in program.body.block.ops if isinstance(op, LaunchOp)]


@pytest.mark.parametrize("isa", FUSED_ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("encoding", ["tl2", "i2"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_as_interpreted(
    case: tuple[tuple[int, tuple[int, ...], int, int, int], Window], encoding: str, isa: Isa
) -> None:
    (batch, sizes, channels, outputs, planes), window = case
    store = WeightStore()
    function = convolution(store, len(sizes), channels, outputs, planes, window, ScaleAttr.of("row"))
    function = tiled(function, store, encoding)
    names = families(function, store, isa)
    assert [name.split("_")[0] for name in names[-2:]] == ["channels", "ternary"]
    assert not any("im2col" in name or "accumulate" in name or "transpose" in name for name in names)
    assert_as_interpreted(function, [(batch, channels, *sizes), (outputs,)], isa, store)


@pytest.mark.parametrize("isa", FUSED_ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("encoding", ["t5", "i4", "i8"])
def test_other_direct_encodings(encoding: str, isa: Isa) -> None:
    store, window = WeightStore(), Window((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
    function = tiled(convolution(store, 2, 5, 37, 1, window, ScaleAttr.of("row")), store, encoding)
    assert families(function, store, isa)[-1].startswith("ternary_conv")
    assert_as_interpreted(function, [(2, 5, 7, 11), (37,)], isa, store)


# Groups, channels and outputs of all groups, planes, window.
GROUPED = [
    (3, 15, 21, 2, Window((3, 3), (1, 2), (1, 1, 1, 1), (1, 1))),
    (4, 64, 8, 1, Window((3,), (1,), (2, 0), (2,))),
    (2, 2, 34, 1, Window((4, 4), (1, 1), (0, 0, 0, 0), (1, 1))),
]


@pytest.mark.parametrize("isa", FUSED_ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("case", GROUPED, ids=str)
def test_grouped(case: tuple[int, int, int, int, Window], isa: Isa) -> None:
    """One launch for all groups."""
    groups, channels, outputs, planes, window = case
    store, rank = WeightStore(), len(window.kernel)
    scale = ScaleAttr.of("row")
    function = tiled(convolution(store, rank, channels, outputs, planes, window, scale, groups=groups), store, "tl2")
    names = families(function, store, isa)
    assert [name.split("_")[0] for name in names[-2:]] == ["channels", "ternary"]
    assert_as_interpreted(function, [(2, channels, *(9, 13)[:rank]), (outputs,)], isa, store)


def assert_as_interpreted(
    function: func.FuncOp, shapes: Sequence[tuple[int, ...]], isa: Isa, store: WeightStore
) -> None:
    """On random arrays of these shapes."""
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    (expected,) = expected_of(function, arrays, store)
    (found,) = run_segment(function, arrays, isa, store, threads_split=2)
    assert np.array_equal(found, expected)


def test_what_others_see_stays() -> None:
    """Scale groups, windows shared by two convolutions, and the scalar oracle take one step at a time."""
    window = Window((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
    wide = FUSED_ISAS[0]
    for scale, count, isa in (("group", 1, wide), ("row", 2, wide), ("row", 1, Isa.scalar())):
        store = WeightStore()
        attr = ScaleAttr.of("group", 36) if scale == "group" else ScaleAttr.of("row")
        function = tiled(convolution(store, 2, 8, 12, 1, window, attr, count), store, "tl2")
        assert sum(isinstance(op, Im2ColOp) for op in function.body.block.ops) == 1
        names = families(function, store, isa)
        assert any("im2col" in name for name in names)
        assert not any(name.startswith("ternary_conv") for name in names)
        assert_as_interpreted(function, [(1, 8, 4, 5), (12,)], isa, store)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 40, 3, 300), (2, 17, 2, 3, 19), (1, 16, 4, 15)], ids=str)
def test_channels_last(shape: tuple[int, ...], isa: Isa) -> None:
    q = np.random.default_rng(2).integers(-127, 128, shape).astype(np.int8)
    rank = len(shape) - 2
    pads = [(axis + 1, 2 * axis) for axis in range(rank)]
    expected = np.moveaxis(np.pad(q, [(0, 0), (0, 0), *pads]), 1, -1)
    sizes = expected.shape[1:-1]
    out, whole = guarded(np.full(expected.shape, 77, np.int8))
    kernel = ChannelsLastKernel(tuple(before for before, _ in pads))
    work = shape[0] * int(np.prod(sizes[:-1])) * -(-sizes[-1] // RUN)
    run_kernel(kernel, isa, [q, out, shape[1], *shape[2:], *sizes], work, threads_split=3)
    assert_guards(whole)
    assert np.array_equal(out, expected)
