"""`neuc opt`: run passes on IR text, as `xdsl-opt` does, with neuc's context and weight store."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.arg_spec import parse_pipeline
from xdsl.utils.exceptions import ArgSpecParseError, PassFailedException, VerifyException

from neuc.compiler import diagnostics, universe
from neuc.compiler.cli import console
from neuc.compiler.driver import print_module
from neuc.compiler.files import check_writable, read_problem, replacing, write_text
from neuc.compiler.pass_options import with_options
from neuc.dialects.context import NeucContext
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, Exit
from neuc.passes.module_facts import notes_of

_SPLIT = "// -----"


@click.command("opt")
@click.argument("source", default="-", metavar="[FILE]")
@click.option("-p", "--passes", default="", help="Pipeline: 'pass{option=value},pass2'.")
@click.option("-o", "--output", default="-", help="Where to write; stdout by default.")
@click.option("--split-input-file", is_flag=True, help="Treat the parts between '// -----' lines one by one.")
@click.option("--verify-diagnostics", is_flag=True, help="Print errors on stdout and exit 0.")
@click.option("--print-debuginfo", is_flag=True, help="Print locations.")
@click.option("--print-op-generic", is_flag=True, help="Print in the generic form.")
@click.option("--allow-unregistered-dialect", is_flag=True, help="Accept operations of unknown dialects.")
def opt_command(
    source: str,
    passes: str,
    output: str,
    split_input_file: bool,
    verify_diagnostics: bool,
    print_debuginfo: bool,
    print_op_generic: bool,
    allow_unregistered_dialect: bool,
) -> int:
    """Run passes on IR text from FILE or stdin.

    Constants come from FILE.weights.safetensors where it lies beside FILE.mlir; with -o, the result's are written
    beside it.
    """
    pipeline = parse_passes(passes)
    if output != "-":
        check_writable(Path(output))
    text, name, weights = _read(source)
    context = universe.new_context(weights, allow_unregistered=allow_unregistered_dialect)
    printed: list[str] = []
    line = 1
    for part in text.split(_SPLIT) if split_input_file else [text]:
        try:
            module, notes = run_passes(part, context, pipeline, name, line)
            for note in notes:
                console.note(note)
            printed.append(print_module(module, debuginfo=print_debuginfo, generic=print_op_generic))
        except Error as error:
            if not verify_diagnostics:
                raise
            printed.append(console.render_error(error) + "\n")
        line += part.count("\n")
    result = f"{_SPLIT}\n".join(printed)
    if output == "-":
        console.product(result)
    else:
        write_text(Path(output), result)
        if len(context.weights):
            with replacing(diagnostics.weights_path(Path(output))) as temporary:
                context.weights.save(temporary)
        console.note(f"wrote {output}")
    return Exit.OK


def parse_passes(spec: str) -> list[ModulePass]:
    """The passes of a pipeline.

    Raises:
        Error: NEUC-E001 for an unknown pass, NEUC-E003 for a spec or an option that cannot be read.
    """
    try:
        specs = list(parse_pipeline(spec))
    except ArgSpecParseError as error:
        raise diagnostics.pipeline_error(spec, error) from error
    # Ours first: asking every installed universe costs time and is needed for stock passes only.
    known = universe.PASSES
    if any(item.name not in known for item in specs):
        known = universe.all_passes()
    pipeline: list[ModulePass] = []
    for item in specs:
        if item.name not in known:
            raise universe.unknown_name("pass", item.name, known)
        try:
            pipeline.append(with_options(known[item.name](), item))
        except ValueError as error:
            raise diagnostics.pipeline_error(spec, error) from error
    return pipeline


def run_passes(
    text: str, context: NeucContext, pipeline: list[ModulePass], name: str, first_line: int
) -> tuple[ModuleOp, list[str]]:
    """Parse, run every pass, verify after each; the module, and what the passes have to say."""
    module = diagnostics.parse_module(text, context, name, first_line=first_line)
    before = notes_of(module)
    for step in pipeline:
        try:
            step.apply(context, module)
        except (PassFailedException, VerifyException) as error:
            raise Error("NEUC-E252", f"pass {step.name}: {str(error).splitlines()[0]}") from error
        diagnostics.verify_module(module, name=f"after {step.name}")
    return module, [note for note in notes_of(module) if note not in before]


def _read(source: str) -> tuple[str, str, WeightStore | None]:
    if source == "-":
        return sys.stdin.read(), "<stdin>", None
    path = Path(source)
    try:
        return path.read_text(encoding="utf-8"), path.name, diagnostics.load_weights_beside(path)
    except (OSError, UnicodeDecodeError) as error:
        raise Error("NEUC-E004", f"cannot read {source}: {read_problem(error)}") from error
