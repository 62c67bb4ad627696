"""Reading a machine: TOML files (`backends/npu/machines`) and the JSON of artifacts into `machine.py`'s data, checked.

What makes no sense is refused with the field: missing, unknown, negative, not finite, in contradiction with another, or
without provenance.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from neuc.errors import Error
from neuc.runtime.checked_json import Node
from neuc.runtime.npu.machine import OPPOSITE, SIDES, Dma, GemmRate, Machine, Sku, Tile, TileClass

MARKS = ("spec", "measured", "inferred", "fitted", "assumed")
MAX_MACHINE_BYTES = 1 << 20
MAX_SIDE = 256
_ARRAY_FIGURES: Mapping[str, tuple[str, ...]] = {
    "timing": tuple(
        "bd_setup channel_start memory_latency lock bd_chain hop switch_local kernel_call task_push shim_s2mm_task "
        "shim_mm2s_task shim_mm2s_per_word first_task_s2mm first_task_mm2s elementwise_lanes_8bit "
        "ternary_decode_weights_per_cycle copy_bytes_per_cycle requantize_outputs_per_cycle "
        "correction_outputs_per_cycle table_lookups_per_cycle".split()
    ),
    "ddr": ("bytes_per_second",),
}
"""What programs on an array cannot be timed without."""
_RATES = (
    "elementwise_lanes_8bit",
    "ternary_decode_weights_per_cycle",
    "copy_bytes_per_cycle",
    "requantize_outputs_per_cycle",
    "correction_outputs_per_cycle",
    "table_lookups_per_cycle",
    "bytes_per_second",
)
_BUNDLES = (*SIDES, "DMA", "Core", "FIFO", "Ctrl", "Trace")
_STREAM_BYTES = 4
"""A stream carries words of 32 bits."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CODE = "NEUC-E670"
_CURE = "copy a file that `neuc targets` knows (backends/npu/machines) and change it field by field"


def load_machine(path: Path) -> Machine:
    """Read a machine file.

    Raises:
        Error: NEUC-E670, with the field, when the file is missing, no TOML, or its figures make no sense.
    """
    try:
        if path.stat().st_size > MAX_MACHINE_BYTES:
            raise Error(_CODE, f"{path.name} is larger than {MAX_MACHINE_BYTES} bytes", hint=_CURE)
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Error(_CODE, f"{path}: {error}", hint="give the path of a machine file") from error
    except tomllib.TOMLDecodeError as error:
        raise Error(_CODE, f"{path.name} is no TOML: {error}", hint=_CURE) from error
    return machine_of(data, path.name)


def machine_of(data: object, where: str) -> Machine:
    """The machine described by `data`, checked.

    Raises:
        Error: NEUC-E670: a field is missing, unknown, negative, not finite, contradicts another, or has no provenance.
    """
    node = Node(data, where, _CODE, _CURE)
    known = "format name summary family generation cols rows classes clock_hz timing ddr host energy gemm libraries"
    node.only([*known.split(), "skus", "extension", "provenance"])
    node.get("format").integer(1, 1)
    classes = {name: _tile_class(entry) for name, entry in node.get("classes").fields(32)}
    rows = node.get("rows").list_of(lambda row: row.string(32), MAX_SIDE)
    for row in rows:
        if row not in classes:
            raise node.get("rows").refuse(f"{row!r} is no tile class of this file")
    if not rows:
        raise node.get("rows").refuse("an array has at least one row")
    provenance = {path: _provenance(entry) for path, entry in node.get("provenance").fields(1000)}
    machine = Machine(
        name=_name(node.get("name")),
        summary=node.get("summary").string(200),
        family=node.get("family").string(32),
        generation=node.get("generation").integer(1, 100),
        cols=node.get("cols").integer(1, MAX_SIDE),
        row_classes=rows,
        classes=classes,
        clock_hz=_positive(node.get("clock_hz")),
        timing=_figures(node, "timing"),
        ddr=_figures(node, "ddr"),
        host=_figures(node, "host"),
        energy=_figures(node, "energy"),
        gemm=_rates(node, "gemm"),
        libraries={name: _rate_table(entry) for name, entry in _table(node, "libraries")},
        skus={name: _sku(entry) for name, entry in _table(node, "skus")},
        extension=_figures(node, "extension"),
        provenance=provenance,
        data=cast("Mapping[str, object]", data),
    )
    _check_provenance(machine, node)
    _check_sides(machine, node)
    _check_array(machine, node)
    _check_sources(machine, node)
    return machine


def _name(node: Node) -> str:
    """A word that may stand in file names, targets and exports."""
    if not _NAME.fullmatch(node.string(64)):
        raise node.refuse(f"{node.string(64)!r} is no name: letters, digits, '.', '_' and '-'")
    return node.string(64)


def _table(node: Node, key: str) -> list[tuple[str, Node]]:
    return list(node.get(key).fields(1000)) if node.has(key) else []


def _figures(node: Node, key: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, entry in _table(node, key):
        if entry.number() < 0:
            raise entry.refuse(f"{entry.number():g} is negative")
        found[name] = entry.number()
    return found


def _positive(node: Node) -> float:
    if node.number() <= 0:
        raise node.refuse(f"{node.number():g} is not positive")
    return node.number()


def _rates(node: Node, key: str) -> dict[str, GemmRate]:
    return _rate_table(node.get(key)) if node.has(key) else {}


def _rate_table(node: Node) -> dict[str, GemmRate]:
    found: dict[str, GemmRate] = {}
    for name, entry in node.fields(100):
        entry.only(["peak_macs_per_cycle", "cycles_per_output"])
        overhead = entry.get("cycles_per_output")
        if overhead.number() < 0:
            raise overhead.refuse(f"{overhead.number():g} is negative")
        found[name] = GemmRate(_positive(entry.get("peak_macs_per_cycle")), overhead.number())
    return found


def _sku(node: Node) -> Sku:
    node.only(["clock_hz", "ddr_bytes_per_second", "dispatch_us", "read_bytes_per_second"])
    clock, ddr, dispatch = (_positive(node.get(k)) for k in ("clock_hz", "ddr_bytes_per_second", "dispatch_us"))
    reads = _positive(node.get("read_bytes_per_second")) if node.has("read_bytes_per_second") else ddr
    return Sku(clock, ddr, dispatch, reads)


def _provenance(node: Node) -> tuple[str, str]:
    mark, _, source = node.string(400).partition(": ")
    if mark not in MARKS or not source:
        raise node.refuse(f"expected 'MARK: source' with a mark out of {', '.join(MARKS)}")
    return mark, source


def _dma(node: Node) -> Dma:
    names = "s2mm mm2s dims bds queue_depth max_wrap max_stride max_words max_repeat bytes_per_cycle".split()
    node.only([*names, "parity_pools"])
    values = {name: node.get(name).integer(1, 2**40) for name in names}
    parity = node.get("parity_pools").boolean()
    if parity and values["bds"] % 2:
        raise node.refuse(f"{values['bds']} descriptors cannot be split evenly by channel parity")
    if values["bds"] < values["s2mm"] + values["mm2s"]:
        raise node.refuse(f"{values['bds']} descriptors for {values['s2mm'] + values['mm2s']} channels")
    if values["bytes_per_cycle"] % _STREAM_BYTES:
        raise node.get("bytes_per_cycle").refuse(
            f"{values['bytes_per_cycle']} is no multiple of {_STREAM_BYTES}, a stream's word"
        )
    return Dma(parity_pools=parity, **values)


def _tile_class(node: Node) -> TileClass:
    numbers = "memory_bytes banks reserved_bytes program_bytes locks lock_max".split()
    node.only([*numbers, "kind", "dma", "ports", "straight_only", "shared_memory"])
    kind = node.get("kind")
    if kind.string() not in ("core", "mem", "shim"):
        raise kind.refuse(f"{kind.string()!r} is none of core, mem, shim")
    values = {name: node.get(name).integer(0, 2**40) for name in numbers}
    memory, banks = values["memory_bytes"], values["banks"]
    if (memory > 0) != (banks > 0) or (banks and memory % banks):
        raise node.refuse(f"{memory} bytes of memory cannot be {banks} equal banks")
    if values["reserved_bytes"] > memory:
        raise node.refuse(f"reserves {values['reserved_bytes']} of {memory} bytes of memory")
    ports: dict[str, tuple[int, int]] = {}
    for bundle, entry in node.get("ports").fields(32):
        if bundle not in _BUNDLES:
            raise entry.refuse(f"{bundle!r} is none of {', '.join(_BUNDLES)}")
        pair = entry.list_of(lambda item: item.integer(0, 64), 2)
        if len(pair) != 2:
            raise entry.refuse("expected [masters, slaves]")
        ports[bundle] = (pair[0], pair[1])
    reach: list[Tile] = [(0, 0)]
    for entry in node.get("shared_memory").items(8):
        step = entry.list_of(lambda item: item.integer(-1, 1), 2)
        if len(step) != 2 or abs(step[0]) + abs(step[1]) != 1:
            raise entry.refuse("expected one step to a neighbour, [columns, rows]")
        reach.append((step[0], step[1]))
    dma = _dma(node.get("dma")) if node.has("dma") else None
    if dma is not None:
        into, out = ports.get("DMA", (0, 0))
        if dma.s2mm > into or dma.mm2s > out:
            raise node.refuse(f"{dma.s2mm} S2MM and {dma.mm2s} MM2S channels, but ports DMA = [{into}, {out}]")
    return TileClass(
        kind=kind.string(),
        dma=dma,
        ports=ports,
        straight_only=node.get("straight_only").boolean(),
        shared_memory=tuple(reach),
        **values,
    )


def _check_provenance(machine: Machine, node: Node) -> None:
    """Every figure has a mark: one entry for it, or for a table it stands in."""

    def walk(value: object, path: str) -> None:
        if isinstance(value, dict):
            for key, inner in cast("dict[str, object]", value).items():
                walk(inner, f"{path}.{key}" if path else key)
        elif path.partition(".")[0] not in ("format", "name", "summary", "family", "generation", "provenance"):
            try:
                machine.mark_of(path)
            except KeyError:
                where = Node(value, f"{node.where}.{path}", _CODE, 'add it to [provenance] as "spec: where from"')
                raise where.refuse("has no provenance") from None

    walk(node.value, "")


def _check_sources(machine: Machine, node: Node) -> None:
    """Every entry of provenance is of something."""
    for path in machine.provenance:
        inside: object = node.value
        for name in _steps(path, inside):
            if not isinstance(inside, dict) or name not in inside:
                raise node.get("provenance").refuse(f"{path!r}: there is no such field")
            inside = cast("dict[str, object]", inside)[name]


def _steps(path: str, data: object) -> list[str]:
    """The keys a dotted path goes through; keys may have dots in them."""
    found: list[str] = []
    while path:
        keys = cast("dict[str, object]", data) if isinstance(data, dict) else {}
        step = next((k for k in keys if path == k or path.startswith(f"{k}.")), path.partition(".")[0])
        found.append(step)
        path, data = path[len(step) + 1 :], keys.get(step)
    return found


def _check_array(machine: Machine, node: Node) -> None:
    """An array that programs run on, one with a way in from the host, has every figure that times them."""
    if not any(cls.kind == "shim" and cls.dma is not None for cls in machine.classes.values()):
        return
    for table, names in _ARRAY_FIGURES.items():
        for name in names:
            figures = node.get(table)
            if not figures.has(name):
                near = difflib.get_close_matches(name, [key for key, _ in figures.fields() if key not in names], n=1)
                raise figures.refuse(f"field '{name}' is missing" + (f"; '{near[0]}' is near it" if near else ""))
            if name in _RATES:
                _positive(figures.get(name))


def _check_sides(machine: Machine, node: Node) -> None:
    """Two neighbours agree on how many circuits run between them."""
    pairs = [(a, b, "North") for a, b in zip(machine.row_classes, machine.row_classes[1:])]
    if machine.cols > 1:
        pairs += [(name, name, "East") for name in dict.fromkeys(machine.row_classes)]
    for first, second, side in pairs:
        for a, b, towards in ((first, second, side), (second, first, OPPOSITE[side])):
            out = machine.classes[a].ports.get(towards, (0, 0))[0]
            into = machine.classes[b].ports.get(OPPOSITE[towards], (0, 0))[1]
            if out != into:
                beside = "above or below it" if side == "North" else "beside it"
                raise node.get("classes").refuse(
                    f"{a} has {out} ports {towards}, but {b} {beside} takes {into} from {OPPOSITE[towards]}"
                )
