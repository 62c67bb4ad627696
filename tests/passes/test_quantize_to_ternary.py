"""What `quantize-to-ternary` does to results, to the module and to the report."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import SSAValue

from neuc.dialects.context import NeucContext
from neuc.dialects.dense import ConvOp, MatMulOp
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.dims import DimLike
from neuc.dialects.interp.core import interpret
from neuc.dialects.store import make_constant, tensor_type
from neuc.dialects.ternary import LinearOp, QuantizeOp, WeightOp
from neuc.errors import Error
from neuc.passes.analysis.ternary_layers import quantization_report
from neuc.passes.quantize_to_ternary import FitCache, QuantizeToTernary
from neuc.passes.tile_lut import TileLut

ACTIVATION_ERROR = 0.012
"""Relative L2 error of int8 activations: rows of up to 4σ have steps of 4σ/127, whose error is 4/127/√12 = 0.9 %."""
CROSS_TERM = 1.3
"""Weights of these sizes are few, so that their measured relative error scatters around 10^(-SQNR/20)."""


class Net:
    """A function under construction and its weights."""

    def __init__(self, *shapes: list[DimLike]) -> None:
        self.context = NeucContext()
        self.function = FuncOp("main", ([tensor_type(f32, shape) for shape in shapes], []))
        self.rng = np.random.default_rng(5)

    @property
    def args(self) -> tuple[SSAValue, ...]:
        return tuple(self.function.body.block.args)

    def constant(self, *shape: int) -> SSAValue:
        op = make_constant("w", self.rng.normal(size=shape).astype(np.float32), self.context.weights)
        self.function.body.block.add_op(op)
        return op.result

    def matmul(
        self, a: SSAValue, b: SSAValue, bias: SSAValue | None, dims: list[DimLike], **options: object
    ) -> SSAValue:
        op = MatMulOp(a, b, bias, tensor_type(f32, dims), **options)  # type: ignore[arg-type]
        self.function.body.block.add_op(op)
        return op.result

    def finish(self, *results: SSAValue) -> ModuleOp:
        self.function.body.block.add_op(ReturnOp(*results))
        self.function.update_function_type()
        module = ModuleOp([self.function])
        module.verify()
        return module


def transposed(net: Net) -> SSAValue:
    bias = net.constant(40)
    return net.matmul(net.args[0], net.constant(40, 96), bias, ["B", 40], transpose_b=True)


def plain(net: Net) -> SSAValue:
    options = {"alpha": 0.5, "activation": ActivationAttr.of("gelu")}
    return net.matmul(net.args[0], net.constant(96, 40), net.constant(1, 40), ["B", 40], **options)


def full_bias(net: Net) -> SSAValue:
    other = net.matmul(net.args[0], net.constant(96, 40), None, ["B", 40])
    return net.matmul(net.args[0], net.constant(96, 40), other, ["B", 40])


def run(module: ModuleOp, net: Net, *inputs: np.ndarray) -> np.ndarray:
    return interpret(module, inputs, net.context.weights)[0]


def relative_l2(expected: np.ndarray, found: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("build", [transposed, plain, full_bias])
@pytest.mark.parametrize(
    ("planes", "scale"), [(1, "row"), (2, "row"), (3, "row"), (3, "group"), (2, "tensor"), (4, "row")]
)
def test_error_is_that_of_weights_and_activations(build: Callable[[Net], SSAValue], planes: int, scale: str) -> None:
    net = Net(["B", 96])
    module = net.finish(build(net))
    x = net.rng.normal(size=(50, 96)).astype(np.float32)
    expected = run(module, net, x)
    QuantizeToTernary(planes=planes, scale=scale).apply(net.context, module)
    module.verify()
    assert not any(isinstance(op, MatMulOp) for op in module.walk())
    weights = [op for op in module.walk() if isinstance(op, WeightOp)]
    sqnr = min(w.sqnr.value.data for w in weights if w.sqnr is not None)
    layers = len(weights)
    bound = CROSS_TERM * np.sqrt(layers) * (10 ** (-sqnr / 20) + ACTIVATION_ERROR)
    assert relative_l2(expected, run(module, net, x)) <= bound


@pytest.mark.parametrize("spatial", [[12], [9, 8], ["H", 7]])
def test_convolutions(spatial: list[DimLike]) -> None:
    n = len(spatial)
    net = Net(["B", 6, *spatial])
    sizes = [9 if isinstance(s, str) else int(s) for s in spatial]  # type: ignore[arg-type]
    weight, bias = net.constant(10, 6, *[3] * n), net.constant(10)
    result = tensor_type(f32, ["B", 10, *spatial])
    op = ConvOp(
        net.args[0],
        weight,
        bias,
        result,
        strides=[1] * n,
        pads=[1] * 2 * n,
        dilations=[1] * n,
        activation=ActivationAttr.of("relu"),
    )
    net.function.body.block.add_op(op)
    module = net.finish(op.result)
    x = net.rng.normal(size=(3, 6, *sizes)).astype(np.float32)
    expected = run(module, net, x)
    QuantizeToTernary(planes=3).apply(net.context, module)
    module.verify()
    (record,) = quantization_report(module, net.context.weights)
    assert record.sqnr_db is not None
    assert (record.kind, record.n, record.k, record.planes) == ("conv", 10, 6 * 3**n, 3)
    bound = CROSS_TERM * (10 ** (-record.sqnr_db / 20) + ACTIVATION_ERROR)
    assert relative_l2(expected, run(module, net, x)) <= bound


def grouped(channels: int) -> tuple[Net, ModuleOp]:
    """A convolution in two groups of so many channels each, to 10 outputs."""
    net = Net(["B", 2 * channels, 6, 5])
    result, ones = tensor_type(f32, ["B", 10, 6, 5]), [1, 1]
    weight = net.constant(10, channels, 3, 3)
    op = ConvOp(net.args[0], weight, None, result, strides=ones, pads=ones * 2, dilations=ones, group=2)
    net.function.body.block.add_op(op)
    return net, net.finish(op.result)


def test_grouped_convolutions() -> None:
    net, module = grouped(16)
    x = net.rng.normal(size=(3, 32, 6, 5)).astype(np.float32)
    expected = run(module, net, x)
    QuantizeToTernary(planes=3).apply(net.context, module)
    module.verify()
    (record,) = quantization_report(module, net.context.weights)
    assert record.sqnr_db is not None
    assert (record.n, record.k, record.planes) == (10, 16 * 9, 3)
    assert relative_l2(expected, run(module, net, x)) <= CROSS_TERM * (10 ** (-record.sqnr_db / 20) + ACTIVATION_ERROR)


def test_convolutions_in_small_groups_stay_and_say_so() -> None:
    net, module = grouped(4)
    QuantizeToTernary(planes=3).apply(net.context, module)
    (record,) = quantization_report(module, net.context.weights)
    assert record.kept_reason == "grouped convolution (group = 2) of 4 channels each, fewer than 16"


def test_grouped_scales_of_ternary_weights_are_exact() -> None:
    """Weights that are ternary and activations that are codes already: nothing is lost."""
    net = Net([4, 256])
    weight = net.rng.integers(-1, 2, (256, 8)).astype(np.float32) * np.float32(0.5)
    op = make_constant("w", weight, net.context.weights)
    net.function.body.block.add_op(op)
    module = net.finish(net.matmul(net.args[0], op.result, None, [4, 8]))
    x = net.rng.integers(-127, 128, (4, 256)).astype(np.float32)
    x[:, 0] = 127
    expected = run(module, net, x)
    QuantizeToTernary(planes=1, scale="group").apply(net.context, module)
    np.testing.assert_allclose(run(module, net, x), expected, rtol=1e-5)  # a few f32 roundings


def test_readers_of_one_value_share_its_codes() -> None:
    net = Net(["B", 32])
    outputs = [net.matmul(net.args[0], net.constant(32, 32), None, ["B", 32]) for _ in range(3)]
    chained = net.matmul(outputs[0], net.constant(32, 32), None, ["B", 32])
    module = net.finish(chained, *outputs)
    QuantizeToTernary().apply(net.context, module)
    assert sum(isinstance(op, QuantizeOp) for op in module.walk()) == 2
    assert sum(isinstance(op, LinearOp) for op in module.walk()) == 4


def test_report_before_and_after_tiling() -> None:
    net = Net(["B", 96])
    first = net.matmul(net.args[0], net.constant(96, 96), None, ["B", 96])
    second = net.matmul(first, net.constant(96, 8), None, ["B", 8])
    module = net.finish(net.matmul(second, net.constant(8, 4), None, ["B", 4]))
    store = net.context.weights
    names = [record.layer for record in quantization_report(module, store)]
    QuantizeToTernary(planes=2, layers=(f"{names[1]}=3",)).apply(net.context, module)
    records = quantization_report(module, store)
    assert [r.layer for r in records] == names
    assert [(r.n, r.k, r.planes, r.scale) for r in records] == [(96, 96, 2, "row"), (8, 96, 3, "row"), (4, 8, 0, "")]
    assert records[2].kept_reason == "K = 8 is below 16"
    assert records[0].bytes_before == 96 * 96 * 4
    assert records[0].bytes_after == 2 * 96 * 96 // 4 + 2 * 96 * 4
    TileLut().apply(net.context, module)
    records = quantization_report(module, store)
    assert [r.layer for r in records] == names
    assert [r.encoding for r in records] == ["tl2", "tl2", ""]
    assert records[0].bytes_after == 2 * 96 * 32 * 5 // 8 + 2 * 96 * 4  # five bits for three trits


def test_a_cache_fits_each_weight_once() -> None:
    net = Net(["B", 32])
    module = net.finish(net.matmul(net.args[0], net.constant(32, 32), None, ["B", 32]))
    fits, texts = FitCache(), list[str]()
    for planes in (2, 3, 2):
        copy = module.clone()
        QuantizeToTernary(planes=planes).using(fits).apply(net.context, copy)
        texts.append(str(copy))
    assert texts[0] == texts[2] != texts[1]
    assert len(fits) == 2


def test_weights_with_nan_stay_float() -> None:
    net = Net([2, 32])
    array = np.ones((32, 32), np.float32)
    array[3, 4] = np.nan
    op = make_constant("w", array, net.context.weights)
    net.function.body.block.add_op(op)
    module = net.finish(net.matmul(net.args[0], op.result, None, [2, 32]))
    QuantizeToTernary().apply(net.context, module)
    (record,) = quantization_report(module, net.context.weights)
    assert record.kept_reason == "its weight holds NaN or infinity"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"planes": 5}, "NEUC-E220"),
        ({"scale": "column"}, "NEUC-E220"),
        ({"layers": ("nothing=2",)}, "NEUC-E221"),
        ({"layers": ("matmul0=7",)}, "NEUC-E220"),
        ({"layers": ("matmul0",)}, "NEUC-E221"),
    ],
)
def test_bad_options(options: dict[str, object], code: str) -> None:
    net = Net([2, 32])
    module = net.finish(net.matmul(net.args[0], net.constant(32, 32), None, [2, 32]))
    with pytest.raises(Error) as caught:
        QuantizeToTernary(**options).apply(net.context, module)  # type: ignore[arg-type]
    assert caught.value.code == code
