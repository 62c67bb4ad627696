"""Building a `dense.map` whose body is a Python function of scalars, and copying bodies from one map to another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.ir import Block, Operation, Region, SSAValue

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense import MapOp, YieldOp
from neuc.dialects.dims import Dim
from neuc.dialects.store import dims_of, element_of, tensor_type
from neuc.passes.scalar_builder import Scalar

Body = Callable[..., Scalar]


def map_of(inputs: Sequence[SSAValue], body: Body, dims: Sequence[Dim] | None = None) -> MapOp:
    """A map over `inputs`; its shape is what they broadcast to unless `dims` says it."""
    block = Block(arg_types=[element_of(v) for v in inputs])
    result = body(*(Scalar(arg, block) for arg in block.args))
    block.add_op(YieldOp(result.value))
    shape = shapes.broadcast([dims_of(v) for v in inputs]) if dims is None else dims
    return MapOp(inputs, tensor_type(result.type, shape), Region(block))


def outlined(op: MapOp, wanted: SSAValue) -> MapOp:
    """A map that computes only the scalar `wanted` of `op`'s body, over those operands that it needs."""
    needed = _needed(op, [wanted])
    used = [i for i, arg in enumerate(op.body.block.args) if arg in needed]
    inputs = [op.inputs[i] for i in used]
    block = Block(arg_types=[element_of(v) for v in inputs])
    mapping: dict[SSAValue, SSAValue] = {op.body.block.args[i]: block.args[n] for n, i in enumerate(used)}
    _copy(op, needed, mapping, block)
    block.add_op(YieldOp(mapping[wanted]))
    shape = shapes.broadcast([dims_of(v) for v in inputs])
    return MapOp(inputs, tensor_type(wanted.type, shape), Region(block))


def without(op: MapOp, computed: SSAValue, tensor: SSAValue) -> MapOp:
    """`op` with the scalar `computed` of its body read from `tensor` instead."""
    last = op.body.block.last_op
    assert isinstance(last, YieldOp)
    needed = _needed(op, [last.value], stop=computed)
    used = [i for i, arg in enumerate(op.body.block.args) if arg in needed]
    inputs = [*(op.inputs[i] for i in used), tensor]
    block = Block(arg_types=[element_of(v) for v in inputs])
    mapping: dict[SSAValue, SSAValue] = {op.body.block.args[i]: block.args[n] for n, i in enumerate(used)}
    mapping[computed] = block.args[-1]
    _copy(op, needed, mapping, block)
    block.add_op(YieldOp(mapping[last.value]))
    return MapOp(inputs, op.result.type, Region(block))


def _needed(op: MapOp, wanted: Sequence[SSAValue], stop: SSAValue | None = None) -> set[SSAValue]:
    """The scalars of the body that `wanted` depend on, without what only `stop` needs."""
    found, stack = set[SSAValue](), list(wanted)
    while stack:
        value = stack.pop()
        if value in found or value is stop:
            continue
        found.add(value)
        if isinstance(value.owner, Operation):
            stack.extend(value.owner.operands)
    return found


def _copy(op: MapOp, needed: set[SSAValue], mapping: dict[SSAValue, SSAValue], block: Block) -> None:
    for inner in op.body.block.ops:
        if any(result in needed for result in inner.results):
            block.add_op(inner.clone(value_mapper=mapping))
