"""The fields of a row as numbers: sizes, element types, cores at work; and a predicted time in the row's unit."""

from __future__ import annotations

import re

from neuc.backends.npu import timing_model as timing
from neuc.compiler.npu.rows import Prediction, Row
from neuc.runtime.npu.machine import Machine, Sku

_MOST_DIGITS = 9
"""Of a size; far above what any array multiplies."""
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
_SCALES = {"TOPS": 1e12, "TFLOPS": 1e12, "GOPS": 1e9, "GFLOPS": 1e9}
_RATES = {"GB/s": 1e9, "MB/s": 1e6}
_SPELLED_TYPES = (
    (r"(?<![a-z])(?:int|s)(?=\d)", "i"),
    (r"(?<![a-z])uint(?=\d)", "u"),
    (r"bfloat16", "bf16"),
    (r"(?:float|fp)32", "f32"),
    (r"bfp16ebs8", "bfp16"),
    (r"\*|\u00d7", "x"),
)
_OTHERS = ("cycles", "count", "MAC/cycle")


def refuse(row: Row, why: str) -> Prediction:
    """A row without a prediction, and why."""
    return Prediction(row, None, "", why_not=why)


def faults_in(*faults: str) -> str:
    """All of several faults; "" if there is none."""
    return "; ".join(filter(None, faults))


def unit_fault(unit: str) -> str:
    """Why a unit is none that any row is predicted in."""
    known = (*_OTHERS, *_SECONDS, *_SCALES, *_RATES)
    if unit in known:
        return ""
    return f"{f'unit {unit[:40]} is unknown' if unit else 'unit is missing'}; known: {', '.join(known)}"


def sizes_in(text: str) -> list[int]:
    """The sizes in a shape such as 64x64 or 4K (4096); none if there is anything else, as in 1MB."""
    if not re.fullmatch(r"(about )?\d+K?(\s*x\s*\d+K?)*", text, re.IGNORECASE):
        return []
    found = re.findall(r"(\d+)(K?)", text, re.IGNORECASE)
    if any(len(n) > _MOST_DIGITS or int(n) <= 0 for n, _ in found):
        return []
    return [int(n) * (1024 if k else 1) for n, k in found]


def type_in(text: str) -> timing.GemmType | None:
    """Element types of a product: `i8`, `i8->i16`, `i8 x i4`, `bf16_f32`; integers add up in 32 bits unless said."""
    text = re.sub(r"\bin(?:put)?s?\b[\s,;/]*|\bout(?:put)?\b", lambda m: "->" if m[0][0] == "i" else "", text.lower())
    for spelled, known in _SPELLED_TYPES:
        text = re.sub(spelled, known, text)
    operands, _, result = re.sub(r"(?<=\d)[-_](?=[a-z])", "->", text.replace(" ", "")).partition("->")
    a, _, b = operands.partition("x")
    b = b or a
    kind = timing.GemmType(a, b, result or {"i8": "i32", "i16": "i32"}.get(a, a))
    return kind if set(vars(kind).values()) <= set(timing.ELEMENT_BYTES) else None


def cores_in(config: str, machine: Machine) -> tuple[int, int]:
    """Cores at work, along M and along N: rows and columns, the whole array, unless the row says something else."""
    rows = sum(machine.classes[name].kind == "core" for name in machine.row_classes)
    if re.search(r"\b(one|1|single)[ _-]core\b", config):
        return 1, 1
    herd = re.search(r"\bherd=(\d+)x(\d+)", config)
    if herd:
        return max(1, int(herd[1])), max(1, int(herd[2]))
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


def no_figures(machine: Machine, kind: timing.GemmType) -> str:
    """Why a product of these types is not predicted."""
    return f"no figures for {kind.key} on {machine.name}; known: {', '.join(sorted(machine.gemm))}"


def with_dispatch(sku: Sku) -> str:
    """How a prediction says that a call of the host program is part of it."""
    return f"with dispatch {sku.dispatch_us:g} us"


def in_unit(row: Row, seconds: float, sku: Sku, operations: float, source: str, *, nbytes: float = 0.0) -> Prediction:
    """A predicted time, or the rate it means, in the row's unit; not predicted if the unit is none for its kind."""
    if row.unit in ("cycles", "count"):
        return Prediction(row, seconds * sku.clock_hz, source, seconds)
    if row.unit in _SECONDS:
        return Prediction(row, seconds / _SECONDS[row.unit], source, seconds)
    if row.unit in _RATES and nbytes:
        return Prediction(row, nbytes / seconds / _RATES[row.unit], source, seconds)
    if row.unit not in _SCALES or not operations:
        known = ", ".join(("cycles", *_SECONDS, *(_SCALES if operations else ()), *(_RATES if nbytes else ())))
        what = f"unit {row.unit} is none that kind {row.kind} is predicted in"
        return Prediction(row, None, source, why_not=f"{what}; known: {known}")
    return Prediction(row, operations / seconds / _SCALES[row.unit], source, seconds)
