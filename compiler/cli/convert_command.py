"""`neuc convert`: which of the conversions is asked for; ternary weights of files and ONNX models are written here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from neuc.compiler.cli import arguments, console, convert_nir, convert_qdq, convert_snn, idle_options, weight_files
from neuc.compiler.report_text import human_bytes
from neuc.errors import Exit

if TYPE_CHECKING:
    from neuc.compiler.exporters.low_bit_weights import Change


@click.command("convert")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "name",
    help="Block format of ternary tensors (i2_s, tq2_0, pq2_0 ...), or ONNX form (int2-qdq, qdq-int8 ...).",
)
@click.option(
    "--to",
    type=click.Choice(["snn", "nir"]),
    help="Make a spiking network of a float one (snn), or write one in the neuromorphic exchange format (nir).",
)
@click.option("--lossy-scales", is_flag=True, help="Round scales to what the format stores, if they are not exact.")
@weight_files.read_as_option
@weight_files.tl_option
@arguments.json_option
@convert_qdq.qdq_options
@convert_snn.snn_options
@convert_nir.nir_options
def convert_command(
    source: Path,
    target: Path,
    name: str | None,
    to: str | None,
    lossy_scales: bool,
    read_as: tuple[str, ...],
    tl: tuple[str, ...],
    as_json: bool,
    **others: object,
) -> int:
    """Write a model in another form: other weights, int8, spikes, or the exchange format of spiking networks.

    \b
    --to snn             a float network (ONNX, IR) as a spiking one, OUT.mlir; needs --calib
    --to nir             a spiking network (.mlir, .nir) in NIR, OUT.nir, if NIR can say all of it
    --format tq2_0 …     a GGUF file's or Hugging Face folder's ternary tensors in another block format
    --format int2-qdq …  an ONNX model's weights of few levels in a low-bit ONNX form
    --format qdq-int8    a float ONNX model in int8, weights and activations; needs --calib

    Options that begin with a conversion's name are for that one alone; beside another they are refused.

    Ternary weights stay what they are, or nothing is written and every tensor that stands in the way is named; all
    other tensors and the metadata are copied. Low-bit ONNX forms are int2-qdq, int4-qdq, qcdq, qonnx, matmul-2bits and
    matmul-4bits, from floats or another of these; layers that stay as they are are named with the reason. qdq-int8 is
    what Ryzen AI's Vitis AI and others take; the error on rows held out is told.
    """  # noqa: D301  (click takes the backspace for "as it is")
    if source.is_file() and target.exists() and source.samefile(target):
        raise arguments.usage_error(f"OUT {target} is IN: the original would be lost", "give OUT another name")
    if to is not None:
        idle_options.refuse_others(to, f"with --to {to}")
        make = convert_snn.convert_snn if to == "snn" else convert_nir.convert_nir
        return make(source, target, others, as_json)
    if name is None:
        raise arguments.usage_error("neither --format nor --to is given", "--format tq2_0, say, or --to snn")
    if name == convert_qdq.FORMAT:
        idle_options.refuse_others(name, f"with --format {name}")
        return convert_qdq.convert_qdq(source, target, others, as_json)
    _check_format(name, of_onnx=source.suffix == ".onnx")
    if source.suffix == ".onnx":
        idle_options.refuse_others("onnx", f"with an ONNX model and --format {name}")
        return _convert_onnx(source, target, name, as_json)
    idle_options.refuse_others("weights", f"with --format {name}")
    from neuc.compiler.files import check_writable
    from neuc.compiler.formats import table
    from neuc.compiler.formats.convert import Options, convert

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


def _check_format(name: str, *, of_onnx: bool) -> None:
    """Refuse a format nobody knows, before other options are judged by it."""
    from neuc.compiler.universe import nearest

    if of_onnx:
        from neuc.compiler.exporters.low_bit_weights import FORMS as KNOWN

        what = "no low-bit form of ONNX models"
    else:
        from neuc.compiler.formats.table import NAMES as KNOWN

        what = "no such format"
    if name not in KNOWN:
        raise arguments.usage_error(f"--format {name}: {what}", nearest(name, [*KNOWN, convert_qdq.FORMAT]))


def _convert_onnx(source: Path, target: Path, form: str, as_json: bool) -> int:
    from neuc.compiler.exporters.low_bit_file import convert_onnx

    arguments.require_file(source)
    changes = convert_onnx(source, target, form)
    if as_json:
        layers = [dataclasses.asdict(change) for change in changes]
        console.product_json({"file": str(target), "format": form, "layers": layers})
        return Exit.OK
    for change in changes:
        what = f"left as it is: {change.kept}" if change.kept else _described(change)
        console.note(f"  {change.op_type} {change.node}: {what}")
    console.note(f"wrote {target}")
    return Exit.OK


def _described(change: Change) -> str:
    levels = ", ".join(map(str, change.levels)) if len(change.levels) < 5 else f"{len(change.levels)} levels"
    exact = f"within {arguments.counted(change.ulp, 'unit')} in the last place" if change.ulp else "exact"
    return f"{levels}, a scale per {change.scale}, {exact}"
