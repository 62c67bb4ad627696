"""The weight store: every array a module refers to, by name, with its content hash.

Arrays never live in IR text; `store.constant` names an entry here. Saved as safetensors with the hashes in the header's
metadata. numpy is what weights are, so this file (and the interpreters) may use it; nothing here knows about IR.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neuc.errors import Error

HASH_KEY_PREFIX = "sha256:"


def array_sha(array: np.ndarray) -> str:
    """SHA-256 (hex) over dtype, shape and the little-endian bytes of `array`."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    contiguous = np.ascontiguousarray(array)
    digest.update(contiguous.reshape(-1).view(np.uint8).data if contiguous.size else b"")
    return digest.hexdigest()


class WeightStore:
    """Named read-only arrays, deduplicated by content."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        self._shas: dict[str, str] = {}
        self._by_sha: dict[str, str] = {}

    def add(self, name: str, array: np.ndarray) -> str:
        """Store `array` and return its key.

        The key is `name`, or an existing key with the same content, or `name#2`, `name#3` … when the name holds
        other content.
        """
        sha = array_sha(array)
        known = self._by_sha.get(sha)
        if known is not None:
            return known
        key, count = name, 1
        while key in self._arrays:
            count += 1
            key = f"{name}#{count}"
        view = np.ascontiguousarray(array).reshape(array.shape).view()
        view.flags.writeable = False
        self._arrays[key], self._shas[key], self._by_sha[sha] = view, sha, key
        return key

    def get(self, key: str) -> np.ndarray:
        """The array of `key`, read-only.

        Raises:
            Error: NEUC-E201, no such entry.
        """
        array = self._arrays.get(key)
        if array is None:
            raise Error(
                "NEUC-E201",
                f"constant {key!r} is not in the weight store",
                hint="keep F.weights.safetensors beside F.mlir",
            )
        return array

    def sha(self, key: str) -> str:
        """SHA-256 (hex) of the entry's dtype, shape and bytes."""
        self.get(key)
        return self._shas[key]

    def __contains__(self, key: object) -> bool:
        return key in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def save(self, path: Path) -> None:
        """Write all entries as safetensors, hashes in the metadata."""
        from safetensors.numpy import save_file

        metadata = {HASH_KEY_PREFIX + key: sha for key, sha in sorted(self._shas.items())}
        save_file({key: np.asarray(a) for key, a in self._arrays.items()}, path, metadata=metadata)

    @staticmethod
    def load(path: Path) -> WeightStore:
        """Open a saved store memory-mapped and check every hash.

        Raises:
            Error: NEUC-E202, the file is not such a store or a hash does not match.
        """
        from safetensors import SafetensorError, safe_open

        store = WeightStore()
        try:
            with safe_open(path, framework="np") as handle:
                metadata = handle.metadata() or {}
                for key in handle.keys():
                    array = handle.get_tensor(key)
                    expected = metadata.get(HASH_KEY_PREFIX + key)
                    if expected is not None and expected != array_sha(array):
                        raise Error(
                            "NEUC-E202",
                            f"{path}: the bytes of {key!r} do not match their hash",
                            hint="compile the model again",
                        )
                    store.add(key, array)
        except (SafetensorError, OSError, ValueError) as error:
            raise Error(
                "NEUC-E202", f"{path}: not a readable weight store ({error})", hint="compile the model again"
            ) from error
        return store
