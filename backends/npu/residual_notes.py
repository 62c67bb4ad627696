"""Which additions of two tensors cores do, and why the CPU does the others: for the report, by ONNX node."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation

from neuc.backends.npu.array_products import Layer, codes_of
from neuc.backends.npu.finish_products import UNFINISHED
from neuc.backends.npu.left_behind import listed
from neuc.backends.npu.requantize_constants import residual_behind
from neuc.dialects.dense import MapOp
from neuc.dialects.locations import node_names
from neuc.dialects.npu_residual import AddCodesOp
from neuc.passes.module_facts import add_notes


def note_residuals(module: ModuleOp, main: func.FuncOp, shared: Sequence[Sequence[Layer]]) -> None:
    """Notes: additions on cores, with the products that they follow; and, by reason, what two tensors wait for."""
    taken = [(_adding(sums), layer) for layers in shared for layer in layers if (sums := _sums(layer)) is not None]
    if taken:
        many = f"{len(taken)} additions of two tensors run" if len(taken) > 1 else "1 addition of two tensors runs"
        pairs = [f"{name} behind {(node_names(layer) or (layer.name,))[0]}" for name, layer in taken]
        add_notes(module, f"{many} in codes on the cores that make one of them: {listed(pairs)}")
    reasons: dict[str, list[str]] = {}
    for op in main.body.block.ops:
        why = op.attributes.get(UNFINISHED)
        if isinstance(op, MapOp) and isinstance(why, StringAttr):
            reasons.setdefault(why.data, []).append(_adding(op))
    for why, names in reasons.items():
        many = f"{len(names)} operations on two tensors stay" if len(names) > 1 else "1 operation on two tensors stays"
        add_notes(module, f"{many} on the CPU, because {why}: {listed(names)}")


def _sums(layer: Layer) -> AddCodesOp | None:
    codes = codes_of(layer)
    return None if codes is None else residual_behind(codes)


def _adding(op: Operation) -> str:
    """The node of two tensors: of those that became one operation the first that does not only round."""
    names = node_names(op)
    return next((name for name in names if "quantizelinear" not in name.lower()), names[0] if names else op.name)
