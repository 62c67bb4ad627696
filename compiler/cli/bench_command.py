"""`neuc bench`: how long an inference takes, alone or in turns with onnxruntime."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from neuc.compiler.cli import arguments, console
from neuc.compiler.inputs import Arrays, parse_inputs
from neuc.errors import Exit

if TYPE_CHECKING:
    from neuc.runtime.session import Session

_WARM_UPS = 3
_LEAST_RUNS = 10
_TURNS = 5
_PAUSE = 0.15
"""Seconds between two engines' turns."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one inference with one engine."""

    engine: str
    threads: int
    runs: int
    median: float
    p90: float
    p99: float
    fastest: float


@click.command("bench")
@arguments.model_argument
@arguments.inputs_option
@arguments.target_option
@click.option("--threads", default="", metavar="1,2", help="Thread counts; all CPUs of this process by default.")
@click.option("--seconds", default=2.0, show_default=True, help="Time for each engine and thread count.")
@click.option("--compare", type=click.Choice(["ort"]), help="Run onnxruntime in turns with it.")
@click.option("--against", type=click.Path(path_type=Path), help="The ONNX model for --compare, if MODEL is .neuc.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "csv"]),
    default="text",
    show_default=True,
    help="How to print the figures.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def bench_command(
    model: Path,
    inputs: tuple[str, ...],
    target: str | None,
    threads: str,
    seconds: float,
    compare: str | None,
    against: Path | None,
    style: str,
    as_json: bool,
) -> int:
    """Time inferences of MODEL: warm-up, then median, 90th and 99th percentile.

    Latency includes the call from Python. With --compare ort the two engines take turns, so that they see the same
    machine; onnxruntime runs the float model with all its optimisations.
    """
    counts = _thread_counts(threads)
    if not 0 <= seconds < float("inf"):
        raise arguments.usage_error(f"--seconds {seconds:g} makes no sense", "give 0 or more")
    reference = _reference_model(model, compare, against)
    timings: list[Timing] = []
    ratios: dict[int, float] = {}
    for count in counts:
        session = arguments.open_session(model, target, count)
        feeds = parse_inputs(inputs, session.program.inputs)
        engines: dict[str, Callable[[], object]] = {"neuc": lambda s=session, f=feeds: s.run(None, f)}
        if reference is not None:
            engines["onnxruntime"] = _onnxruntime(reference, session, feeds)
        console.progress(f"timing with {arguments.counted(session.threads, 'thread')} ...")
        found = time_in_turns(engines, seconds, session.threads)
        timings += found.values()
        if reference is not None:
            ratios[session.threads] = found["onnxruntime"].median / found["neuc"].median
        session.close()
    console.product(_render("json" if as_json else style, model, timings, ratios))
    return Exit.OK


def time_in_turns(engines: Mapping[str, Callable[[], object]], seconds: float, threads: int) -> dict[str, Timing]:
    """Call the engines by turns until each has had `seconds` or `_LEAST_RUNS`, whatever takes longer.

    Turns are long, and a pause comes before each: onnxruntime's threads spin for up to 0.1 s after a call, on the
    CPUs that its partner's need.
    """
    times: dict[str, list[float]] = {name: [] for name in engines}
    turn = seconds / _TURNS
    for call in engines.values():
        for _ in range(_WARM_UPS):
            call()
    while any(len(t) < _LEAST_RUNS or sum(t) < seconds * 1e3 for t in times.values()):
        for name, call in engines.items():
            if len(engines) > 1:
                time.sleep(_PAUSE)
                call()  # the pause put threads to sleep
            _take_turn(call, turn, times[name])
        # A slow partner must not make a fast engine run for ever, nor the other way round.
        if all(len(t) >= _LEAST_RUNS for t in times.values()) and sum(map(sum, times.values())) > (
            seconds * 1e3 * len(times)
        ):
            break
    return {name: _timing(name, threads, found) for name, found in times.items()}


def _take_turn(call: Callable[[], object], seconds: float, times: list[float]) -> None:
    end = time.perf_counter() + seconds
    calls = 0
    while calls < _LEAST_RUNS // _TURNS or time.perf_counter() < end:
        start = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - start) / 1e6)
        calls += 1


def _timing(engine: str, threads: int, found: list[float]) -> Timing:
    median, p90, p99 = (float(value) for value in np.percentile(found, (50, 90, 99)))
    return Timing(engine, threads, len(found), median, p90, p99, min(found))


def _thread_counts(text: str) -> list[int | None]:
    if not text:
        return [None]
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise arguments.usage_error(f"--threads {text} is no list of numbers", "write --threads 1,2")
    return [int(part) for part in parts]


def _reference_model(model: Path, compare: str | None, against: Path | None) -> Path | None:
    if compare is None:
        return None
    chosen = against or model
    arguments.require_file(chosen)
    if chosen.suffix == arguments.ARTIFACT_SUFFIX:
        raise arguments.usage_error("--compare ort needs the ONNX model", "add --against model.onnx")
    return chosen


def _onnxruntime(model: Path, compiled: Session, feeds: Arrays) -> Callable[[], object]:
    from neuc.compiler.verification import reference_session, run_reference

    session = reference_session(model, compiled.threads)
    # Fails on another model's inputs or outputs.
    run_reference(session, [spec.name for spec in compiled.program.outputs], feeds)
    return lambda: session.run(None, dict(feeds))


def _render(style: str, model: Path, timings: list[Timing], ratios: Mapping[int, float]) -> str:
    if style == "json":
        import json

        speed = {str(threads): ratio for threads, ratio in ratios.items()}
        rows = [{**asdict(timing), "unit": "ms"} for timing in timings]
        return json.dumps({"model": str(model), "timings": rows, "speed_against_onnxruntime": speed}, indent=2)
    header = ("engine", "threads", "runs", "median ms", "p90 ms", "p99 ms", "fastest ms")
    if style == "csv":
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(name.replace(" ", "_") for name in header)
        writer.writerows([t.engine, t.threads, t.runs, t.median, t.p90, t.p99, t.fastest] for t in timings)
        return stream.getvalue()
    rows = [
        [t.engine, t.threads, t.runs, *(f"{value:.3f}" for value in (t.median, t.p90, t.p99, t.fastest))]
        for t in timings
    ]
    text = arguments.table(header, rows, right=range(1, 7))
    for threads, ratio in ratios.items():
        word = "faster" if ratio >= 1 else "slower"
        text += f"\n{arguments.counted(threads, 'thread')}: {max(ratio, 1 / ratio):.2f} x {word} than onnxruntime"
    return text
