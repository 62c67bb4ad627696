"""`choose-encoding`: which encoding each ternary layer gets, from stated rates or from measurements made before.

Tiles are `tile-lut`'s choice, rates those of whoever runs the pass (`backends/cpu/rates.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, StringAttr
from xdsl.passes import ModulePass

from neuc.dialects.dense_attrs import int_attr
from neuc.dialects.dims import product
from neuc.dialects.store import dims_of
from neuc.dialects.ternary import ConvOp, LinearOp
from neuc.dialects.ternary_encodings import ENCODINGS
from neuc.dialects.ternary_types import TritsType
from neuc.errors import Error

CHOICE = "ternary.choice"
"""Attribute of a ternary layer: a dictionary of `encoding` (text), `why` (text), and `BM` and `BK` where measured."""
WHY = "ternary.why"
"""Attribute of `ternary.pack`: why its encoding and tile are what they are."""
L3_BYTES = 32 * 1024 * 1024
BANDWIDTH = 20
"""GB/s that one core reads from memory."""


@dataclass(frozen=True)
class ChooseEncoding(ModulePass):
    """Choose the encoding of each `ternary.linear` and `ternary.conv` that has no choice yet.

    Rules:
        1. A layer takes the longer of two times: that of the kernel at its rate, and that of reading the packed weight
           from memory once. The second counts only if the ternary weights of the module do not fit into half of the
           last cache together. The encoding with the least time is chosen. Where only run time knows how many rows of
           activations there are, one is assumed; convolutions have as many as there are pixels.
        2. Layers whose levels no candidate holds are left to `tile-lut`.

    Before and after::

        %y = ternary.linear %q, %s, %w : …
        %y = ternary.linear %q, %s, %w {ternary.choice = {encoding = "t5", why = "…"}} : …

    Options:
        encodings: candidates, the preferred first.
        rates: of each, multiply-adds per nanosecond and core where weights are in cache.
        bandwidth: GB/s that one core reads from memory.
        l3: bytes of the last cache.
    """

    name = "choose-encoding"
    encodings: tuple[str, ...] = ("i2",)
    rates: tuple[int, ...] = (100,)
    bandwidth: int = BANDWIDTH
    l3: int = L3_BYTES

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        unknown = [kind for kind in self.encodings if kind not in ENCODINGS]
        if unknown:
            raise Error("NEUC-E230", f"encoding {unknown[0]!r} is unknown", hint=f"choose {', '.join(ENCODINGS)}")
        if len(self.rates) != len(self.encodings) or min(*self.rates, self.bandwidth, self.l3) < 1:
            raise Error("NEUC-E230", "choose-encoding needs a positive rate for each encoding", hint="rates=218,196")
        layers = [found for found in op.walk() if isinstance(found, LinearOp | ConvOp)]
        cached = sum(_bytes(found.trits, "i2") for found in layers) <= self.l3 // 2
        for layer in layers:
            if CHOICE not in layer.attributes:
                chosen = self._chosen(layer.trits, rows_of_activations(layer) or 1, cached)
                if chosen is not None:
                    layer.attributes[CHOICE] = choice_attr(*chosen)

    def _chosen(self, trits: TritsType, rows: int, cached: bool) -> tuple[str, str] | None:
        """The encoding of a weight for so many rows of activations, and why."""
        times: dict[str, tuple[float, bool]] = {}
        for kind, rate in zip(self.encodings, self.rates, strict=True):
            if ENCODINGS[kind].reason_against(trits.level_set, min(ENCODINGS[kind].groups)) is None:
                computed = rows * trits.plane_count * trits.rows * trits.columns / rate
                read = 0.0 if cached else _bytes(trits, kind) / self.bandwidth
                times[kind] = max(computed, read), read > computed
        if not times:
            return None
        kind = min(times, key=lambda name: times[name][0])
        where = "weights in cache" if cached else "read from memory" if times[kind][1] else "computing takes longest"
        others = ", ".join(f"{name} {time / times[kind][0]:.2f}x" for name, (time, _) in times.items() if name != kind)
        return kind, f"cost model: {where}" + (f"; time of {others}" if others else "")


def choice_attr(encoding: str, why: str, tile: Mapping[str, int] | None = None) -> DictionaryAttr:
    """The attribute `CHOICE`; `tile` has BM and BK, if they are chosen, too."""
    sizes = {name: int_attr(size) for name, size in (tile or {}).items()}
    return DictionaryAttr({"encoding": StringAttr(encoding), "why": StringAttr(why), **sizes})


def rows_of_activations(layer: LinearOp | ConvOp) -> int | None:
    """Rows of activations that a layer multiplies; None if only run time knows."""
    if isinstance(layer, ConvOp):
        dims = dims_of(layer.result)
        count = product([dims[0], *dims[2:]])
    else:
        count = product(dims_of(layer.q)[:-1])
    return max(1, count.value) if count.is_static else None


def _bytes(trits: TritsType, kind: str) -> float:
    """What a weight takes in an encoding."""
    rule = ENCODINGS[kind]
    bits = rule.bits(trits.level_set, rule.largest_group(trits.level_set, None))
    return trits.plane_count * trits.rows * trits.columns * bits / 8
