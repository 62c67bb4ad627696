"""Mapping layers to crossbars leaves what a model computes as it was; converters, faults and schedules are as told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdsl.dialects import func
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, StringAttr, TensorType, f32
from xdsl.ir import Attribute, Operation, SSAValue

from neuc.backends.crossbar.packing import pack
from neuc.backends.crossbar.remap import RemapStuck, better_negated
from neuc.backends.crossbar.schedule import ScheduleTiles
from neuc.dialects.context import NeucContext
from neuc.dialects.crossbar import AccumulateOp, AdcOp, DacOp, MvmOp, chain_of
from neuc.dialects.crossbar_tiles import ProgramOp
from neuc.dialects.dense import ConvOp, LstmOp, MatMulOp
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.interp.core import interpret
from neuc.dialects.spike_time import LoopOp
from neuc.dialects.store import make_constant, tensor_type
from neuc.dialects.ternary import LinearOp
from neuc.errors import Error
from neuc.passes.calibrate_inputs import CalibrateInputs
from neuc.passes.crossbar_layers import balanced, tile_count
from neuc.passes.insert_converters import InsertConverters
from neuc.passes.map_to_crossbar import MapToCrossbar
from neuc.passes.module_facts import facts_of, notes_of
from neuc.passes.quantize_to_ternary import QuantizeToTernary
from neuc.passes.unroll_lstm import UnrollLstm
from neuc.runtime.analog.models import make_model
from neuc.runtime.analog.program import MANIFEST_KEY
from neuc.runtime.analog.tiles import Chip
from segment_harness import function_of

RELATIVE = 2e-6
"""f32 sums of a few hundred products, in another order and with weights divided and multiplied by their scale."""
Builder = Callable[[NeucContext, Sequence[SSAValue]], Sequence[Operation]]
RNG = np.random.default_rng(0)


def module_of(ctx: NeucContext, inputs: Sequence[Attribute], build: Builder) -> ModuleOp:
    function = function_of(inputs, lambda args: build(ctx, args))
    names = [DictionaryAttr({"onnx.name": StringAttr(f"in{i}")}) for i in range(len(inputs))]
    function.properties["arg_attrs"] = ArrayAttr(names)
    results = [DictionaryAttr({"onnx.name": StringAttr(f"out{i}")}) for i in range(len(function.function_type.outputs))]
    function.properties["res_attrs"] = ArrayAttr(results)
    return ModuleOp([function])


def constant(ctx: NeucContext, *shape: int) -> Any:
    array = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
    return make_constant(f"w{shape}", array, ctx.weights)


def matmul(rows: int, columns: int, transpose_b: bool = False) -> tuple[list[Attribute], Builder]:
    def build(ctx: NeucContext, args: Sequence[SSAValue]) -> Sequence[Operation]:
        w = constant(ctx, *((columns, rows) if transpose_b else (rows, columns)))
        b = constant(ctx, 1, columns)
        result = TensorType(f32, [2, 3, columns])
        relu = ActivationAttr.of("relu")
        return [w, b, MatMulOp(args[0], w.result, b.result, result, transpose_b=transpose_b, activation=relu)]

    return [TensorType(f32, [2, 3, rows])], build


def conv(
    channels: int, out: int, group: int, kernel: tuple[int, int], pads: int = 1
) -> tuple[list[Attribute], Builder]:
    def build(ctx: NeucContext, args: Sequence[SSAValue]) -> Sequence[Operation]:
        w, b = constant(ctx, out, channels // group, *kernel), constant(ctx, out)
        size = [(n + 2 * pads - (k - 1) - 1) // 2 + 1 for n, k in zip((9, 11), kernel)]
        return [
            w,
            b,
            ConvOp(
                args[0],
                w.result,
                b.result,
                tensor_type(f32, [2, out, *size]),
                strides=(2, 2),
                pads=(pads,) * 4,
                dilations=(1, 1),
                group=group,
            ),
        ]

    return [TensorType(f32, [2, channels, 9, 11])], build


LAYERS = {
    "one tile": matmul(30, 20),
    "cut both ways": matmul(70, 50),
    "transposed weights": matmul(40, 33, transpose_b=True),
    "convolution": conv(5, 7, 1, (3, 2)),
    "pointwise": conv(6, 9, 1, (1, 1), pads=0),
    "grouped": conv(8, 12, 4, (3, 3)),
    "depthwise": conv(10, 10, 10, (3, 3)),
}


def run(module: ModuleOp, ctx: NeucContext) -> np.ndarray:
    (main,) = (op for op in module.ops if isinstance(op, func.FuncOp))
    arrays = [
        np.random.default_rng(7).standard_normal(t.get_shape()).astype(np.float32)  # type: ignore[union-attr]
        for t in main.function_type.inputs.data
    ]
    (result,) = interpret(module, arrays, ctx.weights)
    return result


@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("layer", LAYERS)
def test_ideal_tiles_compute_what_the_layer_does(layer: str, slices: int) -> None:
    ctx, (inputs, build) = NeucContext(), LAYERS[layer]
    module = module_of(ctx, inputs, build)
    before = run(module, ctx)
    (mapped,) = (op for op in module.walk() if isinstance(op, MatMulOp | ConvOp))
    announced = slices * tile_count(mapped, 32, 24)
    MapToCrossbar(rows=32, columns=24, slices=slices).apply(ctx, module)
    module.verify()
    assert sum(isinstance(op, ProgramOp) for op in module.walk()) == announced
    assert not any(isinstance(op, MatMulOp | ConvOp) for op in module.walk())
    after = run(module, ctx)
    np.testing.assert_allclose(after, before, atol=RELATIVE * 100, rtol=0)
    for op in module.walk():
        if isinstance(op, ProgramOp):
            weights = ctx.weights.get(op.weights.data)
            assert weights.shape[0] <= 32
            assert weights.shape[1] <= 24
            assert np.abs(weights).max() <= 1.0


@pytest.mark.parametrize("planes", [1, 2])
def test_trits_are_device_pairs_at_full_scale(planes: int) -> None:
    ctx, (inputs, build) = NeucContext(), matmul(48, 20)
    module = module_of(ctx, inputs, build)
    QuantizeToTernary(planes=planes).apply(ctx, module)
    before = run(module, ctx)
    MapToCrossbar(rows=32, columns=24).apply(ctx, module)
    held = [ctx.weights.get(op.weights.data) for op in module.walk() if isinstance(op, ProgramOp)]
    assert len(held) == 2 * planes
    assert set(np.unique(np.concatenate([w.ravel() for w in held]))) <= {-1.0, 0.0, 1.0}
    after = run(module, ctx)
    # The CPU rounds activations to int8, an ideal converter does not: 1/127 of the largest, summed up at random.
    assert np.linalg.norm(after - before) < 0.02 * np.linalg.norm(before)


@pytest.mark.parametrize("mode", ["one-pass", "pos-neg", "bit-serial", "pwm"])
def test_input_modes_differ_in_rounding_alone(mode: str) -> None:
    ctx, (inputs, build) = NeucContext(), matmul(40, 20)
    module = module_of(ctx, inputs, build)
    before = run(module, ctx)
    MapToCrossbar(rows=32, columns=24).apply(ctx, module)
    InsertConverters(dac_bits=10, adc_bits=0, mode=mode).apply(ctx, module)
    module.verify()
    after = run(module, ctx)
    assert np.linalg.norm(after - before) < 0.01 * np.linalg.norm(before)
    tiles = sum(isinstance(op, ProgramOp) for op in module.walk())
    conversions = sum(isinstance(op, AdcOp) for op in module.walk())
    assert conversions == tiles * {"pos-neg": 2, "bit-serial": 9}.get(mode, 1)


def test_what_has_no_constant_weights_stays_and_is_told() -> None:
    ctx = NeucContext()
    types = [TensorType(f32, [4, 5]), TensorType(f32, [5, 6])]
    module = module_of(ctx, types, lambda ctx, args: [MatMulOp(args[0], args[1], None, TensorType(f32, [4, 6]))])
    MapToCrossbar().apply(ctx, module)
    assert any(isinstance(op, MatMulOp) for op in module.walk())
    assert "both operands are activations" in notes_of(module)[0]


def test_weights_that_are_no_numbers_are_refused() -> None:
    ctx = NeucContext()

    def build(ctx: NeucContext, args: Sequence[SSAValue]) -> Sequence[Operation]:
        w = make_constant("bad", np.array([[1.0, np.inf] * 20] * 3, np.float32), ctx.weights)
        return [w, MatMulOp(args[0], w.result, None, TensorType(f32, [2, 40]))]

    module = module_of(ctx, [TensorType(f32, [2, 3])], build)
    with pytest.raises(Error) as caught:
        MapToCrossbar().apply(ctx, module)
    assert caught.value.code == "NEUC-E650"
    assert "bad" in str(caught.value)


def test_ranges_are_calibrated_on_data(tmp_path: Path) -> None:
    ctx, (inputs, build) = NeucContext(), matmul(40, 20)
    module = module_of(ctx, inputs, build)
    MapToCrossbar(rows=20, columns=24).apply(ctx, module)
    x = np.random.default_rng(0).standard_normal((2, 3, 40)).astype(np.float32)
    np.savez(tmp_path / "data.npz", in0=x)
    CalibrateInputs(str(tmp_path / "data.npz")).apply(ctx, module)
    ranges = [chain_of(op.currents)[1].range.value.data for op in module.walk() if isinstance(op, AdcOp)]
    sizes = [np.abs(x[..., :20].astype(np.float64)), np.abs(x[..., 20:].astype(np.float64))]
    assert ranges == pytest.approx([min(s.max(), s.mean() + 3 * s.std()) for s in sizes])
    np.savez(tmp_path / "other.npz", wrong=x)
    with pytest.raises(Error) as caught:
        CalibrateInputs(str(tmp_path / "other.npz")).apply(ctx, module)
    assert caught.value.code == "NEUC-E654"
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(Error, match=r"it is no \.npz file"):
        CalibrateInputs(str(tmp_path / "text.npz")).apply(ctx, module)


def test_columns_are_negated_where_stuck_devices_make_that_better() -> None:
    chip = Chip(make_model("pcm"), stuck_low=0.05, stuck_high=0.05, chip=3)
    ctx, (inputs, build) = NeucContext(), matmul(40, 20)
    module = module_of(ctx, inputs, build)
    before = run(module, ctx)
    MapToCrossbar(rows=64, columns=64).apply(ctx, module)
    (weights,) = (ctx.weights.get(op.weights.data) for op in module.walk() if isinstance(op, ProgramOp))
    RemapStuck().on(chip).apply(ctx, module)
    (turned,) = (ctx.weights.get(op.weights.data) for op in module.walk() if isinstance(op, ProgramOp))
    flips = better_negated(weights, chip, 0)
    assert 0 < flips.sum() < len(flips)
    np.testing.assert_array_equal(turned, np.where(flips, -weights, weights))
    np.testing.assert_allclose(run(module, ctx), before, atol=RELATIVE * 100)

    def error(held: np.ndarray) -> float:
        stuck = chip.stuck(0, held.shape)
        found = [np.where(np.isnan(s), g, s) for g, s in zip(chip.targets(held.astype(float)), stuck)]
        return float(np.sum((chip.weights(found) - held) ** 2))

    assert error(turned) < error(weights)


def test_a_schedule_places_every_tile_once_and_counts_steps() -> None:
    ctx = NeucContext()

    def build(ctx: NeucContext, args: Sequence[SSAValue]) -> Sequence[Operation]:
        first, second = constant(ctx, 40, 30), constant(ctx, 30, 10)
        hidden = MatMulOp(args[0], first.result, None, TensorType(f32, [5, 30]))
        return [first, second, hidden, MatMulOp(hidden.result, second.result, None, TensorType(f32, [5, 10]))]

    module = module_of(ctx, [TensorType(f32, [5, 40])], build)
    MapToCrossbar(rows=32, columns=32).apply(ctx, module)
    ScheduleTiles(32, 32).on(Chip(make_model("pcm"))).apply(ctx, module)
    tiles = facts_of(module)["crossbar"]["tiles"]  # type: ignore[index, call-overload]
    assert [tile["step"] for tile in tiles] == [0, 0, 1]
    taken = np.zeros((8, 32, 32), int)
    for tile in tiles:
        row, column = tile["row"], tile["column"]
        taken[tile["core"], row : row + tile["rows"], column : column + tile["columns"]] += 1
    assert taken.max() == 1
    assert taken.sum() == 40 * 30 + 30 * 10


def test_spare_arrays_hold_copies_of_what_is_slowest() -> None:
    ctx, (inputs, build) = NeucContext(), conv(5, 7, 1, (3, 2))
    module = module_of(ctx, inputs, build)
    MapToCrossbar(rows=32, columns=32).apply(ctx, module)
    ScheduleTiles(32, 32, cores=4).on(Chip(make_model("pcm"))).apply(ctx, module)
    (tile,) = facts_of(module)["crossbar"]["tiles"]  # type: ignore[index, call-overload]
    assert tile["copies"] == 4


def test_layers_larger_than_the_chip_are_refused() -> None:
    ctx, (inputs, build) = NeucContext(), matmul(70, 50)
    module = module_of(ctx, inputs, build)
    MapToCrossbar(rows=16, columns=16).apply(ctx, module)
    with pytest.raises(Error) as caught:
        ScheduleTiles(16, 16, cores=3).apply(ctx, module)
    assert caught.value.code == "NEUC-E653"


@pytest.mark.parametrize("group", ["tensor", "group"])
def test_tiles_of_ternary_layers_are_counted_before_they_are_made(group: str) -> None:
    ctx, (inputs, build) = NeucContext(), matmul(256, 50)
    module = module_of(ctx, inputs, build)
    QuantizeToTernary(planes=2, scale=group).apply(ctx, module)
    (layer,) = (op for op in module.walk() if isinstance(op, LinearOp))
    announced = tile_count(layer, 40, 24)
    MapToCrossbar(rows=40, columns=24).apply(ctx, module)
    assert sum(isinstance(op, ProgramOp) for op in module.walk()) == announced


def test_tiles_without_number_are_refused_before_any_is_made() -> None:
    ctx, (inputs, build) = NeucContext(), matmul(200, 51)
    module = module_of(ctx, inputs, build)
    with pytest.raises(Error, match="10200 tiles") as caught:
        MapToCrossbar(rows=1, columns=1).apply(ctx, module)
    assert caught.value.code == "NEUC-E663"
    assert not any(isinstance(op, ProgramOp) for op in module.walk())


def test_packing_overlaps_nothing_and_wastes_little() -> None:
    rng = np.random.default_rng(0)
    tiles = [(int(a), int(b)) for a, b in rng.integers(1, 65, (60, 2))]
    places = pack(tiles, 64, 64)
    taken = np.zeros((60, 64, 64), int)
    for (rows, columns), place in zip(tiles, places, strict=True):
        part = taken[place.array, place.row : place.row + rows, place.column : place.column + columns]
        assert part.shape == (rows, columns)
        part += 1
    assert taken.max() == 1
    arrays = 1 + max(place.array for place in places)
    assert taken.sum() > 0.6 * arrays * 64 * 64


@pytest.mark.parametrize(("size", "most", "expected"), [(600, 512, [300, 300]), (7, 3, [3, 2, 2]), (5, 9, [5])])
def test_parts_are_balanced(size: int, most: int, expected: list[int]) -> None:
    assert [count for _, count in balanced(size, most)] == expected


def test_a_second_accumulate_is_left_alone() -> None:
    """Parts that are split already are not split again."""
    ctx, (inputs, build) = NeucContext(), matmul(20, 10)
    module = module_of(ctx, inputs, build)
    MapToCrossbar().apply(ctx, module)
    InsertConverters(mode="pos-neg", adc_bits=0).apply(ctx, module)
    text = str(module)
    (total,) = (op for op in module.walk() if isinstance(op, AccumulateOp))
    assert total.factors.get_values() == (1.0, -1.0)
    InsertConverters(mode="pos-neg", adc_bits=0).apply(ctx, module)
    assert str(module) == text


def lstm_module(ctx: NeucContext, steps: int | str, direction: str, given: int) -> tuple[ModuleOp, list[np.ndarray]]:
    """An LSTM over so many steps (4 for a symbol), and its inputs."""
    ways, batch, width, hidden = 2 if direction == "bidirectional" else 1, 3, 5, 6
    types = [tensor_type(f32, [steps, batch, width]), *[TensorType(f32, [ways, batch, hidden])] * 2]

    def build(ctx: NeucContext, args: Sequence[SSAValue]) -> Sequence[Operation]:
        shapes = ((ways, 4 * hidden, width), (ways, 4 * hidden, hidden), (ways, 8 * hidden))
        weights = [constant(ctx, *shape) for shape in shapes]
        operands = [args[0], *(w.result for w in weights), args[1], args[2]][:given]
        state = TensorType(f32, [ways, batch, hidden])
        results = [tensor_type(f32, [steps, ways, batch, hidden]), state, state]
        return [*weights, LstmOp(operands, hidden=hidden, direction=direction, result_types=results)]

    rng = np.random.default_rng(3)
    count = 4 if isinstance(steps, str) else steps
    shapes = ((count, batch, width), (ways, batch, hidden), (ways, batch, hidden))
    return module_of(ctx, types, build), [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("given", [3, 4, 6], ids=["no bias", "bias", "states"])
@pytest.mark.parametrize("steps", [4, "T"], ids=["unrolled", "loop"])
def test_an_unrolled_lstm_is_the_lstm_and_shares_its_tiles(direction: str, given: int, steps: int | str) -> None:
    ctx, ways = NeucContext(), 2 if direction == "bidirectional" else 1
    module, arrays = lstm_module(ctx, steps, direction, given)
    before = interpret(module, arrays, ctx.weights)
    UnrollLstm().apply(ctx, module)
    module.verify()
    assert not any(isinstance(op, LstmOp) for op in module.walk())
    assert sum(isinstance(op, LoopOp) for op in module.walk()) == (ways if steps == "T" else 0)
    for found, wanted in zip(interpret(module, arrays, ctx.weights), before, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    MapToCrossbar(rows=64, columns=64).apply(ctx, module)
    module.verify()
    # W and R of each direction, however many steps there are.
    assert sum(isinstance(op, ProgramOp) for op in module.walk()) == 2 * ways
    turns = [op.turn.value.data for op in module.walk() if isinstance(op, AdcOp)]
    assert sorted(turns) == sorted([0, *(range(4) if steps == 4 else [0])] * ways)
    for found, wanted in zip(interpret(module, arrays, ctx.weights), before, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_noise_in_a_loop_is_that_of_the_steps_one_by_one(direction: str) -> None:
    """A tile's noise is drawn for its number, its use and the sample; in a loop the use is the step."""
    found: list[list[np.ndarray]] = []
    for steps in (4, "T"):
        ctx = NeucContext()
        module, arrays = lstm_module(ctx, steps, direction, 4)
        UnrollLstm().apply(ctx, module)
        MapToCrossbar().apply(ctx, module)
        InsertConverters(mode="pos-neg", out_noise=0.04, cycle_noise=0.02, doublings=2, input_range=1.5).apply(
            ctx, module
        )
        found.append(interpret(module, arrays, ctx.weights))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_long_sequences_are_loops_whose_tiles_are_placed_and_calibrated(tmp_path: Path) -> None:
    ctx = NeucContext()
    module, arrays = lstm_module(ctx, 9, "forward", 6)
    UnrollLstm(steps=8).apply(ctx, module)
    MapToCrossbar(rows=64, columns=64).apply(ctx, module)
    (loop,) = (op for op in module.walk() if isinstance(op, LoopOp))
    programs = [op for op in module.walk() if isinstance(op, ProgramOp)]
    assert all(op.parent_op() is loop.parent_op() for op in programs)  # once, before the loop
    np.savez(tmp_path / "data.npz", allow_pickle=False, **{f"in{i}": array for i, array in enumerate(arrays)})
    CalibrateInputs(str(tmp_path / "data.npz")).apply(ctx, module)
    (recurrent,) = (op for op in loop.walk() if isinstance(op, DacOp))
    hidden = interpret(module, arrays, ctx.weights)[0]
    assert 0.1 < recurrent.range.value.data <= max(np.abs(arrays[1]).max(), np.abs(hidden).max())
    ScheduleTiles(64, 64).on(Chip(make_model("pcm", {}))).apply(ctx, module)
    products = [op for op in module.walk() if isinstance(op, MvmOp)]
    assert [op.step.value.data for op in products if op.step is not None] == [0, 1]
    entries = {entry["number"]: entry for entry in facts_of(module)[MANIFEST_KEY]["tiles"]}  # type: ignore[index]
    assert [entries[number]["conversions"] for number in (0, 1)] == [3, 9]
