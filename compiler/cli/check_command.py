"""`neuc check`: everything of a model that a target cannot run, at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from neuc.compiler.cli import arguments, check_chip, console
from neuc.errors import Exit

if TYPE_CHECKING:
    from neuc.compiler.checking import Checked

_SHOWN_NODES = 6


@click.command("check")
@arguments.model_argument
@click.option("--target", help="See `neuc targets`; cpu by default; chip:NAME.")
@click.option("--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224", help="Fix an input's symbolic dims.")
@arguments.json_option
def check_command(model: Path, target: str | None, shapes: tuple[str, ...], as_json: bool) -> int:
    """List every operator of MODEL that the target cannot run, with reasons; exit 3 if there are any.

    `neuc compile` runs these in onnxruntime unless it is told --fallback error. MODEL may be what `neuc compile` takes,
    or an artifact: then it is what runs in onnxruntime of it. With --target chip:loihi2, chip:xylo, chip:speck or
    chip:spinnaker2, MODEL is a spiking network, and the limits of the chip are listed with their sources.
    """
    if target is not None and target.startswith(check_chip.PREFIX):
        return check_chip.check_chip(model, target, as_json)
    from neuc.compiler.checking import check_artifact, check_model
    from neuc.compiler.options import CompileOptions, parse_shape

    arguments.require_file(model)
    if model.suffix == arguments.ARTIFACT_SUFFIX:
        if target is not None or shapes:
            raise arguments.usage_error(f"{model} is already compiled", "leave --target and --shape out")
        target, checked = check_artifact(model)
    else:
        target = target or "cpu"
        checked = check_model(model, CompileOptions(target=target, shapes=dict(parse_shape(text) for text in shapes)))
    if as_json:
        nodes = [{"name": n.name, "op_type": n.op_type, "reason": n.reason} for n in checked.nodes]
        report = {"model": str(model), "target": target, "unsupported": nodes, "native_share": checked.native_share}
        counts = {"operators": checked.operators, "energies": checked.energies}
        console.product_json({**report, **counts, "notes": checked.notes})
    else:
        compiled = model.suffix == arguments.ARTIFACT_SUFFIX
        what = ("launch or node", "launches and nodes") if compiled else ("operator", "operators")
        lines = [*_lines(model, target, checked, *what), *(f"note: {note}" for note in checked.notes)]
        console.product("\n".join(lines))
    return Exit.UNSUPPORTED if checked.nodes else Exit.OK


def _lines(model: Path, target: str, checked: Checked, one: str, what: str) -> list[str]:
    nodes, share = checked.nodes, checked.native_share
    where = f"{target} or the CPU beside it" if checked.shared and not checked.energies else target
    if not nodes:
        if checked.operators == 1 and not checked.energies:
            return [f"{model.name}: its only {one} runs on {where}"]
        parts = [f"all {checked.operators} {what}"] if checked.operators or not checked.energies else []
        if checked.energies:
            parts.append(f"its energies ({arguments.counted(checked.energies, 'operation')})")
        return [f"{model.name}: {' and '.join(parts)} run on {where}"]
    groups: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        groups.setdefault((node.op_type, node.reason), []).append(node.name)
    rows: list[tuple[str, int, str, str]] = []
    for (op, reason), names in groups.items():
        more = f" and {len(names) - _SHOWN_NODES} more" if len(names) > _SHOWN_NODES else ""
        rows.append((op, len(names), reason, ", ".join(names[:_SHOWN_NODES]) + more))
    work = "" if share is None else f"; {share:.1%} of the multiply-adds run natively"
    head = f"{model.name}: {len(nodes)} of {checked.operators} {what} cannot run on {where}{work}"
    return [head, "", arguments.table(("operator", "nodes", "why", "which"), rows, right=(1,))]
