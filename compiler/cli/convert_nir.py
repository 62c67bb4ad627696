"""`neuc convert SNN OUT.nir --to nir`: its options, and what it prints. What can be written is the exporter's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from neuc.compiler.cli import arguments, console, idle_options
from neuc.errors import Exit

if TYPE_CHECKING:
    from neuc.compiler.exporters.nir_graph import Exported
    from neuc.compiler.source import Source

CommandT = TypeVar("CommandT", bound=Callable[..., object])

SOFT_RESETS = ("metadata", "subgraph")
_OPTIONS = (
    click.option("--dt", type=float, help="nir: seconds in a step; 1e-4 by default."),
    click.option(
        "--soft-reset",
        type=click.Choice(SOFT_RESETS),
        default="metadata",
        show_default=True,
        help="nir: say it in metadata, or as nodes that mean it to every reader.",
    ),
    click.option("--traces", type=click.Path(path_type=Path), help="nir: write golden spike traces (NIRGraphData)."),
    click.option("--traces-on", metavar="NAME=@FILE.npy", multiple=True, help="nir: inputs of the traces."),
)


def nir_options(command: CommandT) -> CommandT:
    """The options of ``--to nir``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def convert_nir(source: Path, target: Path, options: Mapping[str, Any], as_json: bool) -> int:
    """Write the spiking network in `source` to `target`.

    Raises:
        Error: NEUC-E507, NIR cannot say everything (exit code 3); NEUC-E002, options that do nothing.
    """
    from neuc.compiler.exporters.nir_graph import export_nir
    from neuc.compiler.files import check_writable, replacing
    from neuc.compiler.importers.nir.options import DEFAULT_DT, NirOptions
    from neuc.compiler.source import read_model

    arguments.require_file(source)
    traces = cast("Path | None", options["traces"])
    if traces is None:
        idle_options.refuse({"traces_on": "--traces-on"}, "without --traces")
    for path in (target, traces):
        if path is not None:
            check_writable(path)
    given = NirOptions(options["dt"])  # refuses what makes no sense
    read = read_model(source, nir=given)
    dt = given.dt or DEFAULT_DT
    exported = export_nir(read.module, read.context.weights, dt=dt, soft_reset=options["soft_reset"])
    import nir

    with replacing(target) as temporary:
        nir.write(temporary, exported.graph)
    if traces is not None:
        _write_traces(read, exported, traces, options["traces_on"])
    kinds = [type(node).__name__ for node in exported.graph.nodes.values()]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    if as_json:
        files = {"file": str(target), **({"traces": str(traces)} if traces is not None else {})}
        console.product_json({**files, "dt": dt, "nodes": counts, "notes": exported.notes})
        return Exit.OK
    console.note(f"{arguments.counted(len(kinds), 'node')}: {', '.join(f'{n} {kind}' for kind, n in counts.items())}")
    for note in exported.notes:
        console.note(f"note: {note}")
    console.note(f"wrote {target}" + (f" and {traces}" if traces is not None else ""))
    return Exit.OK


def _write_traces(read: Source, exported: Exported, path: Path, specs: tuple[str, ...]) -> None:
    import nir

    from neuc.compiler.exporters.nir_traces import golden_traces
    from neuc.compiler.files import replacing
    from neuc.compiler.inputs import parse_inputs
    from neuc.compiler.signature import signature_of

    inputs = parse_inputs(specs, signature_of(read.module)[0])
    traces = golden_traces(read.module, read.context.weights, exported, inputs)
    with replacing(path) as temporary:
        nir.write_data(temporary, traces)
