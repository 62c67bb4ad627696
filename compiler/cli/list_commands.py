"""`neuc targets` and `neuc passes`: what there is, with options."""

from __future__ import annotations

import dataclasses

import click

from neuc.compiler import universe
from neuc.compiler.cli import arguments, console
from neuc.errors import Exit


@click.command("passes")
@click.option("--all", "everything", is_flag=True, help="Also passes of xDSL and other installed packages.")
@arguments.json_option
def passes_command(everything: bool, as_json: bool) -> int:
    """List passes and their options."""
    from neuc.compiler.pass_options import options_of

    known = universe.all_passes() if everything else universe.PASSES
    classes = {name: known[name]() for name in sorted(known)}
    found = [(name, _first_sentence(cls.__doc__), options_of(cls)) for name, cls in classes.items()]
    if as_json:
        console.product_json(
            [
                {"name": name, "summary": summary, "options": [dataclasses.asdict(option) for option in options]}
                for name, summary, options in found
            ]
        )
        return Exit.OK
    for name, summary, options in found:
        console.product(f"{name}: {summary}" if summary else name)
        for option in options:
            console.product(f"    {option.describe()}")
    return Exit.OK


@click.command("targets")
@arguments.json_option
def targets_command(as_json: bool) -> int:
    """List targets and what they use on this machine."""
    from neuc.backends.cpu.target import TARGETS, isa_text
    from neuc.backends.paradigm_target import ParadigmTarget

    found: list[dict[str, object]] = []
    for name, target in sorted(universe.targets().items()):
        machine = isinstance(target, ParadigmTarget)
        cpu = TARGETS[target.host] if machine else target
        isa = cpu.isa()
        found.append(
            {
                "name": name,
                "summary": target.summary,
                "default_quantize": target.default_quantize,
                "isa": isa_text(isa),
                "ternary_encoding": " or ".join(cpu.encodings(isa)),
                "options": dict(target.options) if machine else ["group", "bm", "bk"],
            }
        )
    if as_json:
        console.product_json(found)
    else:
        columns = ("name", "isa", "ternary_encoding", "default_quantize", "summary")
        header = ("target", "instruction set here", "ternary", "quantize", "what it is")
        console.product(arguments.table(header, [[item[column] for column in columns] for item in found]))
    return Exit.OK


def _first_sentence(doc: str | None) -> str:
    """The first sentence of a docstring; dataclasses without one get their signature, which is no help."""
    text = " ".join((doc or "").split())
    return text.partition(". ")[0].rstrip(".") if not text.partition("(")[0].isidentifier() else ""
