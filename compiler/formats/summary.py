"""What a weight file holds, as plain data for `neuc inspect`: metadata, tensors by type, ternary tensors, warnings."""

from __future__ import annotations

import math
from collections.abc import Iterable

from neuc.compiler.formats.gguf import GgufFile
from neuc.compiler.formats.gguf_values import Array, Field
from neuc.compiler.formats.sources import Source, SourceTensor
from neuc.errors import InternalError

# `general.file_type` by number. Some numbers mean different things to different programs; the tensors tell which.
FILE_TYPES: dict[int, tuple[str, ...]] = {
    0: ("f32",),
    1: ("f16",),
    2: ("q4_0",),
    7: ("q8_0",),
    12: ("q3_k",),
    15: ("q4_k",),
    17: ("q5_k",),
    18: ("q6_k",),
    32: ("bf16",),
    36: ("tq1_0",),
    37: ("tq2_0",),
    38: ("tl1", "mxfp4"),
    39: ("tl2", "nvfp4"),
    40: ("i2_s", "q1_0"),
    41: ("q2_0",),
    136: ("iq1_bn",),
    137: ("iq2_bn",),
    141: ("pq2_0",),
    143: ("ptq1_0",),
}


def summarize(source: Source) -> dict[str, object]:
    """Everything `neuc inspect` shows, JSON-ready.

    Every ternary payload is decoded, so damage in one is found.

    Raises:
        Error: NEUC-E122, a payload is damaged.
    """
    origin = source.origin
    gguf = isinstance(origin, GgufFile)
    weights = sum(tensor.elements for tensor in source.tensors)
    nbytes = sum(tensor.nbytes for tensor in source.tensors)
    found: dict[str, object] = {
        "file": str(origin.path),
        "kind": f"GGUF version {origin.version}" if gguf else "Hugging Face folder",
        "bytes": origin.path.stat().st_size if gguf else nbytes,
        "architecture": origin.architecture if gguf else origin.model_type,
    }
    if gguf:
        found["file_type"] = _file_type(origin, source.tensors)
        found["alignment"] = origin.alignment
        found["metadata"] = {key: _plain(field) for key, field in origin.fields.items()}
    return found | {
        "weights": weights,
        "tensor_bytes": nbytes,
        "bits_per_weight": _bits(nbytes, weights),
        "types": _types(source.tensors),
        "ternary": [_ternary(tensor) for tensor in source.tensors if tensor.decode is not None],
        "tensors": [
            {"name": tensor.name, "type": tensor.type, "shape": list(tensor.shape), "bytes": tensor.nbytes}
            for tensor in source.tensors
        ],
        "warnings": list(source.warnings),
    }


def _bits(nbytes: int, weights: int) -> float:
    return round(8 * nbytes / weights, 4) if weights else 0.0


def _types(tensors: Iterable[SourceTensor]) -> list[dict[str, object]]:
    """Tensors, weights, bytes of each type, the largest first."""
    totals: dict[str, list[int]] = {}
    for tensor in tensors:
        total = totals.setdefault(tensor.type, [0, 0, 0])
        for place, count in enumerate((1, tensor.elements, tensor.nbytes)):
            total[place] += count
    return [
        {"type": kind, "tensors": count, "weights": weights, "bytes": nbytes, "bits_per_weight": _bits(nbytes, weights)}
        for kind, (count, weights, nbytes) in sorted(totals.items(), key=lambda item: (-item[1][2], item[0]))
    ]


def _ternary(tensor: SourceTensor) -> dict[str, object]:
    found: dict[str, object] = {
        "name": tensor.name,
        "type": tensor.type,
        "shape": list(tensor.shape),
        "bits_per_weight": _bits(tensor.nbytes, tensor.elements),
    }
    if tensor.missing:
        return found | {"missing": tensor.missing}
    if tensor.decode is None:
        raise InternalError(f"{tensor.name} is not ternary")
    value = tensor.decode()
    return found | {
        "scale": str(value.granularity),
        "scale_divides": value.divisors is not None,
        "smallest_scale": float(value.scales.min()),
        "largest_scale": float(value.scales.max()),
        "zeros": round(value.zeros / value.levels.size, 6),
        "highest_level": value.highest,
    }


def _file_type(file: GgufFile, tensors: Iterable[SourceTensor]) -> dict[str, object] | None:
    if file.file_type is None:
        return None
    names = FILE_TYPES.get(file.file_type, ())
    present = {tensor.type.partition("-")[0] for tensor in tensors}
    fitting = [name for name in names if name in present] or list(names)
    return {"number": file.file_type, "name": " or ".join(fitting) or "unknown"}


def _plain(field: Field) -> object:
    """A metadata value as JSON can hold it; arrays by element type and length."""
    value = field.value
    if isinstance(value, Array):
        return {"array": value.type.name.lower(), "length": len(value)}
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    plain = value.item()
    return str(plain) if isinstance(plain, float) and not math.isfinite(plain) else plain
