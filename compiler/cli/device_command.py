"""`neuc device`: models of memory devices, and conductances and netlists of compiled crossbars, for a lab."""

from __future__ import annotations

from pathlib import Path

import click

from neuc.compiler.analog.sweep import parse_times
from neuc.compiler.cli import arguments, console
from neuc.compiler.files import check_writable, replacing
from neuc.errors import Exit

_ARTIFACT = click.argument("artifact", type=click.Path(path_type=Path))
_TIME = click.option("--time", "time", default="0", show_default=True, help="Time after programming: 30s, 1h, 1d, 1y.")
_SEED = click.option("--seed", default=0, show_default=True, help="Which draw of the devices.")
_OUTPUT = click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write.")


@click.group("device")
def device_command() -> None:
    """Memory devices: list models, fit one to measurements, export what tiles hold."""


@device_command.command("list")
@arguments.json_option
def list_models(as_json: bool) -> int:
    """List device models and where they come from."""
    from neuc.runtime.analog.models import make_model, model_names

    models = [make_model(name) for name in model_names()]
    if as_json:
        rows = [
            {"name": m.name, "source": m.source, "g_min": m.g_min, "g_max": m.g_max, "cells": m.cells} for m in models
        ]
        console.product_json(rows)
    else:
        table = [[m.name, f"{m.g_min:g} … {m.g_max:g}", m.cells, m.source] for m in models]
        console.product(arguments.table(["device", "µS", "cells", "source"], table))
    return Exit.OK


@device_command.command("fit")
@click.argument("measurements", type=click.Path(path_type=Path))
@_OUTPUT
def fit(measurements: Path, output: Path) -> int:
    """Make a device table of single reads; MEASUREMENTS is a CSV file with target, time and conductance.

    The table is used as 'xbar-pcm{device=OUTPUT}'.
    """
    from neuc.compiler.analog.lab import fit_table, write_table

    arguments.require_file(measurements)
    check_writable(output)
    rows = fit_table(measurements)
    write_table(rows, output)
    targets, times = ({row[name] for row in rows} for name in ("target", "time"))
    console.product(f"{output}: {len(targets)} targets at {arguments.counted(len(times), 'time')}")
    return Exit.OK


@device_command.command("export")
@_ARTIFACT
@_TIME
@_SEED
@_OUTPUT
def export(artifact: Path, time: str, seed: int, output: Path) -> int:
    """Write the conductances of all tiles of ARTIFACT as .csv or .h5, in µS."""
    from neuc.compiler.analog.lab import open_state, write_conductances

    check_writable(output)
    state = open_state(artifact, _one_time(time), seed)
    write_conductances(state, output)
    console.product(f"{output}: {arguments.counted(len(state.program.tiles), 'tile')}")
    return Exit.OK


@device_command.command("netlist")
@_ARTIFACT
@_TIME
@_SEED
@click.option("--tile", default=0, show_default=True, help="Number of the tile.")
@click.option("--half", default=0, show_default=True, help="0: devices of positive weights, 1: of negative ones.")
@click.option("--r-word", default=1.0, show_default=True, help="Ohms of a word-line segment.")
@click.option("--r-bit", default=1.0, show_default=True, help="Ohms of a bit-line segment.")
@click.option("--volts", default=0.2, show_default=True, help="Voltage of all drivers.")
@_OUTPUT
def write_netlist(
    artifact: Path, time: str, seed: int, tile: int, half: int, r_word: float, r_bit: float, volts: float, output: Path
) -> int:
    """Write the devices of one tile of ARTIFACT as a SPICE netlist (`ngspice -b OUTPUT`)."""
    from neuc.compiler.analog.lab import open_state, tile_netlist

    check_writable(output)
    text = tile_netlist(open_state(artifact, _one_time(time), seed), tile, half, r_word, r_bit, volts)
    with replacing(output) as temporary:
        temporary.write_text(text, encoding="ascii")
    console.product(f"{output}: {text.count(chr(10))} lines")
    return Exit.OK


def _one_time(text: str) -> float:
    times = parse_times(text)
    if len(times) != 1:
        raise arguments.usage_error(f"--time {text} names {len(times)} times", "give one")
    return times[0]
