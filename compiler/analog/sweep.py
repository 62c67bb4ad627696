"""Accuracy of a model on simulated devices over times and draws, on many processes or machines.

Each task is one draw: a chip is programmed once and then ages, so its accuracies at different times belong together.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from neuc.compiler.labelled_data import load_labelled, measure
from neuc.errors import Error, Exit
from neuc.runtime.analog.tiles import check_time
from neuc.runtime.cpu_features import available_cpus

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "y": 365 * 86400.0}
_MOST_SEEDS = 10_000
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""97.5 % points of Student's distribution for 1 … 15 degrees of freedom; beyond, 1.96 (1 + 1.3 / n) is within 0.5 %."""


@dataclass(frozen=True)
class AtTime:
    """Accuracies at one time.

    Attributes:
        time: seconds after programming.
        accuracies: one for each draw, 0 to 1.
    """

    time: float
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over draws."""
        return sum(self.accuracies) / len(self.accuracies)

    @property
    def std(self) -> float:
        """Standard deviation between draws; 0 for a single one."""
        n = len(self.accuracies)
        return math.sqrt(sum((a - self.mean) ** 2 for a in self.accuracies) / (n - 1)) if n > 1 else 0.0

    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean over draws (Student), for these samples."""
        n = len(self.accuracies)
        if n < 2:
            return 0.0, 1.0
        half = student(n - 1) * self.std / math.sqrt(n)
        return max(0.0, self.mean - half), min(1.0, self.mean + half)


@dataclass(frozen=True)
class Sweep:
    """Accuracy against time.

    Attributes:
        seeds: the draws.
        samples: labelled samples.
        rows: one entry for each time.
    """

    seeds: tuple[int, ...]
    samples: int
    rows: tuple[AtTime, ...]

    def to_json(self) -> dict[str, object]:
        """As plain data."""
        return {
            "seeds": list(self.seeds),
            "samples": self.samples,
            "times": [
                {"time_s": r.time, "mean": r.mean, "std": r.std, "interval95": r.interval(), "all": list(r.accuracies)}
                for r in self.rows
            ],
        }


def student(freedom: int) -> float:
    """The 97.5 % point of Student's distribution."""
    return _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 1.959964 * (1 + 1.3 / freedom)


def parse_times(text: str) -> tuple[float, ...]:
    """``1d,30d,1y`` in seconds; a number alone is seconds.

    Raises:
        Error: NEUC-E644, a time makes no sense.
    """
    found: list[float] = []
    for part in text.split(","):
        unit = part[-1:] if part[-1:] in _UNITS else ""
        try:
            value = float(part.removesuffix(unit)) * (_UNITS[unit] if unit else 1.0)
        except ValueError:
            value = math.nan
        check_time(value) if not math.isnan(value) else _refuse(part)
        found.append(value)
    return tuple(found)


def _refuse(part: str) -> None:
    hint = "write seconds, or a number with s, m, h, d or y, such as 1d,30d,1y"
    raise Error("NEUC-E644", f"time {part!r} makes no sense", hint=hint, exit_code=Exit.USAGE)


def spell_time(seconds: float) -> str:
    """Seconds in the largest unit that divides them."""
    for unit, size in reversed(_UNITS.items()):
        if seconds and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def sweep(
    artifact: Path,
    data: str,
    times: Sequence[float],
    seeds: int,
    *,
    scheduler: str | None = None,
    processes: int | None = None,
) -> Sweep:
    """Accuracies of an artifact for each draw and time.

    Args:
        artifact: a ``.neuc`` file; on a cluster, one that all machines see.
        data: ``FILE.npz:LABELS``.
        times: seconds after programming.
        seeds: draws 0 … seeds - 1.
        scheduler: address of a Dask scheduler; by default processes of this machine.
        processes: how many of those; by default one for each CPU.

    Raises:
        Error: the artifact has no simulated devices, the data do not fit, or Dask is asked for and missing.
    """
    if not 1 <= seeds <= _MOST_SEEDS:
        raise Error("NEUC-E648", f"{seeds} draws", hint=f"use 1 to {_MOST_SEEDS}", exit_code=Exit.USAGE)
    for time in times:
        check_time(time)
    load_labelled(data)  # so that bad data are told here
    tasks = [(str(artifact), data, tuple(times), seed) for seed in range(seeds)]
    if scheduler is not None:
        results = list(_on_cluster(scheduler, tasks))
    else:
        count = min(processes or available_cpus(), seeds)
        results = [one_draw(task) for task in tasks] if count == 1 else _on_processes(tasks, count)
    rows = tuple(AtTime(time, tuple(result[i] for result in results)) for i, time in enumerate(times))
    return Sweep(tuple(range(seeds)), len(load_labelled(data)), rows)


Task = tuple[str, str, tuple[float, ...], int]


def one_draw(task: Task) -> list[float]:
    """Accuracies of one draw at all times; runs in a process of its own."""
    from neuc.runtime.session import load

    artifact, data, times, seed = task
    session = load(artifact, threads=1)
    if session.analog is None:
        raise Error(
            "NEUC-E655",
            f"{artifact} has no simulated devices that could age",
            hint="compile for xbar-pcm or another crossbar target",
            exit_code=Exit.USAGE,
        )
    labelled = load_labelled(data)
    found: list[float] = []
    for time in times:
        session.analog.set(time, seed)
        found.append(measure(lambda feeds: session.run(None, feeds)[0], labelled).share)
    return found


def _on_processes(tasks: Sequence[Task], count: int) -> list[list[float]]:
    # A fresh interpreter each: threads of this one do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_single_threaded) as pool:
        return list(pool.map(one_draw, tasks))


def _single_threaded() -> None:
    """Keep BLAS from starting threads in processes that share the CPUs already."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def _on_cluster(address: str, tasks: Sequence[Task]) -> Iterable[list[float]]:
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        hint = "pip install 'neuc[cluster]', or leave --scheduler out"
        raise Error("NEUC-E656", "Dask is not installed", hint=hint, exit_code=Exit.USAGE) from error
    try:
        with distributed.Client(address, timeout="10s") as client:
            submit: Callable[..., Any] = client.map
            return list(client.gather(submit(one_draw, tasks, pure=False)))
    except (OSError, TimeoutError, ValueError) as error:
        hint = "start one with `dask scheduler`, workers with `dask worker ADDRESS`"
        raise Error("NEUC-E656", f"no Dask scheduler answers at {address}", hint=hint, exit_code=Exit.USAGE) from error
