"""Predictions beside measurements: `neuc npu validate rows.csv`.

A row says what was measured (id, device, kind, shape, dtype, config, value, unit); the machine model predicts it, with
the kernel's rate as the row gives it (`rate=`) or as our own kernel model has it. No figure here is fitted to a row.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from neuc.backends.npu import timing_model as timing
from neuc.backends.npu.known_machines import ARRAYS, find_machine
from neuc.errors import Error, Exit
from neuc.runtime.npu.machine import Machine, Sku

COLUMNS = ("id", "device", "kind", "shape", "dtype", "config", "value", "unit")
MAX_ROWS = 100_000
MAX_BYTES = 64 << 20
_MOST_DIGITS = 9
"""Of a size; far above what any array multiplies."""
_DEFAULT_TILE = (64, 64, 64)
_RESIDENT = "jena"
"""Kernels measured on operands that lie in the core's memory already."""
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Row:
    """One measurement; ``value`` is None in a row without one, which is predicted all the same."""

    id: str
    device: str
    kind: str
    shape: str
    dtype: str
    config: str
    value: float | None
    unit: str


@dataclass(frozen=True)
class Prediction:
    """A row with what the model says; ``why_not`` where it says nothing.

    ``rate_source``: "row" (the row gave the kernel's rate), "model" (our kernel model), "library" (a named kernel
    library's rate), "" (no kernel). ``seconds`` is the predicted time, for ranking.
    """

    row: Row
    value: float | None
    rate_source: str
    seconds: float | None = None
    why_not: str = ""

    @property
    def error(self) -> float | None:
        """Relative error of time: above 0 if we say it takes longer than measured."""
        if self.value is None or not self.row.value:
            return None
        faster_is_more = self.row.unit in ("TOPS", "GOPS", "GFLOPS", "TFLOPS", "MAC/cycle")
        return self.row.value / self.value - 1 if faster_is_more else self.value / self.row.value - 1


def read_rows(path: Path) -> list[Row]:
    """Read a CSV of measurements.

    Raises:
        Error: NEUC-E684: the file cannot be read, lacks a column, has no rows, or a value is no number above 0.
    """
    hint = f"a header and the columns {', '.join(COLUMNS)}"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Error(
                "NEUC-E684", f"{path.name} is larger than {MAX_BYTES >> 20} MiB", hint=hint, exit_code=Exit.USAGE
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Error("NEUC-E684", f"cannot read {path}: {error}", hint=hint, exit_code=Exit.USAGE) from error
    reader = csv.DictReader(text.splitlines())
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ()) and name != "value"]
    if missing:
        raise Error("NEUC-E684", f"{path.name} lacks columns {', '.join(missing)}", hint=hint, exit_code=Exit.USAGE)
    rows: list[Row] = []
    for number, fields in enumerate(reader, start=2):
        if len(rows) >= MAX_ROWS:
            raise Error("NEUC-E684", f"{path.name} has more than {MAX_ROWS} rows", hint=hint, exit_code=Exit.USAGE)
        values = {name: (fields.get(name) or "").strip() for name in COLUMNS}
        text = values.pop("value")
        try:
            value = float(text) if text else None
        except ValueError as error:
            message = f"{path.name}, line {number}: value {text[:40]!r} is no number"
            raise Error("NEUC-E684", message, hint="leave it empty to predict only", exit_code=Exit.USAGE) from error
        if value is not None and not 0 < value < math.inf:
            message = f"{path.name}, line {number}: value {value:g} is not above 0 and finite"
            raise Error("NEUC-E684", message, hint="leave it empty to predict only", exit_code=Exit.USAGE)
        rows.append(Row(value=value, **values))
    if not rows:
        raise Error("NEUC-E684", f"{path.name} holds no rows", hint=hint, exit_code=Exit.USAGE)
    return rows


def predict(row: Row, *, own_rates: bool) -> Prediction:
    """What the model says about one row; with `own_rates`, kernel rates that the row gives are not used."""
    machine, sku = _machine_for(row)
    if machine is None or sku is None:
        return Prediction(row, None, "", why_not=f"no machine model for device {row.device}")
    if row.kind in ("shim_single_bd", "shim_chained"):
        return _shim(row, machine, sku)
    if row.kind == "kernel":
        return _kernel(row, machine, sku)
    if row.kind.startswith("gemm"):
        return _gemm(row, machine, sku, own_rates=own_rates)
    return Prediction(row, None, "", why_not=f"kind {row.kind} is an input of the model, or none it predicts")


def _machine_for(row: Row) -> tuple[Machine | None, Sku | None]:
    for name in ARRAYS:
        machine = find_machine(name)
        sku = timing.sku_of(machine, row.device)
        if sku is not None:
            return machine, sku
    generation = {"npu1": "npu-xdna1", "npu2": "npu-xdna2", "xdna1": "npu-xdna1", "xdna2": "npu-xdna2"}.get(row.device)
    if generation is None:
        return None, None
    machine = find_machine(generation)
    return machine, next(iter(machine.skus.values()))


def _numbers(text: str) -> list[int]:
    """The sizes in a shape; none if one of them is no size."""
    found = re.findall(r"(-?\d+)(K?)", text)
    if any(len(n) > _MOST_DIGITS or int(n) <= 0 for n, _ in found):
        return []
    return [int(n) * (1024 if k else 1) for n, k in found]


def _shim(row: Row, machine: Machine, sku: Sku) -> Prediction:
    direction = "MM2S" if "MM2S" in row.config else "S2MM"
    words = _numbers(row.shape)
    if len(words) != 1:
        return Prediction(row, None, "", why_not=f"shape {row.shape!r} is no number of words")
    first = row.kind == "shim_chained" and "first" in row.config
    cycles = timing.shim_task_cycles(machine, direction, words[0], first_of_many=first)
    return _in_unit(row, cycles / sku.clock_hz, sku, 0, "")


def _gemm_type(text: str) -> timing.GemmType | None:
    operands, _, result = text.replace(" ", "").partition("->")
    a, _, b = operands.partition("x")
    b = b or a
    c = result or {"i8": "i32"}.get(a, a)
    kind = timing.GemmType(a, b, c)
    known = {"i8", "i4", "i16", "i32", "bf16", "bfp16", "f32", "ternary"}
    return kind if {a, b, c} <= known else None


def _library(row: Row) -> str:
    for name in ("flm", "iron.GEMM", "chess"):
        if name in row.config:
            return name
    if row.device in ("ryzen_8700g", "strix_halo_max_pro"):
        return _RESIDENT
    if row.device.startswith("strix_halo_max395"):
        return "stock b_col_maj" if "b_col_maj" in row.config else "stock"
    return ""


def _kernel(row: Row, machine: Machine, sku: Sku) -> Prediction:
    shape, kind = _numbers(row.shape), _gemm_type(row.dtype)
    if len(shape) != 3 or kind is None:
        return Prediction(row, None, "", why_not=f"no kernel model for {row.dtype} {row.shape or 'without a shape'}")
    library = _library(row)
    rate = timing.kernel_macs_per_cycle(
        machine, kind, timing.Tiling(shape[0], shape[1], shape[2], 1, 1), library, streamed=library != _RESIDENT
    )
    if rate is None:
        return Prediction(row, None, "", why_not=f"no figures for {kind.key} on {machine.name}")
    macs = shape[0] * shape[1] * shape[2]
    source = "library" if library in machine.libraries else "model"
    if row.unit == "MAC/cycle":
        return Prediction(row, rate, source, macs / rate / sku.clock_hz)
    return _in_unit(row, macs / rate / sku.clock_hz, sku, macs, source)


def _rate(text: str) -> float | None:
    try:
        rate = float(text)
    except ValueError:
        return None
    return rate if 0 < rate < math.inf else None


def _gemm(row: Row, machine: Machine, sku: Sku, *, own_rates: bool) -> Prediction:
    shape, kind = _numbers(row.shape), _gemm_type(row.dtype)
    if len(shape) != 3 or kind is None:
        return Prediction(row, None, "", why_not=f"no GEMM model for {row.dtype} {row.shape or 'without a shape'}")
    if "order=MxNxK" in row.config:
        shape = [shape[0], shape[2], shape[1]]
    given_tile = re.search(r"(?:kernel=|tile )(\d+)[x/](\d+)[x/](\d+)", row.config)
    tile_sizes = _numbers("x".join(given_tile.groups())) if given_tile else list(_DEFAULT_TILE)
    if len(tile_sizes) != 3:
        return Prediction(row, None, "", why_not=f"config {row.config[:40]!r}: sizes of the tile make no sense")
    m, k, n = tile_sizes
    one = "one core" in row.config or "1 core" in row.config
    tile = timing.Tiling(m, k, n, 1 if one else 4, 1 if one else machine.cols)
    library = _library(row) if row.kind == "gemm" else ""
    given = re.search(r"rate=([\d.]+)", row.config)
    if given and not own_rates:
        rate, source = _rate(given[1]), "row"
        if rate is None:
            return Prediction(row, None, "", why_not=f"rate={given[1][:40]} is no number above 0")
    else:
        found = timing.kernel_macs_per_cycle(machine, kind, tile, library)
        if found is None:
            return Prediction(row, None, "", why_not=f"no figures for {kind.key} on {machine.name}")
        rate, source = found, "library" if library in machine.libraries else "model"
    padded = row.kind == "gemm"
    repeats = re.search(r"x(\d+) repeats", row.config)
    stated = re.search(r"([\d.]+) MB of DDR traffic", row.config)
    traffic = float(stated[1]) * 1e6 if stated else None
    seconds = timing.gemm_seconds(
        machine, sku, kind, (shape[0], shape[1], shape[2]), tile, rate, padded=padded, ddr_bytes=traffic
    )
    if repeats:
        count, start = int(repeats[1]), sku.dispatch_us * 1e-6
        each = shape[0] * shape[1] * shape[2] / rate / sku.clock_hz  # operands stay on the array
        seconds = count * each + start
    return _in_unit(row, seconds, sku, shape[0] * shape[1] * shape[2], source)


def _in_unit(row: Row, seconds: float, sku: Sku, macs: int, source: str) -> Prediction:
    if row.unit == "cycles":
        return Prediction(row, seconds * sku.clock_hz, source, seconds)
    if row.unit in _SECONDS:
        return Prediction(row, seconds / _SECONDS[row.unit], source, seconds)
    scale = {"TOPS": 1e12, "TFLOPS": 1e12, "GOPS": 1e9, "GFLOPS": 1e9}.get(row.unit)
    if scale is None or not macs:
        return Prediction(row, None, source, why_not=f"unit {row.unit} is none this kind is predicted in")
    return Prediction(row, 2 * macs / seconds / scale, source, seconds)


@dataclass(frozen=True)
class Summary:
    """Errors of the predictions that have a measurement: shares, not percent."""

    count: int
    median: float
    maximum: float
    tau: float | None


def summarise(predictions: Sequence[Prediction]) -> Summary | None:
    """Median and largest error, and Kendall's tau of times; None if nothing was measured and predicted."""
    errors = [abs(p.error) for p in predictions if p.error is not None]
    if not errors:
        return None
    pairs = [
        (p.seconds, p.seconds / (1 + p.error)) for p in predictions if p.error is not None and p.seconds is not None
    ]
    return Summary(len(errors), median(errors), max(errors), kendall(pairs))


def kendall(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Kendall's tau-a of (predicted, measured): agreeing pairs less disagreeing ones, by all pairs."""
    total = len(pairs) * (len(pairs) - 1) // 2
    if not total:
        return None
    score = 0
    for i, (a, b) in enumerate(pairs):
        for c, d in pairs[:i]:
            score += ((a > c) - (a < c)) * ((b > d) - (b < d))
    return score / total
