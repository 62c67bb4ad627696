"""Measurements of devices in a CSV file as parameters of the model `table`.

Columns: ``target`` (µS), ``time`` (s), ``mean`` (µS), ``std`` (µS), in any order, one row for each target and time.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

from neuc.errors import Error, Exit

COLUMNS = ("target", "time", "mean", "std")
_MOST_ROWS = 100_000


def read_table(path: Path) -> dict[str, object]:
    """Parameters of `neuc.runtime.analog.devices.TableDevice`.

    Raises:
        Error: NEUC-E004, the file cannot be opened; NEUC-E649, it is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(_rows(csv.DictReader(stream), path))
    except OSError as error:
        what = f"cannot read the device table {path}: {error.strerror or error}"
        raise Error("NEUC-E004", what, hint="check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise _bad(path, f"cannot be read ({error})") from error
    targets = sorted({row["target"] for row in rows})
    times = sorted({row["time"] for row in rows})
    cells = {(row["time"], row["target"]): row for row in rows}
    if not rows or len(cells) != len(targets) * len(times) or len(cells) != len(rows):
        raise _bad(path, "needs one row for each target at each time")
    if len(targets) < 2 or min(targets) < 0 or times[0] < 0 or any(row["std"] < 0 for row in rows):
        raise _bad(path, "needs two targets or more, and no negative target, time or std")
    return {
        "g_min": targets[0],
        "g_max": targets[-1],
        "targets": targets,
        "times": times,
        "means": [[cells[time, target]["mean"] for target in targets] for time in times],
        "stds": [[cells[time, target]["std"] for target in targets] for time in times],
    }


def _rows(reader: csv.DictReader[str], path: Path) -> list[dict[str, float]]:
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise _bad(path, f"has no column {missing[0]!r}")
    found: list[dict[str, float]] = []
    for number, row in enumerate(reader, start=2):
        if number > _MOST_ROWS:
            raise _bad(path, f"has more than {_MOST_ROWS} rows")
        try:
            values = {name: float(row[name]) for name in COLUMNS}
        except (TypeError, ValueError) as error:
            raise _bad(path, f"line {number} holds something that is no number") from error
        if not all(math.isfinite(value) for value in values.values()):
            raise _bad(path, f"line {number} holds NaN or infinity")
        found.append(values)
    return found


def _bad(path: Path, why: str) -> Error:
    hint = f"a table of measurements has the columns {', '.join(COLUMNS)}"
    return Error("NEUC-E649", f"{path} {why}", hint=hint, exit_code=Exit.USAGE)
