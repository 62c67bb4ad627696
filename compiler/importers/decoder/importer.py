"""`import_decoder`: from a GGUF file or a Hugging Face folder to the module, with what the runtime has to know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, ModuleOp, StringAttr, i64

from neuc.compiler.formats.float_rows import BLOCK
from neuc.compiler.formats.gguf import GgufFile
from neuc.compiler.formats.sources import open_source
from neuc.compiler.importers.decoder.config import DecoderConfig, config_of
from neuc.compiler.importers.decoder.facts import DECODER
from neuc.compiler.importers.decoder.graph import build_module
from neuc.compiler.importers.decoder.tensors import DecoderTensors, rounded_notes
from neuc.compiler.importers.decoder.tokenizer import token_members
from neuc.dialects.context import NeucContext
from neuc.dialects.dense_attention import SCALE_BYTES
from neuc.passes.module_facts import add_notes


def import_decoder(
    path: Path, ctx: NeucContext, *, head: str | None = None, kv: str = "f16", read_as: tuple[str, ...] = ()
) -> tuple[ModuleOp, Mapping[str, bytes]]:
    """The module of a decoder, and what its tokenizer needs, as members of an artifact.

    Args:
        path: a GGUF file or a Hugging Face folder.
        ctx: its weight store receives the tensors, undecoded.
        head: what embedding and head are rounded to where they are not in few levels already: ``int8`` (groups of 32,
            also the default), ``int4`` (groups of 32) or ``int8-row``.
        kv: element type of the key and value caches, ``f16``, ``f32`` or ``int8``.
        read_as: layouts a GGUF file has, where an id means several things.

    Raises:
        Error: NEUC-E126, it is no decoder that can be compiled; NEUC-E120 to NEUC-E125, it is damaged, or its weights
            mean nothing without a transform.
    """
    source = open_source(path, read_as=read_as)
    if isinstance(source.origin, GgufFile):
        source.origin.refuse_unapplied()
    config = config_of(source.origin)
    tensors = DecoderTensors.check(source, config)
    matrices = tensors.matrices(head)
    module = build_module(tensors, matrices, ctx.weights, path.name, kv)
    notes = [*source.warnings, *rounded_notes(matrices.values())]
    if not config.trained_int8:
        notes.append(
            f"activations are rounded to 8 bits in front of every linear layer: whether this {config.arch} model was "
            "trained so, its file does not say"
        )
    if head is not None and not rounded_notes(matrices.values()):
        notes.append(f"--head {head} changes nothing: embedding and head are in blocks of {BLOCK} or ternary already")
    if kv == "int8":
        notes.append(_int8_note(config))
    add_notes(module, *notes)
    module.attributes[DECODER] = _attribute(config, kv)
    return module, token_members(source.origin)


def _int8_note(c: DecoderConfig) -> str:
    sizes = [2 * c.layers * c.kv_heads * size for size in (2 * c.head_dim, c.head_dim + SCALE_BYTES)]
    return (
        f"keys and values are rounded to int8, with a scale for each token and head: {sizes[1]:,} bytes a token, "
        f"{sizes[0]:,} with --kv f16"
    )


def _attribute(c: DecoderConfig, kv: str) -> DictionaryAttr:
    numbers = {
        "layers": c.layers,
        "kv_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "vocab": c.vocab,
        "context": c.context,
        "hidden": c.hidden,
        "heads": c.heads,
        **({} if c.bos is None else {"bos": c.bos}),
    }
    texts = {"arch": c.arch, "kv": kv}
    return DictionaryAttr(
        {
            **{name: IntegerAttr(value, i64) for name, value in numbers.items()},
            **{name: StringAttr(value) for name, value in texts.items()},
            "eos": ArrayAttr(IntegerAttr(token, i64) for token in c.eos),
        }
    )
