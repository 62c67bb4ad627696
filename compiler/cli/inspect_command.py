"""`neuc inspect`: what is inside an artifact, a model or an IR file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from neuc.compiler.cli import arguments, console
from neuc.compiler.report import Report
from neuc.compiler.report_text import report_lines
from neuc.errors import Error, Exit

if TYPE_CHECKING:
    from neuc.runtime.artifact import Artifact
    from neuc.runtime.program import IoSpec, Program

_LEVELS = ("graph", "paradigm", "machine")


@click.command("inspect")
@arguments.model_argument
@click.option("--ir", "level", type=click.Choice(_LEVELS), help="Print the IR of this level.")
@click.option(
    "--target", default="cpu", show_default=True, help="Target whose IR --ir prints, if MODEL is no artifact."
)
@click.option("--dot", is_flag=True, help="Print the graph in Graphviz' language.")
@arguments.json_option
def inspect_command(model: Path, level: str | None, target: str, dot: bool, as_json: bool) -> int:
    """Show MODEL's signature, operators or launches, layers and sizes."""
    arguments.require_file(model)
    artifact = _open(model)
    if level is not None:
        console.product(_ir(model, artifact, level, target))
    elif dot:
        console.product(_dot(model, artifact))
    elif artifact is not None:
        _show(_describe_artifact(artifact), as_json)
    else:
        _show(_describe_model(model), as_json)
    return Exit.OK


def _open(model: Path) -> Artifact | None:
    if model.suffix != arguments.ARTIFACT_SUFFIX:
        return None
    from neuc.runtime.artifact import Artifact

    return Artifact.open(model)


def _describe_artifact(artifact: Artifact) -> dict[str, object]:
    program = artifact.program
    return {
        "file": str(artifact.path),
        "kind": "artifact",
        "bytes": artifact.path.stat().st_size,
        "manifest": {k: v for k, v in artifact.manifest.items() if k not in ("members", "report", "signature")},
        "inputs": [_io(spec) for spec in program.inputs],
        "outputs": [_io(spec) for spec in program.outputs],
        "segments": {name: segment.kind for name, segment in program.segments.items()},
        "launches": dict(_launches(program)),
        "members": {name: size for name, size in sorted(artifact.sizes.items())},
        "report": artifact.manifest.get("report"),
    }


def _launches(program: Program) -> Counter[str]:
    from neuc.runtime.program import NativeSegment

    native = [s for s in program.segments.values() if isinstance(s, NativeSegment)]
    return Counter(launch.kernel for segment in native for launch in segment.launches)


def _describe_model(model: Path) -> dict[str, object]:
    from neuc.compiler.signature import signature_of
    from neuc.compiler.source import read_model

    source = read_model(model)
    inputs, outputs = signature_of(source.module)
    names = Counter(
        op.name for op in source.module.walk() if "." in op.name and not op.name.startswith(("builtin.", "func."))
    )
    sizes = {key: source.context.weights.get(key).nbytes for key in source.context.weights}
    return {
        "file": str(model),
        "kind": f"{source.level}-level module",
        "bytes": model.stat().st_size,
        "inputs": [_io(spec) for spec in inputs],
        "outputs": [_io(spec) for spec in outputs],
        "operations": dict(names.most_common()),
        "weights": {"entries": len(sizes), "bytes": sum(sizes.values())},
    }


def _io(spec: IoSpec) -> dict[str, object]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape) if spec.ranked else None}


def _show(found: Mapping[str, object], as_json: bool) -> None:
    if as_json:
        console.product_json(found)
        return
    lines = [f"{found['file']}: {found['kind']}, {arguments.human_bytes(cast(int, found['bytes']))}"]
    for key in ("inputs", "outputs"):
        for item in cast("Sequence[dict[str, object]]", found[key]):
            shape = cast("list[object] | None", item["shape"])
            dims = "[of any rank]" if shape is None else f"[{', '.join(map(str, shape))}]"
            lines.append(f"  {key[:-1]:<6}  {item['name']}: {item['dtype']}{dims}")
    for key, value in cast("Mapping[str, object]", found.get("manifest", {})).items():
        lines.append(f"  {key}: {_plain(key, value)}")
    for key in ("segments", "operations", "launches", "members", "weights"):
        part = cast("Mapping[str, object]", found.get(key) or {})
        if part:
            lines += ["", f"{key}:", *(f"  {value!s:>10}  {name}" for name, value in part.items())]
    report = found.get("report")
    if isinstance(report, Mapping):
        lines += ["", *report_lines(Report.from_json(cast("Mapping[str, object]", report)))]
    console.product("\n".join(lines))


def _plain(key: str, value: object) -> str:
    """A manifest entry for people."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in cast("Mapping[str, object]", value).items())
    if isinstance(value, list):
        return (".".join if key == "format" else ", ".join)(map(str, cast("list[object]", value)))
    return str(value)


def _ir(model: Path, artifact: Artifact | None, level: str, target: str) -> str:
    if artifact is not None:
        text = artifact.ir.get(f"{level}.mlir")
        if text is None:
            raise Error(
                "NEUC-E008",
                f"{model} holds no {level}-level IR",
                hint="compile with --keep-ir, or inspect the model it came from",
            )
        return text
    from neuc.compiler.api import compile_model
    from neuc.compiler.driver import print_module
    from neuc.compiler.options import CompileOptions

    return print_module(compile_model(model, CompileOptions(target=target), to_level=level).module)


def _dot(model: Path, artifact: Artifact | None) -> str:
    edges: list[tuple[str, str]] = []
    labels: dict[str, str] = {}
    if artifact is not None:
        made = {spec.name: f"in_{spec.name}" for spec in artifact.program.inputs}
        labels = {node: name for name, node in made.items()}
        for number, step in enumerate(artifact.program.schedule):
            node = f"step{number}"
            labels[node] = f"{step.segment} ({artifact.program.segments[step.segment].kind})"
            edges += [(made[name], node) for name in step.inputs]
            made.update({name: node for name in step.outputs})
        edges += [(made[spec.name], f"out_{spec.name}") for spec in artifact.program.outputs]
        labels |= {f"out_{spec.name}": spec.name for spec in artifact.program.outputs}
    else:
        edges, labels = _module_graph(model)
    nodes = [f'  "{node}" [label="{label}"];' for node, label in labels.items()]
    return "\n".join(["digraph model {", *nodes, *(f'  "{a}" -> "{b}";' for a, b in edges), "}"])


def _module_graph(model: Path) -> tuple[list[tuple[str, str]], dict[str, str]]:
    from xdsl.ir import Operation

    from neuc.compiler.source import read_model
    from neuc.dialects.locations import node_names
    from neuc.dialects.store import ConstantOp

    edges: list[tuple[str, str]] = []
    labels: dict[str, str] = {}
    ids: dict[Operation, str] = {}
    for op in read_model(model).module.walk():
        if op.name.startswith(("builtin.", "func.func")) or isinstance(op, ConstantOp):
            continue
        ids[op] = f"op{len(ids)}"
        labels[ids[op]] = "\\n".join([op.name, *node_names(op)])
        for value in op.operands:
            owner = value.owner
            if isinstance(owner, Operation) and owner in ids:
                edges.append((ids[owner], ids[op]))
            elif not isinstance(owner, Operation):
                source = f"arg{value.index}"  # type: ignore[attr-defined]
                labels.setdefault(source, value.name_hint or source)
                edges.append((source, ids[op]))
    return edges, labels
