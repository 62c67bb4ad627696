"""Writing a Hugging Face folder with packed BitNet weights: config.json, model.safetensors, and what lay beside them.

The source has to come with a configuration: a Hugging Face folder, or a GGUF file made from one by `neuc convert`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from neuc.compiler.formats import table
from neuc.compiler.formats.block_format import CANNOT_HOLD, matrix_shape
from neuc.compiler.formats.gguf import GgufFile
from neuc.compiler.formats.hf_folder import INDEX, WEIGHTS, HfFolder, scale_direction
from neuc.compiler.formats.hf_packed import HfPacked
from neuc.compiler.formats.plan import Conversion, Options, plan_tensors
from neuc.compiler.formats.recognition import CONFIG
from neuc.compiler.formats.safetensors_file import CODE, CURE, ITEM_BYTES, as_float32, safetensors_head
from neuc.compiler.formats.sources import Source, SourceTensor
from neuc.errors import Error
from neuc.runtime.checked_json import parse_json

CONFIG_KEY = "neuc.hf.config"  # where a GGUF file made from a folder keeps config.json
# Element types that safetensors has.
_ELEMENTS = {name.lower() for name in ITEM_BYTES}
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx")


@dataclass(frozen=True)
class _Stored:
    """A tensor to store, and what makes its bytes."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    payload: Callable[[], bytes | memoryview]


def write_folder(source: Source, target: Path, options: Options) -> Conversion:
    """Write a folder whose packed weights are scaled as `options.format` says; on any failure there is none.

    Raises:
        Error: NEUC-E123, tensors cannot be packed exactly; NEUC-E124, there is no configuration; NEUC-E005, `target`
            cannot be written.
    """
    form = table.HF_FORMATS[options.format]
    config = _config(source, form)
    plan = plan_tensors(source, lambda _: form, options.lossy_scales)
    encoded = {tensor.name: tensor for tensor, _ in plan.encoded}
    scales = {f"{name}_scale" for name in encoded}
    by_name = {tensor.name: tensor for tensor in source.tensors}
    stored: dict[str, _Stored] = {}
    worst = plan.scale_error
    for tensor in source.tensors:
        name = tensor.name
        if name in encoded:
            rows, columns = matrix_shape(tensor.shape)
            encode = partial(_encode, tensor, form, options.lossy_scales)
            stored[name] = _Stored("U8", (-(-rows // 4), columns), form.nbytes(rows, columns), encode)
            stored[f"{name}_scale"], error = _scale(tensor, form, by_name.get(f"{name}_scale"))
            worst = max(worst, error)
        elif name not in scales:
            stored[name] = _copied(tensor)
    with _new_folder(target) as folder:
        (folder / CONFIG).write_bytes(config)
        _write_weights(folder / WEIGHTS, stored)
        _copy_others(source, folder)
    after = sum(stored[name].nbytes for name in encoded)
    copied = len(stored) - len(encoded) - len(scales)
    return replace(plan.conversion(form.name, after, (), copied, ()), scale_error=worst)


def _encode(tensor: SourceTensor, form: HfPacked, lossy_scales: bool) -> bytes:
    assert tensor.decode is not None
    return form.encode(tensor.decode(), lossy_scales=lossy_scales, name=tensor.name)


def _scale(tensor: SourceTensor, form: HfPacked, beside: SourceTensor | None) -> tuple[_Stored, float]:
    """The scale to store, the source's own if that gives the same weights; and the error it brings about."""
    assert tensor.decode is not None
    value = tensor.decode()
    scale, error = form.stored_scale(value)
    if beside is not None and beside.elements == 1:
        own = as_float32(beside.type.upper(), beside.payload())
        if own is not None and own[0] == np.float32(scale):
            return _copied(beside), error
        if own is not None and form.divides and np.isfinite(own[0]) and own[0]:
            wanted = value.scales_by(form.granularity)
            if wanted is not None and np.array_equal(form.with_scale(value, float(own[0])).scales, wanted):
                return _copied(beside), 0.0
    data = np.array([scale], "<f4").tobytes()
    return _Stored("F32", (1,), 4, lambda: data), error


def _copied(tensor: SourceTensor) -> _Stored:
    if tensor.type not in _ELEMENTS:
        why = f"tensor '{tensor.name}' is {tensor.type}, which safetensors cannot hold"
        raise Error(CANNOT_HOLD, why, hint="convert it to a float type in the source")
    return _Stored(tensor.type.upper(), tensor.shape, tensor.nbytes, tensor.payload)


def _config(source: Source, form: HfPacked) -> bytes:
    """The configuration, with the meaning of `weight_scale` changed if need be."""
    origin = source.origin
    raw = origin.text(CONFIG_KEY).encode() if isinstance(origin, GgufFile) else origin.config
    if not raw:
        raise Error(
            CODE,
            f"{origin.path.name} holds no Hugging Face configuration, so no folder can be made of it",
            hint="give a Hugging Face folder, or a GGUF file that neuc has converted from one",
        )
    root = parse_json(raw, f"{origin.path.name}: {CONFIG}", code=CODE, cure=CURE)
    if scale_direction(root) is form:
        return raw
    config = {key: node.value for key, node in root.fields()}
    section = {key: node.value for key, node in root.get("quantization_config").fields()}
    section["linear_class"] = form.name.removeprefix("hf-")
    section["quantization_mode"] = "offline"
    return (json.dumps(config | {"quantization_config": section}, indent=2, ensure_ascii=False) + "\n").encode()


def _write_weights(path: Path, stored: Mapping[str, _Stored]) -> None:
    entries = [(name, tensor.dtype, tensor.shape, tensor.nbytes) for name, tensor in stored.items()]
    with path.open("wb") as file:
        file.write(safetensors_head(entries, {"format": "pt"}))
        for tensor in stored.values():
            file.write(tensor.payload())


def _copy_others(source: Source, folder: Path) -> None:
    """Copy what lies beside the weights: tokenizers, generation settings, licences."""
    if not isinstance(source.origin, HfFolder):
        return
    for path in sorted(source.origin.path.iterdir()):
        if path.is_file() and path.name not in (CONFIG, INDEX) and path.suffix not in _WEIGHT_SUFFIXES:
            shutil.copyfile(path, folder / path.name)


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` when the block ends, and vanishes when it fails."""

    def refuse(why: str) -> Error:
        return Error("NEUC-E005", f"cannot write {target}: {why}", hint="name a folder that does not exist yet")

    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise refuse("it exists")
    if not target.parent.is_dir():
        raise refuse(f"no folder {target.parent}")
    try:
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
    except OSError as error:
        raise refuse(error.strerror or str(error)) from error
    try:
        yield folder
        mask = os.umask(0)
        os.umask(mask)
        folder.chmod(0o777 & ~mask)
        folder.rename(target)
    except OSError as error:
        raise refuse(error.strerror or str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
