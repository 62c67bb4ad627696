"""What the machine model says about rows on matrix products: single kernels, whole programs, matrix times vector.

Which program a row measured decides how it uses host memory (`backends/npu/gemm_layouts.py`): the words of `config`
name it, else the product that was measured does, else it is mlir-aie's example with the tile that the row gives.
"""

from __future__ import annotations

import re
from dataclasses import replace
from math import inf, prod

from neuc.backends.npu import gemm_layouts as layouts
from neuc.backends.npu import timing_model as timing
from neuc.compiler.npu.row_config import shape_fault, tile_fault, type_fault
from neuc.compiler.npu.row_fields import (
    cores_in,
    faults_in,
    in_unit,
    no_figures,
    refuse,
    sizes_in,
    type_in,
    with_dispatch,
)
from neuc.compiler.npu.rows import Prediction, Row
from neuc.runtime.npu.machine import Machine, Sku

_DEFAULT_TILE = (64, 64, 64)
_DEFAULT_TILE_I16 = (32, 32, 32)
"""mlir-aie's matrix multiplications of int16, whose example programs published rows mostly are."""
_RESIDENT = "jena"
"""Kernels measured on operands that lie in the core's memory already."""
_IREE_PEANO = "iree peano"
_AIR_DIRECT = "mlir-air direct codegen"
_AIR_GROUP = 2
"""runtime_loop_tiling_sizes of mlir-air's matrix multiplications: launches along M, and along N, between two waits."""
_AIR_VECTOR_GROUP = 4
"""The same of its products with a vector."""
_IRON, _XDNA2 = "iron.GEMM", 2
_LIBRARIES = (
    ("flm", "flm"),
    ("iron.gemm", _IRON),
    ("chess", "chess"),
    ("whole_array", "stock"),
    ("peano", "stock"),
    ("stock", "stock"),
)
_SHORT = 256
"""Bytes of a run from which the array paper's figure 6 no longer rises much; below, it falls faster than our curve."""
_IREE_DEVICES = ("hawk", "strix_hx370", "strix_365")
"""Products whose published times are IREE's benchmarks."""


def predict_kernel(row: Row, machine: Machine, sku: Sku) -> Prediction:
    """One tile on one core."""
    shape, kind = sizes_in(row.shape), type_in(row.dtype)
    why = faults_in(shape_fault(row.shape, shape, "MxKxN"), type_fault(row.dtype, kind))
    if why or kind is None:
        return refuse(row, why)
    library = _library(row)
    tile = timing.Tiling(shape[0], shape[1], shape[2], 1, 1)
    rate = timing.kernel_macs_per_cycle(machine, kind, tile, library, streamed=library != _RESIDENT)
    if rate is None:
        return refuse(row, no_figures(machine, kind))
    macs = prod(shape)
    source = "library" if timing.has_library(machine, kind, library) else "model"
    if row.unit == "MAC/cycle":
        return Prediction(row, rate, source, macs / rate / sku.clock_hz, includes="the kernel alone")
    peak = timing.gemm_rate(machine, kind, library)
    if row.unit == "count" and "VMAC" in row.config and peak is not None:
        return Prediction(row, macs / peak.peak_macs_per_cycle, source, macs / rate / sku.clock_hz)
    return replace(in_unit(row, macs / rate / sku.clock_hz, sku, 2 * macs, source), includes="the kernel alone")


def predict_gemm(row: Row, machine: Machine, sku: Sku) -> Prediction:
    """A whole program for M x K x N, or its operands' transfers alone."""
    shape, kind = sizes_in(row.shape), type_in(row.dtype)
    why = faults_in(shape_fault(row.shape, shape, "MxKxN"), type_fault(row.dtype, kind))
    if why or kind is None:
        return refuse(row, why)
    if "order=MxNxK" in row.config:
        shape = [shape[0], shape[2], shape[1]]
    sizes = (shape[0], shape[1], shape[2])
    by_iree = row.kind == "gemm" and _by_iree(row)
    library = _library(row, by_iree=by_iree) if row.kind == "gemm" else ""
    stored = kind
    if kind.c == "bf16" and (by_iree or _casts_afterwards(row)):
        kind = replace(kind, c="f32")  # what IREE's products of bf16 return
    if row.kind != "gemm" and _collected(row) and _collected(row) * min(kind.nbytes[:2]) < _SHORT:
        return refuse(
            row, f"config k_l2={_collected(row)}: short runs of A and B at once are not modelled in this design"
        )
    found = _tile(row, machine, kind, sizes, library, by_iree=by_iree)
    if isinstance(found, str):
        return refuse(row, found)
    tile = found
    if _collected(row) % tile.k:
        return refuse(row, f"config k_l2={_collected(row)} is no multiple of the tile's k, {tile.k}")
    given = re.search(r"rate=([\d.]+)", row.config)
    rate, source = _rate(row, machine, kind, tile, library, by_iree=by_iree)
    if rate is None:
        return refuse(row, source or f"rate={given[1][:40] if given else ''} is no number above 0")
    repeats = re.search(r"x(\d{1,9}) repeats", row.config)
    if repeats:
        each = prod(shape) / rate / sku.clock_hz  # operands stay on the array
        all_of_them = int(repeats[1]) * each + sku.dispatch_us * 1e-6
        said = f"kernels, {with_dispatch(sku)}"
        return replace(in_unit(row, all_of_them, sku, 2 * prod(shape), source), includes=said)
    stated = re.search(r"([\d.]+) MB of DDR traffic", row.config)
    seconds, limiter = timing.gemm_seconds(
        machine,
        sku,
        kind,
        sizes,
        tile,
        rate,
        _layout(row, machine, kind, sizes, tile, library, by_iree=by_iree),
        padded=row.kind == "gemm",
        ddr_bytes=float(stated[1]) * 1e6 if stated else None,
    )
    a, b, c = kind.nbytes
    operands = sizes[0] * sizes[1] * a + sizes[1] * sizes[2] * b + sizes[0] * sizes[2] * c
    if by_iree:
        seconds += operands / machine.host["sync_bytes_per_second"]  # it synchronises every buffer after a run
    extra, of_host = _whole_call(row, machine, operands)
    if _casts_afterwards(row):
        sums = sizes[0] * sizes[2] * (c + stored.nbytes[2])
        extra += machine.host["reload_us"] * 1e-6 + sums / sku.ddr_bytes_per_second
        of_host += ", with a launch of its own that rounds"
    said = f"bound by {limiter}, {with_dispatch(sku)}{of_host}"
    return replace(in_unit(row, seconds + extra, sku, 2 * prod(shape), source, nbytes=operands), includes=said)


def predict_gemv(row: Row, machine: Machine, sku: Sku) -> Prediction:
    """A matrix times a vector, a core a column: the matrix passes once, and each core loads both operands."""
    shape, kind = sizes_in(row.shape), type_in(row.dtype)
    why = faults_in(shape_fault(row.shape, shape[:2], "MxK"), type_fault(row.dtype, kind))
    if why or kind is None:
        return refuse(row, why)
    rows, cols = shape[0], shape[1]
    a, b, c = kind.nbytes
    columns, macs = cores_in(row.config, machine)[1], rows * cols
    serial = by_mlir_air(row)
    moved = macs * a + cols * b
    busy = timing.dot_product_cycles(machine, macs / columns, (a, b))
    seconds = timing.streamed_seconds(
        machine, sku, moved, rows * c, (columns, columns), busy_cycles=busy, overlapped=not serial
    )
    if serial:
        groups = timing.groups_of(_vector_launches(machine, rows, cols * a, columns), _AIR_VECTOR_GROUP)
        seconds += (groups - 1) * machine.host["wait_us"] * 1e-6
    extra, of_host = _whole_call(row, machine, moved + rows * c)
    said = f"{'transfers, then the kernel' if serial else 'transfers and the kernel at once'}, {with_dispatch(sku)}"
    return replace(
        in_unit(row, seconds + extra, sku, 2 * macs, "model", nbytes=moved + rows * c), includes=said + of_host
    )


def _vector_launches(machine: Machine, rows: int, row_bytes: float, columns: int) -> int:
    """Launches of mlir-air's product with a vector: rows a core are up to 16, as a memory tile holds and as divide."""
    room = machine.classes["mem"].memory_bytes
    each = 16
    while each > 1 and (columns * each * row_bytes >= room or rows % (columns * each)):
        each //= 2
    return max(1, rows // (columns * each))


def _whole_call(row: Row, machine: Machine, nbytes: float) -> tuple[float, str]:
    """Seconds of the host's own work in a row that measured it, and how a prediction says so."""
    if not re.search(r"\bwhole call\b", row.config, re.IGNORECASE):
        return 0.0, ""
    return timing.whole_call_seconds(machine, nbytes), ", with the host's buffers and copies"


def _library(row: Row, *, by_iree: bool = False) -> str:
    if by_mlir_air(row):
        return _AIR_DIRECT if _written_by_compiler(row) else ""
    if by_iree and re.search(r"peano|repeats", row.config) and "chess" not in row.config:
        return _IREE_PEANO
    found = next((library for word, library in _LIBRARIES if word in row.config.lower()), "")
    if not found and row.device in ("ryzen_8700g", "strix_halo_max_pro"):
        return _RESIDENT
    if row.device.startswith("strix_halo_max395") and found in ("", "stock"):
        return "stock b_col_maj" if "b_col_maj" in row.config else "stock"
    return found


def _by_iree(row: Row) -> bool:
    config = row.config.lower()
    if re.search(r"\btiles?[ =:]*\d|flm|iron\.gemm|stock|whole_array", config):
        return False
    return "iree" in config or "repeats" in config or row.device.startswith(_IREE_DEVICES)


def by_mlir_air(row: Row) -> bool:
    """Its launches run one after the other: their loop is no loop of a core, so that nothing is fetched ahead."""
    return bool(re.search(r"\bmlir-air\b", row.config, re.IGNORECASE))


def _casts_afterwards(row: Row) -> bool:
    """mlir-air's products whose float sums are rounded by a second launch."""
    return by_mlir_air(row) and bool(re.search(r"\bfused[ -]cast\b", row.config, re.IGNORECASE))


def _written_by_compiler(row: Row) -> bool:
    return bool(re.search(r"\bdirect[ -]codegen\b|\blow[ -]precision\b", row.config, re.IGNORECASE))


def _tile(
    row: Row, machine: Machine, kind: timing.GemmType, shape: tuple[int, int, int], library: str, *, by_iree: bool
) -> timing.Tiling | str:
    """The tile of one core and the cores at work, or why there is none."""
    cores = cores_in(row.config, machine)
    given = re.search(r"(?:kernel|tile)s?[ =:]*(\d+)[x/](\d+)[x/](\d+)", row.config)
    if given:
        sizes = sizes_in("x".join(given.groups()))
    elif by_iree:
        sizes = list(layouts.iree_tile(machine, kind, shape))
    else:
        small = kind.a == "i16" and not timing.has_library(machine, kind, library)
        sizes = list(_DEFAULT_TILE_I16 if small else _DEFAULT_TILE)
    if len(sizes) != 3:
        return f"config {row.config[:40]!r}: sizes of the tile make no sense"
    why = tile_fault((sizes[0], sizes[1], sizes[2]), kind, machine)
    return why or timing.Tiling(sizes[0], sizes[1], sizes[2], *cores)


def _rate(
    row: Row, machine: Machine, kind: timing.GemmType, tile: timing.Tiling, library: str, *, by_iree: bool
) -> tuple[float | None, str]:
    """Multiply-adds a cycle of the kernel and where they come from; None and why if there is no figure."""
    given = re.search(r"rate=([\d.]+)", row.config)
    if given:
        try:
            rate = float(given[1])
        except ValueError:
            return None, ""
        most = max(figure.peak_macs_per_cycle for figure in machine.gemm.values())
        if rate > most:
            return None, f"rate={given[1][:40]} is more than any core of {machine.name} does, {most:g}"
        return (rate, "row") if 0 < rate < inf else (None, "")
    if "no compute" in row.config:
        return inf, "none"
    unknown = library == _AIR_DIRECT and not timing.has_library(machine, kind, library)
    if unknown or (by_iree and "repeats" in row.config and "direct" in row.config):
        return None, "a kernel that a compiler wrote has no rate of its own; give rate="
    if library == _IRON and machine.generation == _XDNA2 and "MB of DDR traffic" not in row.config:
        return None, f"{_IRON}'s kernels do 15 to 52 multiply-adds a cycle there, with or without bfp16; give rate="
    streamed = "repeats" not in row.config  # repeated products stay on the array
    rate = timing.kernel_macs_per_cycle(machine, kind, tile, library, streamed=streamed)
    if rate is None:
        return None, no_figures(machine, kind)
    return rate, "library" if timing.has_library(machine, kind, library) else "model"


def _collected(row: Row) -> int:
    """The columns of A that a memory tile collects; 0 if the row does not say."""
    given = re.search(r"\bk_l2=(\d+)", row.config)
    return int(given[1]) if given else 0


def _layout(
    row: Row,
    machine: Machine,
    kind: timing.GemmType,
    shape: tuple[int, int, int],
    tile: timing.Tiling,
    library: str,
    *,
    by_iree: bool,
) -> timing.Layout:
    by_rows = bool(re.search(r"b[_ -]row|row-major B|B row", row.config))
    if row.kind != "gemm":
        return layouts.balanced(kind, tile, b_row_major=by_rows, one_c_buffer="C depth 2" not in row.config)
    if by_iree:
        narrow = kind.a == "i8" and kind.c == "i8"  # IREE's scaled and truncated products have 4-d operands
        design = layouts.IreeDesign(
            four_levels=narrow or bool(re.search("4.level", row.config)),
            direct="direct" in row.config or "no compute" in row.config,
            packed=narrow or "packed" in row.config,
        )
        return layouts.iree(machine, kind, shape, (tile.rows, tile.cols), design)
    if library == "flm":
        return layouts.flm(kind, tile)
    collected = max(tile.k, _collected(row))
    layout = layouts.whole_array(
        kind, tile, collected, b_row_major="b_col_maj" not in row.config, one_c_buffer="C depth 1" in row.config
    )
    if not by_mlir_air(row):
        return layout
    casts = kind.c == "bf16" and not _written_by_compiler(row)  # float sums are f32
    return replace(layout, launched=timing.Launched(_AIR_GROUP, collected, casts))
