"""Linear layers of direct encodings are one launch, with what follows element-wise, and give the interpreter's bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from xdsl.dialects import arith, func, llvm, math
from xdsl.dialects.builtin import FloatAttr, ModuleOp, f32
from xdsl.ir import Operation, SSAValue

from kernel_harness import runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.lowering import lower_segment
from neuc.dialects.context import NeucContext
from neuc.dialects.cpu import CheckOp
from neuc.dialects.cpu_launch import LaunchOp
from neuc.dialects.dense import MapOp, YieldOp
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.store import tensor_type
from neuc.dialects.ternary import LinearOp, QuantizeOp
from neuc.dialects.ternary_types import ScaleAttr
from neuc.dialects.ternary_weights import make_weight
from neuc.dialects.weight_store import WeightStore
from neuc.passes.tile_lut import TileLut
from segment_harness import expected_of, function_of, run_segment

ISAS = runnable_isas()
FUSING = [isa for isa in ISAS if isa.name != "scalar"]
WIDEST = ISAS[0]
K, N = 75, 37
Scalars = Callable[[Sequence[SSAValue]], Sequence[Operation]]
X = tensor_type(f32, ["B", "S", K])
Y = tensor_type(f32, ["B", "S", N])
each_isa = pytest.mark.parametrize("isa", FUSING, ids=lambda isa: isa.name)


def map_of(inputs: Sequence[SSAValue], scalars: Scalars) -> MapOp:
    """An element-wise operation giving f32 [B, S, N] whose body yields the last of `scalars`."""
    op = MapOp(inputs, Y)
    ops = list(scalars(op.body.block.args))
    op.body.block.add_ops([*ops, YieldOp(ops[-1].results[0])])
    return op


def add(args: Sequence[SSAValue]) -> Sequence[Operation]:
    return [arith.AddfOp(args[0], args[1])]


def squared_relu_times(args: Sequence[SSAValue]) -> Sequence[Operation]:
    """relu²(first)·second."""
    zero = arith.ConstantOp(FloatAttr(0.0, f32))
    positive = arith.MaximumfOp(args[0], zero.result)
    squared = arith.MulfOp(positive.result, positive.result)
    return [zero, positive, squared, arith.MulfOp(squared.result, args[1])]


def silu_times(args: Sequence[SSAValue]) -> Sequence[Operation]:
    """silu(first)·second."""
    one, negative = arith.ConstantOp(FloatAttr(1.0, f32)), arith.NegfOp(args[0])
    power = math.ExpOp(negative.result)
    below = arith.AddfOp(one.result, power.result)
    silu = arith.DivfOp(args[0], below.result)
    return [one, negative, power, below, silu, arith.MulfOp(silu.result, args[1])]


def exponential(args: Sequence[SSAValue]) -> Sequence[Operation]:
    return [math.ExpOp(args[0])]


def layer(
    store: WeightStore,
    quantized: QuantizeOp,
    seed: int = 0,
    *,
    planes: int = 1,
    scale: ScaleAttr | None = None,
    bias: SSAValue | None = None,
    activation: str = "none",
    levels: tuple[int, ...] = (-1, 0, 1),
) -> list[Operation]:
    """The weight and the layer, which comes last."""
    random, scale = np.random.default_rng(seed), scale or ScaleAttr.of("row")
    trits = random.choice(np.array(levels, np.int8), (planes, N, K))
    scales = random.standard_normal((planes, N, scale.groups(K))).astype(np.float32) / 64
    weight = make_weight(f"w{seed}", trits, scales, store, scale=scale, levels=levels)
    linear = LinearOp(quantized.q, quantized.s, weight.results[0], bias, ActivationAttr.of(activation))
    return [weight, linear]


def tiled(
    inputs: Sequence, build: Callable[[Sequence[SSAValue]], Sequence[Operation]], store: WeightStore, encoding: str
) -> func.FuncOp:
    """The function as `tile-lut` leaves it."""
    module = ModuleOp([function_of(inputs, build)])
    TileLut(encoding).apply(NeucContext(weights=store), module)
    module.verify()
    function = next(op for op in module.ops if isinstance(op, func.FuncOp))
    function.detach()
    return function


def launched(function: func.FuncOp, store: WeightStore, isa: Isa = WIDEST) -> tuple[list[str], bool]:
    """Families of the launches in order, and whether there are checks."""
    kernels: dict[str, llvm.FuncOp] = {}
    ops = list(lower_segment(function, isa, store, kernels).body.block.ops)
    families = ("ternary_quantize", "direct_linear", "ternary_dequantize", "direct", "lut", "map")
    names = [op.kernel.root_reference.data for op in ops if isinstance(op, LaunchOp)]
    found = [next(family for family in families if name.startswith(family)) for name in names]
    return found, any(isinstance(op, CheckOp) for op in ops)


def assert_as_interpreted(function: func.FuncOp, arrays: Sequence[np.ndarray], isa: Isa, store: WeightStore) -> None:
    expected = expected_of(function, arrays, store)
    for found, wanted in zip(run_segment(function, arrays, isa, store), expected, strict=True):
        assert np.array_equal(found, wanted)


def inputs(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


@each_isa
@pytest.mark.parametrize("encoding", ["i2", "t5", "i4", "i8"])
def test_residual_is_part_of_the_launch(encoding: str, isa: Isa) -> None:
    store = WeightStore()

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize = QuantizeOp(args[0])
        linear = layer(store, quantize, bias=args[2], activation="relu")
        return [quantize, *linear, map_of([linear[-1].results[0], args[1]], add)]

    function = tiled([X, Y, tensor_type(f32, [N])], build, store, encoding)
    assert launched(function, store, isa) == (["ternary_quantize", "direct_linear"], True)
    assert_as_interpreted(function, inputs((2, 3, K), (2, 3, N), (N,)), isa, store)


@pytest.mark.parametrize(("planes", "scale"), [(1, ScaleAttr.of("group", 32)), (3, ScaleAttr.of("row"))], ids=str)
def test_scale_groups_and_planes(planes: int, scale: ScaleAttr) -> None:
    store = WeightStore()

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize = QuantizeOp(args[0])
        return [quantize, *layer(store, quantize, planes=planes, scale=scale)]

    function = tiled([X], build, store, "i8")
    assert launched(function, store) == (["ternary_quantize", "direct_linear"], True)
    assert_as_interpreted(function, inputs((1, 5, K)), WIDEST, store)


def gated(store: WeightStore, order: tuple[int, int]) -> func.FuncOp:
    """relu²(gate)·up in one operation, whose operands are the two layers in `order`."""

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize = QuantizeOp(args[0])
        layers = [layer(store, quantize, seed) for seed in order]
        gate, up = (layers[order.index(seed)][-1].results[0] for seed in (0, 1))
        return [quantize, *layers[0], *layers[1], map_of([gate, up], squared_relu_times)]

    return tiled([X], build, store, "i2")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=str)
def test_of_two_layers_the_later_takes_the_operation(order: tuple[int, int]) -> None:
    store = WeightStore()
    function = gated(store, order)
    assert launched(function, store) == (["ternary_quantize", "direct_linear", "direct_linear"], True)
    assert_as_interpreted(function, inputs((2, 2, K)), WIDEST, store)


@pytest.mark.parametrize("dims", [[N], [1], [1, 1, N]], ids=str)
def test_row_constants_and_scalars(dims: list[int]) -> None:
    store = WeightStore()

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize = QuantizeOp(args[0])
        linear = layer(store, quantize)
        return [quantize, *linear, map_of([args[1], linear[-1].results[0]], squared_relu_times)]

    function = tiled([X, tensor_type(f32, dims)], build, store, "i2")
    assert launched(function, store)[0] == ["ternary_quantize", "direct_linear"]
    assert_as_interpreted(function, inputs((1, 3, K), tuple(dims)), WIDEST, store)


def test_the_layer_twice_in_one_operation() -> None:
    store = WeightStore()

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize = QuantizeOp(args[0])
        linear = layer(store, quantize)
        return [quantize, *linear, map_of([linear[-1].results[0]] * 2, squared_relu_times)]

    function = tiled([X], build, store, "t5")
    assert launched(function, store) == (["ternary_quantize", "direct_linear"], True)
    assert_as_interpreted(function, inputs((1, 3, K)), WIDEST, store)


def test_operands_of_other_shapes_keep_their_launch() -> None:
    store = WeightStore()

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize = QuantizeOp(args[0])
        linear = layer(store, quantize)
        return [quantize, *linear, map_of([linear[-1].results[0], args[1]], add)]

    function = tiled([X, tensor_type(f32, ["B", 1, N])], build, store, "i2")
    assert launched(function, store)[0] == ["ternary_quantize", "direct_linear", "map"]
    assert_as_interpreted(function, inputs((2, 3, K), (2, 1, N)), WIDEST, store)


def test_results_with_other_users_are_written() -> None:
    store = WeightStore()

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize = QuantizeOp(args[0])
        linear = layer(store, quantize)
        first = map_of([linear[-1].results[0], args[1]], add)
        return [quantize, *linear, first, map_of([first.result, linear[-1].results[0]], add)]

    function = tiled([X, Y], build, store, "i2")
    assert launched(function, store)[0] == ["ternary_quantize", "direct_linear", "map", "map"]
    assert_as_interpreted(function, inputs((2, 3, K), (2, 3, N)), WIDEST, store)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_gate_that_rounds_is_saturated_in_the_check(swapped: bool) -> None:
    """silu(gate)·y has a check, in which silu(gate) is the gate; silu(y)·other has none."""
    store = WeightStore()

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize = QuantizeOp(args[0])
        linear = layer(store, quantize)
        operands = [args[1], linear[-1].results[0]]
        return [quantize, *linear, map_of(operands[::-1] if swapped else operands, silu_times)]

    function = tiled([X, Y], build, store, "i2")
    assert launched(function, store) == (["ternary_quantize", "direct_linear"], not swapped)
    arrays = inputs((2, 3, K), (2, 3, N))
    (found,), (wanted,) = run_segment(function, arrays, WIDEST, store), expected_of(function, arrays, store)
    # The exponential is off by few units in the last place.
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-30)


def test_what_rounds_has_no_check() -> None:
    """Sums behind an exponential are covered by no check."""
    store = WeightStore()

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize = QuantizeOp(args[0])
        linear = layer(store, quantize)
        return [quantize, *linear, map_of([linear[-1].results[0]], exponential)]

    assert launched(tiled([X], build, store, "i2"), store) == (["ternary_quantize", "direct_linear"], False)


@pytest.mark.parametrize(("encoding", "isa"), [("tl2", WIDEST), ("i8", Isa.scalar())], ids=["tl2", "scalar"])
def test_look_ups_and_the_oracle_stay_apart(encoding: str, isa: Isa) -> None:
    store = WeightStore()

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize = QuantizeOp(args[0])
        return [quantize, *layer(store, quantize)]

    function = tiled([X], build, store, encoding)
    assert "direct_linear" not in launched(function, store, isa)[0]
    assert_as_interpreted(function, inputs((1, 2, K)), isa, store)
