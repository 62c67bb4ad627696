"""`neuc check SNN --target chip:NAME`: a spiking network beside the limits of a chip, as a table."""

from __future__ import annotations

from pathlib import Path

from neuc.compiler.cli import arguments, console
from neuc.errors import Exit

PREFIX = "chip:"


def check_chip(model: Path, target: str, as_json: bool) -> int:
    """Print every limit with what the network needs; exit 3 if one is passed."""
    from neuc.compiler.chips.fit import chip_named, compare
    from neuc.compiler.chips.footprint import footprint
    from neuc.compiler.source import read_model

    chip = chip_named(target.removeprefix(PREFIX))
    arguments.require_file(model)
    if model.suffix == arguments.ARTIFACT_SUFFIX:
        hint = "give the .mlir that neuc convert --to snn wrote, or the .nir file"
        raise arguments.usage_error(f"{model} is a compiled program, in which no network can be seen any more", hint)
    read = read_model(model)
    rows = compare(footprint(read.module, read.context.weights), chip)
    passed = [row for row in rows if not row.fits]
    if as_json:
        limits = [
            {
                "what": row.what,
                "needed": row.needed,
                "allowed": row.allowed,
                "fits": row.fits,
                "status": row.source.status,
                "source": row.source.text,
            }
            for row in rows
        ]
        console.product_json({"model": str(model), "chip": chip.title, "fits": not passed, "limits": limits})
    else:
        verdict = "fits" if not passed else f"does not fit: {', '.join(row.what for row in passed)}"
        table = arguments.table(
            ("limit", "needed", "allowed", "", "source"),
            [
                (row.what, row.needed, row.allowed, "" if row.fits else "!", f"{row.source.status}: {row.source.text}")
                for row in rows
            ],
        )
        console.product(f"{model.name} {verdict} ({chip.title})\n\n{table}")
    return Exit.UNSUPPORTED if passed else Exit.OK
