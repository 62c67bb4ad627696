"""The weight store: every array a module refers to, by name, with its content hash.

Arrays never live in IR text; `store.constant` names an entry here. Saved as safetensors with the hashes in the header's
metadata. numpy is what weights are, so this file (and the interpreters) may use it; nothing here knows about IR.
An entry may be a `LazyArray` (`dialects/lazy_array.py`): what is read of it is made then, and not kept.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neuc.dialects.lazy_array import LazyArray
from neuc.errors import Error

HASH_KEY_PREFIX = "sha256:"
IDENTITY_KEY_PREFIX = "identity:"
"""Before the key of an entry that was lazy: the identity that IR knows it by, which is no hash of its bytes."""


def array_sha(array: np.ndarray) -> str:
    """SHA-256 (hex) over dtype, shape and the little-endian bytes of `array`."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    contiguous = np.ascontiguousarray(array)
    digest.update(contiguous.reshape(-1).view(np.uint8).data if contiguous.size else b"")
    return digest.hexdigest()


class WeightStore:
    """Named read-only arrays, deduplicated by content. Threads may add and read at once."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray | LazyArray] = {}
        self._shas: dict[str, str] = {}
        self._by_sha: dict[str, str] = {}
        self._adding = threading.Lock()

    def add(self, name: str, array: np.ndarray) -> str:
        """Store `array` and return its key.

        The key is `name`, or an existing key with the same content, or `name#2`, `name#3` … when the name holds
        other content.
        """
        view = np.ascontiguousarray(array).reshape(array.shape).view()
        view.flags.writeable = False
        return self._add(name, view, array_sha(array))

    def add_lazy(self, name: str, array: LazyArray) -> str:
        """The same for an array that is made when it is read; its `identity` stands for its content."""
        return self._add(name, array, array.identity)

    def _add(self, name: str, array: np.ndarray | LazyArray, sha: str) -> str:
        with self._adding:  # else two threads may take the same free name
            known = self._by_sha.get(sha)
            if known is not None:
                return known
            key, count = name, 1
            while key in self._arrays:
                count += 1
                key = f"{name}#{count}"
            self._arrays[key], self._shas[key], self._by_sha[sha] = array, sha, key
            return key

    def get(self, key: str) -> np.ndarray:
        """The array of `key`, read-only; a lazy one is made, and not kept.

        Raises:
            Error: NEUC-E201, no such entry.
        """
        array = self.entry(key)
        return array.array() if isinstance(array, LazyArray) else array

    def entry(self, key: str) -> np.ndarray | LazyArray:
        """What `key` names, lazy if it is.

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
        """SHA-256 (hex) of the entry's dtype, shape and bytes; of what a lazy one is made from."""
        self.entry(key)
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

        arrays = {key: self.get(key) for key in self._arrays}
        metadata = {HASH_KEY_PREFIX + key: self._shas[key] for key in sorted(self._shas)}
        for key, entry in self._arrays.items():
            if isinstance(entry, LazyArray):
                metadata[HASH_KEY_PREFIX + key] = array_sha(arrays[key])
                metadata[IDENTITY_KEY_PREFIX + key] = entry.identity
        # An empty dictionary of metadata makes a header that safetensors itself cannot read.
        save_file(arrays, path, metadata=metadata or None)

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
                    sha = array_sha(array)
                    if metadata.get(HASH_KEY_PREFIX + key, sha) != sha:
                        raise Error(
                            "NEUC-E202",
                            f"{path}: the bytes of {key!r} do not match their hash",
                            hint="compile the model again",
                        )
                    array.flags.writeable = False
                    store._add(key, array, metadata.get(IDENTITY_KEY_PREFIX + key, sha))
        except (SafetensorError, OSError, ValueError) as error:
            raise Error(
                "NEUC-E202", f"{path}: not a readable weight store ({error})", hint="compile the model again"
            ) from error
        return store
