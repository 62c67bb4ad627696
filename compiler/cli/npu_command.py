"""`neuc npu`: the machine model beside measurements. What is predicted how stands in `compiler/npu/validate.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from neuc.compiler.cli import arguments, console, npu_export
from neuc.errors import Error, Exit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuc.compiler.npu.rows import Prediction
    from neuc.compiler.npu.validate import Summary

_SHOWN_IDS = 4
_MOST_PERCENT = 1000


@click.group("npu")
def npu_command() -> None:
    """NPU arrays: what models put there, and what the machine models predict."""


npu_command.add_command(npu_export.show_command)
npu_command.add_command(npu_export.export_command)


@npu_command.command("validate")
@click.argument("rows", type=click.Path(path_type=Path))
@click.option(
    "--rates",
    type=click.Choice(["given", "model", "both"]),
    default="both",
    show_default=True,
    help="Kernel rates: as rows give them (rate=), our own kernel model's, or one after the other.",
)
@arguments.json_option
def validate_command(rows: Path, rates: str, as_json: bool) -> int:
    """Predict every row of a CSV (id, device, kind, shape, dtype, config, value, unit) beside its measured value.

    A column source, if there is one, stands for words that its rows have in common (mlir-air, IREE, tibrezus, IRON).

    Kinds: gemm, gemm_array, kernel, gemv (MxK), conv2d (HxWxC_INxC_OUT, with rate=), functions of vectors such as add,
    mul, relu, gelu, silu, softmax, rms_norm, layer_norm, memcpy, and dma, shim_single_bd, shim_chained (words). Units:
    cycles, ns, us, ms, s, GOPS to TFLOPS, MAC/cycle, MB/s, GB/s. An unknown kind's row says what is known.

    Exit code 1 if the file, an id or a value is wrong, 3 if no row could be predicted, 4 if errors are beyond a gate:
    median 3 % and largest 8 % of gemm_array, 5 and 15 % of DMA times, 12 and 25 % of everything else, Kendall's tau-b
    0.8.

    \b
    Words of config, in any order; others with "=" are refused, others without are listed as remarks:
      tile 64x64x64, kernel=64x64x64   m x k x n of one core
      rate=133.1                       multiply-adds a cycle of the kernel
      one core, 8 cores, 4x8 cores, 2 columns   at work (rows x columns); all if not said
      dispatch=275us                   of the host program that measured
      order=MxNxK                      of the shape, which is MxKxN if not said
      herd=8x4                         cores along M x along N, where they are not rows x columns
      k_l2=512                         columns of A that a memory tile collects, the tile's k if not said
      b_row_maj, b_col_maj             how B lies in host memory
      C depth 1, C depth 2             buffers of C in a core
      47 MB of DDR traffic, x100 repeats, no compute (transfers alone)
      flm, iron.gemm, stock, iree      whose program: which runs host memory is read in
      4-level tiling, packed, direct codegen   of IREE's programs, which choose their own tiles
      chess, peano                     the kernel's compiler
      mlir-air                         whose program: groups of launches wait for each other
      drain, fused-cast, direct codegen   how its bf16 results are rounded, or by whose kernel
      tile 64/512/32/128               its m, k_l2, k, n
      whole call                       the host allocates and copies its buffers, too
      filter=3x3, stride=2             of a convolution
      two inputs                       of a function of vectors
      MM2S or S2MM, first or following task, gap between tasks, K=8 (all 8 tasks)   shim_single_bd, shim_chained
      hops=3                           dma: tiles apart
    """  # noqa: D301  (click takes the backspace for "as it is")
    from neuc.compiler.npu.row_models import predict
    from neuc.compiler.npu.rows import read_rows
    from neuc.compiler.npu.validate import summarise

    arguments.require_file(rows)
    read = read_rows(rows)
    modes = {"given": [False], "model": [True], "both": [False, True]}[rates]
    found: dict[str, object] = {}
    tables: dict[str, list[str]] = {}
    reasons: set[str] = set()
    code = Exit.OK
    for own in modes:
        name = "own kernel model" if own else "kernel rates as given"
        predictions = [predict(row, own_rates=own) for row in read]
        kinds = sorted({p.row.kind for p in predictions if p.value is not None})
        sums = {kind: summarise([p for p in predictions if p.row.kind == kind]) for kind in kinds}
        if any(s is not None and s.missed(kind) for kind, s in sums.items()):
            code = Exit.MISMATCH
        if not kinds:
            code = Exit.UNSUPPORTED
        if as_json:
            found[name] = {
                "rows": [_json(p) for p in predictions],
                "summary": {
                    kind: None if s is None else {**vars(s), "missed": list(s.missed(kind))}
                    for kind, s in {**sums, "all": summarise(predictions)}.items()
                },
            }
            continue
        tables[name] = _lines(predictions, sums)
        reasons |= {p.why_not for p in predictions}
    if as_json:
        console.product_json(found)
    names = list(tables)
    if len(names) > 1 and tables[names[0]] == tables[names[1]]:
        given = any("rate=" in row.config for row in read)
        both = f"{names[0]}, and {names[1]}, which says the same" if given else f"{names[1]}, as no row gives a rate="
        tables = {both: tables[names[0]]}
    for name, lines in tables.items():
        console.product(f"\n{name}:")
        for line in lines:
            console.product(line)
    for what, known in _long_lists().items():
        if any(f"; known: {known}" in reason for reason in reasons):
            console.product(f"known {what}: {known}")
    bad = sum(bool(row.fault) for row in read)
    if bad:
        what = "a value that is no number above 0, an id that another row has, or too many fields"
        message = f"{rows.name}: {bad} of {len(read)} rows {'has' if bad == 1 else 'have'} {what}"
        raise Error("NEUC-E684", message, hint="the table names them; leave a value empty to predict only")
    return code


def _lines(predictions: list[Prediction], sums: Mapping[str, Summary | None]) -> list[str]:
    """The table of one way to take kernel rates, and what it comes to."""
    from neuc.compiler.npu.validate import gate_of

    titles = ("id", "measured", "predicted", "unit", "error", "kernel rate; what is predicted, or why not")
    lists = tuple(_long_lists().values())
    lines = [arguments.table(titles, [_cells(p, lists) for p in predictions], right=(1, 2, 4))]
    for kind, s in sums.items():
        if s is None:
            continue
        tau = "" if s.tau is None else f", Kendall's tau {s.tau:.2f}"
        middle, most = gate_of(kind)
        missed = s.missed(kind)
        gate = f"gates {middle:.0%} and {most:.0%}: " + (f"MISSED, {'; '.join(missed)}" if missed else "met")
        errors = f"median error {_share(s.median)}, largest {_share(s.maximum)}"
        lines.append(f"{kind}: {_rows(s.count)}, {errors}{tau}; {gate}")
    remarks = _remarks(predictions)
    if remarks:
        lines.append(f"words of config that no model reads: {remarks}")
    left = sum(p.value is None for p in predictions)
    if left:
        verb = "is" if len(predictions) == 1 else "are"
        lines.append(f"{left} of {_rows(len(predictions))} {verb} not predicted; the table says why")
    return lines


def _remarks(predictions: list[Prediction]) -> str:
    """The words of predicted rows that no model reads, what they nearly are, and whose they are."""
    from neuc.compiler.npu.row_config import remarks_in

    rows: dict[tuple[str, str], list[str]] = {}
    for p in predictions:
        for remark in remarks_in(p.row.config) if p.value is not None else ():
            rows.setdefault(remark, []).append(p.row.id)
    said: list[str] = []
    for (part, near), ids in sorted(rows.items()):
        more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
        where = f"{'row' if len(ids) == 1 else 'rows'} {', '.join(ids[:_SHOWN_IDS])}{more}"
        said.append(f"'{part}' ({f'nearest: {near}; ' if near else ''}{where})")
    return ", ".join(said)


def _long_lists() -> Mapping[str, str]:
    """Lists that reasons end with, said once below the tables."""
    from neuc.compiler.npu.row_devices import known_devices
    from neuc.compiler.npu.row_models import known_kinds

    return {"devices": ", ".join(known_devices()), "kinds": ", ".join(known_kinds())}


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _share(error: float, sign: str = "") -> str:
    """An error in percent; one above 1000 % as how many times the measured time is predicted."""
    return f"{error:{sign}.1%}" if error < _MOST_PERCENT / 100 else f"{1 + error:.3g} times"


def _cells(p: Prediction, lists: tuple[str, ...]) -> tuple[str, ...]:
    measured = "" if p.row.value is None else f"{p.row.value:g}"
    predicted = "" if p.value is None else f"{p.value:.4g}"
    error = "" if p.error is None else _share(p.error, "+")
    why_not = p.why_not
    for known in lists:
        why_not = why_not.replace(f"; known: {known}", "")
    said = why_not or "; ".join(filter(None, (p.rate_source, p.includes)))
    return p.row.id, measured, predicted, p.row.unit, error, said


def _json(p: Prediction) -> dict[str, object]:
    from neuc.compiler.npu.row_config import remarks_in

    return {
        "id": p.row.id,
        "kind": p.row.kind,
        "measured": p.row.value,
        "predicted": p.value,
        "unit": p.row.unit,
        "error": p.error,
        "kernel_rate": p.rate_source,
        "includes": p.includes,
        "not_predicted": p.why_not,
        "remarks": [part for part, _ in remarks_in(p.row.config)],
    }
