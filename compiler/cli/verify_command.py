"""`neuc verify`: is an artifact what was written, and does it compute what the model computes?"""

from __future__ import annotations

from pathlib import Path

import click

from neuc.compiler.cli import arguments, console
from neuc.compiler.report_text import as_typed, human_bytes
from neuc.errors import Exit


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(path_type=Path), help="ONNX model to compare results with.")
@click.option("-n", "--runs", default=4, show_default=True, help="Made-up inputs to compare on.")
@click.option("--max-error", type=float, help="Exit with 4 when the error is above this.")
@arguments.inputs_option
@arguments.threads_option
@arguments.json_option
def verify_command(
    file: Path,
    against: Path | None,
    runs: int,
    max_error: float | None,
    inputs: tuple[str, ...],
    threads: int | None,
    as_json: bool,
) -> int:
    """Hash every byte of an artifact; with --against, compare its results with onnxruntime's."""
    from neuc.runtime.artifact import verify

    if max_error is not None and against is None:
        raise arguments.usage_error("--max-error has nothing to judge", "add --against model.onnx")
    if max_error is not None and not max_error >= 0:
        raise arguments.usage_error(f"--max-error {max_error:g} makes no sense", "give 0 or more")
    if runs < 1:
        raise arguments.usage_error(f"--runs {runs} makes no sense", "give 1 or more")
    arguments.require_file(file)
    if against is not None:
        arguments.require_file(against)
    found = verify(file)
    report: dict[str, object] = {
        "file": str(file),
        "members": found.members,
        "bytes": found.nbytes,
        "damaged": list(found.damaged),
    }
    lines = [f"{file}: {arguments.counted(found.members, 'member')}, {human_bytes(found.nbytes)}"]
    lines += [f"  damaged: {line}" for line in found.damaged] or ["  every byte is as it was written"]
    status = Exit.OK if found.ok else Exit.FAULT
    if against is not None and found.ok:
        from neuc.compiler.verification import verify_session
        from neuc.runtime.session import load

        agreement = verify_session(load(file, threads=threads), against, runs, inputs)
        report["against_onnxruntime"] = agreement.to_json()
        lines.append(f"  against onnxruntime: {agreement.describe()}")
        if max_error is not None and not agreement.error <= max_error:  # NaN is no agreement
            lines.append(f"  {agreement.measure} {agreement.error:.3g} is above {as_typed(max_error)}")
            status = Exit.MISMATCH
    if as_json:
        console.product_json(report)
    else:
        console.product("\n".join(lines))
    return status
