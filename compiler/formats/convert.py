"""Re-encoding the ternary tensors of a file in another block format, exactly, or not at all.

Everything else in a file is copied as it stands. GGUF comes out as GGUF with its own metadata; a Hugging Face folder
comes out as another such folder, or as a GGUF file that keeps its names and configuration and is a container only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from neuc.compiler.formats import table
from neuc.compiler.formats.block_format import CANNOT_HOLD, BlockFormat, matrix_shape
from neuc.compiler.formats.gguf import GgufFile
from neuc.compiler.formats.gguf_types import LAYOUTS
from neuc.compiler.formats.gguf_values import Field
from neuc.compiler.formats.gguf_writer import NewTensor, write_gguf
from neuc.compiler.formats.hf_folder import HfFolder
from neuc.compiler.formats.hf_writer import CONFIG_KEY, write_folder
from neuc.compiler.formats.plan import Conversion, Options, Plan, plan_tensors
from neuc.compiler.formats.sources import I2S_KEY, TL_KEY, Source, SourceTensor, tl_format
from neuc.compiler.formats.tl import Tl1, Tl2
from neuc.errors import Error

_PLAIN = {layouts[0].name: type_id for type_id, layouts in LAYOUTS.items() if layouts[0].block == 1}


def convert(source: Source, target: Path, options: Options) -> Conversion:
    """Write `source` to `target` with its ternary tensors in another format.

    Raises:
        Error: NEUC-E122, a payload is damaged; NEUC-E123, tensors cannot be in that format exactly, all of them named;
            NEUC-E124, a Hugging Face folder is wanted and there is no configuration for it; NEUC-E005, `target` cannot
            be written.
    """
    if options.format in table.HF_FORMATS:
        return write_folder(source, target, options)
    plan = plan_tensors(source, partial(_form, options), options.lossy_scales)
    made = {tensor.name: (tensor, form) for tensor, form in plan.encoded}
    dropped = _scales_inside(source, plan.encoded)
    new: list[NewTensor] = []
    for tensor in source.tensors:
        if tensor.name in dropped:
            continue
        if tensor.name in made:
            form = made[tensor.name][1]
            encode = partial(_encode, tensor, form, options.lossy_scales)
            size = form.nbytes(*matrix_shape(tensor.shape))
            new.append(NewTensor(tensor.name, tensor.shape, table.GGUF_FORMS[options.format].type_id, size, encode))
        else:
            new.append(NewTensor(tensor.name, tensor.shape, _type_id(source, tensor), tensor.nbytes, tensor.payload))
    fields, notes, version = _metadata(source, options, plan)
    write_gguf(target, fields, new, version=version)
    after = sum(form.nbytes(*matrix_shape(tensor.shape)) for tensor, form in plan.encoded)
    return plan.conversion(options.format, after, tuple(dropped), len(new) - len(made), notes)


def _form(options: Options, tensor: SourceTensor) -> BlockFormat | str:
    form = table.BLOCK_FORMATS.get(options.format)
    if form is not None:
        return form
    rows, columns = matrix_shape(tensor.shape)
    sizes = options.tl_sizes.find(rows, columns)
    return tl_format(options.format, sizes) if sizes else f"no block sizes for [{rows}, {columns}]; give them with --tl"


def _encode(tensor: SourceTensor, form: BlockFormat, lossy_scales: bool) -> bytes:
    assert tensor.decode is not None
    return form.encode(tensor.decode(), lossy_scales=lossy_scales, name=tensor.name)


def _scales_inside(source: Source, encoded: Sequence[tuple[SourceTensor, BlockFormat]]) -> list[str]:
    """Scale tensors of TL1 and TL2 that the new payloads, which have a place for the scale, make superfluous."""
    names = {tensor.name for tensor in source.tensors}
    beside = [f"{tensor.name}_scale" for tensor, _ in encoded if tensor.type in ("tl1", "tl2")]
    return [name for name in beside if name in names]


def _type_id(source: Source, tensor: SourceTensor) -> int:
    if isinstance(source.origin, GgufFile):
        return source.origin.tensors[tensor.name].type_id
    type_id = _PLAIN.get(tensor.type)
    if type_id is None or len(tensor.shape) > 4 or 0 in tensor.shape:
        what = f"{tensor.type.upper()}{list(tensor.shape)}"
        raise Error(
            CANNOT_HOLD, f"tensor '{tensor.name}' is {what}, which GGUF cannot hold", hint="leave it out of the folder"
        )
    return type_id


def _metadata(source: Source, options: Options, plan: Plan) -> tuple[dict[str, Field], list[str], int]:
    """Metadata of the new file, notes about them, and its version."""
    origin = source.origin
    notes: list[str] = []
    if isinstance(origin, HfFolder):
        fields = {
            "general.architecture": Field.text(f"hf-{origin.model_type or 'model'}"),
            CONFIG_KEY: Field.text(origin.config.decode("utf-8")),
        }
        version = 3
        notes.append("the file keeps the folder's names and configuration: llama.cpp and bitnet.cpp cannot run it")
    else:
        fields = {key: field for key, field in origin.fields.items() if key not in (I2S_KEY, TL_KEY)}
        version = origin.version
        if origin.hadamard is not None:
            notes.append("the weights stay rotated, and only loaders that know prism.hadamard can use the file")
    fields["general.file_type"] = Field.u32(table.GGUF_FORMS[options.format].file_type)
    if options.format.startswith("i2_s"):
        fields[I2S_KEY] = Field.text(options.format)
    if options.format in ("tl1", "tl2"):
        found = {matrix_shape(t.shape): form.blocks for t, form in plan.encoded if isinstance(form, (Tl1, Tl2))}
        fields[TL_KEY] = Field.texts([f"{n}x{k}={sizes}" for (n, k), sizes in sorted(found.items())])
    return fields, notes, version
