"""`neuc convert`: re-encode the ternary tensors of a GGUF file or a Hugging Face folder, exactly or not at all."""

from __future__ import annotations

from pathlib import Path

import click

from neuc.compiler.cli import arguments, console, weight_files
from neuc.compiler.report_text import human_bytes
from neuc.errors import Exit


@click.command("convert")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--format", "name", required=True, help="Block format of the ternary tensors: i2_s, tq2_0, pq2_0 ...")
@click.option("--lossy-scales", is_flag=True, help="Round scales to what the format stores, if they are not exact.")
@weight_files.read_as_option
@weight_files.tl_option
@arguments.json_option
def convert_command(
    source: Path,
    target: Path,
    name: str,
    lossy_scales: bool,
    read_as: tuple[str, ...],
    tl: tuple[str, ...],
    as_json: bool,
) -> int:
    """Write the weights of IN to OUT with its ternary tensors in another block format.

    IN is a GGUF file or a Hugging Face folder. Weights stay what they are, or nothing is written and every tensor that
    stands in the way is named. All other tensors and the metadata are copied.
    """
    from neuc.compiler.files import check_writable
    from neuc.compiler.formats import table
    from neuc.compiler.formats.convert import Options, convert

    if name not in table.NAMES:
        from neuc.compiler.universe import nearest

        raise arguments.usage_error(f"--format {name}: no such format", nearest(name, table.NAMES))
    if not weight_files.is_weight_file(source):
        arguments.require_file(source)
        raise arguments.usage_error(
            f"{source} is neither a GGUF file nor a Hugging Face folder", "`neuc compile` reads models"
        )
    if name not in table.HF_FORMATS:
        check_writable(target)
    opened = weight_files.open_weights(source, read_as, tl)
    done = convert(opened, target, Options(name, opened.tl_sizes, lossy_scales))
    if as_json:
        console.product_json(
            {
                "file": str(target),
                "format": done.format,
                "source_types": list(done.source_types),
                "tensors": list(done.tensors),
                "bytes_before": done.before,
                "bytes_after": done.after,
                "copied": done.copied,
                "dropped": list(done.dropped),
                "scale_error": done.scale_error,
                "notes": [*opened.warnings, *done.notes],
            }
        )
        return Exit.OK
    count = arguments.counted(len(done.tensors), "ternary tensor")
    console.note(f"{count}: {', '.join(done.source_types)} -> {done.format}")
    console.note(f"  {human_bytes(done.before)} -> {human_bytes(done.after)}, every level as it was")
    error = done.scale_error
    console.note(f"  scales rounded, relative error up to {error:.1e}" if error else "  every scale as it was")
    console.note(f"  {arguments.counted(done.copied, 'other tensor')} copied")
    for dropped in done.dropped:
        console.note(f"  {dropped} left out: its scale stands in the tensor itself now")
    for text in (*opened.warnings, *done.notes):
        console.note(f"note: {text}")
    console.note(f"wrote {target}")
    return Exit.OK
