"""`neuc compile`: from a model to an artifact, or to the IR of a level."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import click

from neuc.compiler.cli import arguments, console, weight_files
from neuc.compiler.files import check_writable, write_text
from neuc.compiler.importers.nir.options import RESETS
from neuc.compiler.options import FALLBACK, HEADS, KV_TYPES, QUANTIZE, SCALES, CompileOptions, parse_shape
from neuc.compiler.report import Report
from neuc.compiler.report_text import write_report
from neuc.errors import Error, Exit

_LEVELS = ("graph", "paradigm", "machine", "program")
_STAGES = ("import",)
"""What --print-ir-after takes besides passes."""


@click.command("compile")
@arguments.model_argument
@click.option("--target", default="cpu", show_default=True, help="See `neuc targets`; options: 'cpu-tl2{bm=64}'.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="MODEL.neuc in this folder by default.")
@click.option(
    "--quantize",
    type=click.Choice(QUANTIZE),
    help="Default: auto for CPU targets of an encoding, ternary for NPUs (int8 with --calib), none for the others.",
)
@click.option("--planes", type=int, help="Ternary planes per weight (1 to 4); the most that auto may use.")
@click.option("--scale", type=click.Choice(SCALES), default="row", show_default=True, help="What shares a scale.")
@click.option("--max-error", type=float, help="Error budget, of auto 0.05 by default, else none. Missed: exit code 4.")
@click.option(
    "--no-recognize", is_flag=True, help="Keep as float what the model quantised itself (ternary otherwise: lossless)."
)
@click.option(
    "--head", type=click.Choice(HEADS), help="Decoders: what embedding and head become; int8 unless quantised."
)
@click.option(
    "--kv", type=click.Choice(KV_TYPES), default="f16", show_default=True, help="Decoders: type of the caches."
)
@weight_files.read_as_option
@click.option("--dt", type=float, help="NIR graphs: seconds in a step, if the file does not say; 1e-4.")
@click.option(
    "--reset",
    type=click.Choice(RESETS),
    default="file",
    show_default=True,
    help="NIR graphs: meaning of resets to 0.",
)
@click.option("--keep-state", is_flag=True, help="NIR graphs: make states inputs and outputs of the program.")
@click.option(
    "--calib", type=click.Path(path_type=Path), help=".npz with inputs to measure errors on; NPUs: to fix scales."
)
@click.option("--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224", help="Fix an input's symbolic dims.")
@click.option("--fallback", type=click.Choice(FALLBACK), default="host", show_default=True, help="Unsupported nodes.")
@click.option("--cpu", "isa", default="host", show_default=True, help="Instruction set: host, avx512, avx2, portable.")
@click.option("--tune", is_flag=True, help="Measure encodings of ternary layers on this machine; kept for next time.")
@click.option(
    "--compile-to",
    "level",
    type=click.Choice(_LEVELS),
    default="program",
    show_default=True,
    help="Level to stop at; IR as MODEL.LEVEL.mlir.",
)
@click.option("--dump-ir", type=click.Path(path_type=Path), help="One numbered file per pass that changed something.")
@click.option("--print-ir-after", default="", metavar="PASS|all|changed", help="IR on stdout after passes.")
@click.option("--verify-each", is_flag=True, help="Verify the module after every pass, machine level included.")
@click.option("--time-passes", is_flag=True, help="Print how long each pass took.")
@click.option(
    "--verify", is_flag=False, flag_value=4, type=int, default=0, metavar="[N]", help="Compare with onnxruntime."
)
@click.option("--keep-ir", is_flag=True, help="Put the IR of every level into the artifact.")
@click.option("--report", "report_path", type=click.Path(path_type=Path), help="Write the report as JSON.")
@click.option("--no-cache", is_flag=True, help="Compile even if the result is in the cache.")
@arguments.json_option
def compile_command(
    model: Path,
    target: str,
    output: Path | None,
    quantize: str | None,
    planes: int | None,
    scale: str,
    max_error: float | None,
    no_recognize: bool,
    head: str | None,
    kv: str,
    read_as: tuple[str, ...],
    dt: float | None,
    reset: str,
    keep_state: bool,
    calib: Path | None,
    shapes: tuple[str, ...],
    fallback: str,
    isa: str,
    tune: bool,
    level: str,
    dump_ir: Path | None,
    print_ir_after: str,
    verify_each: bool,
    time_passes: bool,
    verify: int,
    keep_ir: bool,
    report_path: Path | None,
    no_cache: bool,
    as_json: bool,
) -> int:
    """Compile MODEL and say what happened to each layer.

    MODEL is an .onnx file, .mlir of any level, a decoder with ternary weights (a .gguf file or a folder of
    Hugging Face's), or a spiking network in NIR (.nir, .h5).
    """
    for path in (model, calib):
        if path is not None:
            arguments.require_file(path)
    weight_files.check_read_as(read_as)
    _check_options(model, calib, output, print_ir_after)
    output = output or Path(model.with_suffix(".neuc" if level == "program" else f".{level}.mlir").name)
    for path in (output, report_path):
        if path is not None:
            check_writable(path)
    options = CompileOptions(
        target=target,
        quantize=quantize,
        planes=planes,
        scale=scale,
        max_error=max_error,
        calib=calib,
        shapes=dict(parse_shape(text) for text in shapes),
        fallback=fallback,
        isa=isa,
        keep_ir=keep_ir,
        recognize=not no_recognize,
        tune=tune,
        head=head,
        kv=kv,
        read_as=read_as,
        dt=dt,
        reset=reset,
        keep_state=keep_state,
    )
    if dump_ir is not None:
        _make_folder(dump_ir)
    watched = bool(dump_ir or print_ir_after or verify_each)
    if level == "program" and not watched:
        from neuc.compiler.cached import compile_file

        report = compile_file(model, output, options, verify=verify, use_cache=not no_cache)
    else:
        report = _compile_watched(model, output, options, level, verify, print_ir_after, dump_ir, verify_each)
    if calib is not None and report.quantize == "none" and not verify:
        console.note("warning: --calib was not used: nothing is quantised; see --quantize")
    if report_path is not None:
        write_text(report_path, json.dumps(report.to_json(), indent=2) + "\n")
    if as_json:
        console.product_json({**report.to_json(), "output": str(output)})
    elif not console.is_quiet():
        write_report(report, sys.stderr, colour=console.wants_colour(), times=time_passes)
        console.note(f"wrote {output}")
    return Exit.OK


def _check_options(model: Path, calib: Path | None, output: Path | None, print_after: str) -> None:
    """Refuse what makes no sense before anything is read."""
    if str(output) == "-":
        raise arguments.usage_error(
            "-o -: a compiled model is more than text", "name a file; `neuc inspect MODEL --ir LEVEL` prints IR"
        )
    if model.suffix == arguments.ARTIFACT_SUFFIX and zipfile.is_zipfile(model):
        raise arguments.usage_error(f"{model} is already compiled", f"use it: neuc run {model}")
    if calib is not None and calib.suffix == ".npy":
        raise arguments.usage_error(
            f"--calib {calib} holds one array without a name", "give an .npz: np.savez('calib.npz', NAME=array, ...)"
        )
    if print_after in ("", "all", "changed", *_STAGES):
        return
    from neuc.compiler import universe

    if print_after not in universe.PASSES:
        raise universe.unknown_name("pass", print_after, [*universe.PASSES, "all", "changed"])


def _compile_watched(
    model: Path,
    output: Path,
    options: CompileOptions,
    level: str,
    verify: int,
    print_after: str,
    dump: Path | None,
    verify_each: bool,
) -> Report:
    """Compile without the cache, showing what is asked for."""
    from neuc.compiler.api import compile_model
    from neuc.compiler.driver import Observation, write_module

    seen = Observation(print_after=print_after, dump=dump, verify_each=verify_each)
    compiled = compile_model(model, options, to_level=level, observation=seen, verify=verify)
    for text in compiled.printed:
        console.product(text)
    if level == "program":
        compiled.save(output)
    else:
        write_module(output, compiled.module, compiled.context)
    return compiled.report


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Error("NEUC-E005", f"cannot write to {path}: {error.strerror}", hint="choose another folder") from error
