"""The machines neuc comes with, and how a user's own file is found; what one is stands in `runtime/npu/machine.py`."""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from pathlib import Path

from neuc.errors import Error, Exit
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.machine_file import load_machine, machine_of

FOLDER = Path(__file__).parent / "machines"
ARRAYS = ("npu-xdna1", "npu-xdna2")
"""Machines whole models are compiled for; the others predict (docs/npu.md)."""


def machine_names() -> tuple[str, ...]:
    """Names of the machines neuc comes with."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


@lru_cache
def find_machine(name: str) -> Machine:
    """The machine of this name, of that many of its columns (npu-xdna1-1col), or in a file (path ending in .toml).

    Raises:
        Error: NEUC-E671, there is no such machine; NEUC-E670, the file makes no sense.
    """
    if name.endswith(".toml"):
        if not Path(name).exists():
            hint = f"known: {', '.join(machine_names())}, or the path of a .toml file"
            raise Error("NEUC-E671", f"no such machine or file: {name}", hint=hint, exit_code=Exit.USAGE)
        return _without_misspellings(load_machine(Path(name)), Path(name).name)
    partition = re.fullmatch(r"(.+)-(\d+)col", name)
    if partition is not None:
        return _columns(find_machine(partition[1]), int(partition[2]), name)
    if name not in machine_names():
        close = difflib.get_close_matches(name, machine_names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(machine_names())}, or a .toml file"
        raise Error("NEUC-E671", f"unknown machine {name!r}", hint=hint, exit_code=Exit.USAGE)
    return load_machine(FOLDER / f"{name}.toml")


def _without_misspellings(machine: Machine, where: str) -> Machine:
    """A user's machine, whose figures are such as machines that come with neuc have: others are read by nobody."""
    shipped = [load_machine(path) for path in FOLDER.glob("*.toml")]
    for table in ("timing", "ddr", "host", "energy", "extension"):
        known = sorted({name for other in shipped for name in getattr(other, table)})
        for name in getattr(machine, table):
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
                raise Error("NEUC-E670", f"{where}: nothing reads {table}.{name}", hint=hint)
    return machine


def _columns(whole: Machine, columns: int, name: str) -> Machine:
    """A partition: the first columns of a machine, with everything else as it is."""
    if not 1 <= columns < whole.cols:
        hint = f"{whole.name} has partitions of 1 to {whole.cols - 1} columns"
        raise Error("NEUC-E671", f"{name}: no partition of {columns} columns", hint=hint, exit_code=Exit.USAGE)
    return machine_of({**whole.data, "name": name, "cols": columns}, name)
