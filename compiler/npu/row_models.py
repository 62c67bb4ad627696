"""What the machine model says about a row of measurements, by its kind. No figure here is fitted to a row.

Words of `config` that count stand in docs/npu.md and in the help of `neuc npu validate`; `row_config.py` checks them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import prod

from neuc.backends.npu import timing_model as timing
from neuc.backends.npu.known_machines import ARRAYS, find_machine
from neuc.compiler.npu.row_config import config_fault, shape_fault, tile_fault, type_fault
from neuc.compiler.npu.rows import Prediction, Row
from neuc.runtime.npu.machine import Machine, Sku

_MOST_DIGITS = 9
"""Of a size; far above what any array multiplies."""
_DEFAULT_TILE = (64, 64, 64)
_DEFAULT_TILE_I16 = (32, 32, 32)
"""mlir-aie's matrix multiplications of int16, whose example programs published rows mostly are."""
_RESIDENT = "jena"
"""Kernels measured on operands that lie in the core's memory already."""
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_SCALES = {"TOPS": 1e12, "TFLOPS": 1e12, "GOPS": 1e9, "GFLOPS": 1e9}
_GENERATIONS: Mapping[str, str] = {
    **dict.fromkeys(("npu1", "xdna1", "xdna", "npu-xdna1", "aie2"), "npu-xdna1"),
    **dict.fromkeys(("npu2", "npu4", "xdna2", "npu-xdna2", "aie2p"), "npu-xdna2"),
}
_LIBRARIES = (
    ("flm", "flm"),
    ("iron.gemm", "iron.GEMM"),
    ("chess", "chess"),
    ("whole_array", "stock"),
    ("peano", "stock"),
    ("stock", "stock"),
)


def known_devices() -> tuple[str, ...]:
    """Every name a row's device may have; partitions such as npu-xdna1-1col, and the beginnings of names, too."""
    products = sorted({name for machine in ARRAYS for name in find_machine(machine).skus})
    return (*sorted(_GENERATIONS), *products)


def known_kinds() -> tuple[str, ...]:
    """Every kind of row that is predicted."""
    return tuple(_MODELS)


def predict(row: Row, *, own_rates: bool) -> Prediction:
    """What the model says about one row; with `own_rates`, kernel rates that the row gives are not used."""
    machine, sku = _machine_for(row.device)
    if machine is None or sku is None:
        what = f"no machine model for device {row.device}" if row.device else "device is missing"
        why = f"{what}; known: {', '.join(known_devices())}"
        return Prediction(row, None, "", why_not=why)
    model = _MODELS.get(row.kind.strip().lower())
    if model is None:
        what = f"kind {row.kind} is an input of the model, or unknown" if row.kind else "kind is missing"
        return Prediction(row, None, "", why_not=f"{what}; known: {', '.join(_MODELS)}")
    why = config_fault(row.config, machine)
    if why:
        return Prediction(row, None, "", why_not=why)
    dispatch = re.search(r"\bdispatch=(\d{1,7}(?:\.\d+)?)us", row.config)
    if dispatch:
        sku = replace(sku, dispatch_us=float(dispatch[1]))
    if own_rates:
        row_without = replace(row, config=re.sub(r"\brate=\S+", "", row.config))
        return replace(model(row_without, machine, sku), row=row)
    return model(row, machine, sku)


def _machine_for(device: str) -> tuple[Machine | None, Sku | None]:
    name = re.sub(r"[\s.]+", "_", device.strip().lower())
    partition = re.fullmatch(r"(.+)[-_](\d)col", name)
    if partition is not None:
        whole, sku = _machine_for(partition[1])
        if whole is None or sku is None or not 1 <= int(partition[2]) <= whole.cols:
            return None, None
        return (whole if int(partition[2]) == whole.cols else find_machine(f"{whole.name}-{partition[2]}col")), sku
    if name in _GENERATIONS:
        machine = find_machine(_GENERATIONS[name])
        return machine, next(iter(machine.skus.values()))
    for array in ARRAYS if name else ():
        machine = find_machine(array)
        sku = timing.sku_of(machine, name)
        if sku is not None:
            return machine, sku
    return None, None


def _numbers(text: str) -> list[int]:
    """The sizes in a shape; none if one of them is no size."""
    found = re.findall(r"(-?\d+)(K?)", text)
    if any(len(n) > _MOST_DIGITS or int(n) <= 0 for n, _ in found):
        return []
    return [int(n) * (1024 if k else 1) for n, k in found]


def _type(text: str) -> timing.GemmType | None:
    """Element types of a product: `i8`, `i8->i16`, `i8 x i4`, `bf16_f32`; integers add up in 32 bits unless said."""
    operands, _, result = (
        re.sub(r"\bint(\d+)", r"i\1", text.replace(" ", "").lower()).replace("_", "->").partition("->")
    )
    a, _, b = operands.partition("x")
    b = b or a
    kind = timing.GemmType(a, b, result or {"i8": "i32", "i16": "i32"}.get(a, a))
    return kind if set(vars(kind).values()) <= set(timing.ELEMENT_BYTES) else None


def _library(row: Row) -> str:
    found = next((library for word, library in _LIBRARIES if word in row.config.lower()), "")
    if not found and row.device in ("ryzen_8700g", "strix_halo_max_pro"):
        return _RESIDENT
    if row.device.startswith("strix_halo_max395"):
        return "stock b_col_maj" if "b_col_maj" in row.config else "stock"
    return found


def _tile_of(config: str, default: tuple[int, int, int]) -> list[int]:
    given = re.search(r"(?:kernel|tile)s?[ =:]*(\d+)[x/](\d+)[x/](\d+)", config)
    return _numbers("x".join(given.groups())) if given else list(default)


def _cores(config: str, machine: Machine) -> tuple[int, int]:
    """Rows and columns of cores at work; the whole array unless the row says something else."""
    rows = sum(machine.classes[name].kind == "core" for name in machine.row_classes)
    if re.search(r"\b(one|1|single)[ _-]core\b", config):
        return 1, 1
    grid = re.search(r"(?<![\dx/])(\d)x(\d)(?![\dx/])", config)
    if grid and 1 <= int(grid[1]) <= rows and 1 <= int(grid[2]) <= machine.cols:
        return int(grid[1]), int(grid[2])
    columns = re.search(r"\b(\d+)[ _-]?col(?:umn)?s?\b", config)
    if columns and 1 <= int(columns[1]) <= machine.cols:
        return rows, int(columns[1])
    cores = re.search(r"\b(\d+) cores\b", config)
    if cores and 1 <= int(cores[1]) <= rows * machine.cols:
        count = int(cores[1])
        return (count, 1) if count < rows else (rows, max(1, count // rows))
    return rows, machine.cols


def _shim(row: Row, machine: Machine, sku: Sku) -> Prediction:
    words = _numbers(row.shape)
    if len(words) != 1:
        return Prediction(row, None, "", why_not=shape_fault(row.shape, words, "words"))
    direction = "MM2S" if "MM2S" in row.config.upper() else "S2MM"
    tasks = re.search(r"K ?= ?(\d{1,6})\b", row.config)
    chained = row.kind == "shim_chained"
    each = partial(timing.shim_task_cycles, machine, direction, words[0])
    cycles = each(first_of_many=chained and "first" in row.config)
    if chained and tasks and not re.search("first|following|next", row.config):
        cycles = each(first_of_many=True) + (int(tasks[1]) - 1) * cycles
    return _in_unit(row, cycles / sku.clock_hz, sku, 0, "")


def _on_chip(row: Row, machine: Machine, sku: Sku) -> Prediction:
    words = _numbers(row.shape)
    if len(words) != 1:
        return Prediction(row, None, "", why_not=shape_fault(row.shape, words, "words"))
    hops = re.search(r"hops ?= ?(\d{1,3})\b", row.config)
    cycles = timing.on_chip_cycles(machine, words[0], int(hops[1]) if hops else 1)
    return _in_unit(row, cycles / sku.clock_hz, sku, 0, "")


def _kernel(row: Row, machine: Machine, sku: Sku) -> Prediction:
    shape, kind = _numbers(row.shape), _type(row.dtype)
    why = shape_fault(row.shape, shape, "MxKxN") or type_fault(row.dtype, kind)
    if why or kind is None:
        return Prediction(row, None, "", why_not=why)
    library = _library(row)
    rate = timing.kernel_macs_per_cycle(
        machine, kind, timing.Tiling(shape[0], shape[1], shape[2], 1, 1), library, streamed=library != _RESIDENT
    )
    if rate is None:
        return Prediction(row, None, "", why_not=f"no figures for {kind.key} on {machine.name}; {_types(machine)}")
    macs = prod(shape)
    source = "library" if timing.has_library(machine, kind, library) else "model"
    if row.unit == "MAC/cycle":
        return Prediction(row, rate, source, macs / rate / sku.clock_hz)
    peak = timing.gemm_rate(machine, kind, library)
    if row.unit == "count" and "VMAC" in row.config and peak is not None:
        return Prediction(row, macs / peak.peak_macs_per_cycle, source, macs / rate / sku.clock_hz)
    return _in_unit(row, macs / rate / sku.clock_hz, sku, macs, source)


def _types(machine: Machine) -> str:
    return f"known: {', '.join(sorted(machine.gemm))}"


def _rate(text: str) -> float | None:
    try:
        rate = float(text)
    except ValueError:
        return None
    return rate if 0 < rate < float("inf") else None


def _gemm(row: Row, machine: Machine, sku: Sku) -> Prediction:
    shape, kind = _numbers(row.shape), _type(row.dtype)
    why = shape_fault(row.shape, shape, "MxKxN") or type_fault(row.dtype, kind)
    if why or kind is None:
        return Prediction(row, None, "", why_not=why)
    if "order=MxNxK" in row.config:
        shape = [shape[0], shape[2], shape[1]]
    library = _library(row) if row.kind == "gemm" else ""
    small = kind.a == "i16" and not timing.has_library(machine, kind, library)
    sizes = _tile_of(row.config, _DEFAULT_TILE_I16 if small else _DEFAULT_TILE)
    if len(sizes) != 3:
        return Prediction(row, None, "", why_not=f"config {row.config[:40]!r}: sizes of the tile make no sense")
    why = tile_fault((sizes[0], sizes[1], sizes[2]), kind, machine)
    if why:
        return Prediction(row, None, "", why_not=why)
    tile = timing.Tiling(sizes[0], sizes[1], sizes[2], *_cores(row.config, machine))
    given = re.search(r"rate=([\d.]+)", row.config)
    if given:
        rate, source = _rate(given[1]), "row"
        if rate is None:
            return Prediction(row, None, "", why_not=f"rate={given[1][:40]} is no number above 0")
    else:
        rate = timing.kernel_macs_per_cycle(machine, kind, tile, library)
        if rate is None:
            return Prediction(row, None, "", why_not=f"no figures for {kind.key} on {machine.name}; {_types(machine)}")
        source = "library" if timing.has_library(machine, kind, library) else "model"
    repeats = re.search(r"x(\d{1,9}) repeats", row.config)
    if repeats:
        each = prod(shape) / rate / sku.clock_hz  # operands stay on the array
        return _in_unit(row, int(repeats[1]) * each + sku.dispatch_us * 1e-6, sku, prod(shape), source)
    stated = re.search(r"([\d.]+) MB of DDR traffic", row.config)
    seconds = timing.gemm_seconds(
        machine,
        sku,
        kind,
        (shape[0], shape[1], shape[2]),
        tile,
        rate,
        padded=row.kind == "gemm",
        ddr_bytes=float(stated[1]) * 1e6 if stated else None,
        b_row_major=bool(re.search(r"b[_ -]row|row-major B|B row", row.config)),
    )
    return _in_unit(row, seconds, sku, prod(shape), source)


def _gemv(row: Row, machine: Machine, sku: Sku) -> Prediction:
    shape, kind = _numbers(row.shape), _type(row.dtype)
    why = shape_fault(row.shape, shape[:2], "MxK") or type_fault(row.dtype, kind)
    if why or kind is None:
        return Prediction(row, None, "", why_not=why)
    rows, cols = shape[0], shape[1]
    a, b, c = kind.nbytes
    moved = rows * cols * a + cols * b + rows * c
    seconds = timing.streamed_seconds(machine, sku, moved, rows * c, _cores(row.config, machine)[1], busy_cycles=0.0)
    return _in_unit(row, seconds, sku, rows * cols, "")


def _elementwise(row: Row, machine: Machine, sku: Sku, *, computes: bool) -> Prediction:
    sizes, kind = _numbers(row.shape), _type(row.dtype)
    why = shape_fault(row.shape, sizes, "sizes") or type_fault(row.dtype, kind)
    if why or kind is None:
        return Prediction(row, None, "", why_not=why)
    count = prod(sizes)
    # Unlike a product's sums, elements keep their type unless the row names another.
    result = kind.c if "->" in row.dtype else kind.a
    inputs = 2 if re.search(r"vector_vector|eltwise|two inputs|add|mul_vv", f"{row.kind} {row.config}") else 1
    rows, columns = _cores(row.config if "core" in row.config or "col" in row.config else "one core", machine)
    wide = max(timing.ELEMENT_BYTES[kind.a], timing.ELEMENT_BYTES[result])
    lanes = machine.timing["elementwise_lanes_8bit"] / wide
    seconds = timing.streamed_seconds(
        machine,
        sku,
        count * timing.ELEMENT_BYTES[kind.a] * inputs,
        count * timing.ELEMENT_BYTES[result],
        columns,
        busy_cycles=count / lanes / (rows * columns) if computes else 0.0,
    )
    return _in_unit(row, seconds, sku, count, "")


def _in_unit(row: Row, seconds: float, sku: Sku, macs: int, source: str) -> Prediction:
    if row.unit in ("cycles", "count"):
        return Prediction(row, seconds * sku.clock_hz, source, seconds)
    if row.unit in _SECONDS:
        return Prediction(row, seconds / _SECONDS[row.unit], source, seconds)
    if row.unit not in _SCALES or not macs:
        known = ", ".join(("cycles", *_SECONDS, *(_SCALES if macs else ())))
        what = f"unit {row.unit} is none that kind {row.kind} is predicted in" if row.unit else "unit is missing"
        why = f"{what}; known: {known}"
        return Prediction(row, None, source, why_not=why)
    return Prediction(row, 2 * macs / seconds / _SCALES[row.unit], source, seconds)


_MODELS: Mapping[str, Callable[[Row, Machine, Sku], Prediction]] = {
    "shim_single_bd": _shim,
    "shim_chained": _shim,
    "dma": _on_chip,
    "kernel": _kernel,
    "gemm": _gemm,
    "gemm_array": _gemm,
    "gemm_array_memory_bound": _gemm,
    "gemv": _gemv,
    **dict.fromkeys(("passthrough", "memcpy"), partial(_elementwise, computes=False)),
    **dict.fromkeys(
        ("elementwise", "vector_scalar", "vector_scalar_mul", "vector_vector", "vector_vector_add", "relu"),
        partial(_elementwise, computes=True),
    ),
}
