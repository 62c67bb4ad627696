"""One self-contained HTML page about a model or an artifact: facts, layers, operators, and how they are linked.

Names in models are anybody's text: everything is escaped, and the page forbids all scripts but its own and all
addresses. The drawing of the graph is `rails.py`'s; style and script are `page.css` and `page.js`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import cast

from neuc import __version__
from neuc.compiler.inspection.facts import index_text, plain, report_of
from neuc.compiler.inspection.graph import Graph, Node
from neuc.compiler.inspection.rails import lay_out, row_svg, stretched_svg, width
from neuc.compiler.report import LayerRow, Report
from neuc.compiler.report_text import (
    after_text,
    error_text,
    host_lines,
    human_bytes,
    layer_form,
    sqnr_text,
    summary_lines,
)

_SHOWN_LINKS = 40


def to_html(facts: Mapping[str, object], graph: Graph) -> str:
    """The page.

    Args:
        facts: as `facts.py` finds them.
        graph: the same file's graph.

    Raises:
        Error: NEUC-E302, the report in an artifact is damaged.
    """
    style, script = _asset("page.css"), _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    report = report_of(facts)
    title = str(facts["file"]).rsplit("/", 1)[-1]
    sections = [
        ("summary", "Summary", _summary(facts, report)),
        ("layers", "Layers", "" if report is None or not report.layers else _layers(report.layers, graph)),
        ("hosts", "In onnxruntime", "" if report is None or not report.hosts else _hosts(report, graph)),
        ("graph", "Graph", _graph(graph)),
        *((key, heading, _counts(facts.get(key), unit)) for key, heading, unit in _COUNTS),
    ]
    shown = [(key, heading, body) for key, heading, body in sections if body]
    links = "".join(f'<a href="#{key}">{heading}</a>' for key, heading, _ in shown)
    parts = "\n".join(f'<section id="{key}"><h2>{heading}</h2>\n{body}</section>' for key, heading, body in shown)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} – neuc</title>
<style>{style}</style></head>
<body>
<h1>{escape(title)}</h1>
<nav>{links}</nav>
{parts}
<p class="dim">Written by neuc {escape(__version__)}.</p>
<script>{script}</script>
</body></html>
"""


_COUNTS = (("operations", "Operators", ""), ("launches", "Kernels", ""), ("members", "Parts of the file", "bytes"))
"""Tables of counts among the facts: the fact, the heading, what is counted."""


def _asset(name: str) -> str:
    return files("neuc.compiler.inspection").joinpath(name).read_text(encoding="utf-8")


def _summary(facts: Mapping[str, object], report: Report | None) -> str:
    rows = [("kind", str(facts["kind"])), ("file", f"{facts['file']}, {human_bytes(cast(int, facts['bytes']))}")]
    for key in ("inputs", "outputs"):
        for item in cast("Sequence[Mapping[str, object]]", facts[key]):
            shape = item["shape"]
            dims = ", ".join(map(str, cast("Sequence[object]", shape))) if shape is not None else "of any rank"
            rows.append((key[:-1], f"{item['name']}: {item['dtype']}[{dims}]{index_text(item)}"))
    for key, value in cast("Mapping[str, object]", facts.get("manifest") or {}).items():
        rows.append((key, plain(key, value)))
    weights = cast("Mapping[str, int]", facts.get("weights") or {})
    if weights:
        rows.append(("weights", f"{weights['entries']} arrays, {human_bytes(weights['bytes'])}"))
    if report is not None:
        lines = [*summary_lines(report), *([] if report.hosts else host_lines(report)), *report.hints]
        rows += [("" if i else "report", line) for i, line in enumerate(lines)]
    return _table([], [([_cell(key), _cell(value, "mono")], "") for key, value in rows])


def _layers(layers: Sequence[LayerRow], graph: Graph) -> str:
    ids = _by_name(graph)
    most = max((row.bytes_before for row in layers), default=0) or 1
    header = [("layer", ""), ("weights", ""), ("as", ""), ("before", "number"), ("after", "number"), ("", "")]
    header += [("SQNR dB", "number"), ("error", "number"), ("", "")]
    rows = [
        (
            [
                f'<td class="mono">{_link(row.node or row.op, ids.get(row.node))}</td>',
                _cell("×".join(map(str, row.shape))),
                _cell(layer_form(row)),
                _cell(human_bytes(row.bytes_before), "number"),
                _cell(after_text([row]), "number"),
                f'<td><span class="bar" style="width:{_bar(row, most):.2f}rem"></span></td>',
                _cell(sqnr_text(row), "number"),
                _cell(error_text(row), "number"),
                _cell(row.note, "dim"),
            ],
            "row ternary" if row.ternary else "row",
        )
        for row in layers
    ]
    before = human_bytes(sum(row.bytes_before for row in layers))
    total = ["all layers", "", "", before, after_text(layers), "", "", "", ""]
    foot = "".join(_cell(text, "number" if 3 <= i <= 4 else "") for i, text in enumerate(total))
    return _filtered("layers", _table(header, rows, "wide", f"<tfoot><tr>{foot}</tr></tfoot>"))


def _bar(row: LayerRow, most: int) -> float:
    """How wide a layer's bytes are drawn."""
    return 0 if row.tiles else 6 * row.bytes_after / most


def _hosts(report: Report, graph: Graph) -> str:
    ids = _by_name(graph)
    header = [("node", ""), ("operator", ""), ("why", "")]
    rows = [
        ([f'<td class="mono">{_link(row.node, ids.get(row.node))}</td>', _cell(row.op), _cell(row.reason)], "row")
        for row in report.hosts
    ]
    return _filtered("hosts", _table(header, rows, "wide"))


def _graph(graph: Graph) -> str:
    rows, consumers = lay_out(graph), graph.consumers()
    pixels = width(rows)
    nodes = {node.id: node for node in graph.nodes}
    parts: list[str] = []
    for number, (node, row) in enumerate(zip(graph.nodes, rows, strict=True)):
        types = ", ".join(node.outputs) or node.attributes.get("type", "")
        parts.append(
            f'<details class="node row" id="{node.id}"><summary>'
            f'<span class="number">{number}</span>{row_svg(row, pixels)}'
            f'<span class="op" title="{escape(node.op)}">{escape(node.op)}</span>'
            f'<span class="name" title="{escape(node.name)}">{escape(" + ".join(node.names))}</span>'
            f'<span class="type">{escape(types)}</span></summary>'
            f'<div class="box"><span class="gap"></span>'
            f'<span class="stretch" style="width:{pixels}px">{stretched_svg(row, pixels)}</span>'
            f'<div class="what">{_node(node, nodes, consumers[node.id])}</div></div></details>'
        )
    return _filtered("nodes", "\n".join(parts))


def _node(node: Node, nodes: Mapping[str, Node], consumers: Sequence[str]) -> str:
    rows = [("reads", _links(node.producers, nodes)), ("read by", _links(consumers, nodes))]
    if node.scope:
        rows.append(("in", escape(" / ".join(node.scope))))
    rows += [("ONNX node", escape(name)) for name in node.names]
    rows += [(f"output {i}" if len(node.outputs) > 1 else "output", escape(t)) for i, t in enumerate(node.outputs) if t]
    rows += [(escape(key), escape(value)) for key, value in node.attributes.items()]
    cells = [([f"<th>{key}</th>", f'<td class="mono">{value}</td>'], "") for key, value in rows]
    return _table([], cells)


def _links(ids: Sequence[str], nodes: Mapping[str, Node]) -> str:
    shown = [
        f'<a href="#{key}">{key[1:]} {escape(nodes[key].op)}</a>'
        + (f" {escape(nodes[key].name)}" * bool(nodes[key].name))
        for key in ids[:_SHOWN_LINKS]
    ]
    if len(ids) > _SHOWN_LINKS:
        shown.append(f"and {len(ids) - _SHOWN_LINKS} more")
    return "<br>".join(shown) or '<span class="dim">nothing</span>'


def _by_name(graph: Graph) -> dict[str, str]:
    """The first node for each ONNX node name."""
    found: dict[str, str] = {}
    for node in graph.nodes:
        for name in node.names:
            found.setdefault(name, node.id)
    return found


def _link(text: str, node: str | None) -> str:
    return escape(text) if node is None else f'<a href="#{node}">{escape(text)}</a>'


def _counts(fact: object, unit: str) -> str:
    counts = cast("Mapping[str, int]", fact or {})
    cells = [
        ([_cell(human_bytes(n) if unit else str(n), "number"), _cell(name, "mono")], "") for name, n in counts.items()
    ]
    return _table([], cells) if cells else ""


def _filtered(key: str, body: str) -> str:
    """A list with a box that filters its rows."""
    return (
        f'<div class="tools"><input type="search" placeholder="filter" aria-label="filter" data-list="{key}-list" '
        f'data-count="{key}-count"><span class="dim" id="{key}-count"></span></div>'
        f'<div class="scroll" id="{key}-list">{body}</div>'
    )


def _table(
    header: Sequence[tuple[str, str]], rows: Iterable[tuple[Sequence[str], str]], kind: str = "", foot: str = ""
) -> str:
    """A table; cells are HTML, each row has a class."""
    head = "".join(f'<th class="{cls}">{escape(text)}</th>' for text, cls in header)
    body = "\n".join(f'<tr class="{cls}">{"".join(cells)}</tr>' for cells, cls in rows)
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<table class="{kind}">{top}<tbody>{body}</tbody>{foot}</table>'


def _cell(text: str, cls: str = "") -> str:
    return f'<td class="{cls}">{escape(text)}</td>'
