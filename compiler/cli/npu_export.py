"""`neuc npu show` and `neuc npu export`: what an artifact, or a file of graphs, puts on the array: tables, files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from neuc.compiler.cli import arguments, console
from neuc.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neuc.compiler.npu.products import PlacedProduct
    from neuc.runtime.npu.figures import Figures
    from neuc.runtime.npu.machine import Machine
    from neuc.runtime.npu.program import Design

_BY_SUFFIX = {".svg": "svg", ".html": "html", ".dot": "dot", ".mlir": "mlir-aie-1.4", ".json": "trace"}

_MODELS = (".onnx", ".mlir", ".nir", ".gguf", ".safetensors")


def _products(path: Path) -> tuple[list[PlacedProduct], int]:
    """The products of an artifact, and what its free sizes count as."""
    from neuc.compiler.npu.products import free_sizes, placed_products
    from neuc.runtime.artifact import Artifact

    arguments.require_file(path)
    if path.suffix in _MODELS:
        raise arguments.usage_error(
            f"{path} is a model, not an artifact", "compile it for npu-xdna1 or npu-xdna2 first"
        )
    opened = Artifact.open(path)
    found = placed_products(opened)
    if not found:
        raise arguments.usage_error(f"{path} has nothing on an NPU array", "compile for npu-xdna1 or npu-xdna2")
    return found, free_sizes(opened)


def _designs(path: Path) -> list[tuple[Design, Machine]]:
    """The programs of an artifact, or the graphs of an IR file, with their machines.

    Raises:
        Error: NEUC-E672, a graph's parts disagree; NEUC-E671, there is no such machine; or the file is none of these.
    """
    if path.suffix != ".mlir":
        return [(product.design, product.machine) for product in _products(path)[0]]
    from neuc.backends.npu.graph_ir import checked, design_of
    from neuc.backends.npu.known_machines import find_machine
    from neuc.compiler.driver import read_module
    from neuc.dialects.npu import GraphOp

    arguments.require_file(path)
    module, _ = read_module(path)
    graphs = [checked(design_of(op)) for op in module.walk() if isinstance(op, GraphOp)]
    if not graphs:
        raise arguments.usage_error(
            f"{path} holds no npu.graph", "write one, or compile the model for npu-xdna1 or npu-xdna2 first"
        )
    return [(graph, find_machine(graph.machine)) for graph in graphs]


@click.command("show")
@click.argument("artifact", type=click.Path(path_type=Path))
@arguments.json_option
def show_command(artifact: Path, as_json: bool) -> int:
    """The products of a .neuc on the array: sizes, tiles, spread, predicted time, what limits it, who finishes them.

    Below the table: predicted time of all, how far published runs were from such predictions, utilisation, host
    memory's traffic and energy by source. "used" is utilisation while the array works; A, B, C are bytes of host
    memory: activations, weights, results.
    """
    from neuc.compiler.npu.figures import array_figures, figure_lines, product_figures

    products, free = _products(artifact)
    figures, whole = [product_figures(p) for p in products], array_figures(products, free)
    if as_json:
        rows = [{"segment": p.segment, **p.facts, **part.to_json()} for p, part in zip(products, figures)]
        console.product_json({**whole, "products": rows})
        return Exit.OK
    rows = [_cells(i, p, part) for i, (p, part) in enumerate(zip(products, figures))]
    header = (
        "#",
        "M x K x N",
        "operands",
        "tile",
        "spread",
        "µs",
        "limited by",
        "padding",
        "used",
        "host memory",
        "µJ",
        "finished",
        "windows",
        "layers",
    )
    console.product(arguments.table(header, rows, right=(0, 5, 7, 8, 10)))
    for line in _reasons([p.facts for p in products]):
        console.product(line)
    for line in figure_lines(whole):
        console.product(line)
    return Exit.OK


def _reasons(products: Sequence[Mapping[str, object]]) -> list[str]:
    """Why sums are finished, or windows cut, where they are: a line for each reason, with the products' numbers."""
    numbers: dict[str, list[str]] = {}
    for key in ("finished", "windows"):
        for number, facts in enumerate(products):
            place, _, why = str(facts[key]).partition(": ")
            if why:
                numbers.setdefault(f"{key} {place}, {why}", []).append(f"#{number}")
    return [f"{text}: {', '.join(found)}" for text, found in numbers.items()]


def _cells(number: int, product: PlacedProduct, figures: Figures) -> tuple[str, ...]:
    from neuc.runtime.npu.figures import size_text

    facts = product.facts
    layers, tile = facts["nodes"], facts["tile"]
    assert isinstance(layers, list)
    assert isinstance(tile, list)
    return (
        str(number),
        f"{facts['m']} x {facts['k']} x {facts['n']}",
        str(facts["operands"]),
        "x".join(map(str, tile)),
        str(facts["spread"]),
        str(facts["microseconds"]),
        str(facts["limiter"]),
        f"{facts['padding']:.0%}",
        f"{figures.utilisation_at_work:.1%}" if figures.macs else "",
        ", ".join(f"{name} {size_text(nbytes)}" for name, nbytes in figures.ddr_bytes_by_operand.items()),
        f"{sum(figures.energy_pj_by_source.values()) / 1e6:.1f}",
        str(facts["finished"]).partition(": ")[0],
        str(facts["windows"]).partition(": ")[0],
        ", ".join(map(str, layers)),
    )


@click.command("export")
@click.argument("artifact", type=click.Path(path_type=Path), required=False)
@click.argument("output", type=click.Path(path_type=Path), required=False)
@click.option(
    "--product",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Which one: # of `neuc npu show`, or of the file's graphs.",
)
@click.option(
    "--format", "--form", "form", help="What to write; by OUTPUT's suffix if left out. `--format list` names all."
)
def export_command(artifact: Path | None, output: Path | None, product: int, form: str | None) -> int:
    """Write a product's placed program: picture, timeline, mlir-aie text and more.

    ARTIFACT is a .neuc, or an .mlir file with an npu.graph, placed by hand or by `neuc opt -p place-dataflow`.
    """
    from neuc.backends.npu.export.forms import FORMS, export
    from neuc.compiler.files import check_writable, replacing

    if form == "list":
        console.product(arguments.table(("form", "what it is"), [(name, what) for name, (what, _) in FORMS.items()]))
        return Exit.OK
    if artifact is None or output is None:
        missing = "ARTIFACT" if artifact is None else "OUTPUT"
        raise arguments.usage_error(f"{missing} is missing", "neuc npu export model.neuc out.svg; --format list")
    form = form or _BY_SUFFIX.get(output.suffix)
    if form is None:
        raise arguments.usage_error(f"the suffix of {output} says no form", f"--format {', '.join(FORMS)}")
    designs = _designs(artifact)
    if product >= len(designs):
        raise arguments.usage_error(f"there is no product {product}", f"0 to {len(designs) - 1}: see `neuc npu show`")
    design, machine = designs[product]
    check_writable(output)
    text = export(design, machine, form)
    with replacing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    console.note(f"wrote {output}: {FORMS[form][0]} (product {product})")
    return Exit.OK
