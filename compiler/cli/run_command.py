"""`neuc run`: one inference, on given or made-up input."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from neuc.compiler.accuracy import compare_named
from neuc.compiler.cli import arguments, console
from neuc.compiler.files import check_writable, replacing
from neuc.compiler.inputs import Arrays, load_npz, parse_inputs
from neuc.errors import Error, Exit

if TYPE_CHECKING:
    from neuc.runtime.session import Session

_SHOWN_VALUES = 8
_EXPECTED_RTOL, _EXPECTED_ATOL = 1e-4, 1e-5
"""Default bounds of --expected: what float kernels that sum in another order keep."""


@click.command("run")
@arguments.model_argument
@arguments.inputs_option
@arguments.target_option
@arguments.threads_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write all outputs to this .npz file.")
@click.option("--expected", type=click.Path(path_type=Path), help="Compare with the arrays of this .npz file.")
@click.option("--rtol", default=_EXPECTED_RTOL, show_default=True, help="Relative tolerance of --expected.")
@click.option("--atol", default=_EXPECTED_ATOL, show_default=True, help="Absolute tolerance of --expected.")
@click.option("--eval", "evaluate", metavar="FILE.npz:LABELS", help="Accuracy on labelled data instead of one run.")
@click.option(
    "--time", "times", metavar="1d,30d,1y", help="Ages of simulated memory devices, with --eval; one age, with --input."
)
@click.option("--seeds", default=1, show_default=True, help="Draws of simulated devices, with --eval.")
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler to share the draws out; else all CPUs.")
@click.option("--tile-map", type=click.Path(path_type=Path), help="Draw where crossbar tiles are (.png, .svg).")
@click.option("--sweeps", type=int, help="Sweeps of a sampler, in place of the model's.")
@click.option("--beta", metavar="FIRST[:LAST]", help="Inverse temperatures of a sampler, in place of the model's.")
@click.option("--seed", type=int, help="Seed of a sampler, in place of the model's.")
@click.option("--plots", type=click.Path(path_type=Path), help="Draw a sampler's results into this folder.")
@click.option("--profile", type=click.Path(path_type=Path), help="Write a trace that Perfetto opens.")
@arguments.json_option
def run_command(
    model: Path,
    inputs: tuple[str, ...],
    target: str | None,
    threads: int | None,
    output: Path | None,
    expected: Path | None,
    rtol: float,
    atol: float,
    evaluate: str | None,
    times: str | None,
    seeds: int,
    scheduler: str | None,
    tile_map: Path | None,
    sweeps: int | None,
    beta: str | None,
    seed: int | None,
    plots: Path | None,
    profile: Path | None,
    as_json: bool,
) -> int:
    """Run MODEL (a .neuc artifact, or a model that is compiled on the way) once."""
    for option, tolerance in (("--rtol", rtol), ("--atol", atol)):
        if not 0 <= tolerance < float("inf"):
            raise arguments.usage_error(f"{option} {tolerance:g} makes no sense", "give a number that is at least 0")
    for path in (output, profile, tile_map):
        if path is not None:
            check_writable(path)
    single = {"--input": inputs or None, "--output": output, "--expected": expected, "--profile": profile}
    single |= {"--sweeps": sweeps, "--beta": beta, "--seed": seed, "--plots": plots}
    alone = evaluate is None and seeds == 1 and scheduler is None and tile_map is None
    once = times if alone and (inputs or output or expected) else None
    if once is None and (times is not None or seeds != 1 or scheduler is not None or tile_map is not None):
        from neuc.compiler.cli.ageing import run_ageing

        _refuse_with("--time, --seeds, --scheduler and --tile-map", single | {"--threads": threads})
        artifact = arguments.artifact_of(model, target)
        return run_ageing(model, artifact, evaluate, times, seeds, scheduler, tile_map, as_json=as_json)
    if evaluate is not None:
        _refuse_with("--eval", single)
    session = arguments.open_session(model, target, threads, profile=profile is not None)
    if evaluate is not None:
        return _evaluate(session, evaluate, as_json)
    if once is not None:
        from neuc.compiler.cli.ageing import age

        age(session, model, once)
    feeds = parse_inputs(inputs, session.program.inputs)
    feeds |= _sampler_inputs(session.manifest, inputs, sweeps, beta, seed)
    if "decoder" in session.manifest:
        from neuc.compiler.cli.decoder_inputs import check_decoder_inputs

        feeds = check_decoder_inputs(session.manifest["decoder"], feeds, inputs)
    if plots is not None:
        from neuc.compiler.energy.plots import prepare

        prepare(plots)
    start = time.perf_counter()
    names = [spec.name for spec in session.program.outputs]
    results = dict(zip(names, session.run(None, feeds)))
    seconds = time.perf_counter() - start
    if output is not None:
        save_npz(output, results)
    if profile is not None and session.profile is not None:
        session.profile.save(profile)
        console.note(f"wrote {profile}")
    remarks = _remarks(session.manifest, feeds, results, plots) | _array_time(session)
    agreement = None if expected is None else _compare(load_npz(expected), results, rtol, atol)
    if as_json:
        report: dict[str, object] = {
            "model": str(model),
            "seconds": seconds,
            "threads": session.threads,
            "outputs": [_describe_json(name, array) for name, array in results.items()],
        }
        if agreement is not None:
            report["expected"] = agreement[1]
        report |= {name: value for name, (value, _) in remarks.items()}
        console.product_json(report)
    else:
        console.product("\n".join(_describe(name, array) for name, array in results.items()))
        if agreement is not None:
            console.product(f"expected: {agreement[1]['summary']}")
        for _, line in remarks.values():
            console.product(line)
    return Exit.OK if agreement is None or agreement[0] else Exit.MISMATCH


def _refuse_with(what: str, options: Mapping[str, object]) -> None:
    """A usage error for the first of the options of a single run that is given; nothing is ignored silently."""
    for name, given in options.items():
        if given is not None:
            raise arguments.usage_error(f"{name} does not go together with {what}", "leave one of them out")


def _evaluate(session: Session, text: str, as_json: bool) -> int:
    from neuc.compiler.labelled_data import load_labelled, measure

    data = load_labelled(text)
    found = measure(lambda feeds: session.run(None, feeds)[0], data)
    if as_json:
        console.product_json(found.to_json())
    else:
        console.product(found.describe())
    return Exit.OK


def _sampler_inputs(
    manifest: Mapping[str, object], given: tuple[str, ...], sweeps: int | None, beta: str | None, seed: int | None
) -> Arrays:
    """What a sampler takes by default or by options, but for inputs that --input names."""
    if "energy" not in manifest:
        for option, value in (("--sweeps", sweeps), ("--beta", beta), ("--seed", seed)):
            if value is not None:
                raise arguments.usage_error(f"{option} does nothing with a model that is no sampler", "leave it out")
        return {}
    from neuc.compiler.energy.defaults import default_inputs

    ends = None
    if beta is not None:
        first, _, last = beta.partition(":")
        try:
            ends = float(first), float(last or first)
        except ValueError:
            raise arguments.usage_error(f"--beta {beta} makes no sense", "write 0.4 or 0.1:3") from None
    named = {text.partition("=")[0] for text in given}
    found = default_inputs(manifest["energy"], sweeps, ends, seed)
    return {name: array for name, array in found.items() if name not in named}


def _remarks(
    manifest: Mapping[str, object], feeds: Arrays, results: Arrays, plots: Path | None
) -> dict[str, tuple[object, str]]:
    """What a run of energies adds to the report, as data and as a line: divergence, pictures, costs on a chip."""
    found: dict[str, tuple[object, str]] = {}
    if "energy" in manifest:
        from neuc.compiler.energy.divergence import first_broken

        if (broken := first_broken(feeds, results)) is not None:
            what = f"result {broken[0]} holds NaN or infinity in row {broken[1]}"
            found["diverged"] = (list(broken), f"warning: {what}: it diverges, see neuc explain NEUC-E621")
    if plots is not None:
        from neuc.compiler.energy.plots import plots_of, write_plots

        sweeps = len(feeds["beta"]) if "beta" in feeds else None
        written = [str(path) for path in write_plots(plots_of(manifest.get("energy"), results, sweeps), plots)]
        found["plots"] = (written, f"drawn: {', '.join(written)}")
    if "tsu" in manifest:
        from neuc.compiler.energy.ledger import ledger

        costs = ledger(manifest["tsu"], feeds)
        if costs is not None:
            found["ledger"] = (costs.to_json(), costs.describe())
    return found


def _array_time(session: Session) -> dict[str, tuple[object, str]]:
    """What a profiled run would have taken on a simulated array, as data and as lines; nothing for other machines."""
    if session.profile is None:
        return {}
    from neuc.runtime.npu.figures import energy_text, summed, time_text, work_text
    from neuc.runtime.npu.usage import array_usage, run_figures

    used, (parts, marks) = array_usage(session.profile), run_figures(session.profile)
    if not parts:
        return {}
    whole = summed("", parts)
    data = {**used, **whole.to_json(), "energy_marks": marks, "products": [part.to_json() for part in parts]}
    lines = [f"array, as simulated: {time_text(whole)}"]
    lines += [f"array: {text}" for text in (work_text(whole), energy_text(whole, marks))]
    return {"array": (data, "\n".join(lines))}


def save_npz(path: Path, arrays: Arrays) -> None:
    """Write arrays to an ``.npz`` file, all or nothing."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType] - keywords are array names


def _compare(expected: Arrays, results: Arrays, rtol: float, atol: float) -> tuple[bool, dict[str, object]]:
    missing = sorted(expected.keys() - results.keys())
    if missing:
        raise Error(
            "NEUC-E006",
            f"--expected holds {missing[0]!r}, which is no output",
            hint=f"outputs: {', '.join(results)}",
            exit_code=Exit.USAGE,
        )
    names = sorted(expected)
    wrong = [n for n in names if expected[n].shape != results[n].shape]
    if wrong:
        summary = f"{wrong[0]} has shape {list(results[wrong[0]].shape)}, expected {list(expected[wrong[0]].shape)}"
        return False, {"equal": False, "summary": summary}
    equal = all(np.allclose(results[n], expected[n], rtol=rtol, atol=atol, equal_nan=True) for n in names)
    agreement = compare_named(names, expected, results)
    verdict = "within" if equal else "NOT within"
    summary = f"{verdict} rtol {rtol:g}, atol {atol:g}: {agreement.describe()}"
    return equal, {"equal": equal, "summary": summary, **agreement.to_json()}


def _describe(name: str, array: np.ndarray) -> str:
    values = ", ".join(f"{value:.6g}" for value in array.reshape(-1)[:_SHOWN_VALUES])
    more = ", ..." if array.size > _SHOWN_VALUES else ""
    return f"{name}: {array.dtype}{list(array.shape)} = [{values}{more}]"


def _describe_json(name: str, array: np.ndarray) -> dict[str, object]:
    flat = array.reshape(-1)
    return {
        "name": name,
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "first": [value.item() for value in flat[:_SHOWN_VALUES]],
    }
