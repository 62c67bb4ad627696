"""Reading a Hugging Face folder: config.json and safetensors, with the packed weights of BitNet models.

Pickles are never opened. Which way `weight_scale` works is read from the configuration, never guessed from its size.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from neuc.compiler.formats.block_format import InvalidPayload, invalid
from neuc.compiler.formats.gguf import map_file
from neuc.compiler.formats.gguf_values import shown
from neuc.compiler.formats.hf_packed import HF_AUTOBITLINEAR, HF_BITLINEAR, HfPacked
from neuc.compiler.formats.recognition import CONFIG
from neuc.compiler.formats.safetensors_file import CODE, CURE, SafetensorsFile, StoredTensor, as_float32
from neuc.compiler.formats.ternary import Ternary
from neuc.errors import Error
from neuc.runtime.checked_json import Node, parse_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_MAX_FILES = 10_000


@dataclass(frozen=True)
class PackedTensor:
    """A packed weight: rows [N] and columns [K] of the matrix, and the scale beside it."""

    rows: int
    columns: int
    weight_scale: float


@dataclass(frozen=True, eq=False)
class HfFolder:
    """A folder that has been checked.

    Attributes:
        path: the folder.
        config: the bytes of config.json.
        model_type: from the configuration, or an empty string.
        form: how packed weights are scaled; None if the model has none.
        tensors: tensors by name.
        packed: the packed ones among them.
        warnings: what is odd, but no fault.
    """

    path: Path
    config: bytes
    model_type: str
    form: HfPacked | None
    tensors: Mapping[str, StoredTensor]
    packed: Mapping[str, PackedTensor]
    warnings: tuple[str, ...]
    _files: Mapping[str, SafetensorsFile]

    @staticmethod
    def open(path: str | os.PathLike[str]) -> HfFolder:
        """Check a folder.

        Raises:
            Error: NEUC-E103, a file cannot be read; NEUC-E124, one is missing or damaged, or they contradict each
                other; NEUC-E122, a scale is no number.
        """
        path = Path(path)
        if not (path / CONFIG).is_file():
            raise Error(CODE, f"{path} has no {CONFIG}", hint="give the folder of a model with its config.json")
        config = bytes(map_file(path / CONFIG))
        root = parse_json(config, f"{path.name}/{CONFIG}", code=CODE, cure=CURE)
        files, warnings = _open_files(path)
        tensors = {name: tensor for file in files.values() for name, tensor in file.tensors.items()}
        homes = {name: file for file in files.values() for name in file.tensors}
        form = scale_direction(root)
        packed = {
            name: _packed(path, name, tensor, tensors, homes, form)
            for name, tensor in tensors.items()
            if tensor.dtype == "U8" and name.endswith(".weight")
        }
        model_type = root.get("model_type").string(200) if root.has("model_type") else ""
        return HfFolder(path, config, model_type, form if packed else None, tensors, packed, tuple(warnings), homes)

    def payload(self, name: str) -> memoryview:
        """A tensor's bytes as stored."""
        return self._files[name].payload(self.tensors[name])

    def ternary(self, name: str) -> Ternary:
        """A packed weight.

        Raises:
            Error: NEUC-E122, no packer writes such bytes.
        """
        weight = self.packed[name]
        form = self.form
        assert form is not None  # open() refuses packed weights without it
        codes = form.decode(self.payload(name), (weight.rows, weight.columns), name=name)
        try:
            return form.with_scale(codes, weight.weight_scale)
        except InvalidPayload as problem:
            raise invalid(shown(name), form.name, str(problem)) from None


def scale_direction(config: Node) -> HfPacked | None:
    """How the model's packed weights are scaled, by `quantization_config`; None if it packs none.

    Raises:
        Error: NEUC-E124, the configuration names a class or mode that does not exist.
    """
    if not config.has("quantization_config"):
        return None
    section = config.get("quantization_config")
    method = section.get("quant_method").string(200) if section.has("quant_method") else ""
    if method != "bitnet":
        return None
    fields = {
        "linear_class": {"bitlinear": HF_BITLINEAR, "autobitlinear": HF_AUTOBITLINEAR},
        "quantization_mode": {"offline": True, "online": False},
    }
    chosen: list[HfPacked | bool] = []
    for key, values in fields.items():
        # What transformers takes where the configuration says nothing.
        value = section.get(key).string(200) if section.has(key) else next(iter(values))
        if value not in values:
            raise section.refuse(f"{key} is '{shown(value)}', and {' or '.join(values)} are known")
        chosen.append(values[value])
    form, offline = chosen
    return form if isinstance(form, HfPacked) and offline else None


def _open_files(folder: Path) -> tuple[dict[str, SafetensorsFile], list[str]]:
    """The weight files by name, and what is odd about them."""
    if not (folder / INDEX).is_file():
        if not (folder / WEIGHTS).is_file():
            pickled = any(folder.glob("pytorch_model*.bin"))
            raise Error(
                CODE,
                f"{folder} has no {WEIGHTS}" + (", only pickled weights, which are not read" if pickled else ""),
                hint="save the model with safe_serialization=True" if pickled else "give a folder with safetensors",
            )
        return {WEIGHTS: SafetensorsFile.open(folder / WEIGHTS)}, []
    root = parse_json(map_file(folder / INDEX), f"{folder.name}/{INDEX}", code=CODE, cure=CURE)
    wanted: dict[str, list[str]] = {}
    for name, node in root.get("weight_map").fields():
        wanted.setdefault(node.string(500), []).append(name)
    if len(wanted) > _MAX_FILES:
        raise root.refuse(f"more than {_MAX_FILES} files")
    files: dict[str, SafetensorsFile] = {}
    seen: dict[str, str] = {}
    warnings: list[str] = []
    for file, names in sorted(wanted.items()):
        if not file.isprintable() or file != Path(file).name or not file.endswith(".safetensors"):
            raise root.refuse(f"'{shown(file)}' is no safetensors file of this folder")
        files[file] = SafetensorsFile.open(folder / file)
        missing = [name for name in names if name not in files[file].tensors]
        if missing:
            raise root.refuse(f"tensor '{shown(missing[0])}' is not in {file}")
        unlisted = len(files[file].tensors) - len(names)
        if unlisted:
            warnings.append(f"{file} has {unlisted} tensors that {INDEX} does not list")
        for name in files[file].tensors:
            if name in seen:
                raise root.refuse(f"tensor '{shown(name)}' is in {seen[name]} and in {file}")
            seen[name] = file
    return files, warnings


def _packed(
    folder: Path,
    name: str,
    tensor: StoredTensor,
    tensors: Mapping[str, StoredTensor],
    homes: Mapping[str, SafetensorsFile],
    form: HfPacked | None,
) -> PackedTensor:
    def refuse(why: str, hint: str = CURE) -> Error:
        return Error(CODE, f"{folder.name}: tensor '{shown(name)}' {why}", hint=hint)

    if form is None:
        raise refuse(
            "is packed, and quantization_config in config.json does not say how it is scaled",
            "quant_method bitnet with linear_class bitlinear divides by weight_scale, autobitlinear offline multiplies",
        )
    if len(tensor.shape) != 2 or 0 in tensor.shape:
        raise refuse(f"is packed, but has the shape {list(tensor.shape)}")
    scale = tensors.get(f"{name}_scale")
    values = None if scale is None else as_float32(scale.dtype, homes[scale.name].payload(scale))
    if values is None or values.size != 1:
        raise refuse("has no weight_scale of one number beside it")
    quarter, columns = tensor.shape
    bias = tensors.get(f"{name.removesuffix('.weight')}.bias")
    rows = bias.elements if bias is not None else 4 * quarter
    if -(-rows // 4) != quarter:
        raise refuse(f"packs {4 * quarter} rows, but its bias has {rows} elements")
    return PackedTensor(rows, columns, float(values[0]))
