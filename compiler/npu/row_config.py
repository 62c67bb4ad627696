"""The fields of a row that measurements get wrong: words of `config` no model knows, shapes and element types.

Everything here returns why a row is not predicted, "" if nothing is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache

from neuc.backends.npu.timing_model import ELEMENT_BYTES, GemmType
from neuc.runtime.npu.machine import Machine

_SHOWN = 40
_VALUES: Mapping[str, tuple[str, str]] = {
    "tile": (r"\d{1,9}([x/])\d{1,9}\1\d{1,9}", "64x64x64, sizes from 1"),
    "kernel": (r"\d{1,9}([x/])\d{1,9}\1\d{1,9}", "64x64x64, sizes from 1"),
    "rate": (r"(?=.*[1-9])\d{1,9}(\.\d{1,9})?", "multiply-adds a cycle, a number above 0"),
    "dispatch": (r"\d{1,7}(\.\d+)?us", "microseconds, such as 275us"),
    "order": (r"MxNxK", "MxNxK"),
    "herd": (r"\d{1,2}x\d{1,2}", "cores along M x along N, such as 8x4"),
    "k_l2": (r"0*[1-9]\d{0,8}", "columns of A that a memory tile collects, from 1"),
    "K": (r"0*[1-9]\d{0,5}", "tasks, from 1"),
    "hops": (r"\d{1,3}", "tiles apart, such as 3"),
    "filter": (r"[1-9]\d{0,2}x[1-9]\d{0,2}", "height x width of a convolution's filter, such as 3x3"),
    "stride": (r"[1-9]\d{0,2}", "pixels between a convolution's windows, from 1"),
}
"""Words that have a value: its form, and how that is said."""

_SHAPES: Mapping[str, str] = {"sizes": "1048576, 64x1024 or 4K (4096)", "words": "a number of words, such as 4096"}
"""How the forms of shapes without letters are said."""

_READ = (
    r"[^\s;,=]+ ?= ?[^\s;,]*",
    r"\b(?:tile|kernel)s?[ :]+\d[\dx/]*",
    r"\b(?:one|single|\d+)[ _-]?(?:cores?|col(?:umn)?s?)\b",
    r"(?<![\dx])\d+x\d+(?: cores)?(?![\dx])",
    r"[\d.]+ MB of DDR traffic|x\d+ repeats",
    r"\b(?:b_row_maj|b_col_maj|row-major B|C depth [12])\b",
    r"\b(?:flm|iron\.GEMM|chess|stock|whole_array|peano|iree)\b",
    r"\bfused[ -]cast\b|\blow[ -]precision\b|\bdrain\b|\bmlir-air\b",
    r"\b4-level tiling\b|\bdirect[ -]codegen\b|\bno compute\b|\bpacked\b|\bwhole call\b|\btwo inputs\b",
    r"\bgaps?(?: between tasks)?\b|\b(?:total|span)\b",
    r"\b(?:MM2S|S2MM)\b|\b(?:first|following|next) tasks?\b|\binstructions\b|\bVMAC\b",
)
"""What of a config is read, in any order; the rest are remarks."""
_WORDS = (
    *(
        "tile",
        "kernel",
        "one core",
        "cores",
        "columns",
        "b_row_maj",
        "b_col_maj",
        "C depth 1",
        "C depth 2",
        "flm",
        "iron.GEMM",
    ),
    *("chess", "stock", "whole_array", "peano", "iree", "4-level tiling", "direct codegen", "no compute", "packed"),
    *("mlir-air", "fused-cast", "drain", "low precision", "whole call", "two inputs"),
    *("MM2S", "S2MM", "first task", "following task", "gap", "MB of DDR traffic", "repeats"),
)


_FOUR_SIZES = r"\b((?:tile|kernel)s?[ =:]+)(\d+)([x/])(\d+)\3(\d+)\3(\d+)(?![\dx/])"
_APART = (
    (r"\btile_m=(\d+)[ ;,]+tile_k_l2=(\d+)[ ;,]+tile_k_l1=(\d+)[ ;,]+tile_n=(\d+)\b", r"tile \1/\2/\3/\4"),
    (r"\b(?:tile_)?m=(\d+)[ ;,]+(?:tile_)?k=(\d+)[ ;,]+(?:tile_)?n=(\d+)\b", r"tile \1x\2x\3"),
    (r"\bherd_m=(\d+)[ ;,]+herd_n=(\d+)\b", r"herd=\1x\2"),
)
"""Sizes that sources name one by one."""
_OPPOSITES = (
    ("b_row_maj", "b_col_maj"),
    ("C depth 1", "C depth 2"),
    ("MM2S", "S2MM"),
    ("first", "following|next"),
    ("gap", "total|span"),
)
"""Words of which a row has one at most."""


_SOURCES = (
    (r"mlir-air(?!.*\bpull\b)", r"mlir-air", "mlir-air"),
    (r"iree", r"iree", "iree"),
    (r"tibrezus", r"dispatch=|whole call", "peano; whole call; dispatch=275us"),
    (r"iron.*krackan/", r"dispatch=", "dispatch=185us"),
    (r"iron.*phoenix/", r"dispatch=", "dispatch=422us"),
)
"""What a row's source says of its program, unless its config has such words: whose it is, what was timed around it."""


def with_source(config: str, source: str) -> str:
    """`config` and what goes without saying where this source published it; docs/npu.md has where figures come from."""
    more = [
        words
        for name, said, words in _SOURCES
        if re.search(name, source, re.IGNORECASE) and not re.search(said, config, re.IGNORECASE)
    ]
    return "; ".join(filter(None, (config, *more)))


@lru_cache(1024)
def as_known(config: str) -> str:
    """`config` with its known words and sizes as models spell them: One Core, Tile 64X64X64, rate = 5.

    A tile of four sizes is mlir-air's m, columns that a memory tile collects, k and n.
    """
    config = re.sub(r" ?= ?", "=", re.sub(r"(?<=\d)X(?=\d)", "x", config))
    for word in (*_VALUES, *_WORDS):
        config = re.sub(rf"(?<!\w){re.escape(word)}(?=s?\b)", word, config, flags=re.IGNORECASE if word != "K" else 0)
    for apart, together in _APART:
        config = re.sub(apart, together, config)
    config = re.sub(_FOUR_SIZES, r"\1\2x\5x\6; k_l2=\4", config)
    config = re.sub(r"\bherd[ :]+(?=\d)|(?<![\dx])(\d+x\d+) herd\b", r"herd=\1", config)
    return re.sub(r"\b(one|single)[ _-]core\b", "one core", config, flags=re.IGNORECASE)


def remarks_in(config: str) -> list[tuple[str, str]]:
    """The parts of `config` that no model reads, and beside each the known words it nearly is, if any."""
    rest = config
    for pattern in _READ:
        rest = re.sub(pattern, ";", rest, flags=re.IGNORECASE)
    known = {word.lower(): word for word in _WORDS}
    found: list[tuple[str, str]] = []
    for part in (part.strip(" .()") for part in re.split(r"[;,]", rest)):
        if not re.search(r"[A-Za-z]", part):
            continue
        alone = re.sub(r"\s*\b\d[\d./x]*\b", "", part.lower()).strip()  # without sizes, as in tiel 64x64x64
        near = [*get_close_matches(part.lower(), known, 1, 0.75), *get_close_matches(alone, known, 1, 0.75)]
        found.append((part[:_SHOWN], known[near[0]] if near else ""))
    return found


def config_faults(config: str, machine: Machine) -> list[str]:
    """What in `config` is unknown or more than the machine has; words without a value may be remarks."""
    found: list[str] = []
    for word, value in re.findall(r"([^\s;,=]+) ?= ?([^\s;,]*)", config):
        key = str(word).removesuffix("s") if word in ("tiles", "kernels") else str(word)
        if key not in _VALUES:
            near = get_close_matches(key.lower(), _VALUES, 1, 0.75)
            known = f"nearest: {near[0]}=" if near else f"known: {', '.join(f'{k}=' for k in _VALUES)}"
            found.append(f"config {key[:_SHOWN]}={value[:_SHOWN]} is unknown; {known}")
        elif not re.fullmatch(_VALUES[key][0], value):
            found.append(f"config {key}={value[:_SHOWN]} makes no sense; known: {_VALUES[key][1]}")
    for key, value in re.findall(r"\b(tile|kernel)s?[ :]+(\d[^\s;,]*)", config):
        if not re.fullmatch(_VALUES[key][0], value):
            found.append(f"config '{key} {value[:_SHOWN]}' makes no sense; known: {_VALUES[key][1]}")
    found += _contradictions(config)
    hops, far = re.search(r"\bhops ?= ?(\d{1,3})\b", config), len(machine.row_classes) + machine.cols - 2
    if hops and int(hops[1]) > far:
        size = f"{len(machine.row_classes)} rows of {machine.cols} tiles"
        found.append(f"config hops={hops[1]} is farther than {machine.name} is wide; {size} are {far} apart at most")
    rows = sum(machine.classes[name].kind == "core" for name in machine.row_classes)
    has = f"{machine.name} has {rows}x{machine.cols} cores (rows x columns)"
    herd = re.search(r"\bherd=(\d+)x(\d+)", config)
    if herd and not _within(str(int(herd[1]) * int(herd[2])), rows * machine.cols):
        found.append(f"config {herd[0]} is more cores than there are, or none; {has}")
    for down, across in re.findall(r"(?<![\dx/=-])(-?\d+)x(-?\d+)(?![\dx/])", config):
        if not (_within(down, rows) and _within(across, machine.cols)):
            found.append(f"config {down[:_SHOWN]}x{across[:_SHOWN]} cores is more than there are, or none; {has}")
    for word, most in (("cores", rows * machine.cols), ("columns", machine.cols)):
        for count in re.findall(rf"(?<![\dx])(-?\d+)[ _-]?(?:{word}?|{word[:3]}s?)\b", config):
            if not _within(count, most):
                found.append(f"config {count[:_SHOWN]} {word} is more than there are, or none; {has}")
    return found


def _contradictions(config: str) -> list[str]:
    """Words of `config` that say something else than words of the same kind before them."""
    said: dict[str, list[str]] = {}
    for word, value in re.findall(r"\b(\w+)(?: ?= ?|[ :]+(?=\d+[x/]\d+[x/]))([^\s;,]+)", config):
        key = "tile" if re.fullmatch("(tile|kernel)s?", word) else str(word)
        if key in _VALUES:
            said.setdefault(key, []).append(str(value).replace("/", "x"))
    for number, (one, other) in enumerate(_OPPOSITES):
        said[f"{number}"] = [hit[0] for word in (one, other) if (hit := re.search(rf"\b(?:{word})\b", config))]
    for word in ("cores", "columns"):
        counts = re.findall(rf"(?<![\dx])(one|single|\d+)[ _-]?(?:{word}?|{word[:3]}s?)\b", config)
        said[word] = [f"{'1' if count in ('one', 'single') else count} {word}" for count in counts]
    found: list[str] = []
    for key, values in said.items():
        if len(set(values)) > 1:
            word = f"{key}=" if key in _VALUES else ""
            found.append(f"config says both {word}{values[0][:_SHOWN]} and {word}{values[-1][:_SHOWN]}; keep one")
    return found


def tile_fault(sizes: tuple[int, int, int], kind: GemmType, machine: Machine) -> str:
    """Whether one tile of each operand and of the result is more than a core's memory."""
    m, k, n = sizes
    a, b, c = kind.nbytes
    needs, has = m * k * a + k * n * b + m * n * c, machine.classes["core"].memory_bytes
    if not has or needs <= has:
        return ""
    return f"config tile {m}x{k}x{n} of {kind.key} is {needs:.0f} bytes; a core of {machine.name} has {has}"


def shape_fault(shape: str, sizes: list[int], form: str) -> str:
    """Why a shape is none of this form, such as MxKxN; `sizes` is what was read of it."""
    known = _SHAPES.get(form, form)
    if not shape:
        return f"shape is missing; known: {known}"
    good = len(sizes) == len(form.split("x")) if form != "sizes" else bool(sizes)
    return "" if good else f"shape {shape[:_SHOWN]} makes no sense; known: {known}, every size from 1 to 999999999"


def type_fault(dtype: str, kind: GemmType | None) -> str:
    """Why element types are none that are known."""
    known = f"known: {', '.join(ELEMENT_BYTES)}, and pairs such as i8->i32 or i8 x i4"
    if not dtype:
        return f"dtype is missing; {known}"
    return "" if kind is not None else f"dtype {dtype[:_SHOWN]} is unknown; {known}"


def _within(text: str, most: int) -> bool:
    return len(text) < len("99999") and 1 <= int(text) <= most
