"""`--tune`: encodings of ternary layers by measurement on this machine, kept in the user's cache.

What is measured is `layer_timing.py`'s business; what a layer's choice means, that of `passes/tile_lut.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import llvmlite
from xdsl.dialects.builtin import ModuleOp

import neuc
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.target import isa_text
from neuc.compiler import layer_timing
from neuc.compiler.layer_timing import Shape
from neuc.compiler.pipeline import ChosenTarget
from neuc.dialects.ternary import LinearOp
from neuc.dialects.ternary_types import TritsType
from neuc.errors import Error, Exit
from neuc.passes.analysis.ternary_layers import ternary_bytes
from neuc.passes.choose_encoding import CHOICE, choice_attr, rows_of_activations
from neuc.runtime.cache import BlobCache, key_of
from neuc.runtime.cpu_features import host_cpu_name, missing_features

FEW, MANY = 1, 64
"""Rows of activations that are measured where only run time knows how many there are; both count alike."""
_CACHE = BlobCache("tuning")
_KEPT = 4096


def candidates(chosen: ChosenTarget) -> tuple[str, ...]:
    """The encodings to measure for a target.

    Raises:
        Error: NEUC-E002, the target fixes the encoding, or its code does not run here.
    """
    target, isa = chosen.target, chosen.isa
    if missing := missing_features(isa.features):
        raise _refused(f"this machine has no {', '.join(missing)} to measure with", "leave out --tune or --cpu")
    if len(target.encodings(isa)) < 2:
        raise _refused(f"target {target.name} leaves no choice of encodings", "use --target cpu")
    return (*target.encodings(isa), "tl2")


def _refused(why: str, hint: str) -> Error:
    return Error("NEUC-E002", f"--tune: {why}", hint=hint, exit_code=Exit.USAGE)


def tune(module: ModuleOp, encodings: Sequence[str], isa: Isa) -> int:
    """Choose the encoding of each `ternary.linear` that has no choice yet; how many shapes were measured anew.

    The encoding with the least time wins; where several numbers of rows count, the least mean of its times, each as a
    multiple of the best encoding's. Convolutions are left to the cost model.

    Args:
        module: on the paradigm level, before `tile-lut`; changed in place.
        encodings: the candidates.
        isa: the instruction set to compile for; this machine must have it.
    """
    layers = [op for op in module.walk() if isinstance(op, LinearOp) and CHOICE not in op.attributes]
    cached = sum(ternary_bytes(op.trits) for op in layers) <= layer_timing.last_cache() // 2
    measured = 0
    for layer in layers:
        rows = rows_of_activations(layer)
        times: dict[int, dict[str, float]] = {}
        for tokens in (FEW, MANY) if rows is None else (rows,):
            shape = Shape(layer.trits, tokens, cached)
            found = _remembered(shape, encodings, isa)
            if found is None:
                found = layer_timing.measure(shape, encodings, isa)
                _remember(shape, encodings, isa, found)
                measured += 1
            times[tokens] = found
        if times and all(times.values()):
            layer.attributes[CHOICE] = choice_attr(*_best(times, cached))
    return measured


def _best(times: dict[int, dict[str, float]], cached: bool) -> tuple[str, str]:
    """The encoding to take, and why."""

    def score(encoding: str) -> float:
        return sum(found[encoding] / min(found.values()) for found in times.values()) / len(times)

    first = next(iter(times.values()))
    kind = min(first, key=score)
    parts: list[str] = []
    for tokens, found in times.items():
        figures = ", ".join(f"{name} {seconds * 1e6:.1f}" for name, seconds in found.items())
        parts.append(f"{figures} us for {tokens} row{'s' if tokens > 1 else ''}")
    return kind, f"measured {'in cache' if cached else 'from memory'}: {'; '.join(parts)}"


def _key(shape: Shape, encodings: Sequence[str], isa: Isa) -> str:
    trits: TritsType = shape.trits
    versions = (neuc.__version__, llvmlite.__version__)
    return key_of((host_cpu_name(), isa_text(isa), str(trits), shape.tokens, shape.cached, tuple(encodings), *versions))


def _remembered(shape: Shape, encodings: Sequence[str], isa: Isa) -> dict[str, float] | None:
    blob = _CACHE.get(_key(shape, encodings, isa))
    if blob is None:
        return None
    found = json.loads(blob)
    return {name: float(found[name]) for name in encodings if name in found}


def _remember(shape: Shape, encodings: Sequence[str], isa: Isa, times: dict[str, float]) -> None:
    _CACHE.put(_key(shape, encodings, isa), json.dumps(times).encode())
    _CACHE.keep_newest(_KEPT)
