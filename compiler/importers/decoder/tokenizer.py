"""What a tokenizer needs, as members of an artifact: the model's own data, unchanged; nothing here tokenizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neuc.compiler.formats.gguf import GgufFile, map_file
from neuc.compiler.formats.gguf_values import Array, Value
from neuc.compiler.formats.hf_folder import HfFolder
from neuc.runtime.artifact import EXTRA
from neuc.runtime.checked_json import dump_json

GGUF_MEMBER = f"{EXTRA}tokenizer.gguf.json"
"""JSON object of the ``tokenizer.*`` metadata of a GGUF file, by key."""
_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json")
_LARGEST = 64 * 2**20


def token_members(origin: GgufFile | HfFolder) -> Mapping[str, bytes]:
    """Members by name; none where the model brings no tokenizer."""
    if isinstance(origin, GgufFile):
        found = {key: _plain(field.value) for key, field in origin.fields.items() if key.startswith("tokenizer.")}
        return {GGUF_MEMBER: dump_json(found)} if found else {}
    files = [origin.path / name for name in _FILES]
    return {f"{EXTRA}{path.name}": bytes(map_file(path)) for path in files if _usable(path)}


def _usable(path: Path) -> bool:
    return path.is_file() and 0 < path.stat().st_size <= _LARGEST


def _plain(value: Value) -> object:
    match value:
        case str():
            return value
        case Array():
            items = value.items
            return _finite(items.tolist()) if isinstance(items, np.ndarray) else [_plain(item) for item in items]
        case _:
            return _finite([value.item()])[0]


def _finite(values: list[object]) -> list[object]:
    """JSON has no infinities: such scores become the largest floats."""
    most = float(np.finfo(np.float32).max)
    return [max(-most, min(most, v)) if isinstance(v, float) and v == v else v for v in values]
