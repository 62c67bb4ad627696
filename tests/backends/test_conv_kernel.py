"""`dense.conv` lowered and run, against the interpreter, on every instruction set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from xdsl.dialects import llvm
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from kernel_harness import runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.conv import K_WHOLE
from neuc.backends.cpu.kernels.gemm_micro import Tile
from neuc.backends.cpu.lowering import lower_segment, unsupported_reason
from neuc.dialects import dense
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.dense_shapes import window_dim
from neuc.dialects.dims import Dim
from neuc.dialects.store import make_constant, tensor_type
from neuc.dialects.weight_store import WeightStore
from segment_harness import expected_of, function_of, run_segment

ISAS = pytest.mark.parametrize("isa", runnable_isas(), ids=lambda isa: isa.name)
WIDEST = runnable_isas()[0]
UNIT = 2.0**-24
"""Rounding to f32 moves a number by at most this fraction."""


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def conv_function(
    store: WeightStore,
    x_dims: Sequence[int | str],
    w: np.ndarray,
    bias: np.ndarray | None,
    geometry: dict[str, Sequence[int]],
    group: int,
    activation: ActivationAttr,
):
    """A function of x that convolves it with constant filters."""
    n = len(x_dims) - 2
    strides, dilations = geometry.get("strides", [1] * n), geometry.get("dilations", [1] * n)
    pads = geometry.get("pads", [0] * 2 * n)
    sizes = [Dim.of(d) for d in x_dims[2:]]
    out = [window_dim(sizes[i], w.shape[2 + i], strides[i], pads[i], pads[i + n], dilations[i]) for i in range(n)]

    def build(args: Sequence[SSAValue]):
        constants = [make_constant(name, a, store) for name, a in (("w", w), ("b", bias)) if a is not None]
        op = dense.ConvOp(
            args[0],
            constants[0].result,
            constants[1].result if bias is not None else None,
            tensor_type(f32, [x_dims[0], w.shape[0], *out]),
            strides=strides,
            pads=pads,
            dilations=dilations,
            group=group,
            activation=activation,
        )
        return [*constants, op]

    return function_of([tensor_type(f32, x_dims)], build)


def check(
    isa: Isa,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    dims: Sequence[int | str] | None = None,
    group: int = 1,
    activation: str = "none",
    **geometry: Sequence[int],
) -> None:
    """The lowered convolution and the interpreter differ by the rounding of both sums at most."""
    store = WeightStore()
    named = dims if dims is not None else ["N", x.shape[1], *(f"S{i}" for i in range(x.ndim - 2))]
    function = conv_function(store, named, w, bias, geometry, group, ActivationAttr.of(activation))
    (got,), (want,) = run_segment(function, [x], isa, store), expected_of(function, [x], store)
    # No activation here has a slope above 1.
    sizes = [np.abs(x), np.abs(w), None if bias is None else np.abs(bias)]
    magnitude = conv_function(store, named, sizes[1], sizes[2], geometry, group, ActivationAttr.of("none"))  # pyright: ignore[reportArgumentType]
    terms = math.prod(w.shape[1:]) + 3
    limit = 2.02 * terms * UNIT * expected_of(magnitude, [sizes[0]], store)[0]  # pyright: ignore[reportArgumentType]
    assert got.shape == want.shape
    assert (np.abs(got - want) <= limit + 1e-30).all()


@ISAS
def test_3x3_same(isa: Isa) -> None:
    check(isa, random(2, 5, 9, 11), random(14, 5, 3, 3), random(14), pads=[1, 1, 1, 1], activation="relu")


@ISAS
def test_strided_rows_that_leave_runs_of_every_length(isa: Isa) -> None:
    for width in (1, 3, 7, 16, 35):  # one kernel: sizes are arguments
        check(isa, random(1, 2, 5, width), random(3, 2, 3, 3), pads=[1, 1, 1, 1], strides=[1, 2])


@ISAS
@pytest.mark.parametrize("stride", [3, 5])
def test_wide_strides(isa: Isa, stride: int) -> None:
    check(isa, random(1, 3, 17, 23), random(6, 3, 4, 4), random(6), strides=[stride, stride], pads=[0, 1, 2, 3])


@ISAS
def test_pointwise(isa: Isa) -> None:
    check(isa, random(2, 21, 5, 7), random(33, 21, 1, 1), random(33), activation="hardswish")


@ISAS
def test_one_axis_dilated(isa: Isa) -> None:
    check(isa, random(1, 4, 40), random(7, 4, 5), random(7), dilations=[3], pads=[6, 6], strides=[2])


@ISAS
def test_three_axes(isa: Isa) -> None:
    check(isa, random(1, 2, 4, 5, 6), random(3, 2, 2, 3, 3), pads=[1, 1, 0, 0, 1, 2], dilations=[2, 1, 1])


@ISAS
def test_groups(isa: Isa) -> None:
    check(isa, random(2, 6, 8, 8), random(9, 2, 3, 3), random(9), group=3, pads=[1, 1, 1, 1])


@ISAS
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_depthwise(isa: Isa, stride: int) -> None:
    check(
        isa, random(2, 5, 9, 19), random(5, 1, 3, 5), random(5),
        group=5, pads=[1, 2, 1, 2], strides=[stride, stride], activation="relu",
    )  # fmt: skip


@ISAS
def test_depthwise_long_and_multiplied(isa: Isa) -> None:
    check(isa, random(1, 3, 50), random(6, 1, 20), group=3, pads=[10, 9])
    check(isa, random(1, 3, 4, 4, 4), random(6, 1, 2, 2, 2), random(6), group=3)


def test_many_channels_go_in_blocks() -> None:
    check(WIDEST, random(1, K_WHOLE // 9 + 20, 4, 5), random(5, K_WHOLE // 9 + 20, 3, 3), random(5), activation="relu")


def test_filters_in_several_units_and_aliasing_rows() -> None:
    check(WIDEST, random(1, 1024, 3, 3), random(200, 1024, 1, 1))


def test_static_sizes_and_empty_batch() -> None:
    check(WIDEST, random(1, 3, 12, 12), random(4, 3, 3, 3), dims=[1, 3, 12, 12])
    check(WIDEST, random(0, 3, 12, 12), random(4, 3, 3, 3))
    check(WIDEST, random(0, 3, 12, 12), random(3, 1, 3, 3), group=3)


def test_four_spatial_axes_are_left_to_others() -> None:
    function = conv_function(
        WeightStore(), [1, 2, 3, 3, 3, 3], random(2, 2, 1, 1, 1, 1), None, {}, 1, ActivationAttr.of("none")
    )
    reason = unsupported_reason(list(function.body.block.ops)[1])
    assert reason == "convolution over 4 spatial axes; kernels take up to 3"


FEW = {
    "one position": ((2, 40, 1, 1), (70, 40, 1, 1), {}),
    "a window that is the image": ((3, 5, 2, 3), (33, 5, 2, 3), {}),
    "four in a row": ((5, 9, 7), (40, 9, 3), {"strides": [2], "pads": [1, 1]}),
    "long and far apart": ((2, 1, 40), (20, 1, 16), {"strides": [8]}),
    "two axes, dilated": ((2, 3, 5, 6), (17, 3, 2, 3), {"dilations": [2, 1], "strides": [2, 3], "pads": [1, 0, 0, 2]}),
    "three axes": ((2, 2, 3, 2, 3), (5, 2, 2, 2, 2), {"pads": [0, 1, 0, 0, 0, 0]}),
}


@ISAS
@pytest.mark.parametrize("case", FEW)
@pytest.mark.parametrize("known", [True, False])
def test_few_positions(isa: Isa, case: str, known: bool) -> None:
    shape, filters, geometry = FEW[case]
    x, w, bias = random(*shape), random(*filters, seed=1), random(filters[0], seed=2)
    dims = list(shape) if known else ["n", *shape[1:]]
    check(isa, x, w, bias, dims=dims, activation="relu", **geometry)
    check(isa, x, w, None, dims=dims, **geometry)


def test_few_positions_are_rows_of_a_product() -> None:
    def kernels(length: int) -> list[str]:
        store = WeightStore()
        function = conv_function(store, ["n", 4, length], random(8, 4, 3), None, {}, 1, ActivationAttr.of("none"))
        found: dict[str, llvm.FuncOp] = {}
        lower_segment(function, WIDEST, store, found)
        return list(found)

    columns = Tile.of(WIDEST).columns
    few, many = kernels(2 + columns // 2), kernels(3 + columns // 2)
    assert any(name.startswith("gemm") for name in few)
    assert not any(name.startswith("conv") for name in few)
    assert [name.split("_")[0] for name in many] == ["conv"]
