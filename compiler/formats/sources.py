"""One view of a GGUF file and of a Hugging Face folder: their tensors, which of them are ternary, and these decoded."""

from __future__ import annotations

import configparser
import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from neuc.compiler.formats import table
from neuc.compiler.formats.block_format import invalid, matrix_shape
from neuc.compiler.formats.gguf import GgufFile, GgufTensor
from neuc.compiler.formats.gguf_types import LAYOUTS
from neuc.compiler.formats.gguf_values import Array, shown
from neuc.compiler.formats.hf_folder import HfFolder
from neuc.compiler.formats.ternary import Ternary
from neuc.compiler.formats.tl import Tl1, Tl2, TlBlocks
from neuc.errors import Error, Exit

I2S_KEY = "neuc.i2_s.layout"
TL_KEY = "neuc.tl.blocks"
_I2S = ("i2_s", "i2_s-neon", "i2_s-rows4")
# Names --read-as takes: layouts whose id has another meaning as well.
READ_AS = (*_I2S, *(layout.name for layouts in LAYOUTS.values() if len(layouts) > 1 for layout in layouts))

Shape2 = tuple[int, int]


@dataclass(frozen=True)
class TlSizes:
    """Block sizes of TL1 and TL2 tensors: by shape (N, K), and one for every other shape."""

    by_shape: Mapping[Shape2, TlBlocks]
    other: TlBlocks | None = None

    def find(self, rows: int, columns: int) -> TlBlocks | None:
        """Those for a shape."""
        return self.by_shape.get((rows, columns), self.other)

    def over(self, lower: TlSizes) -> TlSizes:
        """These, and `lower` where these say nothing."""
        return TlSizes({**lower.by_shape, **self.by_shape}, self.other or lower.other)


_SIZES = re.compile(r"(?:(\d{1,9})x(\d{1,9})=)?(\d{1,9}),(\d{1,9}),(\d{1,9})", re.ASCII)


def parse_tl_sizes(texts: Collection[str]) -> TlSizes:
    """Block sizes from `[NxK=]BM,BY,bm`, or from the kernel_config.ini bitnet.cpp's kernels were made with.

    Raises:
        Error: NEUC-E002, a text is neither, or the file cannot be understood.
    """
    by_shape: dict[Shape2, TlBlocks] = {}
    other: TlBlocks | None = None
    for text in texts:
        found = _SIZES.fullmatch(text)
        if found is None:
            by_shape |= _read_ini(text)
            continue
        rows, columns, *sizes = found.groups()
        if rows is None:
            other = TlBlocks(*map(int, sizes))
        else:
            by_shape[int(rows), int(columns)] = TlBlocks(*map(int, sizes))
    return TlSizes(by_shape, other)


def _read_ini(path: str) -> dict[Shape2, TlBlocks]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_string(file.read(2**20))
        kernels = [{key: int(section[key]) for key in ("m", "k", "bm", "bk", "bmm")} for section in _sections(parser)]
    except (OSError, ValueError, KeyError, configparser.Error):
        raise Error(
            "NEUC-E002",
            f"--tl {shown(path)} is neither [NxK=]BM,BY,bm nor a kernel_config.ini",
            hint="--tl 3200x8640=160,96,32, or the include/kernel_config.ini the kernels were made with",
            exit_code=Exit.USAGE,
        ) from None
    return {(k["m"], k["k"]): TlBlocks(k["bm"], k["bk"], k["bmm"]) for k in kernels}


def _sections(parser: configparser.ConfigParser) -> list[configparser.SectionProxy]:
    return [parser[name] for name in parser.sections()]


@dataclass(frozen=True, eq=False)
class SourceTensor:
    """A tensor of a source.

    Attributes:
        name: its name.
        shape: dims of the weights, outermost first.
        type: name of its block format or element type.
        nbytes: bytes it takes, without a scale beside it.
        payload: its bytes as stored.
        decode: makes a `Ternary` of it; None if it is not stored as one.
        missing: what has to be known before it can be decoded, or an empty string.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    nbytes: int
    payload: Callable[[], memoryview]
    decode: Callable[[], Ternary] | None = None
    missing: str = ""

    @property
    def elements(self) -> int:
        """How many weights it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Source:
    """A file or folder with weights.

    Attributes:
        origin: the GGUF file or the folder.
        tensors: its tensors.
        warnings: what the user should know about it, one sentence each.
        tl_sizes: block sizes of TL1 and TL2 tensors, as far as known.
    """

    origin: GgufFile | HfFolder
    tensors: tuple[SourceTensor, ...]
    warnings: tuple[str, ...]
    tl_sizes: TlSizes


def open_source(
    path: str | os.PathLike[str], *, read_as: Collection[str] = (), tl_sizes: TlSizes | None = None
) -> Source:
    """Open a GGUF file or a Hugging Face folder.

    Args:
        path: the file or folder.
        read_as: layouts it has, where an id means several things (`READ_AS`).
        tl_sizes: block sizes of its TL1 and TL2 tensors.

    Raises:
        Error: as `GgufFile.open` and `HfFolder.open`.
    """
    path = Path(path)
    given = tl_sizes or TlSizes({})
    if path.is_dir():
        return _from_folder(HfFolder.open(path), given)
    return _from_gguf(GgufFile.open(path, read_as=read_as), read_as, given)


def _from_folder(folder: HfFolder, tl_sizes: TlSizes) -> Source:
    tensors: list[SourceTensor] = []
    for name, tensor in folder.tensors.items():
        packed, payload = folder.packed.get(name), partial(folder.payload, name)
        if packed is None or folder.form is None:
            tensors.append(SourceTensor(name, tensor.shape, tensor.dtype.lower(), tensor.nbytes, payload))
        else:
            shape, decode = (packed.rows, packed.columns), partial(folder.ternary, name)
            tensors.append(SourceTensor(name, shape, folder.form.name, tensor.nbytes, payload, decode))
    return Source(folder, tuple(tensors), folder.warnings, tl_sizes)


def _from_gguf(file: GgufFile, read_as: Collection[str], given: TlSizes) -> Source:
    sizes = given.over(_sizes_in(file))
    stated = [name for name in _I2S if name in read_as] or [file.text(I2S_KEY)]
    i2s = stated[0] if stated[0] in _I2S else ""
    tensors: list[SourceTensor] = []
    warnings = list(file.warnings)
    for tensor in file.tensors.values():
        kind = tensor.layout.name
        if kind == "i2_s" and not i2s:
            i2s = "i2_s"
            warnings.append(
                "nothing tells which of three I2_S layouts this file has: the one x86 builds of bitnet.cpp write is "
                "assumed; if the model talks nonsense, try --read-as i2_s-neon or i2_s-rows4"
            )
        kind = i2s if kind == "i2_s" else kind
        payload = partial(file.payload, tensor)
        decode = partial(_decode, file, tensor, kind, sizes) if kind in table.GGUF_FORMS else None
        unsized = kind in ("tl1", "tl2") and sizes.find(*matrix_shape(tensor.shape)) is None
        missing = "block sizes, which --tl gives" if unsized else ""
        tensors.append(SourceTensor(tensor.name, tensor.shape, kind, tensor.nbytes, payload, decode, missing))
    unknown = sum(bool(tensor.missing) for tensor in tensors)
    if unknown:
        warnings.append(
            f"{unknown} TL1 or TL2 tensors cannot be decoded without the block sizes of their kernels, which are in no "
            "GGUF file: give them with --tl"
        )
    if file.text("tokenizer.ggml.model") == "gpt2" and "tokenizer.ggml.pre" not in file.fields:
        warnings.append("tokenizer.ggml.pre is missing: loaders will split text by a default rule, perhaps wrongly")
    shards = file.integer("split.count") or 1
    if shards > 1:
        warnings.append(f"this is one of {shards} files; the tensors of the others are not looked at")
    if file.hadamard is not None:
        warnings.append("its weights are stored rotated (prism.hadamard): without that rotation they mean nothing")
    return Source(file, tuple(tensors), tuple(warnings), sizes)


def _sizes_in(file: GgufFile) -> TlSizes:
    """The block sizes `neuc convert` has put down in a file."""
    field = file.fields.get(TL_KEY)
    items = field.value.items if field is not None and isinstance(field.value, Array) else []
    return parse_tl_sizes([text for text in items if isinstance(text, str) and _SIZES.fullmatch(text)])


def tl_format(kind: str, sizes: TlBlocks) -> Tl1 | Tl2:
    """TL1 or TL2 with block sizes."""
    return Tl1(sizes) if kind == "tl1" else Tl2(sizes)


def _decode(file: GgufFile, tensor: GgufTensor, kind: str, tl_sizes: TlSizes) -> Ternary:
    name, payload = shown(tensor.name), file.payload(tensor)
    form = table.BLOCK_FORMATS.get(kind)
    if form is not None:
        return form.decode(payload, tensor.shape, name=name)
    rows, columns = matrix_shape(tensor.shape)
    sizes = tl_sizes.find(rows, columns)
    if sizes is None:
        raise Error(
            "NEUC-E121",
            f"{name} is {kind}, whose block sizes for [{rows}, {columns}] are in no file",
            hint=f"--tl {rows}x{columns}=BM,BY,bm, or --tl with the kernel_config.ini of its kernels",
        )
    made = tl_format(kind, sizes)
    if tensor.nbytes == max(tensor.layout.sizes(tensor.shape)):
        return made.decode(payload, tensor.shape, name=name)
    beside = file.tensors.get(f"{tensor.name}_scale")
    if beside is None or beside.layout.name != "f32" or beside.elements != 1:
        raise invalid(name, kind, "it has no scale, neither behind it nor in a tensor beside it")
    scale = np.frombuffer(file.payload(beside), "<f4")[0]
    return made.decode_beside(payload, tensor.shape, float(scale), name=name)
