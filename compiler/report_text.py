"""The compile report for people: a table of layers and the lines around it.

Plain text when piped, coloured on a terminal; no figure is computed here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from neuc.compiler.report import LayerRow, Report

_SHOWN_NODES = 4
_MEASURES = {"mean cosine error": "cosine_error", "relative L2 error": "relative_l2"}


def report_lines(report: Report, *, times: bool = False) -> list[str]:
    """The report as lines of plain text."""
    isa = f" ({report.isa})" if report.isa else ""
    lines = [f"{report.model} for {report.target}{isa}" + (", from the cache" if report.cached else "")]
    if report.layers:
        lines += ["", *_layer_table(report.layers), ""]
    lines += summary_lines(report)
    if report.array is not None:
        from neuc.compiler.npu.figures import figure_lines

        lines += figure_lines(report.array)
    if report.hosts or report.launches or report.native_share is not None:  # else it was not decided yet
        lines += host_lines(report)
    lines += [hint if hint.startswith("warning: ") else f"note: {hint}" for hint in report.hints]
    if times:
        lines += ["", *_time_lines(report.steps, report.seconds)]
    return lines


def write_report(report: Report, stream: TextIO, *, colour: bool, times: bool = False) -> None:
    """Write the report to `stream`."""
    lines = report_lines(report, times=times)
    if not colour:
        stream.write("\n".join(lines) + "\n")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    for line in lines:
        style = (
            "bold"
            if line is lines[0]
            else "green"
            if "  ternary" in line or "  int8" in line
            else "dim"
            if "  float" in line
            else ""
        )
        console.print(Text(line, style=style), soft_wrap=True)


def layer_form(row: LayerRow) -> str:
    """What a layer's weights are now; arrays and synapses have no kernel layout of weights to name (``f32``)."""
    if row.tiles:
        return row.tiles
    layout = "" if row.encoding == "f32" else row.encoding
    if row.int8:
        return f"int8{layout and f', kernel {layout}'}, scale {row.scale}"
    synapses = ", met by spikes" if row.op.startswith("spike.") else ""
    if not row.ternary:
        return (row.encoding if row.encoding in ("bf16", "i8") else "float") + synapses
    return f"ternary{layout and f' {layout}'}, {_counted(row.planes, 'plane')}, scale {row.scale}{synapses}"


def after_text(rows: Sequence[LayerRow]) -> str:
    """Bytes of these layers' weights now; conductances on crossbars are none."""
    digital = [row.bytes_after for row in rows if not row.tiles]
    return human_bytes(sum(digital)) if digital else ""


def error_text(row: LayerRow) -> str:
    """A layer's error."""
    return "" if row.error is None else f"{row.error:.1e}" if row.error else "0"


def _layer_table(layers: Sequence[LayerRow]) -> list[str]:
    header = ("layer", "weights", "as", "before", "after", "SQNR dB", "error", "")
    rows = [
        (
            row.node or row.op,
            "x".join(map(str, row.shape)),
            layer_form(row),
            human_bytes(row.bytes_before),
            after_text([row]),
            sqnr_text(row),
            error_text(row),
            row.note,
        )
        for row in layers
    ]
    before = sum(row.bytes_before for row in layers)
    rows.append(("all layers", "", "", human_bytes(before), after_text(layers), "", "", ""))
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    right = {3, 4, 5, 6}
    return [
        "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip()
        for row in [header, *rows]
    ]


def sqnr_text(row: LayerRow) -> str:
    """How exact a layer's weights are."""
    if row.sqnr_db is None:
        return "exact" if row.ulp == 0 else ""
    return f"{row.sqnr_db:.1f}"


def summary_lines(report: Report) -> list[str]:
    """What is true of the whole: how much is ternary, errors, launches."""
    lines: list[str] = []
    share = report.ternary_share
    int8 = report.int8_share
    if share or (report.quantize not in ("none", "int8") and share is not None):
        lines.append(f"ternary: {share:.1%} of the layers' weights")
    if int8 or (report.quantize == "int8" and int8 is not None):
        lines.append(f"int8: {int8:.1%} of the layers' weights")
    chosen = Counter((row.encoding, row.why) for row in report.layers if row.why)
    lines += [f"{kind} for {_counted(count, 'layer')}: {why}" for (kind, why), count in chosen.items()]
    if report.layer_errors:
        lines.append(f"error of a layer: {report.layer_errors}")
    if report.measured is not None:
        budget = "" if report.budget is None else f" (budget {as_typed(report.budget)})"
        lines.append(f"error against the float model: {_agreement(report.measured)}{budget}")
    if report.verified is not None:
        lines.append(
            f"verified against onnxruntime on {_counted(report.verify_inputs, 'input')}: {_agreement(report.verified)}"
        )
    if report.launches:
        kernels = _counted(len(report.kernels), "kernel")
        barriers = f", {_counted(report.barriers, 'barrier')}" if report.barriers else ""
        lines.append(f"program: {_counted(report.launches, 'launch')} of {kernels}{barriers}")
    size = f", {human_bytes(report.artifact_bytes)}" if report.artifact_bytes else ""
    if report.seconds:  # an artifact does not remember how long it took
        lines.append(f"done in {report.seconds:.2f} s{size}")
    return lines


def as_typed(number: float) -> str:
    """A number as people type it: all of its digits and no more, `1e-9` rather than `1e-09`."""
    digits, e, exponent = f"{number!r}".partition("e")
    return digits.removesuffix(".0") + (f"e{int(exponent)}" if e else "")


def floored(share: float) -> str:
    """A share in per cent with a digit, rounded down: nothing but all is 100 %."""
    return f"{math.floor(share * 1000) / 10:g}%"


def _agreement(found: dict[str, object]) -> str:
    measure = str(found["measure"])
    parts = _figures(found, measure) if measure in _MEASURES else [measure] if found["error"] is None else []
    if found.get("integers_equal") is not None:  # artifacts of before do not tell it
        parts.append(f"integers equal {floored(float(str(found['integers_equal'])))}")
    if found.get("reference_not_finite"):
        parts.append(f"but {found['reference_not_finite']} reference values are not finite")
    return ", ".join(parts)


def _figures(found: dict[str, object], measure: str) -> list[str]:
    parts = [f"{measure} {_number(found['error'])}"]
    others = {"max_abs": "max", "mean_abs": "mean", "relative_l2": "relative L2", "cosine_error": "cosine error"}
    parts += [f"{name} {_number(found[key])}" for key, name in others.items() if key != _MEASURES.get(measure)]
    sqnr = found["sqnr_db"]
    parts.append(f"SQNR {float(str(sqnr)):.1f} dB" if sqnr is not None else "equal" if found["equal"] else "no SQNR")
    if found["argmax_agreement"] is not None:
        parts.append(f"argmax equal {float(str(found['argmax_agreement'])):.0%}")
    return parts


def host_lines(report: Report) -> list[str]:
    """What runs in onnxruntime, and why."""
    hosts, native_share = report.hosts, report.native_share
    if not hosts:
        return ["fallback: none, every operator runs natively"]
    share = "" if native_share is None else f"; {native_share:.1%} of the multiply-adds run natively"
    lines = [f"fallback: {_counted(len(hosts), 'node')} {'runs' if len(hosts) == 1 else 'run'} in onnxruntime{share}"]
    groups: dict[tuple[str, str], list[str]] = {}
    for row in hosts:
        groups.setdefault((row.op, row.reason), []).append(row.node)
    for (op, reason), nodes in groups.items():
        more = f" and {len(nodes) - _SHOWN_NODES} more" if len(nodes) > _SHOWN_NODES else ""
        why = f" ({reason})" if reason else ""
        lines.append(f"  {len(nodes)} x {op}{why}: {', '.join(nodes[:_SHOWN_NODES])}{more}")
    return lines


def _time_lines(steps: Sequence[tuple[str, float]], total: float) -> list[str]:
    sums: dict[str, float] = {}
    for name, seconds in steps:
        sums[name] = sums.get(name, 0.0) + seconds
    width = max((len(name) for name in sums), default=0)
    lines = [f"  {name:<{width}}  {seconds:8.3f} s" for name, seconds in sums.items()]
    rest = total - sum(seconds for _, seconds in steps)
    return ["time:", *lines, f"  {'the rest':<{width}}  {rest:8.3f} s", f"  {'all':<{width}}  {total:8.3f} s"]


def _counted(count: int, noun: str) -> str:
    """``1 launch``, ``2 launches``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('ch') else 's'}"


def _number(value: object) -> str:
    return "not finite" if value is None else f"{float(str(value)):.2e}"


def human_bytes(count: float) -> str:
    """1536 as ``1.5 KB``."""
    for unit in ("B", "KB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} MB"
