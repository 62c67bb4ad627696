"""What conversion does not say of recurrent layers by itself: whose axis the first one is, and what no count has."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import BlockArgument

from neuc.compiler.signature import entry_of
from neuc.dialects.dense import LstmOp
from neuc.dialects.locations import node_names


def recurrent_warnings(module: ModuleOp, names: Sequence[str]) -> list[str]:
    """Warnings about the recurrent layers of a marked module, whose inputs are called `names`."""
    found: list[str] = []
    uncounted: list[str] = []
    for op in entry_of(module).body.block.ops:
        if not isinstance(op, LstmOp):
            continue
        layer = next(iter(node_names(op)), op.name)
        uncounted.append(layer)
        if isinstance(op.x, BlockArgument):
            found.append(time_first(names[op.x.index], layer))
    if uncounted:
        found.append(f"products of recurrent layers stay numbers and are in no count: {', '.join(uncounted)}")
    return found


def time_first(name: str, layer: str) -> str:
    """The warning about an input whose first axis is not that of samples."""
    return (
        f"axis 0 of input {name} is the time axis of {layer}, but counts as samples: batches are cut and results "
        "compared by time step; give the model sequences by [batch, time, ...]"
    )
