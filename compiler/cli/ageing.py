"""`neuc run --time … --seeds … --eval …`: accuracy against time on simulated devices, and what the arrays cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from neuc.compiler.analog.sweep import Sweep, parse_times, spell_time, sweep
from neuc.compiler.cli import arguments, console
from neuc.errors import Error, Exit

if TYPE_CHECKING:
    from neuc.runtime.session import Session


def run_ageing(
    model: Path,
    artifact: Path,
    data: str | None,
    times: str | None,
    seeds: int,
    scheduler: str | None,
    tile_map: Path | None,
    *,
    as_json: bool,
) -> int:
    """Print accuracy against time with confidence intervals, utilisation and energy.

    Args:
        model: what the user named.
        artifact: the same compiled.
        data: labelled samples; without them only the arrays are described.
        times: as the user wrote them; right after programming if not given.
        seeds: draws.
        scheduler: address of a Dask scheduler.
        tile_map: where to draw the arrays.
        as_json: print JSON.
    """
    from neuc.compiler.analog.tile_map import draw_tile_map
    from neuc.runtime.analog.costs import estimate
    from neuc.runtime.analog.program import CrossbarProgram
    from neuc.runtime.analog.tiles import Chip
    from neuc.runtime.artifact import Artifact

    program = CrossbarProgram.from_manifest(Artifact.open(artifact).manifest)
    if program is None:
        options = {"--time": times is not None, "--seeds": seeds != 1, "--scheduler": scheduler is not None}
        raise _no_devices(next((name for name, given in options.items() if given), "--tile-map"), model)
    if (times is not None or seeds != 1 or scheduler is not None) and data is None:
        raise arguments.usage_error("--time, --seeds and --scheduler need labelled data", "give --eval FILE.npz:LABELS")
    ages = parse_times("0" if times is None else times)
    found = None if data is None else sweep(artifact, data, ages, seeds, scheduler=scheduler)
    if tile_map is not None:
        draw_tile_map(program, tile_map)
    chip = program.chip
    if not isinstance(chip, Chip):
        if any(ages):
            console.note(f"note: photonic meshes do not age: --time {times} changes nothing")
        return _print_plain(found, as_json=as_json)
    cost = estimate(program)
    if as_json:
        report: dict[str, object] = {"device": chip.device.name, "arrays": cost.to_json()}
        console.product_json(report if found is None else {**report, **found.to_json()})
        return Exit.OK
    console.product(f"device {chip.device.name}: {chip.device.source}")
    if found is not None:
        console.product(_table(found))
    console.product("\n".join(cost.describe()))
    return Exit.OK


def age(session: Session, model: Path, times: str) -> None:
    """Have a single run be so long after programming.

    Raises:
        Error: NEUC-E002, several ages, or no simulated devices; NEUC-E648, a time that makes no sense.
    """
    from neuc.runtime.analog.tiles import check_time

    ages = parse_times(times)
    if len(ages) != 1:
        raise arguments.usage_error(
            f"--time {times} is several ages for one run", "give one, or --eval FILE.npz:LABELS"
        )
    if session.analog is None:
        raise _no_devices("--time", model)
    check_time(ages[0])
    session.analog.set(ages[0], 0)


def _no_devices(option: str, model: Path) -> Error:
    what = f"{option} does nothing with {model}: it has no simulated devices"
    return arguments.usage_error(what, "compile for xbar-pcm or another crossbar target")


def _print_plain(found: Sweep | None, *, as_json: bool) -> int:
    """Accuracies alone: costs are known for memory arrays."""
    if as_json:
        console.product_json({} if found is None else found.to_json())
    elif found is not None:
        console.product(_table(found))
    return Exit.OK


def _table(found: Sweep) -> str:
    rows: list[list[str]] = []
    for row in found.rows:
        low, high = row.interval()
        interval = f"{low:.2%} to {high:.2%}" if len(found.seeds) > 1 else "-"
        worst = f"{min(row.accuracies):.2%}"
        rows.append([spell_time(row.time), f"{row.mean:.2%}", interval, f"{row.std:.2%}", worst])
    table = arguments.table(["time", "accuracy", "95 % interval", "std of draws", "worst"], rows, right=(1, 3, 4))
    return f"{table}\n{arguments.counted(len(found.seeds), 'draw')} of {found.samples} samples"
