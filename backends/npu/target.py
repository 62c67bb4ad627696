"""The NPU targets: arrays that take a model's integer products, the CPU everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xdsl.passes import ModulePass

from neuc.backends.npu.array_products import FREE
from neuc.backends.npu.finish_floats import FinishFloats, NarrowResults
from neuc.backends.npu.finish_products import FinishProducts
from neuc.backends.npu.fold_codes import FoldCodes
from neuc.backends.npu.grouped_products import GroupedProducts
from neuc.backends.npu.hoist_maps import HoistMaps
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.place_products import PlaceNpu
from neuc.backends.npu.place_rows import PlaceRows
from neuc.backends.npu.residuals import MODES as RESIDUALS
from neuc.backends.npu.residuals import AddResiduals
from neuc.backends.npu.tiling import GRAIN
from neuc.backends.npu.use_bf16 import Bf16Products
from neuc.backends.npu.use_rows import MODES, Bf16Rows
from neuc.backends.paradigm_target import CALIBRATED, SCALES_OPTION, ParadigmTarget, option_error
from neuc.errors import Error
from neuc.passes.fuse_maps import FuseMaps
from neuc.passes.tile_lut import TileLut
from neuc.runtime.npu.machine import Machine

OPTIONS = {
    "machine": "path of a machine file (.toml) in place of the one that comes with neuc",
    "columns": "of the array's columns, how many are used",
    "float": "where float products run: cpu, or bf16 for the array, with float32 sums (default cpu)",
    "elementwise": "with float=bf16: other float work on the array: auto (where it pays), always, never (default auto)",
    SCALES_OPTION: "of int8 activations: calibrated (fixed, the default with --calib) or run-time (of each input)",
    "finish": "who does what follows products' sums column by column (int8 codes; float=bf16: bias, activation): array "
    "where it can, or cpu (default array)",
    "residuals": "where codes of two tensors are added: auto (where it pays), array, or cpu (default auto)",
    "grouped": "where grouped and depthwise int8 or ternary convolutions run: array or cpu (default array)",
    "least": "products of fewer multiply-adds stay on the CPU (default 0: a dispatch costs more than small ones take)",
    "free": f"what a size left free is taken to be when tiles are chosen (default {FREE})",
}

_ROUNDING = (Bf16Products, FuseMaps, HoistMaps, FinishFloats, Bf16Rows, NarrowResults)
_MOST_FREE = 65536
_MOST_DIGITS = 9


def _passes(name: str, options: Mapping[str, str]) -> Sequence[ModulePass]:
    machine = options.get("machine", name)
    if "columns" in options:
        if not options["columns"].isdecimal() or len(options["columns"]) > _MOST_DIGITS:
            raise option_error(name, "columns", options["columns"], "a number of columns")
    try:
        found = find_machine(machine)
    except Error as error:
        raise option_error(name, "machine", machine, f"{error.message}; {error.hint}") from error
    columns = int(options.get("columns", found.cols))
    if not 1 <= columns <= found.cols:
        why = f"no partition of {columns} columns; {found.name} has 1 to {found.cols}"
        raise option_error(name, "columns", options["columns"], why)
    if columns != found.cols:
        machine = f"{machine}-{columns}col"
        found = find_machine(machine)
    lacking = [kind for kind in ("shim", "mem", "core") if kind not in found.classes or found.classes[kind].dma is None]
    if lacking:
        why = f"{found.name} has no {' or '.join(lacking)} tiles with DMA: its file predicts, no program runs on it"
        raise option_error(name, "machine", options.get("machine", machine), why)
    wrong = _no_array(found)
    if wrong:
        raise option_error(name, "machine", options.get("machine", machine), wrong)
    free, least = options.get("free", str(FREE)), options.get("least", "0")
    if not free.isdecimal() or not 1 <= int(free) <= _MOST_FREE:
        raise option_error(name, "free", free, f"a size from 1 to {_MOST_FREE}")
    if not least.isdecimal():
        raise option_error(name, "least", least, "a number of multiply-adds")
    floats = options.get("float", "cpu")
    if floats not in ("cpu", "bf16"):
        raise option_error(name, "float", floats, "cpu or bf16")
    finish = options.get("finish", "array")
    if finish not in ("array", "cpu"):
        raise option_error(name, "finish", finish, "array or cpu")
    scales = options.get(SCALES_OPTION, CALIBRATED)
    if scales not in (CALIBRATED, "run-time"):
        raise option_error(name, SCALES_OPTION, scales, f"{CALIBRATED} or run-time")
    residuals = options.get("residuals", "auto")
    if residuals not in RESIDUALS:
        raise option_error(name, "residuals", residuals, " or ".join(RESIDUALS))
    adding = AddResiduals(machine, residuals, int(free))
    finishing = [FinishProducts(int(free), int(least)), FoldCodes(), adding] if finish == "array" else []
    grouped = options.get("grouped", "array")
    if grouped not in ("array", "cpu"):
        raise option_error(name, "grouped", grouped, "array or cpu")
    tiling = [GroupedProducts(int(free), int(least))] if grouped == "array" else []
    rows = _row_passes(name, machine, options, finish=finish)
    floating = [Bf16Products(), *rows] if floats == "bf16" else []
    placing = [PlaceNpu(machine, int(free), int(least)), *([PlaceRows(machine, int(free))] if rows else [])]
    return [TileLut(encoding="i2"), *tiling, *finishing, *floating, *placing]


def _no_array(machine: Machine) -> str:
    """Why products have no kernels or no way on a machine; "" if they have."""
    if machine.family != "xdna" or machine.generation not in GRAIN:
        known = " or ".join(map(str, GRAIN))
        return f"family {machine.family}, generation {machine.generation}: kernels are for xdna, generation {known}"
    kinds = [machine.classes[row].kind for row in machine.row_classes]
    if kinds[:2] != ["shim", "mem"] or set(kinds[2:]) != {"core"}:
        return f"its rows are {', '.join(kinds)}: products need a shim row, a mem row and then core rows"
    return ""


def _row_passes(name: str, machine: str, options: Mapping[str, str], *, finish: str) -> list[ModulePass]:
    """What makes work for cores of float operations that are no products."""
    floats = options.get("float") == "bf16"
    mode = options.get("elementwise", "auto" if floats else "never")
    if mode not in MODES:
        raise option_error(name, "elementwise", mode, " or ".join(MODES))
    if mode != "never" and not floats:
        raise option_error(name, "elementwise", mode, "it rounds floats to bf16: float=bf16 goes with it")
    free = int(options.get("free", str(FREE)))
    if mode == "never":
        return []
    behind = [HoistMaps(), FuseMaps(), FinishFloats(machine, mode, free)] if finish == "array" else []
    return [FuseMaps(), *behind, Bf16Rows(machine, mode, free), NarrowResults()]


def round_xdna1(options: Mapping[str, str]) -> Sequence[ModulePass]:
    """Passes of target npu-xdna1 that round floats."""
    return [step for step in _passes("npu-xdna1", options) if isinstance(step, _ROUNDING)]


def round_xdna2(options: Mapping[str, str]) -> Sequence[ModulePass]:
    """Passes of target npu-xdna2 that round floats."""
    return [step for step in _passes("npu-xdna2", options) if isinstance(step, _ROUNDING)]


def place_xdna1(options: Mapping[str, str]) -> Sequence[ModulePass]:
    """Passes of target npu-xdna1."""
    return _passes("npu-xdna1", options)


def place_xdna2(options: Mapping[str, str]) -> Sequence[ModulePass]:
    """Passes of target npu-xdna2."""
    return _passes("npu-xdna2", options)


TARGETS = tuple(
    ParadigmTarget(
        name,
        f"{find_machine(name).summary}; simulated, ternary, int8 and bf16 products",
        f"{__name__}:place_{name.removeprefix('npu-')}",
        OPTIONS,
        rounding=f"{__name__}:round_{name.removeprefix('npu-')}",
        default_quantize="ternary",
        int8_layers=True,
    )
    for name in ("npu-xdna1", "npu-xdna2")
)
