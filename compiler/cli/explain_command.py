"""`neuc explain`: the long form of an error code."""

from __future__ import annotations

import click

from neuc.compiler.cli import arguments, console
from neuc.compiler.explain import EXPLANATIONS
from neuc.errors import Error, Exit


@click.command("explain")
@click.argument("code", required=False)
@arguments.json_option
def explain_command(code: str | None, as_json: bool) -> int:
    """Explain an error code such as NEUC-E101; without CODE, list all."""
    if code is None and as_json:
        console.product_json(dict(sorted(EXPLANATIONS.items())))
        return Exit.OK
    if code is None:
        for name, text in sorted(EXPLANATIONS.items()):
            console.product(f"{name}  {text.partition(chr(10))[0]}")
        return Exit.OK
    wanted = code.upper()
    wanted = wanted if wanted.startswith("NEUC-") else f"NEUC-E{wanted.removeprefix('E')}"
    if wanted not in EXPLANATIONS:
        raise Error(
            "NEUC-E001", f"no error has the code {code!r}", hint="`neuc explain` lists all codes", exit_code=Exit.USAGE
        )
    if as_json:
        console.product_json({wanted: EXPLANATIONS[wanted]})
    else:
        console.product(f"{wanted}: {EXPLANATIONS[wanted]}")
    return Exit.OK
