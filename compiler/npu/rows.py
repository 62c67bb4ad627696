"""Rows of measurements and what is predicted for them: the CSV of `neuc npu validate`, read and checked."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from neuc.errors import Error

COLUMNS = ("id", "device", "kind", "shape", "dtype", "config", "value", "unit")
MAX_ROWS = 100_000
MAX_BYTES = 64 << 20

_OPERATIONS = tuple((what, rate) for what in ("op", "flop") for rate in ("s", "/s", "s/s"))
_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("matmul", "mm", "matrix_multiplication", "matrix_multiply"), "gemm"),
    **dict.fromkeys(("whole_array_gemm", "gemm_whole_array"), "gemm_array"),
    **dict.fromkeys(("matvec", "mv", "mvm", "matrix_vector", "matrix_vector_multiplication"), "gemv"),
    **dict.fromkeys(("conv", "convolution"), "conv2d"),
    **dict.fromkeys(("shim_dma", "shim_bd", "single_bd"), "shim_single_bd"),
    **dict.fromkeys(("shim_chain", "chained_bd"), "shim_chained"),
}
_UNITS: Mapping[str, str] = {
    **{f"{scale.lower()}{what}{rate}": f"{scale}{what.upper()}S" for scale in "GT" for what, rate in _OPERATIONS},
    **dict.fromkeys(("\u00b5s", "\u03bcs", "usec", "usecs", "microseconds"), "us"),
    **dict.fromkeys(("msec", "msecs", "milliseconds"), "ms"),
    **dict.fromkeys(("sec", "secs", "seconds"), "s"),
    **dict.fromkeys(("nsec", "nsecs", "nanoseconds"), "ns"),
    **dict.fromkeys(("cycle", "cyc", "cy", "clocks"), "cycles"),
    **dict.fromkeys(("mac/cycle", "macs/cycle", "mac/cy", "macs/cy", "macs per cycle"), "MAC/cycle"),
    **{"gb/s": "GB/s", "gbyte/s": "GB/s", "gb/sec": "GB/s", "mb/s": "MB/s", "mbyte/s": "MB/s", "mb/sec": "MB/s"},
    **{name: name for name in ("cycles", "ns", "us", "ms", "s", "count")},
}
"""Spellings of kinds and units, in small letters."""


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
    fault: str = ""
    """What is wrong with the line: a value that is none, the id of another row, or it is too long."""
    source: str = ""
    """Who published it, where the file has that column; it says what `config` leaves out (`row_config.py`)."""


@dataclass(frozen=True)
class Prediction:
    """A row with what the model says; ``why_not`` where it says nothing.

    ``rate_source``: "row" (the row gave the kernel's rate), "model" (our kernel model), "library" (a named kernel
    library's rate), "" (no kernel). ``seconds`` is the predicted time, for ranking; ``includes`` says what it is of.
    """

    row: Row
    value: float | None
    rate_source: str
    seconds: float | None = None
    why_not: str = ""
    includes: str = ""

    @property
    def error(self) -> float | None:
        """Relative error of time: above 0 if we say it takes longer than measured."""
        if self.value is None or not self.row.value:
            return None
        faster_is_more = self.row.unit.endswith(("OPS", "B/s", "MAC/cycle"))
        return self.row.value / self.value - 1 if faster_is_more else self.value / self.row.value - 1


def kind_of(text: str) -> str:
    """A row's kind as models are named: GEMM, Eltwise Add, matmul."""
    name = re.sub(r"[\s-]+", "_", text.strip().lower())
    return _KINDS.get(name, name)


def unit_of(text: str) -> str:
    """A unit as models spell it: GFLOP/s, MACs/cycle, usec; what is unknown stays as it is."""
    return _UNITS.get(text.strip().lower(), text)


def read_rows(path: Path) -> list[Row]:
    """Read a CSV of measurements. A value that is no number above 0 is a fault of its row, kept there.

    Raises:
        Error: NEUC-E684: the file cannot be read, lacks a column or has no rows.
    """
    hint = f"a header and the columns {', '.join(COLUMNS)}; value may be left out, to predict only"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Error("NEUC-E684", f"{path.name} is larger than {MAX_BYTES >> 20} MiB", hint=hint)
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin with a mark of the byte order
    except UnicodeDecodeError as error:
        cure = f"give a CSV file in UTF-8: {hint}"
        raise Error("NEUC-E684", f"{path.name} is no text", hint=cure) from error
    except OSError as error:
        raise Error("NEUC-E684", f"cannot read {path}: {error.strerror}", hint=hint) from error
    try:
        rows = _rows_in(path.name, csv.DictReader(text.splitlines()), hint)
    except csv.Error as error:
        raise Error("NEUC-E684", f"{path.name} is no CSV file: {error}", hint=hint) from error
    if not rows:
        raise Error("NEUC-E684", f"{path.name} holds no rows", hint=hint)
    return rows


def _rows_in(file: str, reader: csv.DictReader[str], hint: str) -> list[Row]:
    """The rows below a header that has every column."""
    header = list(reader.fieldnames or ())
    other = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), "")
    if other:
        what = f"{file} separates its columns by {other!r}, not by ','"
        raise Error("NEUC-E684", what, hint=f"separate by commas: {hint}")
    missing = [name for name in COLUMNS if name not in header and name != "value"]
    if missing:
        raise Error("NEUC-E684", f"{file} lacks columns {', '.join(missing)}", hint=hint)
    rows: list[Row] = []
    lines: dict[str, int] = {}
    for number, fields in enumerate(reader, start=2):
        if len(rows) >= MAX_ROWS:
            raise Error("NEUC-E684", f"{file} has more than {MAX_ROWS} rows", hint=hint)
        values = {name: (fields.get(name) or "").strip() for name in COLUMNS}
        values["kind"], values["unit"] = kind_of(values["kind"]), unit_of(values["unit"])
        value, fault = _value(values.pop("value"))
        first = lines.setdefault(values["id"], number)
        faults = [fault] if fault else []
        if values["id"] and first != number:
            faults.append(f"id {values['id'][:40]} is that of line {first}, too")
        if None in fields:
            faults.append(f"more fields than the header's {len(header)} columns")
        source = (fields.get("source") or "").strip()
        rows.append(
            Row(**values, value=value, source=source, fault=f"line {number}: {'; '.join(faults)}" if faults else "")
        )
    return rows


def _value(text: str) -> tuple[float | None, str]:
    """The measured value, or why it is none; an empty one is left out."""
    if not text:
        return None, ""
    try:
        value = float(text)
    except ValueError:
        return None, f"value {text[:40]!r} is no number"
    return (value, "") if 0 < value < math.inf else (None, f"value {value:g} is not above 0 and finite")
