"""What commands do with GGUF files and Hugging Face folders: options, and `neuc inspect`'s text.

Reading them is the business of `compiler/formats`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from neuc.compiler.cli import arguments, console
from neuc.compiler.report_text import human_bytes

if TYPE_CHECKING:
    from neuc.compiler.formats.sources import Source

read_as_option = click.option(
    "--read-as",
    multiple=True,
    metavar="LAYOUT",
    help="Layout of a GGUF file whose ids mean several things: i2_s-neon, i2_s-rows4, q2_0-g128, tl2 ...",
)
tl_option = click.option(
    "--tl",
    multiple=True,
    metavar="[NxK=]BM,BY,bm",
    help="Block sizes of TL1 and TL2 tensors, or the kernel_config.ini of their kernels.",
)


def is_weight_file(path: Path) -> bool:
    """Whether a path is a GGUF file or a Hugging Face folder."""
    from neuc.compiler.formats.recognition import is_source

    return is_source(path)


def check_read_as(names: Sequence[str]) -> None:
    """Refuse layouts that do not exist.

    Raises:
        Error: NEUC-E002.
    """
    if not names:
        return
    from neuc.compiler.formats.sources import READ_AS

    for name in names:
        if name not in READ_AS:
            raise arguments.usage_error(f"--read-as {name}: no such layout", f"known: {', '.join(READ_AS)}")


def open_weights(path: Path, read_as: Sequence[str], tl: Sequence[str]) -> Source:
    """Open a GGUF file or a Hugging Face folder as the options say.

    Raises:
        Error: NEUC-E001 or NEUC-E002, an option makes no sense; or it cannot be read.
    """
    from neuc.compiler.formats.sources import open_source, parse_tl_sizes

    check_read_as(read_as)
    return open_source(path, read_as=read_as, tl_sizes=parse_tl_sizes(tl))


def show_weights(source: Source, as_json: bool) -> None:
    """Print what a source holds."""
    from neuc.compiler.formats.summary import summarize

    found = summarize(source)
    if as_json:
        console.product_json(found)
        return
    console.product("\n".join(_lines(found)))


def _lines(found: Mapping[str, object]) -> list[str]:
    weights = cast(int, found["weights"])
    lines = [
        f"{found['file']}: {found['kind']}, {human_bytes(cast(int, found['bytes']))}",
        f"  architecture: {found['architecture'] or 'not stated'}",
    ]
    file_type = cast("Mapping[str, object] | None", found.get("file_type"))
    if file_type is not None:
        lines.append(f"  file type: {file_type['name']} ({file_type['number']})")
    lines.append(f"  weights: {weights:,}, {found['bits_per_weight']} bits each")
    metadata = cast("Mapping[str, object]", found.get("metadata", {}))
    if metadata:
        lines += ["", "metadata:", *_metadata_lines(metadata)]
    rows = [
        [
            item["type"],
            item["tensors"],
            f"{item['weights']:,}",
            human_bytes(cast(int, item["bytes"])),
            item["bits_per_weight"],
        ]
        for item in cast("Sequence[Mapping[str, object]]", found["types"])
    ]
    lines += ["", arguments.table(["type", "tensors", "weights", "bytes", "bits"], rows, right=(1, 2, 3, 4))]
    ternary = cast("Sequence[Mapping[str, object]]", found["ternary"])
    if ternary:
        header = ["ternary tensors", "count", "shape", "type", "scale per", "zeros"]
        lines += ["", arguments.table(header, _ternary_rows(ternary), right=(1,))]
    lines += [f"warning: {text}" for text in cast("Sequence[str]", found["warnings"])]
    return lines


def _metadata_lines(metadata: Mapping[str, object]) -> list[str]:
    from neuc.compiler.formats.gguf_values import shown

    lines: list[str] = []
    for key, value in metadata.items():
        if isinstance(value, dict):
            array = cast("Mapping[str, object]", value)
            lines.append(f"  {key}: {array['length']} x {array['array']}")
        else:
            lines.append(f"  {key}: {shown(str(value))}")
    return lines


def _ternary_rows(tensors: Sequence[Mapping[str, object]]) -> list[list[object]]:
    """One row for the tensors whose names differ only in numbers and that are alike otherwise."""
    groups: dict[tuple[str, ...], list[Mapping[str, object]]] = {}
    for tensor in tensors:
        shape = ", ".join(map(str, cast("Sequence[int]", tensor["shape"])))
        scale = str(tensor.get("scale", "unknown")) + (", divides" if tensor.get("scale_divides") else "")
        name = re.sub(r"(?<=\.)\d+(?=\.)", "*", str(tensor["name"]))
        groups.setdefault((name, f"[{shape}]", str(tensor["type"]), scale), []).append(tensor)
    rows: list[list[object]] = []
    for (name, shape, kind, scale), members in groups.items():
        zeros = sorted(cast(float, member["zeros"]) for member in members if "zeros" in member)
        low, high = (f"{100 * share:.1f}" for share in (zeros[0], zeros[-1])) if zeros else ("?", "?")
        name = name if len(members) > 1 else str(members[0]["name"])
        rows.append([name, len(members), shape, kind, scale, f"{low} %" if low == high else f"{low} to {high} %"])
    return rows
