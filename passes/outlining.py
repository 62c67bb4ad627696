"""Moving operations of a function into one of their own, called where they were.

Which operations belong together is decided elsewhere (`partition`, and passes that put parts of a model on a machine).
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType, ModuleOp, StringAttr, SymbolRefAttr
from xdsl.ir import Block, Operation, Region, SSAValue

from neuc.dialects.onnx_special import NoneOp
from neuc.dialects.store import ConstantOp
from neuc.dialects.ternary import WeightOp

EXECUTOR = "neuc.executor"
"""Attribute of a function placed on a machine: the kind of executor that runs it."""

_OF_TILES = ("crossbar.program", "crossbar.verify", "crossbar.compensate")
"""By name, as modules without them do not load their dialect."""


def is_copied(op: Operation) -> bool:
    """Whether `op` is copied to wherever it is used: constants are, and what is known of a programmed tile."""
    return isinstance(op, ConstantOp | NoneOp | WeightOp) or op.name in _OF_TILES


def outer_operands(op: Operation) -> list[SSAValue]:
    """Values `op` reads, those its regions capture included."""
    inside = {inner for inner in op.walk()}
    values: dict[SSAValue, None] = {}
    for inner in op.walk():
        for value in inner.operands:
            owner = value.owner
            holder = owner if isinstance(owner, Operation) else owner.parent_op()
            if holder not in inside:
                values[value] = None
    return list(values)


def function_of(
    name: str,
    ops: Sequence[Operation],
    inputs: Sequence[SSAValue],
    outputs: Sequence[SSAValue],
    passed: Sequence[SSAValue] = (),
) -> func.FuncOp:
    """A function with clones of `ops` and of the constants they read.

    Args:
        name: the function's name.
        ops: operations of one block, in order.
        inputs: the values they read from elsewhere; the function's arguments.
        outputs: results of theirs that the function returns.
        passed: values it returns besides: inputs, constants, results again.
    """
    block = Block(arg_types=[v.type for v in inputs])
    values: dict[SSAValue, SSAValue] = dict(zip(inputs, block.args))

    def copied(value: SSAValue) -> None:
        if value not in values and isinstance(value.owner, Operation) and is_copied(value.owner):
            for operand in value.owner.operands:
                copied(operand)
            clone = value.owner.clone(value_mapper=values)
            block.add_op(clone)
            values[value] = clone.results[0]

    for op in ops:
        for value in outer_operands(op):
            copied(value)
        clone = op.clone(value_mapper=values)
        block.add_op(clone)
        values.update(zip(op.results, clone.results))
    for value in passed:
        copied(value)
    returned = [values[v] for v in (*outputs, *passed)]
    block.add_op(func.ReturnOp(*returned))
    type_ = FunctionType.from_lists([v.type for v in inputs], [v.type for v in returned])
    return func.FuncOp(name, type_, Region(block))


def place(module: ModuleOp, ops: Sequence[Operation], name: str, executor: str) -> func.FuncOp:
    """Move `ops` of @main into a function that `executor` runs, and call it where the last of them was.

    Everything they read, and nothing that reads what they make, must stand before the last of them.

    Args:
        module: the module; gets the function.
        ops: operations of one block, in order.
        name: the function's name.
        executor: kind of executor; see `EXECUTOR`.

    Returns:
        The function.
    """
    inside = set(ops)
    inputs = dict.fromkeys(
        value
        for op in ops
        for value in outer_operands(op)
        if not (isinstance(value.owner, Operation) and (value.owner in inside or is_copied(value.owner)))
    )
    outputs = [
        result
        for op in ops
        for result in op.results
        if any(not _is_within(use.operation, inside) for use in result.uses)
    ]
    function = function_of(name, ops, list(inputs), outputs)
    function.attributes[EXECUTOR] = StringAttr(executor)
    function.sym_visibility = StringAttr("private")
    call = func.CallOp(SymbolRefAttr(name), list(inputs), [value.type for value in outputs])
    block = ops[-1].parent_block()
    assert block is not None
    block.insert_op_after(call, ops[-1])
    for old, new in zip(outputs, call.results):
        old.replace_uses_with_if(new, lambda use: not _is_within(use.operation, inside))
    for op in reversed(ops):
        op.detach()
        op.erase(safe_erase=False)
    module.body.block.add_op(function)
    return function


def _is_within(op: Operation | None, ops: set[Operation]) -> bool:
    while op is not None:
        if op in ops:
            return True
        op = op.parent_op()
    return False
