"""What passes say about a module that survives every level: notes for the report, facts for the artifact's manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, StringAttr

NOTES = "neuc.notes"
"""Attribute of a module: sentences that the report shows."""
FACTS = "neuc.facts"
"""Attribute of a module: JSON texts by name, for the manifest."""
KEEP = "neuc.keep"
"""Attribute of a module: weights that go into the artifact though no launch reads them."""


def add_notes(module: ModuleOp, *notes: str) -> None:
    """Have the report say `notes`, each once."""
    texts = dict.fromkeys((*notes_of(module), *notes))
    module.attributes[NOTES] = ArrayAttr([StringAttr(text) for text in texts])


def notes_of(module: ModuleOp) -> list[str]:
    """What the report should say."""
    return _texts(module, NOTES)


def set_fact(module: ModuleOp, name: str, value: object) -> None:
    """Put plain JSON data into the artifact's manifest under `name`, in place of what is there."""
    found = module.attributes.get(FACTS)
    known = dict(found.data) if isinstance(found, DictionaryAttr) else {}
    known[name] = StringAttr(json.dumps(value, sort_keys=True))
    module.attributes[FACTS] = DictionaryAttr(known)


def facts_of(module: ModuleOp) -> Mapping[str, object]:
    """The facts by name."""
    found = module.attributes.get(FACTS)
    items = found.data.items() if isinstance(found, DictionaryAttr) else ()
    return {name: json.loads(text.data) for name, text in items if isinstance(text, StringAttr)}


def keep_weights(module: ModuleOp, *names: str) -> None:
    """Have the artifact hold these entries of the weight store, whatever its launches read."""
    kept = sorted({*kept_weights(module), *names})
    module.attributes[KEEP] = ArrayAttr([StringAttr(name) for name in kept])


def kept_weights(module: ModuleOp) -> list[str]:
    """Names of the entries to keep."""
    return _texts(module, KEEP)


def _texts(module: ModuleOp, name: str) -> list[str]:
    found = module.attributes.get(name)
    items = found.data if isinstance(found, ArrayAttr) else ()
    return [item.data for item in items if isinstance(item, StringAttr)]
