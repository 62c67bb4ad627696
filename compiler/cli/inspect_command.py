"""`neuc inspect`: what is inside an artifact, a model or an IR file, as text, JSON, a graph or a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import click

from neuc.compiler.cli import arguments, console, weight_files
from neuc.compiler.files import check_writable, write_text
from neuc.compiler.inspection.facts import Inspected, index_text, plain_lines, report_of
from neuc.compiler.report_text import human_bytes, report_lines
from neuc.errors import Error, Exit

_LEVELS = ("graph", "paradigm", "machine")


@click.command("inspect")
@arguments.model_argument
@click.option("--ir", "level", type=click.Choice(_LEVELS), help="Print the IR of this level.")
@click.option(
    "--target", default="cpu", show_default=True, help="Target whose IR --ir prints, if MODEL is no artifact."
)
@click.option("--dot", is_flag=True, help="Print the graph in Graphviz' language.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page about MODEL; it works without a network.")
@click.option("--model-explorer", type=click.Path(path_type=Path), help="Write the graph for Model Explorer, as JSON.")
@weight_files.read_as_option
@weight_files.tl_option
@arguments.json_option
def inspect_command(
    model: Path,
    level: str | None,
    target: str,
    dot: bool,
    html: Path | None,
    model_explorer: Path | None,
    read_as: tuple[str, ...],
    tl: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show MODEL's signature, operators or launches, layers and sizes; of weight files, tensors by type."""
    if weight_files.is_weight_file(model):
        if level or dot or html or model_explorer:
            raise arguments.usage_error(f"{model} holds weights and no graph", "only --json goes with such files")
        weight_files.show_weights(weight_files.open_weights(model, read_as, tl), as_json)
        return Exit.OK
    if read_as or tl:
        raise arguments.usage_error("--read-as and --tl are for GGUF files", "leave them out")
    arguments.require_file(model)
    for path in (html, model_explorer):
        if path is not None:
            check_writable(path)
    inspected = Inspected(model)
    if html is not None or model_explorer is not None:
        _write(inspected, html, model_explorer)
    if level is not None:
        console.product(_ir(inspected, level, target))
    elif dot:
        from neuc.compiler.inspection.dot import to_dot

        console.product(to_dot(inspected.graph()))
    elif as_json:
        console.product_json(inspected.facts())
    elif html is None and model_explorer is None:
        _show(inspected.facts())
    return Exit.OK


def _write(inspected: Inspected, html: Path | None, model_explorer: Path | None) -> None:
    graph = inspected.graph()
    if html is not None:
        from neuc.compiler.inspection.page import to_html

        write_text(html, to_html(inspected.facts(), graph))
        console.note(f"wrote {html}")
    if model_explorer is not None:
        from neuc.compiler.inspection.model_explorer import to_model_explorer

        write_text(model_explorer, json.dumps(to_model_explorer(graph, inspected.path.name), indent=1) + "\n")
        console.note(f"wrote {model_explorer}")


def _show(found: Mapping[str, object]) -> None:
    lines = [f"{found['file']}: {found['kind']}, {human_bytes(cast(int, found['bytes']))}"]
    for key in ("inputs", "outputs"):
        for item in cast("Sequence[dict[str, object]]", found[key]):
            shape = cast("list[object] | None", item["shape"])
            dims = "[of any rank]" if shape is None else f"[{', '.join(map(str, shape))}]"
            lines.append(f"  {key[:-1]:<6}  {item['name']}: {item['dtype']}{dims}{index_text(item)}")
    for key, value in cast("Mapping[str, object]", found.get("manifest", {})).items():
        lines += [f"  {line}" for line in plain_lines(key, value)]
    for key in ("segments", "operations", "launches", "members", "weights"):
        part = cast("Mapping[str, object]", found.get(key) or {})
        if part:
            lines += ["", f"{key}:", *(f"  {value!s:>10}  {name}" for name, value in part.items())]
    report = report_of(found)
    if report is not None:
        lines += ["", *report_lines(report)]
    console.product("\n".join(lines))


def _ir(inspected: Inspected, level: str, target: str) -> str:
    if inspected.artifact is not None:
        text = inspected.artifact.ir.get(f"{level}.mlir")
        if text is None:
            raise Error(
                "NEUC-E008",
                f"{inspected.path} holds no {level}-level IR",
                hint="compile with --keep-ir, or inspect the model it came from",
            )
        return text
    from neuc.compiler.api import compile_model
    from neuc.compiler.driver import print_module
    from neuc.compiler.options import CompileOptions

    return print_module(compile_model(inspected.path, CompileOptions(target=target), to_level=level).module)
