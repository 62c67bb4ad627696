"""Arguments several commands share: models that may be artifacts or need compiling first, inputs, tables.

No command lives here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from neuc.compiler.files import ARTIFACT_SUFFIX, MODEL_CONFIG
from neuc.errors import Error, Exit

if TYPE_CHECKING:
    from neuc.runtime.session import Session

model_argument = click.argument("model", type=click.Path(path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
target_option = click.option("--target", help="Target for a model not yet compiled; cpu by default.")
inputs_option = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=SPEC",
    help="@file.npy, 1x28xf32=0 or random:7; @file.npz for all inputs. Made up where none is given.",
)


def _noted_threads(context: click.Context, parameter: click.Parameter, threads: int | None) -> int | None:
    """Say so if there are more threads than CPUs for them."""
    if threads is not None:
        from neuc.compiler.cli import console
        from neuc.runtime.cpu_features import available_cpus
        from neuc.runtime.native.pool import MAX_THREADS

        if (cpus := available_cpus()) < threads <= MAX_THREADS:  # more are refused
            console.note(f"note: {threads} threads will share {counted(cpus, 'CPU')}: more are seldom faster")
    return threads


threads_option = click.option(
    "--threads", type=int, callback=_noted_threads, help="Threads; all CPUs of this process by default."
)


def artifact_of(model: Path, target: str | None) -> Path:
    """The artifact to run: `model` itself, or what it compiles to with default options (kept in the cache).

    Raises:
        Error: NEUC-E002, a target for an artifact; NEUC-E004, no such file; or the model does not compile.
    """
    require_file(model)
    if model.suffix == ARTIFACT_SUFFIX:
        if target is not None:
            raise usage_error(f"--target {target}: {model} is already compiled", "leave --target out")
        return model
    from neuc.compiler.cached import compile_into_cache
    from neuc.compiler.options import CompileOptions

    return compile_into_cache(model, CompileOptions() if target is None else CompileOptions(target=target))


def open_session(model: Path, target: str | None, threads: int | None, *, profile: bool = False) -> Session:
    """A session for an artifact, or for a model compiled on the way."""
    from neuc.runtime.session import load

    return load(artifact_of(model, target), threads=threads, profile=profile)


def require_file(path: Path) -> None:
    """Refuse a path that is no file, unless it is the folder of a Hugging Face model.

    Raises:
        Error: NEUC-E004.
    """
    if path.is_file() or (path / MODEL_CONFIG).is_file():
        return
    what = "it is a folder" if path.is_dir() else "no such file"
    raise Error("NEUC-E004", f"cannot read {path}: {what}", hint="check the path")


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> str:
    """A plain text table; columns in `right` are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def counted(count: int, noun: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{count} {noun}" + ("s" if count != 1 else "")


def usage_error(message: str, hint: str = "") -> Error:
    """NEUC-E002 for a combination of options that makes no sense."""
    return Error("NEUC-E002", message, hint=hint, exit_code=Exit.USAGE)
