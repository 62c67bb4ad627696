"""Placed functions become segments of kind ``npu``: the array's program for one block, and the weights in its tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, ModuleOp, StringAttr, UnitAttr, i64
from xdsl.ir import Attribute

from neuc.backends.npu.array_products import merged_groups, pack_of
from neuc.backends.npu.build import build
from neuc.backends.npu.emit_finish import Ends, float_ends
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.requantize_constants import requantization, residual_of
from neuc.backends.npu.window_choice import Windows, window_of
from neuc.backends.placed import PlacedProgram
from neuc.dialects.dense_movement import PadOp, SliceOp, TransposeOp
from neuc.dialects.npu_products import GroupedAccumulateOp, MatmulOp, RequantizeOp
from neuc.dialects.npu_residual import AddCodesOp
from neuc.dialects.npu_windows import WindowsOp
from neuc.dialects.store import ConstantOp, constant_value, dims_of
from neuc.dialects.ternary import AccumulateOp, Im2ColOp, PackOp
from neuc.dialects.ternary_weights import defining_weight, weight_arrays
from neuc.dialects.weight_store import WeightStore
from neuc.errors import InternalError
from neuc.runtime.npu.functions import to_bf16
from neuc.runtime.npu.gemm import gemm_graph, with_sizes
from neuc.runtime.npu.gemm_plan import GemmPlan, finished_weights, tiled_weights
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import Design
from neuc.runtime.npu.program_json import design_to_json
from neuc.runtime.npu.requantize import Requantize, in_turn
from neuc.runtime.npu.residual import Residual
from neuc.runtime.npu.windows import Window

MACHINE = "npu.machine"
"""Attribute of a placed function: the machine's name, or the path of its file."""
PLAN = "npu.plan"
"""Attribute of a placed function: tiles m, k, n, ``spread`` and ``operands`` of its product, ``finish`` if it can, of
floats with how many words of ``tables``, which are the program's if ``resident``."""
SWITCH = "npu.switch"
"""Attribute of a placed function before which the array's program changes."""


def plan_attribute(plan: GemmPlan) -> DictionaryAttr:
    """A plan as an attribute; rows and columns are the machine's."""
    sizes = {name: IntegerAttr(getattr(plan, name), i64) for name in ("m", "k", "n")}
    finish: dict[str, Attribute] = {"finish": UnitAttr()} if plan.finish else {}
    if plan.tables:
        finish |= {"tables": IntegerAttr(plan.tables, i64), **({"resident": UnitAttr()} if plan.resident else {})}
    return DictionaryAttr({**sizes, "spread": StringAttr(plan.spread), "operands": StringAttr(plan.operands), **finish})


def _plan_of(function: func.FuncOp, machine: Machine) -> GemmPlan:
    plan = function.attributes.get(PLAN)
    if not isinstance(plan, DictionaryAttr):
        raise InternalError(f"@{function.sym_name.data} has no plan for its product")
    sizes = [value.value.data for name in ("m", "k", "n") if isinstance(value := plan.data[name], IntegerAttr)]
    words = [value.data for name in ("operands", "spread") if isinstance(value := plan.data[name], StringAttr)]
    tables = value.value.data if isinstance(value := plan.data.get("tables"), IntegerAttr) else 0
    tile = (sizes[0], sizes[1], sizes[2])
    return GemmPlan.on(machine, tile, words[0], words[1], "finish" in plan.data, tables, "resident" in plan.data)


@lru_cache
def block_program(name: str, plan: GemmPlan) -> Design:
    """The product of a few blocks, placed, routed and checked; other sizes only change its sequence and steps.

    As many blocks as a shim's queue holds tasks, so that every task has its descriptors.

    Raises:
        Error: NEUC-E675 … E678, the machine cannot hold it.
    """
    machine = find_machine(name)
    graph = gemm_graph(plan, machine, 1)
    dma = machine.classes["shim"].dma
    tasks = 1 if dma is None else dma.queue_depth
    return build(with_sizes(graph, plan, machine, (tasks * plan.block_m, plan.k, plan.block_n)), machine).design


@lru_cache
def _program_data(name: str, plan: GemmPlan) -> dict[str, object]:
    """Its JSON data, which many products share."""
    return design_to_json(block_program(name, plan))


def emit_segment(function: func.FuncOp, module: ModuleOp, store: WeightStore) -> PlacedProgram:
    """The segment of a placed product, or of several: `ternary.pack` and a sum of its products, or `npu.matmul`."""
    name = function.attributes.get(MACHINE)
    if not isinstance(name, StringAttr):
        raise InternalError(f"@{function.sym_name.data} is placed on no machine")
    machine = find_machine(name.data)
    plan = _plan_of(function, machine)
    data: dict[str, object] = {
        "machine": dict(machine.data),
        "program": _program_data(name.data, plan),
        "tile": [plan.m, plan.k, plan.n],
        "spread": plan.spread,
        "operands": plan.operands,
        "finishing": plan.finish,
        "codes": {},
        "floats": {},
        "tables": [],
        "room": plan.tables,
        "planes": 0,
        "other": 0,
        "window": {},
        "pixels": [],
        "laid_out": False,
        "into": {},
        "switch": SWITCH in function.attributes,
    }
    ops = list(function.body.block.ops)
    finished = [op for op in ops if isinstance(op, RequantizeOp)]
    integers = [op for op in ops if isinstance(op, AccumulateOp)]
    sums = next((op for op in ops if isinstance(op, AddCodesOp)), None)
    residual = None if sums is None else residual_of(sums, store)
    if sums is not None:
        data["other"] = function.body.block.args.index(sums.other)
    windows = next((op for op in ops if isinstance(op, Im2ColOp | WindowsOp)), None)
    if any(isinstance(op, TransposeOp) for op in ops) and windows is not None:
        data["pixels"] = [dim.value for dim in dims_of(windows.operands[0])[2:]]
        data["laid_out"] = any(isinstance(op, SliceOp) for op in ops)
    padded = next((op for op in ops if isinstance(op, PadOp)), None)
    if padded is not None:
        sizes = [dim.value for dim in dims_of(padded.result)[1:]]
        top, left = padded.pads.get_values()[1:3]
        data["into"] = {**dict(zip(("lines", "pixels", "pixel"), sizes)), "top": top, "left": left}
    grouped = next((op for op in ops if isinstance(op, GroupedAccumulateOp)), None)
    floats = [op for op in ops if isinstance(op, MatmulOp)]
    if grouped is not None:
        return _grouped(grouped, (finished, residual), plan, {**data, "transposed": True}, store, windows)
    if integers:
        found = [_levels(op, store) for op in integers]
        parts, group = [part for part, _ in found], found[0][1]
    elif floats:
        return _floats(floats, windows, float_ends(floats, plan, module, store), plan, data, store)
    else:
        parts, group = [], 0
    if not parts:
        raise InternalError(f"@{function.sym_name.data} is no product placed on an NPU")
    rows = np.ascontiguousarray(np.concatenate(parts))
    if windows is not None:
        window = window_of(windows)
        rows, data = _in_runs(rows, window, plan), {**data, "window": _plain(window)}
        group = rows.shape[1]
    sizes = {"columns": rows.shape[1], "outputs": [len(part) for part in parts], "group": group, "transposed": True}
    starts = range(0, rows.shape[1], group)
    tiles = [tiled_weights(plan, _widened(rows[:, begin : begin + group], group)) for begin in starts]
    if finished:
        stages = requantization([op for op in finished if isinstance(op.acc.owner, AccumulateOp)], store)
        tiles = [finished_weights(plan, tile, stages, residual) for tile in tiles]
        data = {**data, "codes": vars(in_turn(stages, residual))}
    return PlacedProgram({**data, **sizes}, {"b": np.stack(tiles)})


def _floats(
    products: Sequence[MatmulOp],
    windows: Windows | None,
    ends: Ends,
    plan: GemmPlan,
    data: dict[str, object],
    store: WeightStore,
) -> PlacedProgram:
    """A product in bf16: of activations, of weights, or of groups of weights; and what follows it on the cores."""
    first = products[0]
    data = {**data, **ends.data, "transposed": True}
    if not isinstance(first.b.owner, ConstantOp):
        stacked = {"columns": 0, "outputs": [], "group": 0, "transposed": first.transpose_b is not None}
        return PlacedProgram({**data, **stacked}, {**ends.weights, **ends.open_weights})
    parts = [_bf16_rows(product, store) for product in products]
    matrices = parts[0] if first.group_count else np.concatenate(parts)[None]
    if windows is not None:
        window = window_of(windows, len(matrices))
        matrices = np.stack([_in_runs(matrix, window, plan) for matrix in matrices])
        data = {**data, "window": _plain(window)}
    groups, width, depth = matrices.shape
    sizes: dict[str, object] = {"columns": groups * depth, "group": depth}
    outputs = [width] if first.group_count else [len(part) for part in parts]
    sizes |= {"outputs": outputs, "planes": 1 if first.group_count else 0}
    tiles = [ends.behind(plan, tiled_weights(plan, rows), i * width, width) for i, rows in enumerate(matrices)]
    return PlacedProgram({**data, **sizes}, {"b": np.stack(tiles), **ends.weights})


def _plain(window: Window) -> dict[str, object]:
    """A window as JSON data."""
    lists = {name: list(getattr(window, name)) for name in ("kernel", "strides", "pads", "dilations")}
    return {"channels": window.channels, "parts": window.parts, **lists}


def _in_runs(rows: np.ndarray, window: Window, plan: GemmPlan) -> np.ndarray:
    """Weights [N, columns] in the order of transfers: those of floats by place in the kernel, of codes by channel."""
    channels = window.channels // window.parts
    if window.dtype == "bf16":
        return window.weights(rows.reshape(len(rows), *window.kernel, channels), plan.k)
    return window.weights(rows.reshape(len(rows), channels, *window.kernel).transpose(0, 2, 3, 1), plan.k)


def _grouped(
    product: GroupedAccumulateOp,
    after: tuple[Sequence[RequantizeOp], Residual | None],
    plan: GemmPlan,
    data: dict[str, object],
    store: WeightStore,
    windows: Im2ColOp | WindowsOp | None,
) -> PlacedProgram:
    """A grouped convolution's product: groups merged into blocks of weights along a diagonal."""
    trits, _ = weight_arrays(defining_weight(pack_of(product).weight), store)
    (planes, outputs, columns), merged = trits.shape, merged_groups(product)
    each, blocks_of = outputs // product.group_count, product.group_count // merged
    blocks = np.zeros((blocks_of, planes, merged, each, merged, columns), np.int8)
    inside = np.arange(merged)
    by_group = trits.reshape(planes, blocks_of, merged, each, columns).transpose(2, 1, 0, 3, 4)
    blocks[:, :, inside, :, inside] = by_group
    rows = blocks.reshape(blocks_of, planes * merged * each, merged * columns)
    if windows is not None:
        window = window_of(windows, blocks_of)
        rows = np.stack([_in_runs(block, window, plan) for block in rows])
        data = {**data, "window": _plain(window)}
    tiles = [tiled_weights(plan, block) for block in rows]
    finished, residual = after
    if finished:
        stages = requantization(finished[:1], store)
        data = {**data, "codes": vars(in_turn(stages, residual))}
        width = merged * each
        parts = [_part(stages, i * width, width) for i in range(len(tiles))]
        tiles = [finished_weights(plan, tile, part, residual) for tile, part in zip(tiles, parts)]
    sizes = {"columns": blocks_of * rows.shape[2], "outputs": [rows.shape[1]], "group": rows.shape[2]}
    return PlacedProgram({**data, **sizes, "planes": planes}, {"b": np.stack(tiles)})


def _part(stages: Sequence[Requantize], begin: int, count: int) -> list[Requantize]:
    """The parameters of some columns."""
    part = slice(begin, begin + count)
    return [
        replace(
            stage,
            multiplier=stage.multiplier[part],
            addend=stage.addend[part],
            limits=stage.limits[part],
            corrections=stage.corrections[part],
        )
        for stage in stages
    ]


def _levels(product: AccumulateOp, store: WeightStore) -> tuple[np.ndarray, int]:
    """The int8 rows of a product's weights, plane after plane, and the columns that share a scale."""
    pack = product.packed.owner
    assert isinstance(pack, PackOp)
    trits, _ = weight_arrays(defining_weight(pack.weight), store)
    return trits.reshape(-1, trits.shape[2]), pack.packed.group_size


def _bf16_rows(product: MatmulOp, store: WeightStore) -> np.ndarray:
    """Constant weights as rows [N, K] of bf16 bits, or [groups, N, K]."""
    weight = constant_value(product.b, store)
    assert weight is not None
    return to_bf16(weight if product.transpose_b is not None else weight.swapaxes(-1, -2))


def _widened(rows: np.ndarray, columns: int) -> np.ndarray:
    """A last group of columns, filled up to the others' width."""
    return np.pad(rows, ((0, 0), (0, columns - rows.shape[1])))
