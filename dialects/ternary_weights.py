"""Between `ternary.weight` and the weight store: making the operation for arrays, reading its arrays back, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from xdsl.dialects.builtin import StringAttr
from xdsl.ir import SSAValue

from neuc.dialects.lazy_array import LazyArray
from neuc.dialects.ternary import WeightOp
from neuc.dialects.ternary_encodings import LEVELS
from neuc.dialects.ternary_types import ScaleAttr, TritsType
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, InternalError


def make_weight(
    name: str,
    trits: np.ndarray | LazyArray,
    scales: np.ndarray,
    store: WeightStore,
    *,
    scale: ScaleAttr,
    levels: Sequence[int] = LEVELS,
    sqnr: float | None = None,
) -> WeightOp:
    """Store `trits` (int8 [P, N, K]) and `scales` (f32 [P, N, G]) as `name.trits` and `name.scales`.

    Lazy trits have P·N parts, the rows.
    """
    planes, n, k = trits.shape
    type_ = TritsType.of(n, k, scale, planes, levels)
    if scales.shape != (planes, n, type_.groups) or trits.dtype != np.int8 or scales.dtype != np.float32:
        raise InternalError(
            f"{name}: trits {trits.dtype}{list(trits.shape)} and scales {scales.dtype}{list(scales.shape)} for {type_}"
        )
    lazy = isinstance(trits, LazyArray)
    key = store.add_lazy(f"{name}.trits", trits) if lazy else store.add(f"{name}.trits", trits)
    keys = key, store.add(f"{name}.scales", scales)
    (trits_entry, scales_entry) = ((key, store.sha(key)) for key in keys)
    return WeightOp(type_, trits_entry, scales_entry, sqnr)


def weight_arrays(op: WeightOp, store: WeightStore) -> tuple[np.ndarray, np.ndarray]:
    """Trits int8 [P, N, K] and scales f32 [P, N, G].

    Raises:
        Error: NEUC-E201, an entry is missing; NEUC-E203, it is not what the IR was written with.
    """
    trits = _trits(op, store)
    return trits.array() if isinstance(trits, LazyArray) else trits, weight_scales(op, store)


def weight_scales(op: WeightOp, store: WeightStore) -> np.ndarray:
    """Scales f32 [P, N, G] alone: trits of large models are made anew by every reader.

    Raises:
        Error: as `weight_arrays`.
    """
    type_ = _type(op)
    shape = (type_.plane_count, type_.rows, type_.groups)
    found = _entry(op.scales, op.scales_sha, shape, np.dtype(np.float32), store)
    return found.array() if isinstance(found, LazyArray) else found


def weight_rows(op: WeightOp, store: WeightStore) -> np.ndarray | LazyArray:
    """The P·N rows of the trits, int8 [P·N, K]; lazy ones have a part for each row.

    Raises:
        Error: as `weight_arrays`.
    """
    trits = _trits(op, store)
    shape = (trits.shape[0] * trits.shape[1], trits.shape[2])
    return replace(trits, shape=shape) if isinstance(trits, LazyArray) else trits.reshape(shape)


def _trits(op: WeightOp, store: WeightStore) -> np.ndarray | LazyArray:
    type_ = _type(op)
    shape = (type_.plane_count, type_.rows, type_.columns)
    return _entry(op.trits, op.trits_sha, shape, np.dtype(np.int8), store)


def _type(op: WeightOp) -> TritsType:
    assert isinstance(op.result.type, TritsType)
    return op.result.type


def defining_weight(value: SSAValue) -> WeightOp:
    """The `ternary.weight` that makes `value`; trits come from nowhere else.

    Raises:
        Error: NEUC-E223, something else does.
    """
    owner = value.owner
    if not isinstance(owner, WeightOp):
        raise Error(
            "NEUC-E223",
            f"weights of type {value.type} come from outside their function",
            hint="put the ternary.weight into the function that uses it",
        )
    return owner


def _entry(
    key: StringAttr, sha: StringAttr, shape: tuple[int, ...], dtype: np.dtype, store: WeightStore
) -> np.ndarray | LazyArray:
    array = store.entry(key.data)
    if array.shape != shape or array.dtype != dtype:
        raise Error(
            "NEUC-E203",
            f"weights {key.data!r} are {array.dtype}{list(array.shape)} in the weight store "
            f"but {dtype}{list(shape)} in the IR",
            hint="keep the .mlir and its .weights.safetensors together",
        )
    if not store.sha(key.data).startswith(sha.data):
        raise Error(
            "NEUC-E203",
            f"weights {key.data!r} have other content than the IR was written with",
            hint="keep the .mlir and its .weights.safetensors together",
        )
    return array
