"""The rotation of PrismML's Bonsai-2 files, as their metadata describe it (keys `prism.hadamard.*`).

Weights listed there are stored as W R^-1, with R = H S / sqrt(n) in blocks of n inputs: H the Hadamard matrix of
Sylvester, S a diagonal of signs. A loader that does not apply R to the inputs gets garbage without any error, so
`GgufFile.refuse_unapplied` refuses. Nothing here applies it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuc.compiler.formats.gguf_values import Array, Field, shown
from neuc.errors import Error

PREFIX = "prism.hadamard."
_TRANSFORM = "normalized-sylvester-walsh-hadamard"
_AXIS = "input-last-dimension"


@dataclass(frozen=True, eq=False)
class Hadamard:
    """A rotation of inputs.

    Attributes:
        block_size: n, a power of two.
        signs: int8 diagonal of S by width of the input; empty when S is the identity.
        weights: tensors stored rotated.
        inverse_weights: tables whose rows have to be rotated back after they are looked up.
    """

    block_size: int
    signs: Mapping[int, NDArray[np.int8]]
    weights: tuple[str, ...]
    inverse_weights: tuple[str, ...]


def read_hadamard(file: str, fields: Mapping[str, Field], tensors: Collection[str]) -> Hadamard | None:
    """The rotation a file's metadata describe, or None.

    Raises:
        Error: NEUC-E125, it is another rotation than the one known, or contradicts itself.
    """
    found = {key.removeprefix(PREFIX): field.value for key, field in fields.items() if key.startswith(PREFIX)}
    if not found:
        return None

    def refuse(why: str) -> Error:
        return Error(
            "NEUC-E125",
            f"{file}: {PREFIX}{why}",
            hint="the weights mean nothing without this transform; a newer neuc may know it",
        )

    for key, wanted in (("version", 1), ("transform", _TRANSFORM), ("axis", _AXIS)):
        if found.get(key) != wanted:
            raise refuse(f"{key} is {shown(repr(found.get(key)))}, and only {wanted!r} is known")
    size = found.get("block_size")
    block = int(size) if isinstance(size, np.integer) else 0
    if block < 1 or block & (block - 1) or block > 2**20:
        raise refuse("block_size is no power of two up to 2^20")
    names: dict[str, tuple[str, ...]] = {}
    for key in ("weight_names", "inverse_weight_names"):
        value = found.get(key)
        texts = value.items if isinstance(value, Array) and isinstance(value.items, list) else []
        names[key] = tuple(text for text in texts if isinstance(text, str))
        missing = [name for name in names[key] if name not in tensors]
        if missing:
            raise refuse(f"{key} names '{shown(missing[0])}', which is no tensor of the file")
    if not names["weight_names"]:
        raise refuse("weight_names names no tensor")
    match found.get("sign_mode"):
        case "identity":
            signs: dict[int, NDArray[np.int8]] = {}
        case "explicit":
            widths, values = (_integers(found.get(f"sign_{key}")) for key in ("widths", "values"))
            if (
                len(set(widths.tolist())) != widths.size
                or (widths < 1).any()
                or widths.sum(dtype=object) != values.size
            ):
                raise refuse("sign_values do not fit sign_widths")
            if (np.abs(values) != 1).any():
                raise refuse("sign_values are not all 1 or -1")
            ends = np.cumsum(widths).tolist()
            signs = {w: values[end - w : end].astype(np.int8) for w, end in zip(widths.tolist(), ends)}
        case other:
            raise refuse(f"sign_mode is {shown(repr(other))}, and only 'identity' and 'explicit' are known")
    return Hadamard(block, signs, names["weight_names"], names["inverse_weight_names"])


def _integers(value: object) -> NDArray[np.int64]:
    if isinstance(value, Array) and isinstance(value.items, np.ndarray) and value.items.dtype.kind in "iu":
        return value.items.astype(np.int64)
    return np.zeros(0, np.int64)
