"""The pass that gives every value of an onnx-level module a type with symbolic dims."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import FunctionType, ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.passes import ModulePass

from neuc.dialects.context import store_of
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.passes.analysis.symbolic_facts import Facts
from neuc.passes.analysis.symbolic_sweep import sweep


def infer_symbolic_shapes(module: ModuleOp, store: WeightStore) -> Facts:
    """Write inferred types into `module`.

    Returns:
        What was found out on the way, contents of integer tensors among it.

    Raises:
        Error: NEUC-E108 naming every node whose operands contradict each other.
    """
    found = sweep(module, store)
    conflicts = list(dict.fromkeys(found.facts.conflicts))
    if conflicts:
        first = conflicts[0]
        raise Error(
            "NEUC-E108",
            f"shapes contradict each other at {first.name} ({first.op_type}): {first.reason}",
            hint="check the model's shapes and the shapes given for its inputs",
            nodes=conflicts,
        )
    for value, type_ in found.types.items():
        value._type = type_  # pyright: ignore[reportPrivateUsage] - rewriter would replace the value
    for op in module.walk():
        if isinstance(op, FuncOp) and op.body.blocks:
            block = op.body.block
            last = block.last_op
            outputs = last.operand_types if isinstance(last, ReturnOp) else op.function_type.outputs.data
            op.properties["function_type"] = FunctionType.from_lists(block.arg_types, outputs)
    return found.facts


@dataclass(frozen=True)
class InferSymbolicShapes(ModulePass):
    """Gives every value of an onnx-level module a type whose dynamic dims are expressions over symbols.

    1. Dims come from the operands by the operator's own arithmetic; values of integer tensors (shapes as data) are
       followed too, so that reshape targets, slice bounds and pads are expressions as well.
    2. Operators without a rule of ours are inferred by ONNX, with symbols as opaque names.
    3. What stays unknown gets a symbol of its own (`u0`, `u1` …); `unknown_dims` lists where they arise.

    Before::

        %s = onnx.Shape(%x) : (tensor<?x8xf32, #store.dims<"B", "8">>) -> tensor<?xi64>

    After::

        %s = onnx.Shape(%x) : (tensor<?x8xf32, #store.dims<"B", "8">>) -> tensor<2xi64>
    """

    name = "infer-symbolic-shapes"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run on a module."""
        infer_symbolic_shapes(op, store_of(ctx))
