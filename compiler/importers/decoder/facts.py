"""What a module says about the decoder it is, in attributes that survive every level."""

from __future__ import annotations

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, ModuleOp, StringAttr
from xdsl.ir import Attribute

DECODER = "neuc.decoder"
"""Attribute of a decoder's module: what whoever generates text with it has to know (`decoder_facts`)."""


def decoder_facts(module: ModuleOp) -> dict[str, object] | None:
    """What the manifest says of a decoder, under ``decoder``; None if the module is none.

    Integers ``layers``, ``kv_heads``, ``head_dim``, ``vocab``, ``context``, ``hidden``, ``heads`` and, if known,
    ``bos``; a list ``eos``; texts ``arch`` and ``kv``, the element type of the caches.
    """
    found = module.attributes.get(DECODER)
    return {name: _plain(value) for name, value in found.data.items()} if isinstance(found, DictionaryAttr) else None


def _plain(value: Attribute) -> object:
    match value:
        case IntegerAttr():
            return value.value.data
        case StringAttr():
            return value.data
        case ArrayAttr():
            return [_plain(item) for item in value.data]
        case _:
            return str(value)
