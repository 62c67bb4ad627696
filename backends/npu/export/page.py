"""An HTML page of one run: the array's picture, a timeline by tile, and what moved. Self-contained, no script."""

from __future__ import annotations

from html import escape

from neuc.backends.npu.export.svg import to_svg
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import Design
from neuc.runtime.npu.simulator import Run

_WIDTH, _ROW = 1000, 16
_MOST_SPANS = 4000
_COLOURS = {"core": "#0072B2", "dma": "#E69F00", "mem": "#009E73", "shim": "#CC79A7"}


def to_page(design: Design, machine: Machine, run: Run) -> str:
    """The page, as HTML text; `run` needs a trace for the timeline."""
    rows = [
        ("cycles", f"{run.cycles:.0f}"),
        ("time", f"{run.seconds * 1e6:.2f} us at {machine.clock_hz / 1e9:g} GHz"),
        ("host memory", f"{run.counts.ddr_bytes} bytes"),
        ("streams", f"{run.counts.stream_byte_hops} bytes x hops"),
        ("machine", f"{machine.name}, {machine.digest()[:12]}"),
    ]
    table = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    busy = "".join(
        f"<tr><td>{escape(name)}</td><td>{cycles / max(1.0, run.cycles):.1%}</td>"
        f"<td>{run.counts.firings.get(name, 0)}</td></tr>"
        for name, cycles in sorted(run.counts.busy.items())
    )
    head = "<tr><th>kernel</th><th>busy</th><th>firings</th></tr>"
    style = (
        "body{font-family:sans-serif;margin:2em}td,th{padding:2px 10px;text-align:left}"
        "svg{max-width:100%}.array{overflow-x:auto}.array svg{max-width:none}"
    )
    return (
        "<!doctype html><html><head><meta charset='utf-8'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(design.name)}</title><style>{style}</style></head><body><h1>{escape(design.name)}</h1>"
        f"<table>{table}</table><div class='array'>{to_svg(design, machine)}</div><h2>Timeline</h2>{_timeline(run)}"
        f"<h2>Kernels</h2><table>{head}{busy}</table>"
        "</body></html>\n"
    )


def _timeline(run: Run) -> str:
    if run.trace is None:
        return "<p>The run kept no trace.</p>"
    spans = run.trace.events[:_MOST_SPANS]
    lanes = sorted({(kind, tile, event) for _, _, kind, tile, event in spans})
    place = {lane: i for i, lane in enumerate(lanes)}
    end = max((span[1] for span in spans), default=1.0)
    bars = [
        f'<rect x="{220 + begin / end * _WIDTH:.1f}" y="{place[kind, tile, event] * _ROW + 2}" '
        f'width="{max(0.5, (stop - begin) / end * _WIDTH):.1f}" height="{_ROW - 4}" fill="{_COLOURS[kind]}"/>'
        for begin, stop, kind, tile, event in spans
    ]
    names = [
        f'<text x="0" y="{i * _ROW + 12}" font-size="10">{escape(f"{kind} ({tile[0]}, {tile[1]}) {event}"[:40])}</text>'
        for (kind, tile, event), i in place.items()
    ]
    return f'<svg viewBox="0 0 {_WIDTH + 230} {len(lanes) * _ROW + 4}">{"".join(names)}{"".join(bars)}</svg>'
