"""Calibration and evaluation data as arrays for each input of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from neuc.compiler.inputs import load_npz
from neuc.errors import Error, Exit
from neuc.runtime.program import IoSpec, Program
from neuc.runtime.signature import Signature

Data = np.ndarray | Mapping[str, np.ndarray] | str | os.PathLike[str]
"""One array for a model of one input, arrays by input name, or the path of an ``.npz`` with them."""


def arrays_of(data: Data, inputs: Sequence[IoSpec], what: str) -> list[np.ndarray]:
    """One array [samples, …] for each input, in order.

    Raises:
        Error: NEUC-E006, an input is missing; NEUC-E311 or E312, an array does not fit; NEUC-E520, no samples.
    """
    names = [spec.name for spec in inputs]
    if isinstance(data, str | os.PathLike):
        data = load_npz(Path(data))
    if isinstance(data, np.ndarray):
        if len(names) != 1:
            hint = f"give a dict with {', '.join(names)}"
            raise Error("NEUC-E006", f"{what}: one array for {len(names)} inputs", hint=hint, exit_code=Exit.USAGE)
        data = {names[0]: data}
    missing = [name for name in names if name not in data]
    if missing:
        hint = f"the model's inputs: {', '.join(names)}"
        raise Error("NEUC-E006", f"{what} has no array {missing[0]!r}", hint=hint, exit_code=Exit.USAGE)
    feeds = {name: np.asarray(data[name]) for name in names}
    empty = [name for name, array in feeds.items() if array.size == 0]
    if empty:
        raise Error("NEUC-E520", f"{what}: input {empty[0]} is empty", hint="give at least one sample")
    try:
        Signature(Program(tuple(inputs), (), {}, ())).check_feeds(feeds)
    except Error as error:
        error.message = f"{what}: {error.message}"
        raise
    return [feeds[name] for name in names]
