"""The xDSL context neuc's passes run in: a context that also knows the module's weight store."""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.context import Context

from neuc.dialects.weight_store import WeightStore


@dataclass
class NeucContext(Context):
    """An xDSL context with the weight store of the module at hand."""

    weights: WeightStore = field(default_factory=WeightStore)


def store_of(ctx: Context) -> WeightStore:
    """The weight store of `ctx`; an empty one for a plain xDSL context (as in ``xdsl-opt``)."""
    return ctx.weights if isinstance(ctx, NeucContext) else WeightStore()
